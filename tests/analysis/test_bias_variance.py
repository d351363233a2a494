import tracemalloc
from math import exp, isnan, log, pi, sqrt

import numpy as np
import pytest
from scipy import special

from harness.analysis import bias_variance
from harness.analysis.bias_variance import decompose
from harness.analysis.squared_error import decompose_squared

pytestmark = pytest.mark.filterwarnings("error")

MEAN, SD_DATA, SD_INIT, SD_BOTH = 1.0, 1.0, 0.7, 1.0


def logits(draws: int, seeds: int, examples: int, classes: int = 2, seed: int = 0) -> np.ndarray:
    """Logits with independent Gaussian effects for every example; class 0 leads by MEAN."""
    rng = np.random.default_rng(seed)
    z = np.zeros((draws, seeds, examples, classes))
    z[..., 0] = MEAN
    z += rng.normal(0, SD_DATA, size=(draws, 1, examples, classes))
    z += rng.normal(0, SD_INIT, size=(1, seeds, examples, classes))
    return z + rng.normal(0, SD_BOTH, size=z.shape)


def zeros(examples: int) -> np.ndarray:
    return np.zeros(examples, dtype=int)


def expected_log_sum_exp(variance: float) -> float:
    """E LSE of two logits N(MEAN, variance) and N(0, variance)."""
    x = np.linspace(-10, 10, 4001)
    softplus = np.logaddexp(0, -MEAN + sqrt(2 * variance) * x)
    return MEAN + float(np.trapezoid(softplus * np.exp(-(x**2) / 2), x)) / sqrt(2 * pi)


def hard_logits(classes_by_run: np.ndarray, classes: int) -> np.ndarray:
    return 5.0 * np.eye(classes)[classes_by_run]


@pytest.mark.parametrize(
    ("draws", "seeds", "nested"), [(4, 3, False), (4, 3, True), (2, 2, False), (1, 4, False), (4, 1, False)]
)
def test_bias_and_variance_add_up_to_the_loss_in_every_design(draws, seeds, nested):
    rng = np.random.default_rng(1)
    d = decompose(logits(draws, seeds, 50, 4), rng.integers(0, 4, 50), nested=nested)
    assert d.zero_one.check == pytest.approx(0, abs=1e-12)
    assert d.brier.check == pytest.approx(0, abs=1e-12)
    assert d.cross_entropy.check == pytest.approx(0, abs=1e-9)


def test_brier_decomposes_the_softmax():
    z, y = logits(4, 3, 30, 4), np.random.default_rng(2).integers(0, 4, 30)
    expected = decompose_squared(special.softmax(z, axis=-1), np.eye(4)[y])
    d = decompose(z, y).brier
    assert d.v_data.value == pytest.approx(expected.v_data.value, abs=1e-12)
    assert d.bias2.se == pytest.approx(expected.bias2.se, abs=1e-12)


def test_zero_one_is_half_the_brier_score_of_hard_predictions():
    z, y = logits(4, 3, 30, 4), np.random.default_rng(2).integers(0, 4, 30)
    expected = decompose_squared(np.eye(4)[z.argmax(-1)], np.eye(4)[y])
    d = decompose(z, y)
    assert d.zero_one.loss.value == pytest.approx(expected.loss.value / 2, abs=1e-12)
    assert d.zero_one.v_init.value == pytest.approx(expected.v_init.value / 2, abs=1e-12)
    assert d.zero_one.v_data.se == pytest.approx(expected.v_data.se / 2, abs=1e-12)
    assert d.error.value == pytest.approx((z.argmax(-1) != y).mean())
    assert d.error.se == pytest.approx(d.zero_one.loss.se)


def test_zero_one_variance_is_kohavi_and_wolperts_corrected_for_the_number_of_runs():
    z = logits(1, 5, 40, 3)
    share = np.eye(3)[z.argmax(-1)].mean(axis=(0, 1))
    plug_in = 0.5 * (1 - (share**2).sum(-1)).mean()
    assert decompose(z, zeros(40)).zero_one.variance.value == pytest.approx(plug_in * 5 / 4, abs=1e-12)


def test_cross_entropy_loss_is_that_of_the_runs():
    z, y = logits(3, 3, 30, 4), np.random.default_rng(3).integers(0, 4, 30)
    expected = -special.log_softmax(z, axis=-1)[:, :, np.arange(30), y].mean()
    assert decompose(z, y).cross_entropy.loss.value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("draws", "seeds"), [(2, 2), (3, 3), (10, 3)])
def test_cross_entropy_parts_are_nearly_unbiased_at_small_grids(draws, seeds):
    parts = decompose(logits(draws, seeds, 30_000), zeros(30_000)).cross_entropy
    of_runs = expected_log_sum_exp(SD_DATA**2 + SD_INIT**2 + SD_BOTH**2)
    of_draws, of_all = expected_log_sum_exp(SD_DATA**2), log(1 + exp(MEAN))
    assert parts.v_within.value == pytest.approx(of_runs - of_draws, abs=0.015)
    assert parts.v_between.value == pytest.approx(of_draws - of_all, abs=0.02)
    assert parts.bias.value == pytest.approx(of_all - MEAN, abs=0.02)


def test_cross_entropy_variance_of_seeds_is_the_jackknife_of_heskes_variance():
    z = logits(1, 4, 25, 3)[0]

    def variance(runs: np.ndarray) -> float:
        return float((special.logsumexp(runs, axis=-1).mean(0) - special.logsumexp(runs.mean(0), axis=-1)).mean())

    less_one = np.mean([variance(np.delete(z, s, axis=0)) for s in range(4)])
    parts = decompose(z[None], zeros(25)).cross_entropy
    assert parts.v_within.value == pytest.approx(4 * variance(z) - 3 * less_one, abs=1e-12)
    assert isnan(parts.v_between.value)


def test_cross_entropy_is_blind_to_a_shift_of_all_logits():
    z, y = logits(3, 3, 20, 4), zeros(20)
    here, there = decompose(z, y).cross_entropy, decompose(z + 50.0, y).cross_entropy
    assert there.bias.value == pytest.approx(here.bias.value, abs=1e-9)
    assert there.v_within.value == pytest.approx(here.v_within.value, abs=1e-9)


def test_cross_entropy_standard_errors_are_about_right():
    runs = [decompose(logits(6, 5, 1, seed=s), zeros(1)).cross_entropy for s in range(200)]
    for part in ("loss", "bias", "v_within", "variance"):
        values = np.array([getattr(run, part).value for run in runs])
        errors = np.array([getattr(run, part).se for run in runs])
        assert 0.8 < np.sqrt(np.mean(errors**2)) / values.std() < 1.7


def test_saturated_logits_stay_finite():
    parts = decompose(1e4 * logits(3, 3, 20, 4), zeros(20)).cross_entropy
    assert np.isfinite([parts.bias.value, parts.v_between.value, parts.v_within.value]).all()


def test_one_saturated_example_moves_the_mean_but_not_the_median():
    z = logits(3, 3, 100, 3)
    calm = decompose(z, zeros(100)).cross_entropy
    z[:, :, 0] *= 1e4
    wild = decompose(z, zeros(100)).cross_entropy
    assert wild.variance.value > 10 * calm.variance.value
    assert wild.v_median == pytest.approx(calm.v_median, rel=0.2)
    assert wild.v_trimmed == pytest.approx(calm.v_trimmed, rel=0.2)


def test_domingos_by_hand():
    votes = np.array([[0, 1], [0, 1], [0, 0], [1, 1], [2, 1]])
    d = decompose(hard_logits(votes, 3)[:, None], np.array([0, 0])).domingos
    assert d.error == pytest.approx((2 + 4) / 10)
    assert d.bias == 0.5
    assert d.v_unbiased == pytest.approx(0.4 / 2)
    assert d.v_biased == pytest.approx(0.2 / 2)


def test_domingos_parts_add_up_to_the_error():
    z, y = logits(5, 4, 200, 5), np.random.default_rng(4).integers(0, 5, 200)
    d = decompose(z, y).domingos
    assert d.bias + d.v_unbiased - d.v_biased == pytest.approx(d.error, abs=1e-12)


def test_domingos_ties_go_to_the_lowest_class():
    z = hard_logits(np.array([[2], [1]]), 3)[:, None]
    assert decompose(z, np.array([1])).domingos.bias == 0.0
    assert decompose(z, np.array([2])).domingos.bias == 1.0


def test_ensembles_average_the_logits_or_the_probabilities_of_one_draws_seeds():
    loud, leaning = [0.0, 9.0, 0.0], [2.0, 0.0, 0.0]
    z = np.array([[[loud], [leaning], [leaning]], [[leaning]] * 3])
    d = decompose(z, np.array([1]))
    assert d.error.value == pytest.approx(5 / 6)
    assert d.ensemble_logit_error.value == 0.5
    assert d.ensemble_prob_error.value == 1.0


def test_a_single_draw_is_labelled_conditional():
    d = decompose(logits(1, 3, 10), zeros(10))
    assert d.design == "seeds only"
    assert d.scope == "conditional on this training set"
    assert isnan(d.brier.v_data.value)
    assert d.brier.v_init.se > 0


def test_several_draws_speak_of_training_sets():
    d = decompose(logits(2, 3, 10), zeros(10))
    assert (d.design, d.scope) == ("crossed", "over training sets")
    assert (d.draws, d.seeds, d.examples, d.classes) == (2, 3, 10, 2)


def test_a_single_run_has_losses_and_nothing_else():
    d = decompose(logits(1, 1, 10), zeros(10))
    assert d.design == "single run"
    assert d.cross_entropy.loss.value > 0
    assert isnan(d.cross_entropy.variance.value)
    assert isnan(d.error.se)


def test_results_do_not_depend_on_the_chunks(monkeypatch):
    z, y = logits(3, 4, 23, 5), np.random.default_rng(5).integers(0, 5, 23)
    whole = decompose(z, y).row()
    monkeypatch.setattr(bias_variance, "CHUNK_VALUES", 4 * 3 * 4 * 5)
    assert decompose(z, y).row() == pytest.approx(whole, abs=1e-12)


def test_memory_does_not_grow_with_the_test_set():
    z = np.zeros((10, 10, 4000, 10), dtype=np.float32)
    tracemalloc.start()
    decompose(z, zeros(4000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6


def test_a_row_is_flat_and_names_values_and_errors():
    row = decompose(logits(3, 3, 10), zeros(10)).row()
    assert {"design", "error", "error.se", "brier.v_data", "brier.v_data.se", "domingos.bias"} <= row.keys()
    assert all(isinstance(value, str | int | float) for value in row.values())


def test_a_diverged_run_is_named():
    z = logits(2, 3, 10)
    z[1, 2, 4, 0] = np.nan
    with pytest.raises(ValueError, match=r"\[\[1, 2\]\].*leave out"):
        decompose(z, zeros(10))


@pytest.mark.parametrize("labels", [np.full(10, 2), np.full(10, -1), np.zeros(10)])
def test_labels_must_be_classes(labels):
    with pytest.raises(ValueError, match=r"labels must be integers in 0\.\.1"):
        decompose(logits(2, 2, 10), labels)


def test_logits_and_labels_must_match():
    with pytest.raises(ValueError, match="logits must have shape"):
        decompose(logits(2, 2, 10), zeros(9))
