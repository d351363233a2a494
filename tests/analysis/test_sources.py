from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from harness.analysis.sources import components, randomised, sources


def test_components_of_a_hand_computed_table():
    # Rows are draws. Draw means 1, 5; seed means 2, 4; residuals zero but for +-1.
    table = np.array([[1.0, 1.0], [3.0, 7.0]])
    data, seed, interaction = components(table)
    assert interaction == pytest.approx(4.0)
    assert data == pytest.approx(8.0 - 4.0 / 2)
    assert seed == pytest.approx(2.0 - 4.0 / 2)


def test_components_are_unbiased_at_two_by_two():
    rng = np.random.default_rng(0)
    draws = 20_000
    tables = rng.normal(0, 2, (draws, 2, 1)) + rng.normal(0, 1, (draws, 1, 2)) + rng.normal(0, 0.5, (draws, 2, 2))
    found = np.mean([components(table) for table in tables], axis=0)
    assert found == pytest.approx([4, 1, 0.25], rel=0.05)


def test_components_need_two_of_each():
    assert np.isnan(components(np.ones((1, 4)))).all()


def runs_of(draws: int, seeds: int, crossed: bool) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    cells = [(d, s) for d in range(draws) for s in range(seeds)]
    return pd.DataFrame(
        {
            "run_id": [f"r{d}{s}" for d, s in cells],
            "arm": "a",
            "draw": [str(d) if crossed else "all" for d, _ in cells],
            "block": [s for _, s in cells],
            "outcome": "finished",
            "accuracy/test": rng.normal(0.8, 0.02, len(cells)),
            "seed.draw": [str(d) for d, _ in cells],
            "seed.init": [str(s) for _, s in cells],
            "seed.augment": [str(s) for _, s in cells],
            "augment.layers": "[]",
        }
    )


def test_a_seed_only_sweep_has_a_total_and_no_parts():
    runs = runs_of(1, 5, crossed=False)
    row = sources(runs, ["a"]).iloc[0]
    assert row["all"] == pytest.approx(100 * runs["accuracy/test"].std())
    assert np.isnan(row[["data", "seed", "data x seed", "floor"]].astype(float)).all()


def test_a_crossed_sweep_has_the_parts_of_its_variance():
    runs = runs_of(3, 4, crossed=True)
    row = sources(runs, ["a"]).iloc[0]
    parts = components(100 * runs["accuracy/test"].to_numpy().reshape(3, 4))
    assert row["data x seed"] == pytest.approx(np.sqrt(parts[2]))
    assert row["all"] == pytest.approx(np.sqrt(max(0, sum(parts))))


def test_what_was_varied_fixed_and_not_used():
    assert randomised(runs_of(1, 3, crossed=False)) == {"draw": "fixed", "init": "varied", "augment": "not used"}
