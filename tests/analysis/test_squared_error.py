from math import isnan

import numpy as np
import pytest

from harness.analysis.squared_error import decompose_squared

pytestmark = pytest.mark.filterwarnings("error")

CLASSES = 3
SD_DATA, SD_INIT, SD_BOTH = 0.28, 0.16, 0.27
V_DATA, V_INIT, V_BOTH = (CLASSES * sd**2 for sd in (SD_DATA, SD_INIT, SD_BOTH))
CENTRE = np.array([0.5, 0.3, 0.2])
LABEL = np.array([1.0, 0.0, 0.0])
BIAS2 = float(((CENTRE - LABEL) ** 2).sum())


def random_effects(draws: int, seeds: int, examples: int, seed: int, shared_seeds: bool = True) -> np.ndarray:
    """Predictions [draws, seeds, examples, classes] with independent effects for every example."""
    rng = np.random.default_rng(seed)
    shape = (examples, CLASSES)
    init = rng.normal(0, SD_INIT, size=(1 if shared_seeds else draws, seeds, *shape))
    data = rng.normal(0, SD_DATA, size=(draws, 1, *shape))
    return CENTRE + data + init + rng.normal(0, SD_BOTH, size=(draws, seeds, *shape))


def targets(examples: int) -> np.ndarray:
    return np.tile(LABEL, (examples, 1))


def test_the_crossed_decomposition_by_hand():
    f = np.array([[1.0, 2.0], [3.0, 6.0]])[:, :, None, None]
    parts = decompose_squared(f, [[1.0]])
    assert parts.loss.value == pytest.approx(7.5)
    assert parts.v_data.value == pytest.approx(4.0)
    assert parts.v_init.value == pytest.approx(1.5)
    assert parts.v_interaction.value == pytest.approx(1.0)
    assert parts.variance.value == pytest.approx(6.5)
    assert parts.bias2.value == pytest.approx(1.0)


def test_the_crossed_decomposition_agrees_with_mean_squares_per_example():
    f = random_effects(4, 3, 20, seed=0)
    draw, seed, grand = f.mean(1, keepdims=True), f.mean(0, keepdims=True), f.mean((0, 1), keepdims=True)
    ms_data = 3 / 3 * ((draw - grand) ** 2).sum((0, 1, 3)).mean()
    ms_init = 4 / 2 * ((seed - grand) ** 2).sum((0, 1, 3)).mean()
    ms_both = ((f - draw - seed + grand) ** 2).sum((0, 1, 3)).mean() / 6
    parts = decompose_squared(f, targets(20))
    assert parts.v_interaction.value == pytest.approx(ms_both, abs=1e-12)
    assert parts.v_data.value == pytest.approx((ms_data - ms_both) / 3, abs=1e-12)
    assert parts.v_init.value == pytest.approx((ms_init - ms_both) / 4, abs=1e-12)


def test_the_parts_add_up_to_the_loss():
    parts = decompose_squared(random_effects(4, 3, 20, seed=1), targets(20))
    assert parts.check == pytest.approx(0, abs=1e-12)
    total = parts.bias2.value + parts.v_data.value + parts.v_init.value + parts.v_interaction.value
    assert total == pytest.approx(parts.loss.value, abs=1e-12)


@pytest.mark.parametrize(("draws", "seeds"), [(2, 2), (5, 3)])
def test_the_crossed_decomposition_is_unbiased(draws, seeds):
    parts = decompose_squared(random_effects(draws, seeds, 30_000, seed=2), targets(30_000))
    assert parts.v_data.value == pytest.approx(V_DATA, abs=0.006)
    assert parts.v_init.value == pytest.approx(V_INIT, abs=0.006)
    assert parts.v_interaction.value == pytest.approx(V_BOTH, abs=0.003)
    assert parts.bias2.value == pytest.approx(BIAS2, abs=0.006)


def test_the_nested_decomposition_is_unbiased_with_the_interaction_in_v_init():
    f = random_effects(3, 2, 30_000, seed=3, shared_seeds=False)
    parts = decompose_squared(f, targets(30_000), nested=True)
    assert parts.v_data.value == pytest.approx(V_DATA, abs=0.006)
    assert parts.v_init.value == pytest.approx(V_INIT + V_BOTH, abs=0.006)
    assert isnan(parts.v_interaction.value)
    assert parts.bias2.value == pytest.approx(BIAS2, abs=0.006)


def test_seeds_alone_count_the_data_variance_as_bias():
    parts = decompose_squared(random_effects(1, 4, 30_000, seed=4), targets(30_000))
    assert parts.v_init.value == pytest.approx(V_INIT + V_BOTH, abs=0.006)
    assert parts.bias2.value == pytest.approx(BIAS2 + V_DATA, abs=0.015)
    assert isnan(parts.v_data.value)


def test_draws_alone_hold_all_variance():
    parts = decompose_squared(random_effects(4, 1, 30_000, seed=5, shared_seeds=False), targets(30_000))
    assert parts.v_data.value == parts.variance.value
    assert parts.bias2.value + parts.v_data.value == pytest.approx(parts.loss.value, abs=1e-12)


def test_a_single_run_has_a_loss_and_nothing_else():
    parts = decompose_squared(random_effects(1, 1, 5, seed=6), targets(5))
    assert parts.loss.value > 0
    assert isnan(parts.loss.se)
    assert isnan(parts.variance.value)
    assert isnan(parts.bias2.value)


def test_standard_errors_add_the_jackknife_over_draws_and_over_seeds():
    f, y = random_effects(4, 3, 10, seed=7), targets(10)
    less_draw = [decompose_squared(np.delete(f, k, axis=0), y).v_data.value for k in range(4)]
    less_seed = [decompose_squared(np.delete(f, s, axis=1), y).v_data.value for s in range(3)]
    expected = 3 * np.var(less_draw) + 2 * np.var(less_seed)
    assert decompose_squared(f, y).v_data.se ** 2 == pytest.approx(expected)


def test_standard_errors_are_about_right_and_not_too_small():
    runs = [decompose_squared(random_effects(8, 6, 1, seed=s), targets(1)) for s in range(8, 308)]
    for part in ("loss", "bias2", "v_data", "v_interaction"):
        values = np.array([getattr(run, part).value for run in runs])
        errors = np.array([getattr(run, part).se for run in runs])
        assert 0.9 < np.sqrt(np.mean(errors**2)) / values.std() < 1.8


def test_two_draws_and_two_seeds_allow_no_standard_error_of_a_component():
    parts = decompose_squared(random_effects(2, 2, 10, seed=9), targets(10))
    assert isnan(parts.v_data.se)
    assert parts.loss.se > 0
