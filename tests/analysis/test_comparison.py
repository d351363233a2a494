from dataclasses import asdict
from math import inf, isnan, nan

import numpy as np
import pytest
from scipy import stats as reference

from harness.analysis import stats
from harness.analysis.comparison import compare, compare_family
from harness.analysis.power import smallest_detectable

pytestmark = pytest.mark.filterwarnings("error")

STEPS = np.array([1.0, 3.0, 2.0, 5.0, 4.0, 7.0, 6.0, 9.0, 8.0, 10.0])
BASE = 0.5 + 0.02 * STEPS


def shifted(shift: float, wobble: float = 0.001, n: int = 10) -> np.ndarray:
    return (BASE + shift + wobble * np.sin(STEPS))[:n]


def null_sweep(rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    block = 2 * rng.normal(size=n)
    return {name: block + rng.normal(size=n) for name in "abcdef"}


def test_a_comparison_holds_the_paired_estimates():
    a, b = shifted(0.03), BASE
    c = compare(a, b)
    expected = reference.ttest_rel(a, b)
    assert c.difference == pytest.approx(c.mean_a - c.mean_b)
    assert (c.ci_low, c.ci_high) == pytest.approx(tuple(expected.confidence_interval()), abs=1e-9)
    assert c.p_t == pytest.approx(expected.pvalue, abs=1e-9)
    assert c.rho == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert c.efficiency == pytest.approx((a.var(ddof=1) + b.var(ddof=1)) / (a - b).var(ddof=1))
    assert c.d_z == stats.hedges_d_z(a - b)
    assert c.error_ratio == pytest.approx(np.exp(np.log((1 - a) / (1 - b)).mean()))
    assert c.mde == pytest.approx(smallest_detectable(10) * (a - b).std(ddof=1))


def test_eight_blocks_are_judged_by_the_exact_sign_flip():
    c = compare(shifted(0.03, n=8), BASE[:8])
    assert (c.p_method, c.p, c.p_minimum) == ("sign-flip", 2 / 2**8, 2 / 2**8)


def test_fewer_than_eight_blocks_are_judged_by_the_paired_t():
    c = compare(shifted(0.03, n=7), BASE[:7])
    assert (c.p_method, c.p, c.p_minimum) == ("paired t", c.p_t, 0.0)
    assert c.p_sign_flip == 2 / 2**7


def test_a_family_too_large_for_the_sign_flip_is_judged_by_the_paired_t():
    assert compare(shifted(0.03, n=8), BASE[:8], comparisons=6).p_method == "sign-flip"
    assert compare(shifted(0.03, n=8), BASE[:8], comparisons=7).p_method == "paired t"


@pytest.mark.parametrize(("shift", "verdict"), [(0.03, "better"), (-0.03, "worse")])
def test_a_clear_difference_is_named(shift, verdict):
    assert compare(shifted(shift), BASE).verdict == verdict


@pytest.mark.parametrize(("shift", "verdict"), [(0.03, "worse"), (-0.03, "better")])
def test_a_lower_loss_is_better(shift, verdict):
    c = compare(shifted(shift), BASE, higher_is_better=False)
    assert c.verdict == verdict
    assert (c.wins, c.losses) == ((10, 0) if shift < 0 else (0, 10))
    assert c.error_ratio == pytest.approx(np.exp(np.log(shifted(shift) / BASE).mean()))


def test_a_lost_difference_is_named_with_what_could_have_been_found():
    c = compare(shifted(0.0), BASE)
    assert c.verdict == f"not distinguishable (smallest detectable difference {c.mde:.3g})"


def test_a_difference_inside_the_margin_is_equivalent():
    c = compare(shifted(0.0), BASE, margin=0.01)
    assert c.verdict == "equivalent within 0.01"
    assert c.tost_p == stats.tost_p(shifted(0.0) - BASE, 0.01)


def test_a_significant_difference_inside_the_margin_is_equivalent():
    assert compare(shifted(0.003), BASE, margin=0.01).verdict == "equivalent within 0.01"
    assert compare(shifted(0.003), BASE).verdict == "better"


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_below_four_blocks_nothing_is_said(n):
    c = compare(shifted(0.03, n=n), BASE[:n], margin=1.0)
    assert c.verdict == "too few blocks to say"
    assert c.p_method == "none"
    assert isnan(c.p)
    assert (c.n, c.wins) == (n, n)


def test_a_single_block_has_a_difference_and_no_interval():
    c = compare([0.9], [0.8])
    assert c.difference == pytest.approx(0.1)
    assert isnan(c.ci_low)
    assert isnan(c.mde)
    assert isnan(c.rho)


def test_no_blocks_are_all_nan():
    c = compare([], [])
    assert isnan(c.difference)
    assert isnan(c.p_better)
    assert (c.p_better_low, c.p_better_high) == (0.0, 1.0)


def test_runs_without_a_score_take_their_block_with_them_and_are_counted():
    a, b = shifted(0.03), BASE.copy()
    a[0], a[1], b[2] = nan, inf, nan
    c, rest = compare(a, b), compare(a[3:], b[3:])
    assert (c.n, c.missing_a, c.missing_b) == (7, 2, 1)
    assert (c.mean_a, c.mean_b, c.p, c.verdict) == (rest.mean_a, rest.mean_b, rest.p, rest.verdict)


def test_ties_only_are_not_distinguishable():
    c = compare(BASE, BASE)
    assert (c.p, c.ties, c.p_better, c.d_z) == (1.0, 10, 0.5, 0.0)
    assert c.verdict == "not distinguishable (smallest detectable difference 0)"


def test_ties_only_are_equivalent_under_any_margin():
    assert compare(BASE, BASE, margin=1e-3).verdict == "equivalent within 0.001"


def test_scores_equal_up_to_float32_rounding_tie():
    assert compare(BASE.astype(np.float32), BASE).ties == 10


@pytest.mark.parametrize("n", [5, 10])
def test_a_constant_difference_is_certain(n):
    c = compare(np.full(n, 0.9), np.full(n, 0.1))
    assert c.verdict == "better"
    assert (c.ci_low, c.ci_high) == pytest.approx((0.8, 0.8))
    assert isnan(c.rho)
    assert isnan(c.efficiency)


def test_p_better_counts_ties_half():
    c = compare([1, 1, 1, 0, 0.5], [0, 0, 1, 1, 0.5])
    assert (c.wins, c.ties, c.losses, c.p_better) == (2, 2, 1, 0.6)


def test_arms_must_share_their_blocks():
    with pytest.raises(ValueError, match="one score per shared block"):
        compare([1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    ("wins", "meaning"),
    [(5, "not significant"), (10, "significant and meaningful"), (0, "significant and meaningful")],
)
def test_meaning_reads_the_interval_of_p_better(wins, meaning):
    a = np.where(np.arange(10) < wins, 0.9, 0.1)
    assert compare(a, np.full(10, 0.5)).meaning() == meaning


def test_a_small_significant_p_better_is_not_meaningful():
    a = np.where(np.arange(400) < 230, 0.9, 0.1)
    assert compare(a, np.full(400, 0.5)).meaning() == "significant, not meaningful"


def test_a_family_compares_every_other_arm_with_the_baseline():
    family = compare_family({"x": shifted(0.03), "base": BASE, "y": shifted(0.0)}, "base")
    assert [(c.arm, c.reference) for c in family] == [("x", "base"), ("y", "base")]
    assert [c.p_holm for c in family] == pytest.approx(list(stats.holm([c.p for c in family])))


def test_all_pairs_keep_the_baseline_as_reference():
    family = compare_family({"x": shifted(0.03), "base": BASE, "y": shifted(0.0)}, "base", family="all_pairs")
    assert [(c.arm, c.reference) for c in family] == [("x", "base"), ("y", "base"), ("y", "x")]


def test_a_family_decides_by_the_adjusted_p():
    scores = {"base": BASE} | {f"arm{i}": shifted(0.0) for i in range(9)} | {"x": shifted(0.002, 0.003)}
    alone, among_ten = compare(scores["x"], BASE), compare_family(scores, "base")[-1]
    assert alone.p < 0.05 < among_ten.p_holm
    assert alone.verdict == "better"
    assert among_ten.verdict.startswith("not distinguishable")
    assert among_ten.mde == pytest.approx(alone.mde * smallest_detectable(10, 0.005) / smallest_detectable(10))


def test_a_family_decides_equivalence_by_the_adjusted_tost():
    scores = {"base": BASE, "x": shifted(0.0), "y": shifted(0.05)}
    x, y = compare_family(scores, "base", margin=0.01)
    assert x.tost_p_holm == pytest.approx(2 * x.tost_p)
    assert (x.verdict, y.verdict) == ("equivalent within 0.01", "better")


def test_max_t_fills_in_its_own_adjusted_p():
    scores = {"base": BASE, "x": shifted(0.03), "y": shifted(0.0)}
    family = compare_family(scores, "base", method="max_t")
    expected = stats.max_t_p(np.stack([scores["x"] - BASE, scores["y"] - BASE], axis=1))
    assert [c.p_max_t for c in family] == pytest.approx(list(expected))
    assert family[0].verdict == "better"
    assert all(isnan(c.p_max_t) for c in compare_family(scores, "base"))


def test_max_t_leaves_fewer_than_eight_blocks_to_holm():
    x = compare_family({"base": BASE[:5], "x": shifted(0.03, n=5)}, "base", method="max_t")[0]
    assert isnan(x.p_max_t)
    assert x.verdict == "better"


@pytest.mark.parametrize("method", ["holm", "max_t"])
def test_an_arm_that_always_diverged_has_no_verdict_and_spoils_no_other(method):
    scores = {"base": BASE, "x": shifted(0.03), "dead": np.full(10, nan)}
    x, dead = compare_family(scores, "base", method=method)
    assert x.verdict == "better"
    assert dead.verdict == "too few blocks to say"
    assert dead.missing_a == 10


def test_a_baseline_alone_has_nothing_to_compare():
    assert compare_family({"base": BASE}, "base") == ()


def test_an_unknown_baseline_is_refused_with_the_arms_there_are():
    with pytest.raises(ValueError, match=r"'he' .*: base, x"):
        compare_family({"base": BASE, "x": BASE}, "he")


def test_a_comparison_is_a_flat_row():
    assert all(isinstance(value, str | int | float) for value in asdict(compare(BASE, BASE)).values())


@pytest.mark.parametrize("n", [5, 10])
def test_identical_arms_are_told_apart_in_at_most_one_sweep_in_twenty(n):
    rng = np.random.default_rng(12)
    sweeps = [compare_family(null_sweep(rng, n), "a") for _ in range(1000)]
    false_claims = [any(c.verdict in ("better", "worse") for c in sweep) for sweep in sweeps]
    assert np.mean(false_claims) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 1000)


def test_max_t_holds_the_family_wise_error_and_spends_it():
    rng = np.random.default_rng(13)
    sweeps = []
    for _ in range(1000):
        scores = null_sweep(rng, 9)
        sweeps.append(stats.max_t_p(np.stack([scores[k] - scores["a"] for k in "bcdef"], axis=1)).min() < 0.05)
    assert 0.025 < np.mean(sweeps) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 1000)


def test_an_arm_at_the_smallest_detectable_difference_is_found_four_times_in_five():
    rng = np.random.default_rng(14)
    noise = rng.normal(size=(1500, 10))
    found = [compare(row + smallest_detectable(10), np.zeros(10)).verdict == "better" for row in noise]
    assert np.mean(found) == pytest.approx(0.8, abs=0.04)
