"""Every figure: its texts do not overlap, it draws what it should, and arms keep their colours."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from harness.analysis import pairs, plots, strips
from harness.analysis.blocks import scores
from harness.analysis.figure import COLORS, MOST_KEYED, markers, short_names, styles, svg
from harness.analysis.propagation import signal_figure
from harness.analysis.sources import source_bars
from harness.bins import EDGES

SCHEMES = ("normal", "small_normal", "truncated_normal", "glorot", "he", "lecun", "orthogonal", "he_glorot")
EIGHT = [f"initializer={name}" for name in SCHEMES]


def runs_of(arms: list[str], blocks: int = 5) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        {
            "arm": arm,
            "draw": "all",
            "block": b,
            "outcome": "finished",
            "accuracy/test": 0.6 + 0.04 * a + rng.normal(0, 0.01),
        }
        for a, arm in enumerate(arms)
        for b in range(blocks)
    ]
    return pd.DataFrame(rows)


def curves_of(arms: list[str], runs: int = 3) -> pd.DataFrame:
    rows = [
        {"run_id": f"{arm}{r}", "arm": arm, "step": s, "metric": f"{score}/{part}", "value": (a + 1) / (s + 1) + r / 50}
        for a, arm in enumerate(arms)
        for r in range(runs)
        for s in (0, 10, 100)
        for part in ("train", "val", "test")
        for score in ("loss", "accuracy")
    ]
    return pd.DataFrame(rows)


def histogram_of(steps: int, layers: tuple[str, ...] = ("conv1", "conv2", "logits")) -> plots.Histogram:
    shares = np.zeros((steps, 2 * len(layers), len(EDGES) + 1))
    shares[:, :, 100:150] = 0.02
    names = [f"{layer}/{array}" for layer in layers for array in ("pre_activation", "activation")]
    return np.arange(steps), names, shares


def raw(arms: list[str]) -> Figure:
    return strips.raw_points(
        scores(runs_of(arms), arms, "accuracy/test"), arms, "test accuracy (%)", {arms[0]: "diverged"}
    )


def differences(arms: list[str]) -> Figure:
    runs = runs_of(arms)
    compared = pairs.compare_arms(runs, arms, arms[0], rules=pairs.Rules(margin=0.02))
    found = pairs.differences(scores(runs, arms, "accuracy/test"), [(c.arm, c.reference) for c in compared])
    return strips.paired_differences(compared, found, arms, "difference (points)")


def forest(arms: list[str]) -> Figure:
    return strips.better_share(pairs.compare_arms(runs_of(arms), arms, arms[0]), arms)


def signal(arms: list[str]) -> Figure:
    layers = ("conv1", "conv2", "conv3", "conv4", "logits")
    rows = [
        {"arm": arm, "layer": layer, "runs": 5, "measured": 1.0 + a, "ratio": 1.0 + a / 50, "scatter": 0.1}
        for a, arm in enumerate(arms)
        for layer in layers
    ]
    return signal_figure(pd.DataFrame(rows), arms)


def bars(arms: list[str]) -> Figure:
    values = {"all": 2.0, "data": 1.0, "seed": 0.5, "data x seed": 0.2, "floor": 0.9}
    return source_bars(pd.DataFrame([{"arm": arm, "n": 5, **values} for arm in arms]), arms)


def decomposition(arms: list[str]) -> Figure:
    parts = {
        f"{kind}.{part}": 0.1
        for kind in ("zero_one", "brier")
        for part in ("bias2", "v_data", "v_init", "v_interaction")
    }
    return plots.stacked_bars(pd.DataFrame([{"arm": arm, **parts} for arm in arms]), arms)


DRAWN: dict[str, Callable[[list[str]], Figure]] = {
    "raw points": raw,
    "differences": differences,
    "forest": forest,
    "curves": lambda arms: plots.learning_curves(curves_of(arms), arms),
    "histograms": lambda arms: plots.histograms({arm: histogram_of(2 if arm == arms[0] else 8) for arm in arms}),
    "signal": signal,
    "sources": bars,
    "bias and variance": decomposition,
}


def hidden_ticks(figure: Figure) -> set[int]:
    """Labels of ticks beyond the ends of their axis, which are never drawn."""
    hidden = set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            if not low - 1e-9 <= tick.get_loc() <= high + 1e-9 or not axis.axes.axison:
                hidden |= {id(tick.label1), id(tick.label2)}
    return hidden


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of visible texts whose boxes overlap, or that stick out of the figure (paired with "outside")."""
    figure.canvas.draw()
    found, boxes, hidden = [], [], hidden_ticks(figure)
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        box = text.get_window_extent()
        if text.get_visible() and text.get_text().strip() and box.width > 0 and id(text) not in hidden:
            boxes.append((text.get_text(), box))
            if box.x0 < -2 or box.y0 < -2 or box.x1 > figure.bbox.width + 2 or box.y1 > figure.bbox.height + 2:
                found.append((text.get_text(), "outside"))
    for (one, a), (other, b) in combinations(boxes, 2):
        wide = min(a.x1, b.x1) - max(a.x0, b.x0)
        high = min(a.y1, b.y1) - max(a.y0, b.y0)
        if wide > 1 and high > 1:
            found.append((one, other))
    return found


@pytest.mark.parametrize("arms", [EIGHT, EIGHT[2:5], ["a"]], ids=["eight arms", "three arms", "one arm"])
@pytest.mark.parametrize("name", DRAWN)
def test_no_two_texts_of_a_figure_overlap(name, arms):
    if len(arms) == 1 and name in ("differences", "forest"):
        pytest.skip("nothing to compare")
    assert overlaps(DRAWN[name](arms)) == []


def test_the_band_of_two_runs_ends_where_values_end() -> None:
    curves = curves_of(["he", "glorot"], runs=2)
    curves["value"] = curves["value"].where(curves["run_id"].str.endswith("0"), 0.9)  # far apart: 12.7 standard errors
    loss, accuracy = plots.learning_curves(curves, ["he", "glorot"]).axes[:2]
    bands = {
        axes: np.concatenate([path.vertices[:, 1] for path in axes.collections[0].get_paths()])
        for axes in (loss, accuracy)
    }
    assert bands[loss].min() == 0 < bands[loss].max()
    assert (bands[accuracy].min(), bands[accuracy].max()) == (0, 100)


def test_a_legend_of_long_names_stays_on_the_page() -> None:
    arms = [f"{net}, {rule}, 0.001" for net in ("softmax", "lenet5", "lenet5_relu") for rule in ("momentum", "adagrad")]
    figure = plots.learning_curves(curves_of(arms, runs=2), arms)
    figure.canvas.draw()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    assert len({text.get_window_extent().x0 for text in legend.get_texts()}) == 3, "columns"


def test_a_hundred_arms_are_drawn_without_a_key():
    arms = [f"width={i}" for i in range(100)]
    figure = plots.learning_curves(curves_of(arms, runs=2), arms)
    assert not figure.legends
    assert svg(figure).startswith("<svg")


def test_an_arm_has_one_colour_in_every_figure():
    look = styles(EIGHT)
    line = next(
        line for line in plots.learning_curves(curves_of(EIGHT), EIGHT).axes[1].lines if line.get_label() == "he"
    )
    assert line.get_color() == look["initializer=he"]["color"]
    point = raw(EIGHT).axes[0].lines[-2]
    assert to_hex(point.get_color()).upper() == look[EIGHT[-1]]["color"]


def test_arms_are_told_apart_by_colour_line_and_marker():
    arms = [str(i) for i in range(MOST_KEYED)]
    looks = {(styles(arms)[arm]["color"], styles(arms)[arm]["linestyle"], markers(arms)[arm]) for arm in arms}
    assert len(looks) == len(arms)
    assert len(set(COLORS)) == 8


@pytest.mark.parametrize(
    ("arms", "short"),
    [
        (["initializer=he", "initializer=glorot"], ["he", "glorot"]),
        (["a=1,b=2", "a=1,b=3"], ["2", "3"]),
        (["a=1,b=2", "a=2,b=3"], ["1, 2", "2, 3"]),
        (["a=1", "b=1"], ["a=1", "b=1"]),
        (["default"], ["default"]),
        (["initializer=he"], ["initializer=he"]),
    ],
)
def test_names_are_shortened_to_what_differs(arms, short):
    assert list(short_names(arms).values()) == short


def test_the_same_figure_is_the_same_svg():
    assert svg(forest(EIGHT)) == svg(forest(EIGHT))


def test_the_bands_of_a_run_that_ended_early_stay_aligned():
    figure = plots.histograms({"a": histogram_of(2), "b": histogram_of(8)})
    one, other = (axes.images[0].get_array() for axes in figure.axes[:2])
    assert one.shape == other.shape
    assert np.ma.masked_invalid(one)[2:8].mask.all()
    assert np.ma.masked_invalid(one)[9:11].count() > 0
