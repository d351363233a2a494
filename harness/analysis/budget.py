"""How good the best trial is expected to be after fewer trials of random search (Dodge et al. 2019)."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.analysis.blocks import scores
from harness.analysis.choice import groups
from harness.analysis.figure import NARROW, legend, legend_height, markers, new_figure, short_names, styles
from harness.analysis.selection import expected_best

FEWEST_TRIALS = 6
"""Of a group: below, half of them is too short a curve."""


def is_grid(arms: Sequence[str], tune: Sequence[str]) -> bool:
    """Whether the trials are all combinations of some values of two or more keys: not drawn independently."""
    given = [dict(part.partition("=")[::2] for part in arm.split(",")) for arm in arms]
    values = [sorted({each[key] for each in given if key in each}) for key in tune]
    several = [column for column in values if len(column) > 1]
    seen = {tuple(each.get(key) for key in tune) for each in given}
    return len(several) > 1 and seen == set(product(*values))


def expected_validation(runs: pd.DataFrame, arms: Sequence[str], tune: Sequence[str]) -> pd.DataFrame:
    """Expected best validation accuracy (%) by budget: group, trials, budget, v, u, minutes.

    `v` is Dodge's estimator, biased low, `u` the unbiased one of Tang et al. 2020; `minutes` of training that so many
    trials take on average, all their blocks together. A trial's value is the mean over its blocks, where a run that
    diverged counts 0 %. Groups of fewer than `FEWEST_TRIALS` trials, or with a trial not run, are left out.
    """
    validation = scores(runs, arms, "accuracy/val")
    rows = []
    for group, trials in groups(arms, tune).items():
        mine = runs[runs["arm"].isin(trials)]
        if len(trials) < FEWEST_TRIALS or mine["arm"].nunique() < len(trials):
            continue
        diverged = set(mine.loc[mine["outcome"] == "diverged", "arm"])
        values = [
            float(validation[arm].fillna(0.0).mean() if arm in diverged else validation[arm].mean()) for arm in trials
        ]
        if not np.isfinite(values).all():
            continue
        minutes = float(mine["seconds"].sum()) / 60 / len(trials)
        for budget in range(1, len(trials) + 1):
            v, u = (expected_best(values, budget, estimator) for estimator in ("v", "u"))
            rows.append((group, len(trials), budget, v, u, budget * minutes))
    return pd.DataFrame(rows, columns=["group", "trials", "budget", "v", "u", "minutes"])


def budget_curves(table: pd.DataFrame, group_names: Sequence[str]) -> Figure:
    """`v` against the number of trials, up to half of those run: beyond, the estimate leans on few of them.

    Args:
        table: from `expected_validation`.
        group_names: all groups, in order.
    """
    look, mark, names = styles(group_names), markers(group_names), short_names(group_names)
    figure = new_figure(NARROW, 3.0 + legend_height(len(group_names)))
    axes = figure.subplots()
    for group, mine in table[table["budget"] <= table["trials"] // 2].groupby("group", sort=False):
        name = str(group)
        color, style = look[name]["color"], look[name]["linestyle"]
        axes.plot(mine["budget"], mine["v"], label=names[name], color=color, linestyle=style, marker=mark[name])
    axes.set_xlabel("trials")
    axes.set_ylabel("expected best validation accuracy (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    legend(figure, axes)
    return figure
