from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats as reference

from harness.analysis.claims import claims, p_value
from harness.analysis.examples import Examples
from harness.analysis.pairs import Rules, compare_arms, failures, table


def runs_of(scores: dict[str, dict[int, float]], outcome: str = "finished") -> pd.DataFrame:
    """Arm -> block -> accuracy; NaN: diverged."""
    rows = [
        {"arm": arm, "draw": "all", "block": block, "accuracy/test": value}
        for arm, values in scores.items()
        for block, value in values.items()
    ]
    frame = pd.DataFrame(rows).assign(run_id=[f"r{i}" for i in range(len(rows))])
    return frame.assign(outcome=np.where(frame["accuracy/test"].isna(), "diverged", outcome))


A = {i: 0.80 + 0.01 * i for i in range(6)}
B = {i: 0.78 + 0.01 * i + 0.002 * (-1) ** i for i in range(6)}


def test_arms_are_paired_by_block_in_points():
    (c,) = compare_arms(runs_of({"b": B, "a": A}), ["b", "a"], "b")
    d = 100 * np.array([A[i] - B[i] for i in range(6)])
    assert (c.arm, c.reference, c.n) == ("a", "b", 6)
    assert c.difference == pytest.approx(d.mean(), abs=1e-9)
    assert c.p == pytest.approx(reference.ttest_1samp(d, 0).pvalue, abs=1e-9)
    assert c.verdict == "better"


def test_arms_without_a_shared_block_are_compared_by_welch_and_say_so():
    apart = {block + 100: value for block, value in B.items()}
    (c,) = compare_arms(runs_of({"a": A, "b": apart}), ["a", "b"], "b")
    expected = reference.ttest_ind(100 * np.array(list(A.values())), 100 * np.array(list(B.values())), equal_var=False)
    assert c.p_method == "Welch, unpaired"
    assert c.p == pytest.approx(expected.pvalue, abs=1e-9)
    assert (c.ci_low, c.ci_high) == pytest.approx(tuple(expected.confidence_interval()), abs=1e-9)
    assert c.verdict.startswith("not distinguishable (smallest detectable difference ")
    assert "6 scores an arm" in claims([c], "accuracy/test")[0].detail


def test_an_arm_whose_runs_all_diverged_shares_its_blocks_but_has_no_score():
    runs = runs_of({"a": dict.fromkeys(range(5), np.nan), "b": {i: B[i] for i in range(5)}})
    (c,) = compare_arms(runs, ["a", "b"], "b")
    assert (c.n, c.verdict, c.p_method) == (0, "too few blocks to say", "none")
    (claim,) = claims([c], "accuracy/test", {"a": (5, 5)})
    assert claim.detail == "0 blocks. a: 5 of 5 runs diverged."
    found = failures(runs, ["a", "b"], "b").iloc[0]
    assert found[["diverged", "runs"]].tolist() == [5, 5]
    assert found["low"] == pytest.approx(0.025 ** (1 / 5))
    assert found["p"] == pytest.approx(reference.barnard_exact([[5, 0], [0, 5]]).pvalue)


def test_the_margin_is_given_in_logged_units_and_shown_in_points():
    (c,) = compare_arms(runs_of({"b": B, "a": A}), ["b", "a"], "b", rules=Rules(margin=0.05))
    assert c.margin == pytest.approx(5)
    assert c.verdict == "equivalent within 5"


def test_a_loss_is_better_when_it_is_lower():
    runs = runs_of({"b": A, "a": B}).rename(columns={"accuracy/test": "loss/test"})
    (c,) = compare_arms(runs, ["b", "a"], "b", "loss/test")
    assert c.verdict == "better"
    assert c.difference == pytest.approx(-0.02)


def test_a_baseline_that_is_no_arm_is_refused():
    with pytest.raises(ValueError, match="'x' is not among the arms: a"):
        compare_arms(runs_of({"a": A}), ["a"], "x")


def test_the_table_adds_the_interval_for_new_examples_where_labels_are_known():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    runs = runs_of({"b": B, "a": A})
    predictions = {}
    for run_id, share in zip(runs["run_id"], runs["accuracy/test"], strict=True):
        called = np.where(rng.random(200) < share, labels, (labels + 1) % 3)
        predictions[run_id] = {"test_logits": np.eye(3)[called], "test_labels": labels}
    examples = Examples.of(runs, ["b", "a"], predictions)
    compared = compare_arms(runs, ["b", "a"], "b")
    row = table(compared, "accuracy/test", examples).iloc[0]
    assert row["distribution_high"] - row["distribution_low"] > 0
    assert np.isnan(table(compared, "accuracy/test").iloc[0]["distribution_low"])


@pytest.mark.parametrize(("p", "text"), [(0.0004, "< .001"), (0.0124, ".012"), (1.0, "1"), (np.nan, "–")])
def test_p_values_are_short(p, text):
    assert p_value(p) == text
