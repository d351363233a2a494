"""What all figures share: one colour for one arm everywhere, told apart by colour-blind readers."""

import io
from collections.abc import Sequence
from typing import Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation
from PIL import Image

# Okabe and Ito 2008, with a dark wine for its yellow, too faint on white. Neighbours also differ in line style.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#882255")
STYLES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D")
GREY = "#767676"
MOST_KEYED = len(COLORS) * len(MARKERS)
WIDTH = 9.0
"""Inches of a figure with panels side by side; a page shows it at 864 pixels and lets it scroll on a phone."""
NARROW = 6.4
"""Inches of a figure that a phone shows whole."""


def styles(arms: Sequence[str]) -> dict[str, dict[str, str]]:
    """Arm -> colour and line style, by its place among all arms of the sweep."""
    return {
        arm: {"color": COLORS[i % len(COLORS)], "linestyle": STYLES[2 * ((i // len(COLORS)) % 2) + i % 2]}
        for i, arm in enumerate(arms)
    }


def markers(arms: Sequence[str]) -> dict[str, str]:
    """Arm -> marker: it changes where the colours begin again."""
    return {arm: MARKERS[(i // len(COLORS)) % len(MARKERS)] for i, arm in enumerate(arms)}


def short_names(arms: Sequence[str]) -> dict[str, str]:
    """Arm -> its name without what all arms say alike: `initializer=he` -> `he` where every arm has one initializer."""
    parts = {arm: [piece.partition("=") for piece in arm.split(",")] for arm in arms}
    keys = {tuple(key for key, _, _ in pieces) for pieces in parts.values()}
    if len(keys) != 1 or any(not value for pieces in parts.values() for _, _, value in pieces):
        return {arm: arm for arm in arms}
    values = [[value for _, _, value in pieces] for pieces in parts.values()]
    varies = [len(set(column)) > 1 for column in zip(*values, strict=True)]
    short = {
        arm: ", ".join(value for value, kept in zip(row, varies, strict=True) if kept) or arm
        for arm, row in zip(arms, values, strict=True)
    }
    return short if len(set(short.values())) == len(arms) else {arm: arm for arm in arms}


def new_figure(width: float, height: float) -> Figure:
    """A figure of its own, in inches: no global state, so that any thread may draw."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


class _PlainLog(LogFormatterSciNotation):
    """0.02, 30 and 2×10⁻⁵ as plain text: mathematical text took a third of a report's time."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        if not super().__call__(x, pos):  # one of those that are left out
            return ""
        digits, _, power = f"{x:.3g}".partition("e")
        return f"{digits}×10{str(int(power)).translate(_RAISED)}".removeprefix("1×") if power else digits


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def logarithmic(axes: Axes, which: Literal["x", "y"]) -> None:
    """Have an axis logarithmic, its numbers plain text."""
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(_PlainLog())
    axis.set_minor_formatter(_PlainLog())


def legend_height(entries: int, columns: int = 4) -> float:
    """Inches that `legend` takes above the panels."""
    return 0.0 if entries > MOST_KEYED else 0.25 * -(-entries // columns) + 0.1


def legend(figure: Figure, axes: Axes, size: float = 10) -> None:
    """A legend above all panels, an entry a label; none where colours, styles and markers would begin again.

    Long labels have fewer columns, for which the figure grows.
    """
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    if 0 < len(unique) <= MOST_KEYED:
        entry = 0.6 + 0.6 * size / 72 * max(map(len, unique))  # inches: the line, and letters of about 0.6 of the size
        columns = max(1, min(4, len(unique), int(figure.get_figwidth() / entry)))
        more = legend_height(len(unique), columns) - legend_height(len(unique))
        figure.set_figheight(figure.get_figheight() + more)
        figure.legend(
            unique.values(), unique.keys(), loc="outside upper center", ncols=columns, frameon=False, fontsize=size
        )


def png(figure: Figure | Image.Image) -> bytes:
    """The figure or picture as PNG."""
    buffer = io.BytesIO()
    packed = {"compress_level": 1}  # of a small figure, compressing took a tenth of the drawing's time
    if isinstance(figure, Image.Image):
        figure.save(buffer, "PNG", **packed)
        return buffer.getvalue()
    figure.set_dpi(100)
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    with matplotlib.rc_context({"text.hinting": "no_hinting"}):  # it took another tenth, and looks the same
        canvas.print_png(buffer, pil_kwargs=packed)  # type: ignore[no-untyped-call]  # savefig would lay it out twice
    return buffer.getvalue()


def svg(figure: Figure) -> str:
    """The figure as an SVG element, the same bytes for the same figure."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "harness", "svg.image_inline": True}):
        FigureCanvasSVG(figure).print_svg(  # type: ignore[no-untyped-call]  # savefig would lay it out twice
            buffer, metadata={"Date": None, "Creator": None}
        )
    text = buffer.getvalue()
    return text[text.index("<svg") :]
