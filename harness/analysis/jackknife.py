"""Delete-one jackknife over the draws and the seeds of a grid of runs."""

from dataclasses import dataclass
from math import nan
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Design = Literal["crossed", "nested", "seeds only", "draws only", "single run"]


@dataclass(frozen=True)
class Estimate:
    """A value and its jackknife standard error; NaN what the design leaves open."""

    value: float
    se: float


def design_of(draws: int, seeds: int, nested: bool) -> Design:
    """Name what a grid of draws x seeds can tell apart; `nested`: every draw had seeds of its own."""
    if draws == 1:
        return "seeds only" if seeds > 1 else "single run"
    if seeds == 1:
        return "draws only"
    return "nested" if nested else "crossed"


def without(x: FloatArray, index: int, axis: int) -> FloatArray:
    """Leave one index of an axis out."""
    return np.delete(x, index, axis=axis)


def estimates(
    values: FloatArray, by_draw: list[FloatArray], by_seed: list[FloatArray], design: Design
) -> list[Estimate]:
    """Pair values[q] with standard errors from the replicates [q] that leave out one draw, or one seed, each.

    The two jackknife variances are added (METHODS 2.5), which counts the interaction twice and so errs on
    the wide side. Seeds count only where all draws share them or there is a single draw. A NaN replicate
    gives a NaN error.
    """
    groups = {
        "crossed": [by_draw, by_seed],
        "nested": [by_draw],
        "draws only": [by_draw],
        "seeds only": [by_seed],
        "single run": [],
    }[design]
    variance = np.full_like(values, 0.0 if groups else nan)
    for group in groups:
        replicates = np.stack(group)
        n = len(replicates)
        variance += (n - 1) / n * ((replicates - replicates.mean(axis=0)) ** 2).sum(axis=0)
    return [Estimate(float(v), float(e)) for v, e in zip(values, np.sqrt(variance), strict=True)]


def mean_estimate(table: FloatArray, design: Design) -> Estimate:
    """Mean of table[K, S] with its standard error."""
    draws, seeds = table.shape
    by_draw = [np.array([without(table, k, 0).mean()]) for k in range(draws if draws > 1 else 0)]
    by_seed = [np.array([without(table, s, 1).mean()]) for s in range(seeds if seeds > 1 else 0)]
    return estimates(np.array([table.mean()]), by_draw, by_seed, design)[0]
