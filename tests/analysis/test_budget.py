from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from harness.analysis.budget import FEWEST_TRIALS, budget_curves, expected_validation, is_grid
from harness.analysis.selection import expected_best

VALUES = (0.5, 0.9, 0.7, 0.6, 0.8, 0.55)
ARMS = [f"optimizer=sgd,lr={i}" for i in range(6)]


def runs_of(values: tuple[float, ...] = VALUES, outcome: str = "finished") -> pd.DataFrame:
    rows = [
        {"arm": arm, "draw": "all", "block": b, "outcome": outcome if i == 0 else "finished", "seconds": 30.0}
        | {"accuracy/val": value + shift if i or outcome == "finished" else np.nan}
        for i, (arm, value) in enumerate(zip(ARMS, values, strict=True))
        for b, shift in enumerate((-0.01, 0.01))
    ]
    return pd.DataFrame(rows)


def test_a_trial_counts_with_its_mean_over_blocks_and_costs_all_its_runs():
    table = expected_validation(runs_of(), ARMS, ["lr"]).set_index("budget")
    assert table["group"].unique().tolist() == ["optimizer=sgd"]
    for budget in (1, 3, 6):
        assert table.loc[budget, "v"] == pytest.approx(expected_best([100 * v for v in VALUES], budget))
        assert table.loc[budget, "u"] == pytest.approx(expected_best([100 * v for v in VALUES], budget, "u"))
    assert table.loc[1, "u"] == pytest.approx(100 * np.mean(VALUES))
    assert table.loc[6, "u"] == pytest.approx(90)
    assert table.loc[4, "minutes"] == pytest.approx(4 * 2 * 0.5)


def test_a_diverged_trial_is_a_trial():
    table = expected_validation(runs_of(outcome="diverged"), ARMS, ["lr"])
    assert table["u"].iloc[0] == pytest.approx(100 * np.mean((0, *VALUES[1:])))


def test_too_few_trials_or_a_trial_not_run_make_no_curve():
    assert not len(expected_validation(runs_of(), ARMS[: FEWEST_TRIALS - 1], ["lr"]))
    assert not len(expected_validation(runs_of(), [*ARMS, "optimizer=sgd,lr=9"], ["lr"]))


def test_all_combinations_of_two_keys_are_a_grid():
    grid = [f"lr={a},l2={b}" for a in (1, 2) for b in (3, 4)]
    assert is_grid(grid, ["lr", "l2"])
    assert not is_grid(grid[:3], ["lr", "l2"])
    assert not is_grid(ARMS, ["lr"])
    assert not is_grid(["lr=1,l2=3", "lr=2,l2=4", "lr=5,l2=6"], ["lr", "l2"])


def test_the_curve_ends_at_half_of_the_trials():
    (axes,) = budget_curves(expected_validation(runs_of(), ARMS, ["lr"]), ["optimizer=sgd"]).axes
    assert axes.lines[0].get_xdata().tolist() == [1, 2, 3]
