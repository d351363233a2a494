"""Figures with one row an arm: every run joined by block, the paired differences, and how often an arm is better."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.analysis.comparison import Comparison
from harness.analysis.figure import GREY, NARROW, legend, markers, new_figure, short_names, styles
from harness.analysis.stats import FloatArray, Interval, mean_ci

MANY_LINES = 200


def _rows(count: int, title: str = "") -> tuple[Figure, Axes]:
    """A panel with `count` rows, the first on top."""
    row = 0.42 if count <= 20 else 0.26
    figure = new_figure(NARROW, row * max(count, 2) + 1.0)
    axes = figure.subplots()
    axes.set_ylim(count - 0.4, -0.6)
    axes.grid(axis="x", alpha=0.25)
    axes.set_title(title, fontsize=10)
    return figure, axes


def raw_points(
    scores: pd.DataFrame,
    arms: Sequence[str],
    label: str,
    notes: Mapping[str, str] | None = None,
    only: Sequence[str] | None = None,
    intervals: Mapping[str, Interval] | None = None,
) -> Figure:
    """Every score as a point, points of one block joined; below them the mean and its 95 % t interval.

    Args:
        scores: one row a run's block, one column an arm.
        arms: all arms of the sweep, in order.
        label: of the axis, with its unit.
        notes: what to write into the row of an arm (that its runs diverged).
        only: the arms to show; None: all.
        intervals: arm -> what to draw below its points; None: mean and t interval of the points.
    """
    shown = list(arms if only is None else only)
    figure, axes = _rows(len(shown))
    look, mark, names = styles(arms), markers(arms), short_names(arms)
    places = np.arange(len(shown))
    values = scores[shown].to_numpy(float)
    axes.plot(values.T, places, color=GREY, linewidth=0.5, alpha=0.45, zorder=1, rasterized=len(values) > MANY_LINES)
    for place, arm in enumerate(shown):
        column = values[:, place]
        color = look[arm]["color"]
        axes.plot(
            column, np.full(len(column), place), mark[arm], color=color, markersize=4.5, alpha=0.55, zorder=2, mew=0
        )
        _interval(axes, mean_ci(column) if intervals is None else intervals[arm], place + 0.24, color)
        if notes and arm in notes:
            axes.text(
                0.01, place, notes[arm], transform=axes.get_yaxis_transform(), va="center", fontsize=9, color=GREY
            )
    axes.set_yticks(places, [names[arm] for arm in shown])
    axes.set_xlabel(label)
    return figure


def crowded(scores: pd.DataFrame, arms: Sequence[str]) -> list[str]:
    """The arms within a quarter of the range of all scores around the best, where others lie further off."""
    values = scores[list(arms)].to_numpy(float)
    if not np.isfinite(values).any():
        return []
    bound = np.nanmax(values) - (np.nanmax(values) - np.nanmin(values)) / 4
    close = [
        arm for arm, column in zip(arms, values.T, strict=True) if (column > bound).any() and not (column < bound).any()
    ]
    return close if len(close) < len(arms) else []


def _interval(axes: Axes, interval: Interval, place: float, color: str) -> None:
    if np.isfinite(interval.value):
        axes.plot([interval.low, interval.high], [place, place], color=color, linewidth=2, solid_capstyle="butt")
        axes.plot([interval.value], [place], "|", color=color, markersize=10, mew=2)


def paired_differences(
    comparisons: Sequence[Comparison],
    differences: Mapping[tuple[str, str], FloatArray],
    arms: Sequence[str],
    label: str,
) -> Figure:
    """Difference of each block as a point, their mean with its 95 % t interval, the margin and what can be detected.

    Args:
        comparisons: the rows.
        differences: (arm, reference) -> the within-block differences.
        arms: all arms of the sweep, in order.
        label: of the axis, with its unit.
    """
    figure, axes = _rows(len(comparisons))
    look, mark = styles(arms), markers(arms)
    margins = {c.margin for c in comparisons if np.isfinite(c.margin)}
    if margins:
        (margin,) = margins
        axes.axvspan(-margin, margin, color=GREY, alpha=0.15, linewidth=0, label=f"equivalent: within {margin:g}")
    axes.axvline(0, color="k", linewidth=1)
    for place, c in enumerate(comparisons):
        points = differences.get((c.arm, c.reference), np.zeros(0))
        color = look[c.arm]["color"]
        axes.plot(points, np.full(len(points), place), mark[c.arm], color=color, markersize=4.5, alpha=0.55, mew=0)
        axes.plot([c.ci_low, c.ci_high], [place + 0.24] * 2, color=color, linewidth=2, solid_capstyle="butt")
        axes.plot([c.difference], [place + 0.24], "|", color=color, markersize=10, mew=2)
        if np.isfinite(c.mde):
            axes.plot(
                [-c.mde, c.mde],
                [place, place],
                "|",
                color=GREY,
                markersize=7,
                mew=1,
                label="smallest detectable difference",
            )
        if not np.isfinite(c.difference):
            text = "no block has both scores"
            axes.text(0.01, place, text, transform=axes.get_yaxis_transform(), va="center", fontsize=9, color=GREY)
    axes.set_yticks(range(len(comparisons)), _pair_names(comparisons, arms))
    axes.set_xlabel(label)
    legend(figure, axes, 9)
    return figure


def better_share(comparisons: Sequence[Comparison], arms: Sequence[str], gamma: float = 0.75) -> Figure:
    """P(arm is better) with its 95 % interval, beside 1/2 (no difference) and `gamma` (a difference that matters)."""
    figure, axes = _rows(len(comparisons))
    look, mark = styles(arms), markers(arms)
    axes.axvline(0.5, color="k", linewidth=1)
    axes.axvline(gamma, color=GREY, linewidth=1, linestyle="--")
    for place, c in enumerate(comparisons):
        if c.n:
            color = look[c.arm]["color"]
            axes.plot(
                [c.p_better_low, c.p_better_high], [place, place], color=color, linewidth=2, solid_capstyle="butt"
            )
            axes.plot([c.p_better], [place], mark[c.arm], color=color, markersize=6, clip_on=False)
        else:
            text = "no block has both scores"
            axes.text(0.01, place, text, transform=axes.get_yaxis_transform(), va="center", fontsize=9, color=GREY)
    axes.set_yticks(range(len(comparisons)), _pair_names(comparisons, arms))
    axes.set_xlim(-0.02, 1.02)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    axes.set_xlabel(f"P(arm is better on a block), 95 % interval; lines at 1/2 and {gamma:g}")
    return figure


def _pair_names(comparisons: Sequence[Comparison], arms: Sequence[str]) -> list[str]:
    names = short_names(arms)
    return [f"{names[c.arm]} − {names[c.reference]}" for c in comparisons]
