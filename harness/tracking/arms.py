"""What an arm's parent run carries: the aggregates over its seeds as curves of their own, and its figures."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from mlflow.entities import Metric, Run
from mlflow.tracking import MlflowClient

from harness.analysis.activations import histograms
from harness.analysis.curves import learning_curves
from harness.analysis.figure import png
from harness.analysis.mistakes import confusion_matrix, worst_mistakes
from harness.analysis.stats import mean_ci
from harness.tracking import artifacts, batches
from harness.tracking.entries import ArmEnd, TestSet
from harness.tracking.frames import Results


def close(client: MlflowClient, run: Run, results: Results, data: TestSet, arm: ArmEnd) -> None:
    """Log mean and 95 % t interval over the finished runs of each curve, draw the figures, and end the parent run.

    Args:
        client: of the store.
        run: the arm's parent run; it ends as FINISHED, or KILLED when runs are missing.
        results: the arm's runs alone.
        data: what the arm was tested on.
        arm: which runs there should be; whether to draw the figures of each single run too.
    """
    runs = results.runs
    finished = runs[runs["outcome"] == "finished"] if len(runs) else runs
    now = int(time.time() * 1000)
    metrics = [
        Metric(f"{metric}.{name}", float(value), now, int(str(step)))
        for (metric, step), values in _points(results.curves, finished)
        for name, value in _aggregates(values).items()
        if np.isfinite(value)
    ]
    ended = {kind: int((runs["outcome"] == kind).sum()) if len(runs) else 0 for kind in ("finished", "diverged")}
    batches.log(client, run.info.run_id, metrics, tags={f"runs.{kind}": str(count) for kind, count in ended.items()})
    artifacts.write(client, run, figures(results, data))
    if arm.run_figures and len(runs):
        for single in runs["run_key"]:
            alone = Results(client, results.sweep, runs["arm_key"].unique().tolist(), [single])
            artifacts.write(client, client.get_run(alone.runs["run_id"].iloc[0]), figures(alone, data))
    complete = sum(ended.values()) == len(arm.run_keys)
    client.set_terminated(run.info.run_id, "FINISHED" if complete else "KILLED")


def _points(curves: pd.DataFrame, finished: pd.DataFrame) -> list[tuple[tuple[Any, Any], pd.Series]]:
    kept = curves[curves["run_id"].isin(finished.get("run_id", []))]
    return [
        ((metric, step), part["value"])
        for metric, points in kept.groupby("metric")
        for step, part in points.groupby("step")
    ]


def _aggregates(values: pd.Series) -> dict[str, float]:
    interval = mean_ci(values.to_numpy())
    return {"mean": interval.value, "ci_low": interval.low, "ci_high": interval.high}


def figures(results: Results, data: TestSet) -> Mapping[str, bytes]:
    """PNG figures over all runs of an arm: curves, histograms, and where there are predictions, mistakes."""
    if not len(results.runs):
        return {}
    arm = str(results.runs["arm"].iloc[0])
    drawn = {"figures/learning_curves.png": _quick(learning_curves(results.curves, [arm]))}
    steps, names, shares = results.mean_histograms(arm)
    if len(steps):
        drawn["figures/activation_histograms.png"] = png(histograms({arm: (steps, names, shares)}))
    logits = [arrays["test_logits"] for arrays in results.predictions.values()]
    if logits:
        predicted = np.stack([each.argmax(axis=1) for each in logits])
        drawn["figures/confusion_matrix.png"] = _quick(confusion_matrix(predicted, data.y_test, data.class_names))
        if data.is_image:
            mistakes = worst_mistakes(np.stack(logits), data.x_test, data.y_test, data.class_names)
            drawn["figures/worst_mistakes.png"] = png(mistakes)
    return drawn


def _quick(figure: Figure) -> bytes:
    """PNG with few ticks, none of them minor, and fixed margins: to make and fit these takes longer than the rest."""
    for axes in figure.axes:
        axes.minorticks_off()
        for axis in (axes.xaxis, axes.yaxis):
            if isinstance(locator := axis.get_major_locator(), MaxNLocator):
                locator.set_params(nbins=5)
    figure.set_layout_engine(None)
    figure.subplots_adjust(left=0.1, right=0.97, bottom=0.14, top=0.92, wspace=0.22)
    return png(figure)
