"""Figures. One colour means one arm in all of them; the colours are told apart by colour-blind readers."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from harness.analysis.stats import mean_ci
from harness.bins import EDGES

Floats = npt.NDArray[np.floating]
Histogram = tuple[npt.NDArray[np.generic], list[str], Floats]
"""Steps (T,), names (A) of `<layer>/<array>`, shares (T, A, 245)."""

# Okabe and Ito 2008, then the same with other line styles.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D1F")
STYLES = ("-", "--", ":", "-.")


def styles(arms: Sequence[str]) -> dict[str, dict[str, str]]:
    """Arm -> colour and line style, by its place among all arms of the sweep."""
    return {
        arm: {"color": COLORS[i % len(COLORS)], "linestyle": STYLES[(i // len(COLORS)) % len(STYLES)]}
        for i, arm in enumerate(arms)
    }


def new_figure(width: float, height: float) -> Figure:
    """A figure of its own, in inches: no global state, so that any thread may draw."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png(figure: Figure) -> bytes:
    """The figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def svg(figure: Figure) -> str:
    """The figure as an SVG element, the same bytes for the same figure."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def learning_curves(curves: pd.DataFrame, arms: Sequence[str]) -> Figure:
    """Loss and accuracy on train (dashed when alone) and test against the step: mean, 95 % t band, every run faint.

    Args:
        curves: run_id, arm, step, metric, value.
        arms: all arms of the sweep, in order; with one arm train, val and test share a panel.
    """
    figure = new_figure(9, 3.6)
    left, right = figure.subplots(1, 2)
    look = styles(arms)
    for axes, score, unit in ((left, "loss", "cross-entropy (nats)"), (right, "accuracy", "accuracy")):
        if len(arms) == 1:
            for part, color in zip(("train", "val", "test"), COLORS, strict=False):
                _band(axes, curves, f"{score}/{part}", part, {"color": color, "linestyle": "-"})
        else:
            for arm in arms:
                _band(axes, curves[curves["arm"] == arm], f"{score}/test", arm, look[arm])
        axes.set(xlabel="training step", ylabel=f"{'' if len(arms) == 1 else 'test '}{unit}")
    values = curves.loc[curves["metric"].str.startswith("loss/"), "value"]
    if len(values) and values.max() > 20 * max(values.min(), 1e-3):
        left.set_yscale("log")
    right.legend(fontsize="small", framealpha=0.6)
    return figure


def _band(axes: Axes, curves: pd.DataFrame, metric: str, label: str, look: Mapping[str, str]) -> None:
    table = curves[curves["metric"] == metric].pivot(index="step", columns="run_id", values="value")
    if table.empty:
        return
    axes.plot(table.index, table.to_numpy(), linewidth=0.6, alpha=0.3, **look)  # type: ignore[arg-type]
    intervals = [mean_ci(row) for row in table.to_numpy()]
    axes.plot(table.index, [i.value for i in intervals], label=label, linewidth=1.6, **look)  # type: ignore[arg-type]
    low, high = [i.low for i in intervals], [i.high for i in intervals]
    axes.fill_between(table.index, low, high, alpha=0.18, color=look["color"], linewidth=0)


def histograms(by_arm: Mapping[str, Histogram], arrays: Sequence[str] = ("pre_activation", "activation")) -> Figure:
    """Layers (blocks of rows) by steps (rows, downward), values on a symmetric logarithmic axis; arms side by side.

    Darker is a larger share of the values, on a logarithmic scale. With one arm each array has a panel.
    """
    panels = (
        [(arm, array) for arm in by_arm for array in arrays]
        if len(by_arm) == 1
        else [(arm, arrays[0]) for arm in by_arm]
    )
    blocks = {panel: _blocks(by_arm[panel[0]], panel[1]) for panel in panels}
    seen = np.concatenate([np.nan_to_num(image).sum(axis=0)[None] for image, _, _ in blocks.values()]).sum(axis=0)
    used = np.nonzero(seen)[0]
    first, last = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, len(seen))
    rows = max(len(image) for image, _, _ in blocks.values())
    figure = new_figure(max(6.0, 2.6 * len(panels) + 1.2), 0.9 + 0.055 * rows)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for position, (panel, each) in enumerate(zip(panels, axes, strict=True)):
        image, centres, names = blocks[panel]
        each.imshow(
            np.where(image > 0, image, np.nan)[:, first:last],
            aspect="auto",
            interpolation="nearest",
            cmap="viridis_r",
            norm=LogNorm(1e-4, 1),
        )
        each.set_title(panel[1].replace("_", "-") if len(by_arm) == 1 else panel[0].rpartition("=")[2], fontsize=9)
        each.set_yticks(centres, names if position == 0 or len(by_arm) == 1 else [""] * len(names), fontsize=8)
        ticks = [(place, text) for place, text in _value_ticks() if first <= place < last]
        each.set_xticks([place - first for place, _ in ticks], [text for _, text in ticks], fontsize=7)
        each.set_xlabel("value", fontsize=8)
    kind = "" if len(by_arm) == 1 else arrays[0].replace("_", "-") + "s; "
    axes[0].set_ylabel(f"{kind}layer, within it steps downward", fontsize=8)
    return figure


def _blocks(histogram: Histogram, array: str) -> tuple[Floats, list[float], list[str]]:
    """The layers' (T, 245) shares below each other with an empty row between; block centres and layer names."""
    steps, names, shares = histogram
    chosen = [a for a, name in enumerate(names) if name.endswith(f"/{array}")]
    gap = np.full((1, shares.shape[-1] if shares.size else len(EDGES) + 1), np.nan)
    rows: list[Floats] = []
    for a in chosen:
        rows += [shares[:, a], gap]
    centres = [position * (len(steps) + 1) + (len(steps) - 1) / 2 for position in range(len(chosen))]
    return np.concatenate(rows) if rows else gap, centres, [names[a].rpartition("/")[0] for a in chosen]


def _value_ticks() -> list[tuple[int, str]]:
    """Bin positions of powers of ten, with their labels."""
    wanted = {
        -1e4: "-10⁴",
        -1e2: "-10²",
        -1.0: "-1",
        -1e-2: "-.01",
        1e-2: ".01",
        1.0: "1",
        1e2: "10²",
        1e4: "10⁴",
    }
    ticks = [(int(np.abs(EDGES - value).argmin()), text) for value, text in wanted.items()]
    return [*ticks, (int(np.searchsorted(EDGES, 0.0)) + 1, "0")]


def confusion_matrix(
    predicted: npt.NDArray[np.integer], labels: npt.NDArray[np.integer], names: Sequence[str]
) -> Figure:
    """Share of each true class (row, %) that was called what (column), over all runs.

    Args:
        predicted: (runs, n) classes.
        labels: (n,) true classes.
        names: of the classes.
    """
    classes = len(names)
    pairs = np.broadcast_to(labels, predicted.shape).ravel() * classes + predicted.ravel()
    matrix = np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    share = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    figure = new_figure(5.5, 5)
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    axes.set(xlabel="predicted", ylabel="true", title=f"% of the true class, {len(predicted)} runs")
    if classes <= 20:
        axes.set_xticks(range(classes), names, rotation=90 if max(map(len, names)) > 2 else 0, fontsize=8)
        axes.set_yticks(range(classes), names, fontsize=8)
        for row, column in zip(*np.nonzero(share >= 0.05), strict=True):
            dark = share[row, column] > 50
            axes.text(
                column,
                row,
                f"{share[row, column]:.1f}",
                ha="center",
                va="center",
                fontsize=6,
                color="w" if dark else "k",
            )
    return figure


def worst_mistakes(
    logits: npt.NDArray[np.floating],
    images: npt.NDArray[np.generic],
    labels: npt.NDArray[np.integer],
    names: Sequence[str],
    count: int = 24,
) -> Figure:
    """The test images with the largest mean cross-entropy over the runs, with true and most predicted class.

    Args:
        logits: (runs, n, classes).
        images: (n, height, width, channels).
        labels: (n,).
        names: of the classes.
        count: how many.
    """
    wide = logits.astype(float)
    peak = wide.max(axis=2, keepdims=True)
    losses = (peak[..., 0] + np.log(np.exp(wide - peak).sum(axis=2)) - wide[:, np.arange(len(labels)), labels]).mean(
        axis=0
    )
    worst = np.argsort(-losses, kind="stable")[:count]
    columns = 8
    rows = -(-len(worst) // columns)
    height, width = images.shape[1:3]
    pad = max(1, height // 4)
    # One mosaic in one pair of axes: an axes an image would take ten times as long to draw.
    mosaic = np.full((rows * (height + pad), columns * (width + 1), images.shape[3]), np.nan)
    figure = new_figure(9, 1.35 * rows)
    axes = figure.subplots()
    low, high = float(images.min()), float(images.max())
    for place, index in enumerate(worst):
        top, left = place // columns * (height + pad), place % columns * (width + 1)
        mosaic[top : top + height, left : left + width] = (images[index].astype(float) - low) / max(high - low, 1e-9)
        votes = np.bincount(wide[:, index].argmax(axis=1), minlength=len(names))
        text = f"{names[labels[index]]}, called {names[int(votes.argmax())]}"
        axes.text(left + width / 2, top + height + pad * 0.4, text, ha="center", va="center", fontsize=6)
    if mosaic.shape[2] in (3, 4):
        axes.imshow(np.where(np.isnan(mosaic), 1.0, mosaic))
    else:
        axes.imshow(mosaic[..., 0], cmap="gray_r", vmin=0, vmax=1)
    axes.set_axis_off()
    return figure
