"""Which classes and which examples a net gets wrong."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib import font_manager
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont, ImageOps

from harness.analysis.figure import new_figure

COLUMNS, SIDE, GAP, LETTERS, LINE = 8, 96, 6, 11, 14
"""Of the sheet of mistakes: images in a row, and in pixels their longer side, the gaps, the letters, a line of text."""
CELL = SIDE + 2 * GAP, SIDE + 3 * GAP + 2 * LINE


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
) -> Image.Image:
    """The test images with the largest mean cross-entropy over the runs, with true and most predicted class.

    Args:
        logits: (runs, n, classes).
        images: (n, height, width, channels); one channel is dark on white, of others than three the first is shown.
        labels: (n,).
        names: of the classes.
        count: how many.
    """
    losses = np.mean([cross_entropies(run, labels) for run in logits], axis=0)
    worst = np.argsort(-losses, kind="stable")[:count]
    low, high = float(images.min()), float(images.max())
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), LETTERS)
    sheet = Image.new("RGB", (COLUMNS * CELL[0], -(-len(worst) // COLUMNS) * CELL[1]), "white")
    draw = ImageDraw.Draw(sheet)
    for place, index in enumerate(worst):
        left, top = place % COLUMNS * CELL[0], place // COLUMNS * CELL[1]
        picture = _picture((images[index].astype(float) - low) / max(high - low, 1e-9))
        sheet.paste(picture, (left + (CELL[0] - picture.width) // 2, top + (SIDE - picture.height) // 2 + GAP))
        called = names[int(np.bincount(logits[:, index].argmax(axis=1), minlength=len(names)).argmax())]
        for line, text in enumerate((names[labels[index]], f"called {called}")):
            middle = (left + CELL[0] / 2, top + SIDE + 2 * GAP + line * LINE)
            draw.text(middle, _fitting(text, font), "black", font, anchor="ma")
    return sheet


def _picture(unit: npt.NDArray[np.floating]) -> Image.Image:
    """An image (height, width, channels) in [0, 1], its longer side SIDE, or the next smaller multiple of its own."""
    color = unit.shape[2] == 3
    pixels = np.rint(255 * (unit if color else 1 - unit[..., 0])).astype(np.uint8)
    made, longer = Image.fromarray(pixels), max(pixels.shape[:2])
    if longer > SIDE:
        return ImageOps.contain(made, (SIDE, SIDE))
    return ImageOps.scale(made, SIDE // longer, Image.Resampling.NEAREST)


def _fitting(text: str, font: ImageFont.FreeTypeFont) -> str:
    """The text, cut to the width of a cell."""
    kept = text
    while font.getlength(kept) > CELL[0] - GAP:
        kept = f"{kept.removesuffix('…')[:-1]}…"
    return kept
