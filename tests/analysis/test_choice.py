from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from harness.analysis.choice import choose, groups, tuned

ARMS = [
    "initializer=he,learning_rate.value=0.1",
    "initializer=he,learning_rate.value=0.01",
    "initializer=glorot,learning_rate.value=0.1",
]


def runs_of(validation: dict[str, list[float]], test: dict[str, list[float]]) -> pd.DataFrame:
    rows = [
        {"arm": arm, "draw": "all", "block": i, "outcome": "finished", "accuracy/val": v, "accuracy/test": t}
        for arm in validation
        for i, (v, t) in enumerate(zip(validation[arm], test[arm], strict=True))
    ]
    return pd.DataFrame(rows)


def test_validation_chooses_and_the_test_set_scores():
    validation = {"a": [0.5, 0.6, 0.5], "b": [0.7, 0.8, 0.7], "c": [0.1, 0.2, 0.1]}
    test = {"a": [0.9, 0.9, 0.9], "b": [0.6, 0.7, 0.8], "c": [0.1, 0.1, 0.1]}
    choice = choose(runs_of(validation, test), ["a", "b", "c"])
    assert choice is not None
    assert choice.chosen == "b"
    assert choice.apparent == pytest.approx(70)
    assert choice.luck.observed == pytest.approx(90 - (90 + 70 + 10) / 3)
    assert choice.wins == {"a": 1.0, "b": 0.0, "c": 0.0}


def test_an_arm_with_a_diverged_run_is_not_eligible():
    runs = runs_of({"a": [0.9, 0.9], "b": [0.5, 0.5]}, {"a": [0.9, np.nan], "b": [0.5, 0.5]})
    runs.loc[1, "outcome"] = "diverged"
    choice = choose(runs, ["a", "b"])
    assert choice is not None
    assert choice.chosen == "b"
    assert choice.eligible == ["b"]


def test_one_arm_or_no_validation_is_no_choice():
    runs = runs_of({"a": [0.5]}, {"a": [0.5]})
    assert choose(runs, ["a"]) is None
    assert choose(runs.drop(columns="accuracy/val"), ["a", "b"]) is None


def test_arms_that_differ_only_in_tuned_parameters_are_one_group():
    assert groups(ARMS, ["learning_rate.value"]) == {"initializer=he": ARMS[:2], "initializer=glorot": ARMS[2:]}
    assert groups(["learning_rate.value=1"], ["learning_rate.value"]) == {"all": ["learning_rate.value=1"]}


def test_a_group_without_a_finished_run_has_none_chosen():
    runs = runs_of({ARMS[0]: [0.9, 0.8]}, {ARMS[0]: [0.9, 0.8]})
    assert tuned(runs, ARMS, ["learning_rate.value"])["chosen"].tolist() == [ARMS[0], None]


def test_each_group_takes_its_best_whole_trial():
    values = dict(zip(ARMS, ([0.9, np.nan], [0.7, 0.8], [0.6, 0.6]), strict=True))
    runs = runs_of(values, values)
    runs.loc[runs["accuracy/val"].isna(), "outcome"] = "diverged"
    table = tuned(runs, ARMS, ["learning_rate.value"]).set_index("arm")
    assert table["chosen"].tolist() == [ARMS[1], ARMS[2]]
    assert table["trials"].tolist() == [2, 1]
    assert table.loc["initializer=he", "val accuracy"] == pytest.approx(75)
