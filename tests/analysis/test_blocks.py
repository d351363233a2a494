from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from harness.analysis.blocks import Scale, blocks_of, grids, is_crossed, run_grid, scores, units


def runs_of(*rows: tuple[str, str, int, str, float], root: str = "0") -> pd.DataFrame:
    """Rows of (arm, draw, block, outcome, accuracy)."""
    frame = pd.DataFrame(rows, columns=["arm", "draw", "block", "outcome", "accuracy/test"])
    return frame.assign(run_id=[f"r{i}" for i in range(len(frame))], root_seed=root)


def test_a_block_is_the_unit_and_seed_10_comes_after_seed_9():
    runs = runs_of(*(("a", "all", i, "finished", 0.5 + i / 100) for i in (10, 9, 2)))
    table = scores(runs, ["a", "b"], "accuracy/test")
    assert table.index.tolist() == ["seed 2", "seed 9", "seed 10"]
    assert table["a"].tolist() == pytest.approx([52, 59, 60])
    assert table["b"].isna().all()


def test_a_diverged_run_keeps_its_block_without_a_score():
    runs = runs_of(("a", "all", 0, "diverged", 0.9), ("a", "all", 1, "finished", 0.5))
    assert np.isnan(scores(runs, ["a"], "accuracy/test").loc["seed 0", "a"])
    assert blocks_of(runs, "a") == {"seed 0", "seed 1"}


def test_crossed_draws_and_seeds_make_a_grid_whose_cells_are_the_blocks():
    runs = runs_of(
        *(("a", str(d), s, "finished", 0.1 * (d + s)) for d in range(2) for s in range(3) if (d, s) != (1, 1))
    )
    assert is_crossed(runs)
    assert scores(runs, ["a"], "accuracy/test").index[:2].tolist() == ["draw 0 seed 0", "draw 0 seed 1"]
    grid = grids(runs, ["a"], "accuracy/test")["a"]
    np.testing.assert_allclose(grid, [[0, 10, 20], [10, np.nan, 30]])


def test_draws_with_one_seed_each_are_the_blocks():
    runs = runs_of(*(("a", str(d), 0, "finished", 0.5) for d in range(3)))
    assert not is_crossed(runs)
    assert scores(runs, ["a"], "accuracy/test").index.tolist() == ["draw 0", "draw 1", "draw 2"]


def test_blocks_of_different_root_seeds_are_different_blocks():
    runs = pd.concat([runs_of(("a", "all", 0, "finished", 0.5)), runs_of(("b", "all", 0, "finished", 0.5), root="1")])
    assert sorted(units(runs)) == ["root 0 seed 0", "root 1 seed 0"]


def test_an_unknown_metric_has_no_scores():
    assert scores(runs_of(("a", "all", 0, "finished", 0.5)), ["a"], "accuracy/val").empty


def test_a_grid_is_complete_and_leaves_out_as_little_as_it_can():
    rows = [("a", str(d), s, "finished", 0.5) for d in range(3) for s in range(4) if (d, s) not in {(1, 0), (1, 2)}]
    draws, seeds, ids = run_grid(runs_of(*rows), "a")
    assert draws == ["0", "2"]
    assert seeds == [0, 1, 2, 3]
    assert ids.shape == (2, 4)
    assert len(set(ids.ravel())) == 8


@pytest.mark.parametrize(
    ("metric", "factor", "unit", "higher"),
    [("accuracy/test", 100, "points", True), ("gap/accuracy", 100, "points", False), ("loss/test", 1, "nats", False)],
)
def test_a_metric_knows_its_unit_and_which_way_is_better(metric, factor, unit, higher):
    scale = Scale.of(metric)
    assert (scale.factor, scale.unit, scale.higher_is_better) == (factor, unit, higher)
