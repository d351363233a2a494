from math import exp, inf, isnan, log, nan, sqrt

import numpy as np
import pytest
from scipy import stats as reference
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from harness.analysis import stats

pytestmark = pytest.mark.filterwarnings("error")

A = np.array([0.91, 0.93, 0.90, 0.95, 0.92, 0.94, 0.915])
B = np.array([0.90, 0.91, 0.905, 0.93, 0.92, 0.91, 0.91])


def test_mean_ci_of_three_scores_by_hand():
    ci = stats.mean_ci([1.0, 2.0, 3.0])
    assert (ci.value, ci.n) == (2.0, 3)
    assert ci.high - 2 == pytest.approx(4.302652729911275 / sqrt(3))
    assert 2 - ci.low == pytest.approx(4.302652729911275 / sqrt(3))


def test_mean_ci_of_one_score_has_no_bounds():
    ci = stats.mean_ci([0.7])
    assert ci.value == 0.7
    assert isnan(ci.low)
    assert isnan(ci.high)


def test_mean_ci_of_no_scores_is_nan():
    ci = stats.mean_ci([nan])
    assert isnan(ci.value)
    assert ci.n == 0


def test_mean_ci_leaves_out_runs_without_a_score():
    assert stats.mean_ci([1.0, nan, 2.0, inf, 3.0]) == stats.mean_ci([1.0, 2.0, 3.0])


def test_mean_ci_of_constant_scores_is_a_point():
    ci = stats.mean_ci([0.1] * 7)
    assert ci.low == ci.value == ci.high


def test_scores_must_be_one_dimensional():
    with pytest.raises(ValueError, match="1-D"):
        stats.mean_ci([[1.0, 2.0]])


def test_t_interval_covers_at_its_nominal_rate():
    rng = np.random.default_rng(0)
    intervals = [stats.mean_ci(x) for x in rng.normal(size=(4000, 5))]
    assert np.mean([i.low < 0 < i.high for i in intervals]) == pytest.approx(0.95, abs=0.011)


def test_paired_t_agrees_with_scipy():
    expected = reference.ttest_rel(A, B)
    ours = stats.paired_t(A - B)
    bounds = expected.confidence_interval()
    assert ours.p == pytest.approx(expected.pvalue, abs=1e-9)
    assert (ours.low, ours.high) == pytest.approx((bounds.low, bounds.high), abs=1e-9)


@pytest.mark.parametrize(("constant", "p"), [(0.2, 0.0), (0.0, 1.0)])
def test_paired_t_of_constant_differences_is_the_limit(constant, p):
    assert stats.paired_t([constant] * 5).p == p


def test_welch_agrees_with_scipy():
    expected = reference.ttest_ind(A, B[:4], equal_var=False)
    ours = stats.welch_t(A, B[:4])
    bounds = expected.confidence_interval()
    assert ours.p == pytest.approx(expected.pvalue, abs=1e-9)
    assert (ours.low, ours.high) == pytest.approx((bounds.low, bounds.high), abs=1e-9)


def test_welch_needs_two_scores_an_arm():
    test = stats.welch_t([1.0], [0.0, 0.5])
    assert test.value == 0.75
    assert isnan(test.p)


def test_welch_of_two_constant_arms_is_a_point():
    test = stats.welch_t([1.0, 1.0], [0.5, 0.5, 0.5])
    assert (test.low, test.high, test.p) == (0.5, 0.5, 0.0)


def test_sign_flip_by_hand():
    assert stats.sign_flip_p([1.0, 2.0, 3.0]) == 0.25
    assert stats.sign_flip_p([1.0, 2.0, -3.0]) == 1.0
    assert stats.sign_flip_p([3.0, 2.0, -1.0]) == 0.5


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_sign_flip_agrees_with_scipys_exact_permutation_test_despite_ties(scale):
    d = scale * np.array([3, 1, 0, 2, -1, 2, 2, -1, 4]) / 10
    expected = reference.permutation_test(
        (d,), lambda x: abs(x.mean()), permutation_type="samples", n_resamples=np.inf, alternative="greater"
    )
    assert stats.sign_flip_p(d) == pytest.approx(expected.pvalue, abs=1e-9)


@pytest.mark.parametrize(("n", "minimum"), [(1, 1), (3, 0.25), (4, 0.125), (5, 0.0625), (6, 0.03125), (8, 0.0078125)])
def test_sign_flip_reaches_its_minimum_where_all_blocks_agree(n, minimum):
    assert stats.sign_flip_p(np.arange(1.0, n + 1)) == stats.sign_flip_minimum(n) == minimum


def test_sign_flip_of_ties_only_is_one():
    assert stats.sign_flip_p([0.0] * 9) == 1.0


def test_sign_flip_of_nothing_is_nan():
    assert isnan(stats.sign_flip_p([]))
    assert isnan(stats.sign_flip_minimum(0))


def test_sampled_sign_flip_is_close_to_the_normal_limit_and_fixed_by_its_seed():
    d = np.random.default_rng(1).normal(0.3, 1, size=40)
    p = stats.sign_flip_p(d, seed=3)
    assert p == pytest.approx(stats.paired_t(d).p, abs=0.015)
    assert p == stats.sign_flip_p(d, seed=3)
    assert p != stats.sign_flip_p(d, seed=4)


def test_sampled_sign_flip_counts_the_observed_signs():
    assert stats.sign_flip_p(np.ones(60), resamples=99) == stats.sign_flip_minimum(60, 99) == 0.01


def test_max_t_of_one_comparison_is_the_sign_flip_p():
    d = (A - B)[:, None]
    assert stats.max_t_p(d)[0] == stats.sign_flip_p(A - B)


def test_max_t_charges_nothing_for_copies_of_a_comparison():
    d = np.random.default_rng(2).normal(0.5, 1, size=9)
    assert stats.max_t_p(np.stack([d, d, 2 * d], axis=1)) == pytest.approx([stats.sign_flip_p(d)] * 3)


def test_max_t_is_never_below_the_p_of_the_comparison_alone():
    d = np.random.default_rng(3).normal(0.4, 1, size=(10, 5))
    alone = [stats.sign_flip_p(column) for column in d.T]
    assert (stats.max_t_p(d) >= np.array(alone)).all()


def test_max_t_leaves_a_comparison_without_scores_open():
    d = np.random.default_rng(4).normal(size=(8, 2))
    with_empty = np.column_stack([d, np.full(8, nan)])
    adjusted = stats.max_t_p(with_empty)
    assert adjusted[:2] == pytest.approx(stats.max_t_p(d))
    assert isnan(adjusted[2])


def test_max_t_takes_constant_and_tied_differences():
    d = np.column_stack([np.full(8, 0.1), np.zeros(8)])
    assert stats.max_t_p(d) == pytest.approx([2 / 2**8, 1.0])


def test_max_t_samples_above_the_exact_number_of_blocks():
    d = np.random.default_rng(5).normal([0.9, 0.0], 1, size=(25, 2))
    adjusted = stats.max_t_p(d, seed=1)
    assert adjusted[0] < 0.01
    assert adjusted[1] == pytest.approx(min(1, 2 * stats.sign_flip_p(d[:, 1])), abs=0.2)


def test_holm_by_hand():
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_holm_agrees_with_statsmodels():
    p = np.random.default_rng(6).uniform(size=12) ** 2
    assert stats.holm(p) == pytest.approx(multipletests(p, method="holm")[1], abs=1e-9)


def test_holm_counts_an_untested_comparison():
    adjusted = stats.holm([0.02, nan])
    assert adjusted[0] == 0.04
    assert isnan(adjusted[1])


@pytest.mark.parametrize("margin", [0.005, 0.02, 0.05])
def test_tost_agrees_with_statsmodels(margin):
    expected = ttost_paired(A, B, -margin, margin)[0]
    assert stats.tost_p(A - B, margin) == pytest.approx(expected, abs=1e-9)


def test_tost_rejects_where_the_ninety_percent_interval_is_inside_the_margin():
    ci = stats.paired_t(A - B, alpha=0.1)
    assert stats.tost_p(A - B, ci.high + 1e-6) < 0.05 < stats.tost_p(A - B, ci.high - 1e-6)


def test_tost_of_constant_differences():
    assert stats.tost_p([0.1] * 5, 0.2) == 0.0
    assert stats.tost_p([0.1] * 5, 0.05) == 1.0


def test_tost_needs_a_positive_margin():
    with pytest.raises(ValueError, match="margin"):
        stats.tost_p(A - B, 0.0)


@pytest.mark.parametrize(("k", "n"), [(0, 3), (3, 3), (2, 7), (9, 10)])
def test_binomial_intervals_agree_with_scipy(k, n):
    test = reference.binomtest(k, n)
    for ours, method in ((stats.clopper_pearson, "exact"), (stats.wilson, "wilson")):
        expected = test.proportion_ci(method=method)
        interval = ours(k, n)
        assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize(("n", "low"), [(3, 0.29), (5, 0.48), (6, 0.54), (10, 0.69)])
def test_clopper_pearson_after_all_wins(n, low):
    assert stats.clopper_pearson(n, n).low == pytest.approx(low, abs=0.005)


def test_share_intervals_of_no_blocks_say_nothing():
    for interval in (stats.clopper_pearson(0, 0), stats.wilson(0, 0)):
        assert isnan(interval.value)
        assert (interval.low, interval.high) == (0.0, 1.0)


def test_share_interval_turns_from_exact_to_wilson_at_eight_blocks():
    assert stats.share_interval(5, 7) == stats.clopper_pearson(5, 7)
    assert stats.share_interval(5, 8) == stats.wilson(5, 8)


def test_unpaired_p_better_counts_ties_half_as_rliable_does():
    assert stats.unpaired_p_better([0.1, 0.2, 0.3], [0.1, 0.2, 0.4]) == pytest.approx(4 / 9)
    assert isnan(stats.unpaired_p_better([], [1.0]))


def test_fisher_failure_p_by_hand():
    assert stats.failure_p(5, 5, 0, 5, method="fisher") == pytest.approx(2 / 252)


def test_barnard_failure_p_is_more_powerful_than_fishers():
    assert stats.failure_p(4, 8, 0, 8) < stats.failure_p(4, 8, 0, 8, method="fisher")


def test_failure_p_without_anything_to_compare():
    assert stats.failure_p(0, 10, 0, 10) == 1.0
    assert stats.failure_p(10, 10, 10, 10) == 1.0
    assert isnan(stats.failure_p(0, 0, 1, 10))


def test_hedges_d_z_by_hand():
    assert stats.hedges_d_z([1.0, 2.0, 3.0]) == pytest.approx(2 * (1 - 3 / 7))


def test_hedges_d_z_at_its_limits():
    assert isnan(stats.hedges_d_z([1.0, 2.0]))
    assert stats.hedges_d_z([0.0] * 4) == 0.0
    assert stats.hedges_d_z([-0.5] * 4) == -inf


def test_error_ratio_is_the_geometric_mean_with_the_t_interval_of_the_logs():
    ratio = stats.error_ratio([0.1, 0.1, 0.4], [0.2, 0.1, 0.1])
    logs = stats.mean_ci([log(0.5), 0.0, log(4)])
    assert ratio.value == pytest.approx(2 ** (1 / 3))
    assert (ratio.low, ratio.high) == pytest.approx((exp(logs.low), exp(logs.high)))


def test_error_ratio_says_nothing_about_an_error_of_zero():
    assert isnan(stats.error_ratio([0.0, 0.1], [0.1, 0.1]).value)


def test_two_way_ci_without_example_effects_is_the_t_interval_over_runs():
    runs = np.random.default_rng(7).normal(size=6)
    ours, expected = stats.two_way_ci(np.repeat(runs[:, None], 50, axis=1)), stats.mean_ci(runs)
    assert (ours.low, ours.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_two_way_ci_without_run_effects_is_the_t_interval_over_examples():
    examples = np.random.default_rng(8).normal(size=40)
    ours, expected = stats.two_way_ci(np.tile(examples, (6, 1))), stats.mean_ci(examples)
    assert (ours.low, ours.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_two_way_ci_covers_new_runs_on_new_examples():
    rng = np.random.default_rng(9)
    hits, seeds_only = [], []
    for _ in range(800):
        d = 0.1 * rng.normal(size=(8, 1)) + 0.8 * rng.normal(size=100) + rng.normal(size=(8, 100))
        two_way, runs = stats.two_way_ci(d), stats.mean_ci(d.mean(axis=1))
        hits.append(two_way.low < 0 < two_way.high)
        seeds_only.append(runs.low < 0 < runs.high)
    assert np.mean(hits) == pytest.approx(0.95, abs=0.025)
    assert np.mean(seeds_only) < 0.85


def test_two_way_ci_of_a_single_run_has_no_bounds():
    assert isnan(stats.two_way_ci(np.ones((1, 5))).low)


def test_seed_spread_of_independent_errors_is_its_floor():
    rng = np.random.default_rng(10)
    spreads = [stats.seed_spread(rng.uniform(size=(10, 200)) < 0.9) for _ in range(400)]
    assert np.mean([s.distribution_variance for s in spreads]) == pytest.approx(0.0, abs=2e-5)
    assert np.mean([s.floor**2 for s in spreads]) == pytest.approx(0.09 / 200, rel=0.03)


def test_seed_spread_recovers_the_variance_on_the_test_distribution():
    rng = np.random.default_rng(11)
    estimates = []
    for _ in range(600):
        skill = rng.normal(0, 0.5, size=(12, 1))
        difficulty = rng.normal(0, 1, size=300)
        estimates.append(stats.seed_spread(skill + difficulty + rng.normal(size=(12, 300)) > -1))
    skills = rng.normal(0, 0.5, size=200_000)
    truth = reference.norm.cdf((skills + 1) / sqrt(2)).var()
    assert np.mean([s.distribution_variance for s in estimates]) == pytest.approx(truth, rel=0.06)


def test_seed_spread_of_a_single_run_is_nan():
    assert isnan(stats.seed_spread(np.ones((1, 5))).sd)
