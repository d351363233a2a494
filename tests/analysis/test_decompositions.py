from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from harness.analysis.bias_variance import decompose
from harness.analysis.decompositions import against_value, decompose_arms, grid, swept_values, texts

LABELS = np.arange(30) % 3


def made(draws: int, seeds: int, arms: tuple[str, ...] = ("a",), lost: tuple[tuple[int, int], ...] = ()):
    rng = np.random.default_rng(0)
    rows, predictions = [], {}
    for arm in arms:
        for d in range(draws):
            for s in range(seeds):
                run_id = f"{arm}{d}{s}"
                finished = (d, s) not in lost
                rows.append(
                    (run_id, arm, "all" if draws == 1 else str(d), s, "finished" if finished else "diverged", 0.9)
                )
                if finished:
                    predictions[run_id] = {
                        "test_logits": rng.normal(size=(30, 3)).astype(np.float32),
                        "test_labels": LABELS,
                    }
    columns = ["run_id", "arm", "draw", "block", "outcome", "accuracy/train"]
    return pd.DataFrame(rows, columns=columns), predictions


def test_a_row_is_the_decomposition_of_the_arms_grid_of_logits():
    runs, predictions = made(3, 2)
    row = decompose_arms(runs, ["a"], predictions).iloc[0]
    logits = np.stack([[predictions[f"a{d}{s}"]["test_logits"] for s in range(2)] for d in range(3)])
    expected = decompose(logits, LABELS).row()
    assert {name: row[name] for name in expected} == pytest.approx(expected, nan_ok=True)
    assert row["error.train"] == pytest.approx(0.1)
    assert row["gap.error"] == pytest.approx(expected["error"] - 0.1)
    assert row["left_out"] == 0


def test_a_hole_costs_one_draw_or_one_seed():
    runs, predictions = made(4, 3, lost=((1, 2),))
    row = decompose_arms(runs, ["a"], predictions).iloc[0]
    assert (row["draws"], row["seeds"], row["left_out"]) == (3, 3, 2)


def test_one_draw_is_conditional_on_its_training_set():
    assert decompose_arms(*made(1, 3)[:1], ["a"], made(1, 3)[1])["scope"].tolist() == [
        "conditional on this training set"
    ]


def test_without_labels_or_with_one_run_there_is_no_row():
    runs, predictions = made(1, 3)
    for arrays in predictions.values():
        del arrays["test_labels"]
    assert decompose_arms(runs, ["a"], predictions).empty
    assert grid(*made(1, 1)[:1], "a", made(1, 1)[1]) is None


def test_the_texts_leave_out_what_the_design_cannot_tell():
    crossed, alone = (texts(decompose_arms(runs, ["a"], found))[1] for runs, found in (made(3, 3), made(1, 3)))
    assert "Brier data × seed" in crossed
    assert "Brier data × seed" not in alone
    assert "±" in crossed["Brier bias²"][0]
    assert float(crossed["bias + variance − loss"][0]) < 1e-9


@pytest.mark.parametrize(
    ("arms", "values"),
    [
        (["arch.widths=[3]", "arch.widths=[10]", "arch.widths=[30]"], [3, 10, 30]),
        (["initializer=he", "initializer=glorot", "initializer=lecun"], None),
        (["a=1", "a=2"], None),
    ],
)
def test_arms_that_differ_in_one_number_make_an_axis(arms, values):
    assert swept_values(arms) == values


def test_the_parts_are_drawn_against_the_number():
    arms = ("arch.widths=[30]", "arch.widths=[3]", "arch.widths=[100]")
    figure = against_value(decompose_arms(made(3, 2, arms)[0], arms, made(3, 2, arms)[1]), arms)
    assert figure is not None
    assert figure.axes[0].lines[0].get_xdata().tolist() == [3, 30, 100]
    assert figure.axes[0].get_xlabel() == "arch.widths"
