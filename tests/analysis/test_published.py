"""Published numbers beside measured ones, by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from harness.analysis import published

RUNS = pd.DataFrame(
    {
        "run_id": ["a", "b", "c", "d"],
        "arm_key": ["k1", "k1", "k1", "k2"],
        "outcome": ["finished", "finished", "diverged", "finished"],
        "seconds": [60.0, 90.0, 6.0, 30.0],
        "accuracy/test": [0.80, 0.84, np.nan, 0.5],
    }
)
CURVES = pd.DataFrame(
    {
        "run_id": ["a", "a", "b", "b", "d"],
        "metric": "accuracy/test",
        "step": [1, 2, 1, 2, 1],
        "value": [0.86, 0.80, 0.70, 0.84, 0.5],
    }
)
ARMS = {"one": "k1", "two": "k2", "three": "k3"}


def measured(*metrics: str) -> pd.DataFrame:
    return published.measured(RUNS, CURVES, ARMS, 3, metrics)


def beside(**rows: object) -> pd.DataFrame:
    theirs = pd.DataFrame({"metric": "accuracy/test", **rows})
    return published.beside(measured("accuracy/test"), theirs).set_index("arm")


def test_mean_interval_and_spread_are_of_the_finished_runs() -> None:
    row = measured("accuracy/test").iloc[0]
    # mean .82, sd .04/sqrt 2, half width t(1, .975) * .02 = 12.7062 * .02
    assert row["mean"] == pytest.approx(0.82)
    assert row["ci_high"] - row["mean"] == pytest.approx(12.7062 * 0.02, rel=1e-5)
    assert (row["min"], row["max"]) == (0.80, 0.84)
    assert (row["n"], row["diverged"], row["planned"]) == (2, 1, 3)
    assert row["minutes"] == pytest.approx(2.1)  # twice the faster one, and the one that diverged


def test_the_best_of_all_evaluations_is_taken_run_by_run() -> None:
    row = measured("best accuracy/test").iloc[0]
    assert row["mean"] == pytest.approx((0.86 + 0.84) / 2)


def test_what_the_choice_of_the_best_evaluation_adds_is_taken_run_by_run() -> None:
    row = measured("best - last accuracy/test").iloc[0]
    assert (row["min"], row["max"]) == pytest.approx((0.0, 0.06))
    assert row["mean"] == pytest.approx(0.03)
    assert published.shown(0.03, "best - last accuracy/test") == "3.00 %"


@pytest.mark.parametrize(
    ("value", "inside"), [(0.80, "yes"), (0.82, "yes"), (0.84, "yes"), (0.7999, "no"), (0.8401, "no")]
)
def test_a_published_value_is_inside_from_the_smallest_to_the_largest_run(value: float, inside: str) -> None:
    assert beside(arm=["one"], value=[value]).loc["one", "inside"] == inside


def test_one_run_or_none_has_no_spread() -> None:
    table = beside(arm=["two", "three"], value=[0.5, 0.5])
    assert list(table.loc[["two", "three"], "inside"]) == ["", ""]


def test_nothing_is_said_where_only_a_figure_was_published() -> None:
    table = beside(arm=["one"], value=[np.nan], note=["works"])
    assert table.loc["one", "inside"] == ""
    assert published.sentences(table.reset_index()) == []
    assert "| works |" in published.markdown(table.reset_index())


def test_what_was_published_and_not_measured_is_shown() -> None:
    table = beside(arm=["four"], value=[0.9])
    assert list(table.index) == ["one", "two", "three", "four"]
    assert table.loc["four", "n"] == 0
    assert "has nothing beside it yet" in published.sentences(table.reset_index())[0]


def test_the_sentence_says_where_the_published_value_lies() -> None:
    (said,) = published.sentences(beside(arm=["one"], value=[0.9]).reset_index())
    assert said == (
        "one, accuracy/test: the published 90.00 % lies outside the spread of 2 single runs, 80.00 % to 84.00 %."
    )


@pytest.mark.parametrize(
    ("value", "metric", "text"),
    [
        (0.5949, "accuracy/test", "59.49 %"),
        (0.9, "best accuracy/test", "90.00 %"),
        (2.392, "loss/test", "2.392"),
        (15083.0, "loss/test", "15,083"),
        (np.nan, "loss/test", "–"),
    ],
)
def test_shares_are_in_percent_and_losses_plain(value: float, metric: str, text: str) -> None:
    assert published.shown(value, metric) == text


def test_shapes_are_equal_or_not_entry_by_entry() -> None:
    built = pd.DataFrame(
        {"net": ["n", "n"], "layer": ["conv1", "dense1"], "output": ["28x28x6", "10"], "kernel": [150, 9]}
    )
    theirs = pd.DataFrame(
        [("n", "conv1", "output", "28x28x6"), ("n", "dense1", "kernel", "10"), ("n", "conv9", "kernel", "1")],
        columns=["net", "layer", "column", "value"],
    )
    table = published.shapes_beside(built, theirs)
    assert list(table["equal"]) == ["yes", "no", "no"]
    assert list(table["built"]) == ["28x28x6", "9", "–"]
