"""What all figures share."""

from __future__ import annotations

import pytest

from harness.analysis.figure import logarithmic, new_figure


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (1.3, 2.1, ["1.3", "1.4", "1.5", "1.6", "1.7", "1.8", "1.9", "2", "2.1"]),
        (0.02, 200, ["0.1", "1", "10", "100"]),
        (1e-6, 1e6, ["10⁻⁶", "0.0001", "0.01", "1", "100", "10⁴", "10⁶"]),
        (1.5e-5, 5e-5, ["2×10⁻⁵", "3×10⁻⁵", "4×10⁻⁵"]),
    ],
)
def test_a_logarithmic_axis_has_plain_numbers(low: float, high: float, said: list[str]) -> None:
    figure = new_figure(6, 4)
    axes = figure.subplots()
    axes.set_ylim(low, high)
    logarithmic(axes, "y")
    axes.set_ylim(low, high)
    figure.draw_without_rendering()
    texts = [(text.get_position()[1], text.get_text()) for text in axes.get_yticklabels(which="both")]
    assert [text for place, text in sorted(texts) if low <= place <= high and text] == said
