from math import isnan, nan, pi, sqrt

import numpy as np
import pytest
from scipy import stats as reference

from harness.analysis.selection import advantage, best_of, bootstrap_selection, expected_best, iqm, winners

pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize(
    ("k", "c"),
    [(2, 0.56), (3, 0.85), (4, 1.03), (5, 1.16), (6, 1.27), (8, 1.42), (10, 1.54), (20, 1.87), (50, 2.25)],
)
def test_expected_maximum_of_k_normals(k, c):
    assert best_of(k) == pytest.approx(c, abs=0.005)


def test_expected_maximum_of_two_and_three_normals_in_closed_form():
    assert best_of(1) == pytest.approx(0, abs=1e-9)
    assert best_of(2) == pytest.approx(1 / sqrt(pi), abs=1e-9)
    assert best_of(3) == pytest.approx(1.5 / sqrt(pi), abs=1e-9)


def test_expected_maximum_needs_an_arm():
    with pytest.raises(ValueError, match="k must be >= 1"):
        best_of(0)


def test_advantage_of_equal_arms_is_as_expected_however_much_their_blocks_differ():
    rng = np.random.default_rng(0)
    found = [advantage(3 * rng.normal(size=5) + rng.normal(size=(6, 5))) for _ in range(3000)]
    assert np.mean([a.observed for a in found]) == pytest.approx(1.267 / sqrt(5), rel=0.03)
    assert np.mean([a.expected for a in found]) == pytest.approx(1.267 / sqrt(5), rel=0.03)


def test_advantage_of_the_lowest_loss():
    scores = np.array([[1.0, 2.0, 3.0], [1.5, 2.5, 4.0]])
    assert advantage(-scores).observed == pytest.approx(advantage(scores, higher_is_better=False).observed)


def test_advantage_leaves_out_incomplete_blocks():
    scores = np.array([[1.0, 2.0, 3.0], [1.5, 2.5, 4.0]])
    with_gap = np.column_stack([scores, [nan, 9.0]])
    assert advantage(with_gap) == advantage(scores)


def test_advantage_of_one_arm_is_nan():
    assert isnan(advantage([[1.0, 2.0]]).expected)


def test_bootstrap_selection_takes_back_what_choosing_by_the_test_score_won():
    rng = np.random.default_rng(1)
    chosen = []
    for _ in range(300):
        test = rng.normal(size=(8, 10))
        chosen.append(bootstrap_selection(test, test, resamples=100))
    assert np.mean([c.apparent for c in chosen]) == pytest.approx(1.42 / sqrt(10), abs=0.05)
    assert np.mean([c.corrected for c in chosen]) == pytest.approx(0, abs=0.06)


def test_bootstrap_selection_leaves_a_clear_winner_its_score():
    rng = np.random.default_rng(2)
    test = rng.normal(0, 0.01, size=(3, 8)) + np.array([[0.1], [0.9], [0.5]])
    chosen = bootstrap_selection(test, test)
    assert chosen.index == 1
    assert chosen.corrected == pytest.approx(chosen.apparent, abs=0.002)


def test_bootstrap_selection_of_the_lowest_loss():
    loss = np.array([[1.0, 1.1, 0.9, 1.0], [2.0, 2.1, 1.9, 2.0]])
    chosen = bootstrap_selection(loss, loss, higher_is_better=False)
    assert (chosen.index, chosen.apparent) == (0, 1.0)


def test_bootstrap_selection_does_not_choose_an_arm_that_diverged():
    scores = np.array([[0.9, nan, 0.9], [0.5, 0.5, 0.5]])
    assert bootstrap_selection(scores, scores).index == 1
    assert bootstrap_selection(scores[:1], scores[:1]).index == -1


def test_bootstrap_selection_is_fixed_by_its_seed():
    scores = np.random.default_rng(3).normal(size=(4, 6))
    assert bootstrap_selection(scores, scores, seed=5) == bootstrap_selection(scores, scores, seed=5)


def test_bootstrap_selection_of_one_block_cannot_correct():
    chosen = bootstrap_selection([[1.0], [2.0]], [[1.0], [2.0]])
    assert chosen.apparent == 2.0
    assert isnan(chosen.corrected)


@pytest.mark.parametrize("estimator", ["v", "u"])
def test_the_expected_best_of_one_trial_is_the_mean(estimator):
    assert expected_best([3.0, 1.0, 2.0], 1, estimator) == pytest.approx(2.0)


def test_the_expected_best_of_all_trials_by_hand():
    assert expected_best([3.0, 1.0, 2.0], 3, "u") == pytest.approx(3.0)
    assert expected_best([3.0, 1.0, 2.0], 3, "v") == pytest.approx((1 + 2 * 7 + 3 * 19) / 27)


def test_u_is_unbiased_and_v_low():
    trials = np.random.default_rng(4).normal(size=(4000, 10))
    assert np.mean([expected_best(t, 8, "u") for t in trials]) == pytest.approx(best_of(8), abs=0.03)
    assert np.mean([expected_best(t, 8, "v") for t in trials]) == pytest.approx(1.225, abs=0.03)


def test_a_budget_beyond_the_trials_is_refused():
    with pytest.raises(ValueError, match=r"budget must be in 1\.\.3"):
        expected_best([1.0, 2.0, 3.0], 4)


def test_iqm_agrees_with_scipys_trimmed_mean():
    scores = np.random.default_rng(5).normal(size=(3, 7))
    assert iqm(scores) == pytest.approx(reference.trim_mean(scores, 0.25, axis=None), abs=1e-12)


def test_iqm_of_nothing_is_nan():
    assert isnan(iqm([nan]))


def test_winners_share_ties_and_lose_a_missing_block():
    shares = winners({"a": [1.0, 2.0, nan, 1.0], "b": [0.0, 2.0, 1.0, 2.0]})
    assert shares == pytest.approx({"a": 1.5 / 4, "b": 2.5 / 4})


def test_winners_by_the_lowest_loss():
    assert winners({"a": [1.0, 2.0], "b": [3.0, 4.0]}, higher_is_better=False) == {"a": 1.0, "b": 0.0}


def test_winners_without_scores():
    assert winners({}) == {}
    assert isnan(winners({"a": [nan]})["a"])
