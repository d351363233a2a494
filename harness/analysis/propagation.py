"""The signal at step 0, forward and back: what each layer measures against what its initializer makes expect."""

from collections.abc import Mapping, Sequence
from math import isfinite, nan, sqrt
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.interpolate import PchipInterpolator

from harness.analysis.figure import (
    GREY,
    WIDTH,
    legend,
    legend_height,
    logarithmic,
    markers,
    new_figure,
    short_names,
    styles,
)
from harness.analysis.layout import WeightedLayer
from harness.analysis.stats import FloatArray
from harness.analysis.theory import initial_cross_entropy, preactivation_moments, weight_mean, weight_variance

SPREADS = 4
"""A layer is off when its ratio is further from 1 than this many standard errors."""
UNIFORM_MAP = 0.25
"""Allowance for a convolution whose input is known only by its mean square, not map by map."""
SATURATED = 0.5
INPUT_SUM = "input_square_sum"
"""Moment of a pre-activation: the squared inputs under the window, summed, mean over batch and positions."""


def initializer_of(config: Mapping[str, Any], layer: WeightedLayer) -> tuple[str, dict[str, float | str | None]]:
    """Class name and arguments of a layer's initializer, from a run's config columns; NaN and None are no value."""

    def spec(role: str) -> dict[str, Any]:
        prefix = f"initializer.{role}."
        found = {str(key).removeprefix(prefix): value for key, value in config.items() if str(key).startswith(prefix)}
        return {k: v for k, v in found.items() if isinstance(v, str) and v != "None"}

    kind = spec("dense" if len(layer.kernel) == 2 else "conv")
    chosen = (spec("output") if layer.name == "logits" else {}) or kind or spec("default")
    name = str(chosen.pop("_target_", "")).rpartition(".")[2]
    return name, {key: _number(value) for key, value in chosen.items()}


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def expected_moment(layer: WeightedLayer, variance: float, input_moment: float, input_sum: float = nan) -> float:
    """E z^2 given the measured input: its summed squares under the window, or else its mean square alone.

    With the mean square alone, exact for a dense layer; for a convolution the input's map is taken as uniform.
    """
    if isfinite(input_sum):
        return variance * input_sum
    if not isfinite(input_moment):
        return nan
    if len(layer.kernel) == 2:
        return variance * layer.kernel[0] * input_moment
    squares = np.full(layer.reads[:-1], layer.reads[-1] * input_moment)
    return float(preactivation_moments(squares, layer.with_variance(variance)).mean())


def step_zero(
    layers: pd.DataFrame, runs: pd.DataFrame, arms: Sequence[str], nets: Mapping[str, Sequence[WeightedLayer]]
) -> pd.DataFrame:
    """One row an arm and layer: measured and expected second moment of its pre-activations, and its health.

    Columns: arm, layer, runs, measured, expected, ratio (mean over runs), scatter (of one run's ratio, at most),
    dead and saturated (shares of the units), verdict: "", "off", "dead", "saturated", "gradient off", several joined by
    a comma. Of the signal on its way back: error (mean square of the loss gradient at the pre-activations, of one
    example), back (mean square of the gradient that the layer hands to its input over what is expected given `error`,
    mean over runs), back_scatter (of one run's, at most); NaN where they are not stored, as for the first layer.

    Args:
        layers: run_id, arm, step, layer, array, moment, value, as stored.
        runs: run_id, arm, config columns.
        arms: which, in order.
        nets: arm -> its weighted layers; without them nothing is expected.
    """
    first = layers[layers["step"] == 0]
    wide = first.pivot_table(index=["arm", "run_id", "layer"], columns=["array", "moment"], values="value")
    rows = []
    for arm in arms:
        if arm not in wide.index.get_level_values("arm"):
            continue
        mine = pd.DataFrame(wide.loc[arm])
        known = {net.name: net for net in nets.get(arm, ())}
        config = {str(key): value for key, value in runs[runs["arm"] == arm].iloc[0].items()}
        order = list(dict.fromkeys(first.loc[first["arm"] == arm, "layer"]))
        for name in order:
            here = pd.DataFrame(mine.xs(name, level="layer"))
            measured = _column(here, "pre_activation", "mean_square")
            if not np.isfinite(measured).any():
                continue
            expected, exact = np.full(len(here), nan), True
            back = np.full(len(here), nan)
            if (net := known.get(name)) is not None:
                expected, exact = _expected(net, config, mine, here.index)
                back = _backward(here, _variance(net, config))
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = float(np.mean(measured / expected))
            scatter = sqrt(2 / net.width) if net is not None else nan
            row = {
                "arm": arm,
                "layer": name,
                "runs": len(here),
                "measured": float(measured.mean()),
                "expected": float(expected.mean()),
                "ratio": ratio,
                "scatter": scatter,
                "dead": float(_column(here, "activation", "dead").mean()),
                "saturated": float(_column(here, "activation", "saturated").mean()),
                "error": float(_column(here, "pre_activation", "error_mean_square").mean()),
                "back": float(back.mean()),
                "back_scatter": sqrt(2 / net.kernel[-2]) if net is not None and np.isfinite(back).all() else nan,
            }
            allowed = SPREADS * scatter / sqrt(len(here)) + (0 if exact else UNIFORM_MAP)
            rows.append(row | {"verdict": _health(row, allowed)})
    return pd.DataFrame(rows)


def _column(frame: pd.DataFrame, array: str, moment: str) -> FloatArray:
    if (array, moment) in frame:
        return frame[(array, moment)].to_numpy(np.float64)
    return np.full(len(frame), nan)


def _variance(net: WeightedLayer, config: Mapping[str, Any]) -> float:
    """Var[w] of a layer's kernel at the start; NaN where the initializer is not known here, or its mean is not zero."""
    name, arguments = initializer_of(config, net)
    try:
        return nan if weight_mean(name, **arguments) else weight_variance(name, net.kernel, **arguments)
    except ValueError:
        return nan


def _backward(layer: pd.DataFrame, variance: float) -> FloatArray:
    """Mean square of the gradient at the layer's input in each run, over what the error at its output makes expect."""
    handed = _column(layer, "pre_activation", "input_error_mean_square")
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: FloatArray = handed / (variance * _column(layer, "pre_activation", "error_square_sum"))
    return ratio


def _expected(
    net: WeightedLayer, config: Mapping[str, Any], arm: pd.DataFrame, run_ids: pd.Index
) -> tuple[FloatArray, bool]:
    """E z^2 of each run given its measured input, and whether that is exact."""
    variance = _variance(net, config)
    if not isfinite(variance):
        return np.full(len(run_ids), nan), True
    here = pd.DataFrame(arm.xs(net.name, level="layer")).reindex(run_ids)
    sums = _column(here, "pre_activation", INPUT_SUM)
    inputs = np.full(len(run_ids), nan)
    if net.source == "input":
        # Standardized examples have a mean square of 1 over the training set, up to the probe's choice of them.
        inputs[:] = 1.0 if str(config.get("preprocess._target_", "")).endswith("standardize") else nan
    elif net.source is not None and net.source in arm.index.get_level_values("layer"):
        source = pd.DataFrame(arm.xs(net.source, level="layer")).reindex(run_ids)
        inputs = _column(source, "activation", "mean_square")
    found = [expected_moment(net, variance, m2, total) for m2, total in zip(inputs, sums, strict=True)]
    exact = bool(np.isfinite(sums).all()) or (len(net.kernel) == 2 and net.source != "input")
    return np.array(found), exact


def _health(row: Mapping[str, Any], allowed: float) -> str:
    words = []
    if isfinite(row["ratio"]) and abs(row["ratio"] - 1) > allowed:
        words.append("off")
    if isfinite(row["back"]) and abs(row["back"] - 1) > SPREADS * row["back_scatter"] / sqrt(row["runs"]):
        words.append("gradient off")
    if row["dead"] == 1:
        words.append("dead")
    if row["saturated"] > SATURATED:
        words.append("saturated")
    return ", ".join(words)


def first_losses(layers: pd.DataFrame, curves: pd.DataFrame, arms: Sequence[str], classes: int) -> pd.DataFrame:
    """Loss before training (nats, on the training examples): measured, and expected of logits that are N(0, q).

    q is the measured mean square of the logits.
    """
    start = layers[(layers["step"] == 0) & (layers["layer"] == "logits") & (layers["moment"] == "mean_square")]
    start = start[start["array"] == "pre_activation"]
    losses = curves[(curves["step"] == 0) & (curves["metric"] == "loss/train")]
    rows, every = [], []
    for arm in arms:
        q = start.loc[start["arm"] == arm, "value"].to_numpy(np.float64)
        measured = losses.loc[losses["arm"] == arm, "value"].to_numpy(np.float64)
        if len(q) and len(measured) and np.isfinite(q).all():
            rows.append({"arm": arm, "q": float(q.mean()), "measured": float(measured.mean())})
            every.append(q)
    table = pd.DataFrame(rows, columns=["arm", "q", "measured"])
    if not rows:
        return table.assign(expected=[])
    expected = _cross_entropy(np.concatenate(every), classes)
    ends = np.cumsum([len(q) for q in every])[:-1]
    return table.assign(expected=[float(part.mean()) for part in np.split(expected, ends)])


def _cross_entropy(q: FloatArray, classes: int) -> FloatArray:
    """`initial_cross_entropy` of many q >= 0, each integral being slow: between 4 nodes a decade, and its limits."""
    low, high = 1e-3, 1e4
    inside = np.clip(q, low, high)
    first, last = np.floor(4 * np.log10(inside.min())), np.ceil(4 * np.log10(inside.max()))
    nodes = np.arange(first - 1, last + 2) / 4
    at_nodes = [initial_cross_entropy(10.0**node, classes) for node in nodes]
    found = PchipInterpolator(nodes, at_nodes)(np.log10(inside))
    small = np.log(classes) + q / 2 * (1 - 1 / classes)
    expected: FloatArray = np.where(q < low, small, found * np.sqrt(q / inside))
    return expected


_FORWARD = (
    "measured",
    "ratio",
    "scatter",
    "root mean square of the pre-activations",
    "mean square: measured / expected",
)
_BACK = ("error", "back", "back_scatter", "root mean square of dL/dz", "handed back: measured / expected")


def signal_figure(table: pd.DataFrame, arms: Sequence[str]) -> Figure:
    """Left: root mean square of the pre-activations by layer. Right: measured over expected, with its scatter.

    Args:
        table: from `step_zero`.
        arms: all arms of the sweep, in order.
    """
    return _signal(table, arms, *_FORWARD)


def gradient_figure(table: pd.DataFrame, arms: Sequence[str]) -> Figure:
    """The same of the loss gradient at the pre-activations, and of what each layer hands back to its input."""
    return _signal(table[table["error"].notna()], arms, *_BACK)


def _signal(
    table: pd.DataFrame, arms: Sequence[str], value: str, ratio: str, scatter: str, label: str, compared_label: str
) -> Figure:
    layers = list(dict.fromkeys(table["layer"]))
    place = {layer: i for i, layer in enumerate(layers)}
    figure = new_figure(WIDTH, 3.7 + legend_height(len(arms)))
    compared = bool(table[ratio].notna().any())
    panels = figure.subplots(1, 2 if compared else 1, squeeze=False)[0]
    look, mark, names = styles(arms), markers(arms), short_names(arms)
    shown = [arm for arm in arms if (table["arm"] == arm).any()]
    for number, arm in enumerate(shown):
        mine = table[table["arm"] == arm]
        x = np.array([place[layer] for layer in mine["layer"]])
        style = {"marker": mark[arm], "markersize": 4.5, "linewidth": 1.3}
        panels[0].plot(x, np.sqrt(mine[value]), label=names[arm], **look[arm], **style)
        if compared:
            shift = (number / max(1, len(shown) - 1) - 0.5) * 0.6 if len(shown) > 1 else 0.0
            error = mine[scatter] / np.sqrt(mine["runs"])
            panels[1].errorbar(
                x + shift,
                mine[ratio],
                yerr=error,
                fmt=mark[arm],
                color=look[arm]["color"],
                markersize=4.5,
                linewidth=1.3,
            )
    logarithmic(panels[0], "y")
    panels[0].set_ylabel(label)
    if compared:
        panels[1].axhline(1, color="k", linewidth=1, zorder=0)
        panels[1].set_ylabel(compared_label)
        low, high = table[ratio].min(), table[ratio].max()
        if low > 0 and high / low > 10:
            logarithmic(panels[1], "y")
    for axes in panels:
        axes.set_xticks(range(len(layers)), layers, rotation=0 if len("".join(layers)) < 40 else 45, fontsize=9)
        axes.grid(axis="y", alpha=0.25)
        axes.set_xlim(-0.5, len(layers) - 0.5)
        for edge in range(len(layers) - 1):
            axes.axvline(edge + 0.5, color=GREY, linewidth=0.5, alpha=0.4)
    legend(figure, panels[0])
    return figure
