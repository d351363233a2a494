from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from harness.analysis.crossed import compare_crossed, complete, crossed_mean
from harness.analysis.pairs import Rules, compare_arms
from harness.analysis.power import smallest_detectable
from harness.analysis.stats import two_way_ci


def test_the_interval_is_that_of_runs_by_examples_with_seeds_in_their_place():
    table = np.random.default_rng(0).normal(size=(5, 3)) + np.arange(5)[:, None]
    test, expected = crossed_mean(table).test, two_way_ci(table)
    assert test.df > 2
    assert (test.value, test.low, test.high) == pytest.approx((expected.value, expected.low, expected.high), abs=1e-12)


def test_a_hand_computed_table():
    # Draw means 1, 5; seed means 2, 4; residuals +-1: MS_draw = 16, MS_seed = 4, MS_rest = 4.
    mean = crossed_mean(np.array([[1.0, 1.0], [3.0, 7.0]]))
    assert mean.test.value == 3
    assert mean.se == pytest.approx(np.sqrt(16 / 4))
    assert mean.test.df == 1  # Satterthwaite's 16^2 / (16^2 + 4^2 + 4^2), but at least min(K, S) - 1


@pytest.mark.parametrize(("draws", "seeds"), [(5, 3), (10, 3)])
@pytest.mark.parametrize(
    ("sd_draw", "sd_seed", "sd_rest"), [(1, 0, 0.3), (0, 1, 0.3), (1, 1, 1), (0, 0, 1), (1, 0.5, 0)]
)
def test_the_interval_covers_whichever_source_is_the_larger(sd_draw, sd_seed, sd_rest, draws, seeds):
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(2000):
        of_draws, of_seeds = sd_draw * rng.normal(size=(draws, 1)), sd_seed * rng.normal(size=(1, seeds))
        test = crossed_mean(of_draws + of_seeds + sd_rest * rng.normal(size=(draws, seeds))).test
        covered += test.low <= 0 <= test.high
    assert covered / 2000 > 0.93


def test_holes_cost_as_few_cells_as_they_can():
    table = np.arange(12.0).reshape(3, 4)
    table[1, 2] = np.nan
    assert complete(table).tolist() == np.delete(np.arange(12.0).reshape(3, 4), 2, axis=1).tolist()
    assert complete(np.full((2, 2), np.nan)).size == 0


def test_one_draw_or_one_seed_has_no_interval():
    assert np.isnan(crossed_mean(np.ones((1, 5))).test.low)
    assert np.isnan(crossed_mean(np.zeros((0, 0))).test.value)


def test_a_comparison_counts_cells_and_claims_nothing_below_three_seeds():
    rng = np.random.default_rng(2)
    b = rng.normal(80, 1, (5, 4))
    a = b + 3 + rng.normal(0, 0.5, (5, 4))
    c = compare_crossed(a, b, arm="a", reference="b", ceiling=100.0, margin=5.0)
    mean = crossed_mean(a - b)
    assert (c.n, c.wins, c.ties, c.losses) == (20, 20, 0, 0)
    assert c.p == mean.test.p
    like = round(mean.test.df) + 1
    assert c.mde == pytest.approx(smallest_detectable(like, 0.05) * mean.se * np.sqrt(like))
    assert c.tost_p < 0.05
    assert c.error_ratio < 1
    few = compare_crossed(a[:, :2], b[:, :2], arm="a", reference="b", ceiling=100.0)
    assert (few.p_method, np.isnan(few.p)) == ("none", True)


def runs_of(rng: np.random.Generator, arms: list[str], sd_seed: float) -> pd.DataFrame:
    shared = rng.normal(size=(10, 1))
    rows = []
    for arm in arms:
        grid = 0.8 + 0.01 * (shared + sd_seed * rng.normal(size=(1, 10)) + rng.normal(size=(10, 10)))
        rows += [(arm, str(k), s, "finished", grid[k, s]) for k in range(10) for s in range(10)]
    return pd.DataFrame(rows, columns=["arm", "draw", "block", "outcome", "accuracy/test"])


def test_identical_arms_are_hardly_ever_told_apart():
    rng = np.random.default_rng(3)
    wrong = 0
    for _ in range(150):
        found = compare_arms(runs_of(rng, ["a", "b", "c"], 1.0), ["a", "b", "c"], "a", rules=Rules("all_pairs"))
        wrong += any(c.verdict in ("better", "worse") for c in found)
    assert wrong / 150 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 150)


def test_a_verdict_over_draws_and_seeds():
    runs = runs_of(np.random.default_rng(4), ["a", "b"], 0.2)
    runs.loc[runs["arm"] == "b", "accuracy/test"] += 0.02
    (c,) = compare_arms(runs, ["a", "b"], "a")
    assert (c.verdict, c.p_method) == ("better", "t, draws × seeds")


def test_arms_with_one_draw_are_paired_by_seed_beside_crossed_ones():
    runs = runs_of(np.random.default_rng(5), ["a", "b"], 0.2)
    single = runs_of(np.random.default_rng(6), ["c", "d"], 0.2).query("draw == '0'").assign(draw="all")
    single.loc[single["arm"] == "d", "accuracy/test"] += 0.05
    found = compare_arms(pd.concat([runs, single], ignore_index=True), list("abcd"), "a", rules=Rules("all_pairs"))
    methods = {(c.reference, c.arm): c.p_method for c in found}
    assert methods["a", "b"] == "t, draws × seeds"
    assert methods["c", "d"] == "sign-flip"
    assert methods["a", "c"] == "Welch, unpaired"
