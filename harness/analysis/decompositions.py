"""Bias and variance of every arm of a sweep, from its stored test logits, as a table and as figures."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from harness.analysis.bias_variance import decompose
from harness.analysis.blocks import run_grid
from harness.analysis.examples import Arrays
from harness.analysis.figure import GREY, NARROW, WIDTH, legend, logarithmic, new_figure, short_names

PARTS = {"bias2": "bias² (with noise)", "v_data": "data", "v_init": "seed", "v_interaction": "data × seed"}
COLORS = {"bias2": GREY, "v_data": "#0072B2", "v_init": "#E69F00", "v_interaction": "#009E73"}
HATCHES = {"bias2": "", "v_data": "//", "v_init": "..", "v_interaction": "xx"}
MOST_RUNS = 400
"""Runs of an arm that are decomposed at most, so that its logits fit into memory."""


def decompose_arms(
    runs: pd.DataFrame, arms: Sequence[str], predictions: Mapping[str, Arrays], nested: bool = False
) -> pd.DataFrame:
    """One row an arm with at least two finished runs: METHODS' table 2.6, each value with its jackknife error `.se`.

    Beside `arm`, `left_out` (finished runs that do not fit a complete grid of draws x seeds), `error.train` and
    `gap.error` (test - train error, the textbook's view), the columns of `bias_variance.Decomposition.row`. Empty
    where the predictions hold no labels.

    Args:
        runs: one row a run.
        arms: which, in order.
        predictions: run id -> test_logits (N, C), test_labels (N,).
        nested: every draw had seeds of its own.
    """
    rows = []
    for arm in arms:
        found = grid(runs, arm, predictions)
        if found is None:
            continue
        logits, labels, ids = found
        mine = runs[(runs["arm"] == arm) & runs["run_id"].isin(ids.ravel().tolist())]
        train = 1 - float(mine["accuracy/train"].mean()) if "accuracy/train" in mine else np.nan
        row = decompose(logits, labels, nested=nested).row()
        finished = int(((runs["arm"] == arm) & (runs["outcome"] == "finished")).sum())
        lead = {"arm": arm, "left_out": finished - ids.size, "error.train": train}
        rows.append(lead | {"gap.error": float(row["error"]) - train} | row)
    return pd.DataFrame(rows)


def grid(
    runs: pd.DataFrame, arm: str, predictions: Mapping[str, Arrays]
) -> tuple[npt.NDArray[Any], npt.NDArray[np.intp], npt.NDArray[np.object_]] | None:
    """An arm's logits (K, S, N, C), labels (N,) and run ids (K, S); None below two runs or without labels."""
    mine = runs[(runs["arm"] == arm) & runs["run_id"].isin(list(predictions))]
    if len(mine) < 2:
        return None
    _, _, ids = run_grid(mine, arm)
    if not 2 <= ids.size <= MOST_RUNS:
        return None
    some = [predictions[run_id] for run_id in ids.ravel()]
    if not all("test_labels" in arrays for arrays in some):
        return None
    labels = some[0]["test_labels"].astype(np.intp)
    if not all(np.array_equal(arrays["test_labels"], labels) for arrays in some):
        return None
    logits = np.stack([arrays["test_logits"] for arrays in some])
    if not np.isfinite(logits).all():
        return None
    return logits.reshape(*ids.shape, *logits.shape[1:]), labels, ids


_PERCENT = {
    "train error %": "error.train",
    "test error %": "error",
    "gap %": "gap.error",
    "0-1 bias² %": "zero_one.bias2",
    "0-1 data %": "zero_one.v_data",
    "0-1 seed %": "zero_one.v_init",
    "0-1 data × seed %": "zero_one.v_interaction",
    "vote error %": "domingos.bias",
    "ensemble error %, logits": "ensemble_logit_error",
    "ensemble error %, probabilities": "ensemble_prob_error",
}
_PLAIN = {
    "Brier bias²": "brier.bias2",
    "Brier data": "brier.v_data",
    "Brier seed": "brier.v_init",
    "Brier data × seed": "brier.v_interaction",
    "CE bias": "cross_entropy.bias",
    "CE between draws": "cross_entropy.v_between",
    "CE within": "cross_entropy.v_within",
}


def texts(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table as a page shows it, value ± error: errors and the 0-1 loss in %; the Brier score and cross-entropy."""
    percent, plain = [], []
    for _, row in table.iterrows():
        worst = max(abs(row[f"{kind}.check"]) for kind in ("zero_one", "brier", "cross_entropy"))
        head = {"arm": row["arm"], "draws × seeds": f"{row['draws']} × {row['seeds']}"}
        percent.append(head | {name: _plus_minus(row, column, 100, 2) for name, column in _PERCENT.items()})
        cells = {name: _plus_minus(row, column, 1, 3) for name, column in _PLAIN.items()}
        plain.append(head | cells | {"bias + variance − loss": f"{worst:.0e}"})
    one, other = pd.DataFrame(percent), pd.DataFrame(plain)
    return (
        one[[name for name in one if (one[name] != "–").any()]],
        other[[name for name in other if (other[name] != "–").any()]],
    )


def _plus_minus(row: pd.Series, name: str, scale: float, digits: int) -> str:
    value, error = row[name] * scale, row.get(f"{name}.se", np.nan) * scale
    if np.isnan(value):
        return "–"
    return f"{value:.{digits}f}" + ("" if np.isnan(error) else f" ± {error:.{digits}f}")


def stacked_bars(table: pd.DataFrame, arms: Sequence[str]) -> Figure:
    """Bias and the parts of the variance of each arm, for the 0-1 loss (left, points) and the Brier score (right).

    A part that is estimated below zero is drawn as nothing.
    """
    names = short_names(arms)
    shown = list(table["arm"])
    figure = new_figure(WIDTH, 0.36 * max(3, len(shown)) + 1.3)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, kind, scale, unit in (
        (panels[0], "zero_one", 100, "0-1 loss (points)"),
        (panels[1], "brier", 1, "Brier score (0 to 2)"),
    ):
        left = np.zeros(len(shown))
        for part, label in PARTS.items():
            width = scale * table[f"{kind}.{part}"].to_numpy(float)
            if np.isnan(width).all():
                continue
            width = np.clip(np.nan_to_num(width), 0, None)
            axes.barh(
                range(len(shown)),
                width,
                left=left,
                label=label,
                color=COLORS[part],
                hatch=HATCHES[part],
                edgecolor="w",
                linewidth=0,
            )
            left += width
        axes.set_xlabel(unit)
        axes.grid(axis="x", alpha=0.25)
    panels[0].set_yticks(range(len(shown)), [names[arm] for arm in shown])
    panels[0].invert_yaxis()
    legend(figure, panels[0])
    return figure


def swept_values(arms: Sequence[str]) -> list[float] | None:
    """The numbers that tell the arms apart (`arch.widths=[100]` -> 100), or None where it is not one number each."""
    names = short_names(arms)
    try:
        values = [float(names[arm].strip("[] ")) for arm in arms]
    except ValueError:
        return None
    return values if len(set(values)) == len(arms) > 2 else None


def against_value(table: pd.DataFrame, arms: Sequence[str]) -> Figure | None:
    """Brier bias² and variance parts against the swept number, with bands of one jackknife error; None without one."""
    values = swept_values(arms)
    if values is None or len(table) < 3:
        return None
    of = dict(zip(arms, values, strict=True))
    ordered = table.assign(value=[of[arm] for arm in table["arm"]]).sort_values("value")
    figure = new_figure(NARROW, 3.4)
    axes = figure.subplots()
    for part, label in PARTS.items():
        middle, error = (ordered[f"brier.{part}{end}"].to_numpy(float) for end in ("", ".se"))
        if np.isnan(middle).all():
            continue
        axes.plot(ordered["value"], middle, "o-", markersize=4, color=COLORS[part], label=label)
        axes.fill_between(ordered["value"], middle - error, middle + error, color=COLORS[part], alpha=0.2, linewidth=0)
    if ordered["value"].min() > 0 and ordered["value"].max() / ordered["value"].min() > 20:
        logarithmic(axes, "x")
    axes.set_xlabel(arms[0].split(",")[0].partition("=")[0] if "," not in arms[0] else "swept value")
    axes.set_ylabel("part of the Brier score")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    return figure
