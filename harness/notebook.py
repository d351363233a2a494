"""What notebooks call: stored sweeps as pandas, with the report's own statistics; nothing is trained."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from harness.analysis import pairs
from harness.analysis.decompositions import decompose_arms
from harness.analysis.examples import Examples
from harness.tracking import frames
from harness.tracking.frames import Results


def load(sweep: str, uri: str | None = None, folder: str | Path = "mlruns") -> Results:
    """A stored sweep: `.runs`, `.curves`, `.layers`, `.histograms` as pandas, `.predictions` as arrays.

    Args:
        sweep: its name.
        uri: an MLflow tracking URI; None: sqlite below `folder`.
        folder: of the local store.

    Raises:
        StoreError: no store there, or no such sweep in it.
    """
    return frames.load(sweep, uri, folder)


def compare(
    runs: Results | pd.DataFrame,
    baseline: str | None = None,
    *,
    metric: str = "accuracy/test",
    family: pairs.Family = "baseline",
    correction: pairs.Correction = "holm",
    margin: float | None = None,
    alpha: float = 0.05,
) -> pd.DataFrame:
    """Compare arms over the blocks they share: one row a comparison, as in the report.

    Args:
        runs: a sweep's results, or rows of `.runs` (of one sweep or, with one `data.digest`, of several).
        baseline: the arm that the others are compared with; None: the declared one.
        metric: a column of `.runs`; accuracies come out in percentage points, losses in nats.
        family: each arm against the baseline, or all pairs.
        correction: of the family's p: Holm, or max-T sign flips.
        margin: difference that counts as nothing, in the metric's own units (0.01: one point of accuracy).
        alpha: level of the intervals and of the family.

    Returns:
        The fields of `analysis.comparison.Comparison`, `unit`, `meaning`, and for the test accuracy of results with
        stored labels the interval on the test distribution (`distribution_low`, `distribution_high`).

    Raises:
        ValueError: no baseline, a baseline that is no arm, no such metric, or runs on different data.
    """
    examples = None
    if isinstance(runs, Results):
        declared = runs.declaration
        results, runs = runs, runs.runs
        arms: Sequence[str] = list(declared.arms) if declared else list(dict.fromkeys(runs["arm"]))
        baseline = baseline or (declared.baseline if declared else None)
        if metric == "accuracy/test":
            examples = Examples.of(runs, arms, results.predictions)
    else:
        arms = list(dict.fromkeys(runs["arm"]))
    if baseline is None:
        raise ValueError(f"baseline: none was declared; give one of {', '.join(arms)}")
    if metric not in runs:
        known = ", ".join(name for name in map(str, runs) if name.partition("/")[0] in ("accuracy", "loss", "gap"))
        raise ValueError(f"metric: got {metric!r}; these runs have {known}")
    if runs["data.digest"].nunique() > 1:
        raise ValueError("runs: they saw different data (column data.digest); compare those of one digest at a time")
    rules = pairs.Rules(family, correction, margin, alpha)
    return pairs.table(pairs.compare_arms(runs, arms, baseline, metric, rules), metric, examples)


def decompose(sweep: str | Results, uri: str | None = None, folder: str | Path = "mlruns") -> pd.DataFrame:
    """Bias and variance of every arm from its stored test logits: one row an arm, standard errors in `.se` columns.

    Args:
        sweep: its name, or its results.
        uri: as in `load`.
        folder: as in `load`.

    Raises:
        ValueError: no arm has two finished runs with stored predictions and labels.
    """
    results = load(sweep, uri, folder) if isinstance(sweep, str) else sweep
    declared = results.declaration
    arms = list(declared.arms) if declared else list(dict.fromkeys(results.runs["arm"]))
    table = decompose_arms(results.runs, arms, results.predictions)
    if not len(table):
        raise ValueError(f"{results.sweep}: no arm has two finished runs with stored predictions and labels")
    return table
