"""What a learning-rate range test reads from its losses."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.analysis.figure import png
from harness.analysis.rate_range import RateRange, ended, rate_range

RATES = np.geomspace(1e-6, 10, 141)  # 20 a decade


def valley(noise: float = 0.0) -> RateRange:
    """Flat at 2.3 up to 1e-4, down to 0.3 at 1e-1, and up again."""
    log = np.log10(RATES)
    losses = np.interp(log, [-6, -4, -1, 1], [2.3, 2.3, 0.3, 9])
    return RateRange(RATES, losses + np.random.default_rng(0).normal(0, noise, len(losses)))


def test_smoothing_by_hand() -> None:
    losses = np.array([0.0, 0.0, 1.0, 0.0, 0.0])  # few steps: a standard deviation of one step
    near, far = math.exp(-1 / 2), math.exp(-2)
    middle = RateRange(np.ones(5), losses).smoothed
    assert middle[2] == pytest.approx(1 / (1 + 2 * near + 2 * far))
    assert middle[0] == pytest.approx(far / (1 + near + far + math.exp(-9 / 2) + math.exp(-8)))
    np.testing.assert_allclose(middle, middle[::-1])


def test_smoothing_leaves_a_constant_alone() -> None:
    np.testing.assert_allclose(RateRange(np.ones(30), np.full(30, 2.3)).smoothed, 2.3)


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_the_suggestion_is_a_tenth_of_the_rate_of_the_lowest_loss(noise: float) -> None:
    found = valley(noise)
    assert found.lowest == pytest.approx(0.1, rel=0.6)
    assert found.suggested == found.lowest / 10


def test_a_loss_that_never_falls_suggests_nothing() -> None:
    for losses in (np.full(141, 2.3), np.linspace(2, 4, 141), 2.3 + np.random.default_rng(1).normal(0, 0.1, 141)):
        assert RateRange(RATES, losses).suggested is None


def test_a_suggestion_is_never_below_the_first_rate() -> None:
    found = RateRange(np.geomspace(0.05, 1, 50), np.interp(range(50), [0, 15, 49], [2, 1, 5]))
    assert found.lowest < 0.5
    assert found.suggested == 0.05


def test_the_test_ends_when_the_loss_is_not_finite_or_far_above_its_least() -> None:
    assert not ended([])
    assert not ended([2.3])
    assert ended([2.3, math.inf])
    assert ended([math.nan])
    assert not ended([1.0] * 5 + [5.0])
    assert ended([1.0] * 5 + [5.0] * 5)


def test_the_figure_shows_both_rates_and_keeps_learning_in_sight() -> None:
    found = valley()
    figure = rate_range(found, "a net")
    (axes,) = figure.axes
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts[2:] == [f"suggested: {found.suggested:.2g}", f"lowest loss: {found.lowest:.2g}"]
    assert axes.get_xscale() == "log"
    low, high = axes.get_ylim()
    assert low < 0.3 < 2.3 < high < 4
    assert png(figure).startswith(b"\x89PNG")
