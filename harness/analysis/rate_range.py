"""A learning-rate range test (Smith 2015, section 3.3): the loss while the rate rises from step to step."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from harness.analysis.figure import COLORS, GREY, NARROW, logarithmic, new_figure

Floats = npt.NDArray[np.float64]

BREADTH = 1 / 50
"""Standard deviation of the Gaussian that smooths the losses, as a share of the steps."""
TOO_HIGH = 4.0
"""The test ends when the mean of the last losses is so many times the least such mean."""
LAST = 5
LEAST_FALL = 0.05
"""A smoothed loss that has not fallen by this share of its first value has not learned,"""
LEAST_NOISES = 3.0
"""nor one that has not fallen by so many standard deviations of the batches' losses around it."""
MARGIN = 10.0
"""The suggested rate is so many times below that of the lowest loss, which is on the edge of what is stable."""


@dataclass(frozen=True)
class RateRange:
    """Rates (n,), rising by one factor, and the loss (n,) of the batch on which each step was taken, before it."""

    rates: Floats
    losses: Floats

    @property
    def smoothed(self) -> Floats:
        """Means (n,) of the losses around each step, weighted by a Gaussian."""
        steps = np.arange(len(self.losses))
        apart = (steps[:, None] - steps) / max(1.0, BREADTH * len(steps))
        weights = np.exp(-(apart**2) / 2)
        found: Floats = weights @ self.losses / weights.sum(axis=1)
        return found

    @property
    def lowest(self) -> float:
        """The rate at which the smoothed loss was least."""
        return float(self.rates[self.smoothed.argmin()])

    @property
    def suggested(self) -> float | None:
        """A rate to begin with: a tenth of the one with the lowest loss; None if the loss never fell."""
        smoothed, end = self.smoothed, int(self.smoothed.argmin()) + 1
        noise = float((self.losses[:end] - smoothed[:end]).std())
        if smoothed[0] - smoothed.min() < max(LEAST_FALL * smoothed[0], LEAST_NOISES * noise):
            return None
        return max(self.lowest / MARGIN, float(self.rates[0]))


def ended(losses: Sequence[float]) -> bool:
    """Whether these losses say that the rate is too high: not finite, or far above the least."""
    if not losses or not np.isfinite(losses[-1]):
        return bool(losses)
    means = np.convolve(losses, np.full(min(LAST, len(losses)), 1 / min(LAST, len(losses))), "valid")
    return bool(means[-1] > TOO_HIGH * means.min())


def rate_range(found: RateRange, title: str) -> Figure:
    """The loss against the rate (logarithmic): each step faint, their smooth course, and the rates read from it."""
    figure = new_figure(NARROW, 4.0)
    axes = figure.subplots()
    smoothed = found.smoothed
    axes.plot(found.rates, found.losses, color=GREY, linewidth=0.7, alpha=0.7, label="each batch")
    axes.plot(found.rates, smoothed, color=COLORS[0], label="smoothed")
    if found.suggested is not None:
        axes.axvline(found.suggested, color=COLORS[1], linestyle="--", label=f"suggested: {found.suggested:.2g}")
        axes.axvline(found.lowest, color=COLORS[2], linestyle=":", label=f"lowest loss: {found.lowest:.2g}")
    logarithmic(axes, "x")
    low, high = float(smoothed.min()), float(smoothed[0])
    span = max(high - low, 0.05 * abs(high))
    axes.set_ylim(low - 0.25 * span, high + 0.5 * span)  # what follows the end of learning is cut off
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=9)
    return figure
