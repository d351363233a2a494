"""Choosing among arms: what the best of K owes to luck, and scores corrected for having been chosen."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import comb, nan, sqrt
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from harness.analysis.stats import FloatArray, finite


@dataclass(frozen=True)
class Advantage:
    """The best arm's mean over the mean of all arms: `observed`, and `expected` if all are equal."""

    observed: float
    expected: float
    arms: int
    n: int


@dataclass(frozen=True)
class SelectedScore:
    """The arm chosen by validation, its test mean as it appears and as corrected for the choice."""

    index: int
    apparent: float
    corrected: float


@lru_cache(maxsize=256)
def best_of(k: int) -> float:
    """Expected maximum c_K of k independent standard normal scores, by numerical integration."""
    if k < 1:
        raise ValueError(f"k must be >= 1, got {k}")
    z = np.linspace(-9.0, 9.0, 4001)
    density = k * np.exp(-(z**2) / 2) / sqrt(2 * np.pi) * special.ndtr(z) ** (k - 1)
    return float(np.trapezoid(z * density, z))


def _table(scores: ArrayLike) -> FloatArray:
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2:
        raise ValueError(f"scores must have shape [arms, blocks], got {table.shape}")
    return table


def advantage(scores: ArrayLike, higher_is_better: bool = True) -> Advantage:
    """Observed advantage of the best arm, and c_K s/sqrt(n) expected under no difference.

    scores[arm, block]; blocks on which any score is not finite are left out. s is the residual of arms x
    blocks: what the arms of one block share (its draw) raises all alike and favours none. NaN below two arms
    or two blocks.
    """
    table = _table(scores)
    table = table[:, np.isfinite(table).all(axis=0)]
    arms, n = table.shape
    if arms < 2 or n < 2:
        return Advantage(nan, nan, arms, n)
    means = table.mean(axis=1)
    rest = table - means[:, None] - table.mean(axis=0) + table.mean()
    residual = sqrt(float((rest**2).sum()) / ((arms - 1) * (n - 1)))
    observed = means.max() - means.mean() if higher_is_better else means.mean() - means.min()
    return Advantage(float(observed), best_of(arms) * residual / sqrt(n), arms, n)


def bootstrap_selection(
    validation: ArrayLike,
    test: ArrayLike,
    *,
    higher_is_better: bool = True,
    resamples: int = 1000,
    seed: int = 0,
) -> SelectedScore:
    """Score the arm chosen by validation, corrected for the choice: BBC-CV, Tsamardinos et al. 2018.

    validation[arm, block], test[arm, block]. Resamples blocks, chooses on those drawn, scores on those left
    out. Arms with a non-finite score are not eligible. `corrected` is NaN below two blocks; everything is
    NaN, with index -1, where no arm is eligible.
    """
    chosen_by, scored_by = _table(validation), _table(test)
    if chosen_by.shape != scored_by.shape:
        raise ValueError(f"validation and test must have one shape, got {chosen_by.shape} and {scored_by.shape}")
    sign = 1.0 if higher_is_better else -1.0
    n = chosen_by.shape[1]
    eligible = np.flatnonzero((np.isfinite(chosen_by) & np.isfinite(scored_by)).all(axis=1))
    if not len(eligible) or not n:
        return SelectedScore(-1, nan, nan)
    chosen_by, scored_by = sign * chosen_by[eligible], scored_by[eligible]
    best = int(chosen_by.mean(axis=1).argmax())
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    left_out = drawn == 0
    drawn, left_out = drawn[left_out.any(axis=1)], left_out[left_out.any(axis=1)]
    winners_in_bag = (drawn @ chosen_by.T).argmax(axis=1)
    scores = (scored_by[winners_in_bag] * left_out).sum(axis=1) / left_out.sum(axis=1)
    corrected = float(scores.mean()) if len(scores) else nan
    return SelectedScore(int(eligible[best]), float(scored_by[best].mean()), corrected)


def expected_best(values: ArrayLike, budget: int, estimator: Literal["v", "u"] = "v") -> float:
    """Expected best validation score of `budget` random-search trials, estimated from N >= budget trials.

    "v": Dodge et al. 2019, biased low, small variance; "u": Tang et al. 2020, unbiased, larger variance.
    Higher is better. Only for trials drawn independently from one distribution, never for a grid.
    """
    v = np.sort(finite(values))
    n = len(v)
    if not 1 <= budget <= n:
        raise ValueError(f"budget must be in 1..{n}, the number of trials, got {budget}")
    rank = np.arange(1, n + 1)
    if estimator == "v":
        return float(v @ ((rank / n) ** budget - ((rank - 1) / n) ** budget))
    return float(sum(comb(i - 1, budget - 1) / comb(n, budget) * v[i - 1] for i in range(budget, n + 1)))


def iqm(scores: ArrayLike) -> float:
    """Mean of the finite scores less a quarter, rounded down, at either end (Agarwal et al. 2021)."""
    values = np.sort(finite(np.ravel(np.asarray(scores, dtype=np.float64))))
    cut = len(values) // 4
    return float(values[cut : len(values) - cut].mean()) if len(values) else nan


def winners(scores: Mapping[str, ArrayLike], higher_is_better: bool = True) -> dict[str, float]:
    """Share of blocks on which each arm is the best, ties split equally; NaN if no score is finite.

    scores[arm][block], blocks shared. A non-finite score loses its block.
    """
    if not scores:
        return {}
    table = _table([np.asarray(row, dtype=np.float64) for row in scores.values()])
    table = np.where(np.isfinite(table), table if higher_is_better else -table, -np.inf)
    table = table[:, np.isfinite(table).any(axis=0)]
    if not table.shape[1]:
        return dict.fromkeys(scores, nan)
    best = table == table.max(axis=0)
    shares = (best / best.sum(axis=0)).mean(axis=1)
    return dict(zip(scores, shares.tolist(), strict=True))
