from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from harness.analysis.contents import remarks
from harness.analysis.limitations import limitations
from harness.analysis.pairs import Rules
from harness.analysis.study import Study


def study(blocks: int = 10, arms: tuple[str, ...] = ("a", "b"), planned: int | None = None, **changes: object) -> Study:
    rng = np.random.default_rng(0)
    rows = [
        {"arm": arm, "draw": "all", "block": b, "outcome": "finished", "seconds": 1.0, "accuracy/test": value}
        for arm in arms
        for b, value in enumerate(rng.normal(0.8, 0.01, blocks))
    ]
    runs = pd.DataFrame(rows).assign(**{"data.digest": "d", "git.sha": "1", "git.dirty": "false"})
    runs["run_id"] = [f"r{i}" for i in range(len(runs))]
    given: dict[str, object] = {
        "name": "s",
        "question": "",
        "arms": arms,
        "baseline": "b" if "b" in arms else None,
        "planned": blocks if planned is None else planned,
        "rules": Rules(),
        "tune": (),
        "runs": runs,
        "curves": pd.DataFrame(),
        "command": "python -m harness +sweep=s seeds=3",
    }
    return Study(**(given | changes))  # type: ignore[arg-type]


def said(subject: Study) -> str:
    return "\n".join(limitations(subject))


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        (study(3), "3 blocks: too few to say more than what is seen"),
        (study(5), "cannot go below p = 0.0625"),
        (study(4, planned=6), "of 6 runs, 0 failed and 2 are missing"),
        (study(arms=("a", "b", "c")), "3 arms were scored on one test set"),
        (study(baseline=None), "No baseline was declared before training"),
        (study(planned=0), "not declared before training"),
        (study(), "No parameter was tuned for each arm"),
    ],
)
def test_weaknesses_are_named(subject, words):
    assert words in said(subject)


def test_ten_blocks_of_two_arms_are_no_screening():
    assert "screening" not in said(study())
    assert "test set; the best" not in said(study())


def test_where_the_runs_come_from():
    runs = study().runs.assign(**{"git.dirty": "true"})
    runs.loc[0, ["git.sha", "data.digest"]] = ["2", "e"]
    text = said(study(runs=runs))
    assert "2 commits" in text
    assert "not committed" in text
    assert "2 different data sets" in text


def test_ties_and_skew_are_named():
    runs = study().runs
    runs.loc[runs["arm"] == "a", "accuracy/test"] = runs.loc[runs["arm"] == "b", "accuracy/test"].to_numpy()
    runs.loc[0, "accuracy/test"] += 0.1
    text = said(study(runs=runs))
    assert "Ties on more than 20% of the blocks: a" in text
    assert "skewed differences" in text


def test_unpaired_arms_are_named():
    runs = study().runs
    runs.loc[runs["arm"] == "a", "block"] += 100
    assert "a and b share no block" in said(study(runs=runs))


def test_remarks_say_why_nothing_is_claimed():
    assert remarks(study(arms=("a",))) == ["One arm: nothing is claimed."]
    assert "No baseline" in remarks(study(baseline=None))[0]
    assert "Single run" in remarks(study(1))[-1]


def test_tuned_arms_compare_what_validation_chose():
    arms = ("initializer=he,lr=1", "initializer=he,lr=2", "initializer=glorot,lr=1", "initializer=glorot,lr=2")
    subject = study(arms=arms)
    order = {arm: (0.9, 0.8, 0.5, 0.6)[i] for i, arm in enumerate(arms)}
    runs = subject.runs.assign(**{"accuracy/val": subject.runs["arm"].map(order)})
    tuned = study(arms=arms, runs=runs, tune=("lr",), baseline="initializer=glorot,lr=1")
    assert tuned.compared == [arms[0], arms[3]]
    assert tuned.reference == arms[3]
    assert [(c.arm, c.reference) for c in tuned.comparisons] == [(arms[0], arms[3])]


def test_the_command_to_type_takes_new_values_for_old_ones():
    assert study().again("seeds=[1,2]", "draws=5") == "python -m harness +sweep=s 'seeds=[1,2]' draws=5"


def test_the_command_to_type_leaves_out_what_would_be_refused():
    confirmed = study(command="python -m harness +sweep=s confirm=true")
    assert confirmed.again("draws=5") == "python -m harness +sweep=s draws=5"
    assert confirmed.again("rerun=true") == "python -m harness +sweep=s confirm=true rerun=true"


def test_the_family_of_all_pairs_needs_no_baseline():
    subject = study(arms=("a", "b", "c"), baseline=None, rules=Rules("all_pairs"))
    assert len(subject.claims) == 3
