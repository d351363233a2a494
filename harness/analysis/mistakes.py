"""Which classes and which examples a net gets wrong."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from harness.analysis.figure import WIDTH, new_figure


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
            color = "w" if share[row, column] > 50 else "k"
            text = f"{share[row, column]:.1f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=6, color=color)
    return figure


def cross_entropies(logits: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """Cross-entropy (..., n) in nats of logits (..., n, classes) for labels (n,)."""
    wide = logits.astype(np.float64)
    peak = wide.max(axis=-1)
    total: npt.NDArray[np.float64] = peak + np.log(np.exp(wide - peak[..., None]).sum(axis=-1))
    return total - wide[..., np.arange(len(labels)), labels]


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
    losses = np.mean([cross_entropies(run, labels) for run in logits], axis=0)
    worst = np.argsort(-losses, kind="stable")[:count]
    columns = 8
    rows = -(-len(worst) // columns)
    height, width = images.shape[1:3]
    pad = max(1, height // 4)
    # One mosaic in one pair of axes: an axes an image would take ten times as long to draw.
    mosaic = np.full((rows * (height + pad), columns * (width + 1), images.shape[3]), np.nan)
    figure = new_figure(WIDTH, 1.35 * rows)
    axes = figure.subplots()
    low, high = float(images.min()), float(images.max())
    for place, index in enumerate(worst):
        top, left = place // columns * (height + pad), place % columns * (width + 1)
        mosaic[top : top + height, left : left + width] = (images[index].astype(float) - low) / max(high - low, 1e-9)
        votes = np.bincount(logits[:, index].argmax(axis=1), minlength=len(names))
        text = f"{names[labels[index]]}, called {names[int(votes.argmax())]}"
        axes.text(left + width / 2, top + height + pad * 0.4, text, ha="center", va="center", fontsize=6)
    if mosaic.shape[2] in (3, 4):
        axes.imshow(np.where(np.isnan(mosaic), 1.0, mosaic))
    else:
        axes.imshow(mosaic[..., 0], cmap="gray_r", vmin=0, vmax=1)
    axes.set_axis_off()
    return figure
