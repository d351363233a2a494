"""Histograms of what the layers compute: layers by steps by values, arms side by side on the same bins."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from harness.analysis.figure import WIDTH, new_figure, short_names
from harness.bins import EDGES

Floats = npt.NDArray[np.floating]
Histogram = tuple[npt.NDArray[np.generic], list[str], Floats]
"""Steps (T,), names (A) of `<layer>/<array>`, shares (T, A, 245)."""

COLUMNS = 4
FAINTEST = 1e-4
# The ones to keep come first.
_TICKS = (
    *((1.0, "1"), (-1.0, "−1"), (1e3, "10³"), (-1e3, "−10³"), (1e-2, ".01"), (-1e-2, "−.01")),
    *((1e5, "10⁵"), (-1e5, "−10⁵"), (1e-4, "10⁻⁴"), (-1e-4, "−10⁻⁴"), (1e2, "10²"), (-1e2, "−10²")),
)


def histograms(by_arm: Mapping[str, Histogram], arrays: Sequence[str] = ("pre_activation", "activation")) -> Figure:
    """Layers (bands) by steps (rows of a band, downward), values on a symmetric logarithmic axis; arms side by side.

    Colour is the share of the layer's values in a bin, on a logarithmic scale. With one arm each array has a panel;
    with several the first array is shown.
    """
    alone = len(by_arm) == 1
    names = short_names(list(by_arm))
    panels = [(arm, array) for arm in by_arm for array in (arrays if alone else arrays[:1])]
    steps = max((histogram[0] for histogram in by_arm.values()), key=len)
    layers = {array: _layers(by_arm, array) for _, array in panels}
    images = [_image(by_arm[arm], array, layers[array], len(steps)) for arm, array in panels]
    used = np.flatnonzero(np.nanmax([np.nan_to_num(image).max(axis=0) for image in images], axis=0) >= FAINTEST)
    first, last = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, len(EDGES) + 1)
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    most = max(map(len, layers.values()))
    height = max(1.5, 0.034 * most * (len(steps) + 1), 0.24 * most)
    figure = new_figure(WIDTH if columns > 1 else 5.0, rows * (height + 0.45) + 1.1)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=not alone)
    ticks = _value_ticks(first, last, 4 if columns > 2 else 7)
    for position, ((arm, array), image, axes) in enumerate(zip(panels, images, grid.ravel(), strict=False)):
        drawn = axes.imshow(
            np.where(image > 0, image, np.nan)[:, first:last],
            aspect="auto",
            interpolation="nearest",
            cmap="viridis_r",
            norm=LogNorm(FAINTEST, 1),
        )
        axes.set_title(array.replace("_", "-") if alone else names[arm], fontsize=10)
        if position % columns == 0 or alone:
            centres = [place * (len(steps) + 1) + (len(steps) - 1) / 2 for place in range(len(layers[array]))]
            axes.set_yticks(centres, layers[array], fontsize=9)
        axes.set_xticks([place - first for place, _ in ticks], [text for _, text in ticks], fontsize=9)
    for axes in grid.ravel()[len(panels) :]:
        axes.set_axis_off()
    for column in range(columns):  # the lowest panel of a column names the axis
        lowest = [axes for axes in grid[:, column] if axes.axison][-1]
        lowest.set_xlabel("value", fontsize=9)
        lowest.tick_params(labelbottom=True)

    def keyed(**place: Any) -> Colorbar:
        return figure.colorbar(drawn, extend="min", format=lambda value, _: f"{value:g}", **place)

    if alone:  # one arm's figure is drawn while others train, and fitting a layout takes longer than drawing it
        tall, side = figure.get_figheight(), 0.3 + 0.075 * max(len(name) for names in layers.values() for name in names)
        figure.set_layout_engine(None)
        figure.subplots_adjust(side / WIDTH, 1.15 / tall, 0.98, 1 - 0.3 / tall, wspace=side / 3.5)
        bar = keyed(cax=figure.add_axes((0.25, 0.48 / tall, 0.5, 0.1 / tall)), orientation="horizontal")
    else:
        bar = keyed(ax=grid, location="bottom", aspect=50, shrink=0.6)
    bar.minorticks_off()
    what = "values" if alone else arrays[0].replace("_", "-") + "s"
    span = f"; in each layer, steps {steps[0]} to {steps[-1]} downward" if len(steps) > 1 else ""
    bar.set_label(f"share of the layer's {what} in the bin{span}", fontsize=9)
    return figure


def _layers(by_arm: Mapping[str, Histogram], array: str) -> list[str]:
    """The layers that have this array in any arm, in order."""
    suffix = f"/{array}"
    named = [name.removesuffix(suffix) for _, names, _ in by_arm.values() for name in names if name.endswith(suffix)]
    return list(dict.fromkeys(named)) or ["none"]


def _image(histogram: Histogram, array: str, layers: Sequence[str], steps: int) -> Floats:
    """The layers' shares (steps, 245) below each other, an empty row between; NaN where the arm has none."""
    _, names, shares = histogram
    image = np.full((len(layers), steps + 1, len(EDGES) + 1), np.nan)
    for place, layer in enumerate(layers):
        if (name := f"{layer}/{array}") in names:
            image[place, : len(shares)] = shares[:, names.index(name)]
    return image.reshape(-1, image.shape[-1])[:-1]


def _value_ticks(first: int, last: int, most: int) -> list[tuple[int, str]]:
    """Bin positions of zero and of powers of ten among bins first..last, far enough apart to be read."""
    zero = int(np.searchsorted(EDGES, 0.0)) + 1
    wanted = [(zero, "0"), *((int(np.abs(EDGES - value).argmin()), text) for value, text in _TICKS)]
    kept: list[tuple[int, str]] = []
    for place, text in wanted:
        if first <= place < last and all(abs(place - other) >= (last - first) / (most + 2) for other, _ in kept):
            kept.append((place, text))
    return kept
