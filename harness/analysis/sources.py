"""Where the spread of the test accuracy comes from: data, seeds, and what no seed would remove."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from harness.analysis.blocks import is_crossed, run_grid
from harness.analysis.examples import Examples
from harness.analysis.figure import GREY, NARROW, legend, new_figure, short_names
from harness.analysis.stats import FloatArray, spread

COLUMNS = ("all", "data", "seed", "data x seed", "floor")
_LOOK = {
    "all": ("#000000", "all sources"),
    "data": ("#0072B2", "data draw"),
    "seed": ("#E69F00", "seed"),
    "data x seed": ("#009E73", "data draw × seed"),
    "floor": (GREY, "floor: independent errors"),
}


def components(table: FloatArray) -> tuple[float, float, float]:
    """Unbiased variances of draws, seeds and their interaction from scores[K, S]; NaN below 2 x 2."""
    draws, seeds = table.shape
    if draws < 2 or seeds < 2:
        return np.nan, np.nan, np.nan
    by_draw, by_seed, grand = table.mean(axis=1), table.mean(axis=0), table.mean()
    rest = table - by_draw[:, None] - by_seed + grand
    interaction = float((rest**2).sum()) / ((draws - 1) * (seeds - 1))
    return (
        float(by_draw.var(ddof=1)) - interaction / seeds,
        float(by_seed.var(ddof=1)) - interaction / draws,
        interaction,
    )


def sources(runs: pd.DataFrame, arms: Sequence[str], examples: Examples | None = None) -> pd.DataFrame:
    """Standard deviation of the test accuracy (points) by source: arm, n, all, data, seed, data x seed, floor.

    `data` and the two after it need crossed draws and seeds; a variance estimated below zero gives 0. `floor` is what
    independent errors on this test set would give (F16), and needs `examples`.
    """
    rows = []
    crossed = is_crossed(runs)
    for arm in arms:
        mine = runs[(runs["arm"] == arm) & (runs["outcome"] == "finished")]
        if len(mine) < 2 or "accuracy/test" not in mine:
            continue
        accuracy = dict(zip(mine["run_id"], 100 * mine["accuracy/test"].to_numpy(np.float64), strict=True))
        parts = (np.nan, np.nan, np.nan)
        total = spread(np.array(list(accuracy.values())))
        if crossed:
            _, _, ids = run_grid(runs, arm)
            parts = components(np.array([accuracy[run_id] for run_id in ids.ravel()]).reshape(ids.shape))
            total = float(np.sqrt(max(0.0, sum(parts)))) if np.isfinite(parts).all() else total
        root = [float(np.sqrt(max(0.0, part))) if np.isfinite(part) else np.nan for part in parts]
        floor = 100 * examples.spread(arm).floor if examples else np.nan
        rows.append((arm, len(mine), total, *root, floor))
    return pd.DataFrame(rows, columns=["arm", "n", *COLUMNS])


def source_bars(table: pd.DataFrame, arms: Sequence[str]) -> Figure:
    """A group of bars an arm: the standard deviation that each source leaves in the test accuracy."""
    names = short_names(arms)
    kinds = [kind for kind in COLUMNS if table[kind].notna().any()]
    height = 0.8 / len(kinds)
    figure = new_figure(NARROW, 0.2 * len(kinds) * len(table) + 1.4)
    axes = figure.subplots()
    for position, kind in enumerate(kinds):
        color, label = _LOOK[kind]
        places = np.arange(len(table)) + (position - (len(kinds) - 1) / 2) * height
        axes.barh(places, table[kind], height * 0.9, color=color, label=label)
    axes.set_yticks(range(len(table)), [names[arm] for arm in table["arm"]])
    axes.invert_yaxis()
    axes.set_xlabel("standard deviation of the test accuracy (points)")
    axes.grid(axis="x", alpha=0.25)
    legend(figure, axes, 8)
    return figure


def randomised(runs: pd.DataFrame) -> dict[str, str]:
    """Stream -> "varied", "fixed" or "not used" in these runs."""
    found = {}
    for stream in ("draw", "init", "order", "augment", "dropout"):
        column = f"seed.{stream}"
        if column not in runs:
            continue
        varied = runs[column].nunique() > 1
        found[stream] = "varied" if varied else "fixed"
        if (stream == "augment" and _all(runs, "augment.layers", ("[]",))) or (
            stream == "dropout"
            and _all(runs, "regularizer.dropout", ("0.0", "0"))
            and _all(runs, "arch.dropout", ("0.0", "0", "nan"))
        ):
            found[stream] = "not used"
    return found


def _all(runs: pd.DataFrame, column: str, values: tuple[str, ...]) -> bool:
    return column not in runs or bool(runs[column].astype(str).isin(values).all())
