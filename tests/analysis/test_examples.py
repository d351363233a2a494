from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from harness.analysis.examples import Examples
from harness.analysis.mistakes import cross_entropies
from harness.analysis.stats import seed_spread, two_way_ci

LABELS = np.array([0, 1, 2, 0])
CALLED = {"r0": [0, 1, 2, 1], "r1": [0, 1, 0, 1], "r2": [0, 0, 2, 0], "r3": [1, 1, 2, 0]}


def made(labels=LABELS):
    runs = pd.DataFrame(
        {
            "run_id": list(CALLED),
            "arm": ["a", "a", "b", "b"],
            "draw": "all",
            "block": [0, 1, 0, 1],
            "outcome": "finished",
        }
    )
    predictions = {r: {"test_logits": np.eye(3)[called], "test_labels": labels} for r, called in CALLED.items()}
    return runs, predictions


def test_correctness_by_run_and_votes_by_example():
    examples = Examples.of(made()[0], ["a", "b"], made()[1])
    assert examples is not None
    assert examples.runs["a"].tolist() == [[True, True, True, False], [True, True, False, False]]
    assert examples.votes["a"][2].tolist() == [0.5, 0, 0.5]
    assert examples.difference("a", "b") == two_way_ci(np.array([[0, 1, 0, -1], [1, 0, -1, -1]]))
    assert examples.spread("a") == seed_spread(examples.runs["a"])


def test_labels_that_are_missing_or_differ_give_nothing():
    runs, predictions = made()
    del predictions["r3"]["test_labels"]
    assert Examples.of(runs, ["a", "b"], predictions) is None
    predictions["r3"]["test_labels"] = LABELS[::-1]
    assert Examples.of(runs, ["a", "b"], predictions) is None
    assert Examples.of(runs, ["a", "b"], {}) is None


def test_per_class_accuracy():
    examples = Examples.of(*[made()[0], ["a", "b"], made()[1]])
    table = examples.per_class(["zero", "one", "two"]).set_index("class")
    assert table["examples"].tolist() == [2, 1, 1]
    assert table["a"].tolist() == [50, 100, 50]
    assert table["b"].tolist() == [75, 50, 100]


def test_the_hardest_example_comes_first_with_what_it_is_called_instead():
    examples = Examples.of(made()[0], ["a", "b"], made()[1])
    first = examples.hardest().iloc[0]
    assert first.tolist() == [3, 0, 50, 1, 50]


def test_the_examples_that_moved_most():
    examples = Examples.of(made()[0], ["a", "b"], made()[1])
    moved = examples.moved("a", "b", count=1).iloc[0]
    assert moved.tolist() == ["a", 3, 0, 0, 100, -100]


def test_cross_entropies_of_huge_logits_are_finite():
    losses = cross_entropies(np.array([[1e4, 0.0], [0.0, 0.0]], np.float32), np.array([1, 0]))
    assert losses.tolist() == pytest.approx([1e4, np.log(2)])
