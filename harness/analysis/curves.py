"""Learning curves: the mean over runs with its band, every run faint behind it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from harness.analysis.figure import (
    COLORS,
    MOST_KEYED,
    WIDTH,
    legend,
    legend_height,
    logarithmic,
    new_figure,
    short_names,
    styles,
)
from harness.analysis.stats import mean_ci

PARTS = ("train", "val", "test")
MANY_RUNS = 120
"""Above this many faint lines they are drawn as one picture inside the SVG."""


def learning_curves(curves: pd.DataFrame, arms: Sequence[str]) -> Figure:
    """Loss (left) and accuracy (right) against the step: mean, 95 % t band over runs, every run faint.

    Args:
        curves: run_id, arm, step, metric, value.
        arms: all arms of the sweep, in order; each part of the data has a row of panels, but with one arm train, val
            and test share them.
    """
    alone = len(arms) == 1
    parts = [part for part in PARTS if (curves["metric"] == f"loss/{part}").any()] or ["test"]
    rows = 1 if alone else len(parts)
    figure = new_figure(WIDTH, (3.2 if rows == 1 else 2.7 * rows + 0.4) + legend_height(len(arms)))
    panels = figure.subplots(rows, 2, squeeze=False, sharex=True, sharey="col")
    look, names = styles(arms), short_names(arms)
    by_metric = dict(tuple(curves.groupby("metric")))
    for row, part in zip(panels, parts, strict=False):
        for axes, score, unit in zip(row, ("loss", "accuracy"), ("cross-entropy (nats)", "accuracy (%)"), strict=True):
            factor = 100 if score == "accuracy" else 1
            if alone:
                looks = zip(PARTS, COLORS, strict=False)
                lines = [
                    _Line(each, {"color": color, "linestyle": "-"}, table)
                    for each, color in looks
                    if (table := by_metric.get(f"{score}/{each}")) is not None
                ]
            else:
                by_arm = (
                    dict(tuple(by_metric[f"{score}/{part}"].groupby("arm"))) if f"{score}/{part}" in by_metric else {}
                )
                lines = [_Line(names[arm], look[arm], by_arm[arm]) for arm in arms if arm in by_arm]
            _panel(axes, lines, factor, np.inf if score == "loss" else 100)
            axes.set_ylabel(unit if alone else f"{part} {unit}")
            axes.grid(alpha=0.25)
    for axes in panels[-1]:
        axes.set_xlabel("training step")
    losses = curves[curves["metric"].isin([f"loss/{part}" for part in PARTS])]
    # A run that diverged would squeeze all others into a corner.
    shown = losses.loc[losses.groupby("run_id")["step"].transform("max") == losses["step"].max(), "value"]
    values = shown if len(shown) else losses["value"]
    if len(values) and values.max() > 20 * values.min() > 0:
        logarithmic(panels[0][0], "y")
        for axes in panels[:, 0]:
            axes.yaxis.set_major_formatter(_Plain())
            axes.yaxis.set_minor_formatter(_Plain(labelOnlyBase=False, minor_thresholds=(2, 0.4)))
        panels[0][0].set_ylim(values.min() / 1.3, values.max() * 1.3)
    legend(figure, panels[0][1])
    return figure


class _Plain(LogFormatter):
    """0.2 where matplotlib would write 2e-01."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


@dataclass(frozen=True)
class _Line:
    """The runs behind one line: its label, its colour and style, their points."""

    label: str
    look: Mapping[str, str]
    points: pd.DataFrame


def _panel(axes: Axes, lines: Sequence[_Line], factor: float, most: float) -> None:
    """Draw the lines; their bands end at 0 and at `most`, beyond which no value can be."""
    faint, colors, last = [], [], max((float(line.points["step"].max()) for line in lines), default=0.0)
    for line in lines:
        table = line.points.pivot(index="step", columns="run_id", values="value")
        steps, values = table.index.to_numpy(float), factor * table.to_numpy(float)
        color, style, label = line.look["color"], line.look["linestyle"], line.label
        faint += [np.column_stack([steps, run]) for run in values.T]
        colors += [color] * values.shape[1]
        if steps[-1] < last:
            label, style = f"{label} (ended early)", "-"
        intervals = [mean_ci(row) for row in values]
        middle, low, high = ([getattr(i, name) for i in intervals] for name in ("value", "low", "high"))
        axes.plot(steps, middle, label=label, linewidth=1.8, color=color, linestyle=style)
        if len(lines) <= MOST_KEYED:  # the bands of more arms would hide one another
            axes.fill_between(
                steps, np.clip(low, 0, most), np.clip(high, 0, most), alpha=0.18, color=color, linewidth=0
            )
    dense = len(faint) > MANY_RUNS
    axes.add_collection(LineCollection(faint, colors=colors, linewidths=0.6, alpha=0.3, zorder=1.5, rasterized=dense))
    axes.autoscale_view()
