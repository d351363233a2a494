"""Paths of optimizers over a surface, and decision regions in the plane: figures of two dimensions."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from harness.analysis.figure import COLORS, MARKERS, STYLES, WIDTH, legend, logarithmic, new_figure

Floats = npt.NDArray[np.floating]


def ravine(x: Any, y: Any) -> Any:
    """x^2/2 + 5 y^2: ten times as steep in y; the minimum, 0, is in the origin. x, y: arrays or tensors."""
    return x**2 / 2 + 5 * y**2


def overshoot(path: Floats) -> float:
    """How far a path (T, 2) that starts at negative x goes beyond the minimum at x = 0; 0 where it does not."""
    return float(max(0.0, path[:, 0].max()))


def surface(paths: Mapping[str, Floats]) -> Figure:
    """The paths (T, 2) over the contours of `ravine`, and beside them the height at each step."""
    figure = new_figure(WIDTH, 4.0)
    plane, course = figure.subplots(1, 2)
    every = np.concatenate(list(paths.values()))
    (left, low), (right, high) = every.min(axis=0) - 0.6, every.max(axis=0) + 0.6
    x, y = np.meshgrid(np.linspace(left, right, 200), np.linspace(low, high, 200))
    plane.contour(
        x, y, ravine(x, y), levels=np.geomspace(0.05, ravine(x, y).max(), 12), colors="#cccccc", linewidths=0.7
    )
    for place, (name, path) in enumerate(paths.items()):
        look = {"color": COLORS[place], "linestyle": STYLES[place % len(STYLES)]}
        plane.plot(*path.T, marker=MARKERS[place % len(MARKERS)], markersize=2.5, linewidth=1.2, label=name, **look)
        course.plot(ravine(*path.T), **look)
    plane.plot(0, 0, "x", color="black", markersize=9)
    plane.set_xlabel("x")
    plane.set_ylabel("y")
    plane.set_title("paths to the minimum (×)", fontsize=10)
    logarithmic(course, "y")
    course.set_xlabel("step")
    course.set_ylabel("height")
    course.grid(alpha=0.25)
    legend(figure, plane)
    return figure


def regions(maps: Mapping[str, Floats], points: Floats, labels: npt.NDArray[np.integer], half: float) -> Figure:
    """Where a net says 1 (warm) and where 0 (cool), with test points.

    Args:
        maps: name -> probabilities of class 1 (side, side), from -half to half each way, rows upward.
        points: (N, 2).
        labels: (N), 0 or 1.
        half: of the drawn square's side.
    """
    columns = min(2, len(maps))
    rows = -(-len(maps) // columns)
    figure = new_figure(3.3 * columns + 0.4, 3.3 * rows)
    for axes, (name, found) in zip(figure.subplots(rows, columns, squeeze=False).ravel(), maps.items(), strict=False):
        axes.imshow(found, origin="lower", extent=(-half, half, -half, half), cmap="PuOr_r", vmin=0, vmax=1, alpha=0.5)
        for label, color, marker in ((0, "#40004b", "o"), (1, "#7f3b08", "^")):
            axes.plot(
                *points[labels == label].T, marker, color=color, markersize=3, mec="white", mew=0.3, linestyle="none"
            )
        axes.set_title(name, fontsize=10)
        axes.set_xticks([-5, 0, 5])
        axes.set_yticks([-5, 0, 5])
    return figure
