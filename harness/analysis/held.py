"""Sources of chance one at a time: arms that vary some random streams and hold the others (`vary=[init]`)."""

from collections.abc import Sequence
from math import sqrt

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import special

from harness.analysis.examples import Examples
from harness.analysis.figure import NARROW, new_figure, short_names, styles
from harness.analysis.sources import randomised
from harness.analysis.stats import spread

COLUMNS = ("arm", "varied", "n", "mean", "sd", "low", "high", "floor")


def sd_interval(sd: float, n: int, alpha: float = 0.05) -> tuple[float, float]:
    """Confidence interval of a standard deviation of n normal scores, from the chi-square of its square."""
    if n < 2 or not np.isfinite(sd):
        return np.nan, np.nan
    ends = 2 * special.gammaincinv((n - 1) / 2, [1 - alpha / 2, alpha / 2])  # quantiles of chi-square
    return sd * sqrt((n - 1) / ends[0]), sd * sqrt((n - 1) / ends[1])


def one_at_a_time(runs: pd.DataFrame, arms: Sequence[str], examples: Examples | None = None) -> pd.DataFrame:
    """One row an arm: the streams it varies, and the sd of its test accuracy over runs (points) with its interval.

    `varied` joins the streams by " + " and is "nothing" where all are held: what is left is numerics. `floor` is the sd
    that independent errors on this test set would give. Empty unless some arm holds a stream.
    """
    if "vary" not in runs or (runs["vary"].astype(str).isin(("None", "nan", ""))).all() or "accuracy/test" not in runs:
        return pd.DataFrame(columns=list(COLUMNS))
    rows = []
    for arm in arms:
        mine = runs[(runs["arm"] == arm) & (runs["outcome"] == "finished")]
        accuracy = 100 * mine["accuracy/test"].dropna().to_numpy(np.float64)
        if len(accuracy) < 2:
            continue
        varied = [stream for stream, state in randomised(mine).items() if state == "varied"]
        sd = spread(accuracy)
        floor = 100 * examples.spread(arm).floor if examples else np.nan
        interval = sd_interval(sd, len(accuracy))
        rows.append((arm, " + ".join(varied) or "nothing", len(accuracy), float(accuracy.mean()), sd, *interval, floor))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def source_sds(table: pd.DataFrame, arms: Sequence[str]) -> Figure:
    """A bar an arm: its sd with its 95 % interval, and the floor as a tick (Bouthillier et al. 2021, figure 1).

    Args:
        table: from `one_at_a_time`.
        arms: all arms of the sweep, in order.
    """
    look, names = styles(arms), short_names(arms)
    figure = new_figure(NARROW, 0.42 * max(2, len(table)) + 0.9)
    axes = figure.subplots()
    places = np.arange(len(table))
    axes.barh(places, table["sd"], 0.6, color=[look[arm]["color"] for arm in table["arm"]], alpha=0.5)
    error = np.abs(table[["low", "high"]].to_numpy().T - table["sd"].to_numpy())
    axes.errorbar(table["sd"], places, xerr=error, fmt="none", ecolor="k", elinewidth=1, capsize=3)
    axes.plot(table["floor"], places, "|", color="k", markersize=14, markeredgewidth=2)
    axes.set_yticks(places, [names[arm] for arm in table["arm"]])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("standard deviation of the test accuracy (points)")
    axes.grid(axis="x", alpha=0.25)
    return figure
