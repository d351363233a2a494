"""The comparison of one arm with another over shared blocks, and its verdict in fixed words."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from math import inf, nan, sqrt
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from harness.analysis import stats
from harness.analysis.power import smallest_detectable

FEWEST_BLOCKS = 4
SIGN_FLIP_BLOCKS = 8
_FLOAT32_ROUNDING = 1e-7


@dataclass(frozen=True)
class Comparison:
    """Arm `arm` (A) against `reference` (B) over the `n` blocks on which both have a score.

    Means, difference (A - B), interval, `mde` and `margin` are in the units of the score. `p` comes from
    `p_method` ("sign-flip", "paired t" or "none"), which cannot give less than `p_minimum`; `p_t` and
    `p_sign_flip` are always there. `p_holm`, `p_max_t` and `tost_p_holm` are NaN outside a family. Wins and
    P(A>B) mean "A is better", whichever way the score points. `mde` is the difference found with power 0.8
    at the family's first step. `missing_a` and `missing_b` count the non-finite scores: where they are not
    zero, everything else is conditional on the others.
    """

    arm: str
    reference: str
    n: int
    missing_a: int
    missing_b: int
    mean_a: float
    mean_b: float
    difference: float
    ci_low: float
    ci_high: float
    p: float
    p_method: str
    p_minimum: float
    p_t: float
    p_sign_flip: float
    p_holm: float
    p_max_t: float
    d_z: float
    rho: float
    efficiency: float
    wins: int
    ties: int
    losses: int
    p_better: float
    p_better_low: float
    p_better_high: float
    error_ratio: float
    error_ratio_low: float
    error_ratio_high: float
    mde: float
    margin: float
    tost_p: float
    tost_p_holm: float
    verdict: str

    def meaning(self, gamma: float = 0.75) -> str:
        """Read the interval of P(A>B), for the better arm, in the three ways of Bouthillier et al. 2021."""
        low, high = self.p_better_low, self.p_better_high
        if self.n and high < 0.5:
            low, high = 1 - high, 1 - low
        if not self.n or low <= 0.5:
            return "not significant"
        return "significant and meaningful" if high >= gamma else "significant, not meaningful"


def _verdict(c: Comparison, p: float, tost: float, alpha: float, higher_is_better: bool) -> str:
    if c.n < FEWEST_BLOCKS:
        return "too few blocks to say"
    if tost < alpha:
        return f"equivalent within {c.margin:.3g}"
    if p < alpha:
        return "better" if (c.difference > 0) == higher_is_better else "worse"
    return f"not distinguishable (smallest detectable difference {c.mde:.3g})"


def _correlation(a: stats.FloatArray, b: stats.FloatArray) -> float:
    if len(a) < 3 or stats.spread(a) == 0 or stats.spread(b) == 0:
        return nan
    x, y = a - a.mean(), b - b.mean()
    return float(np.clip((x @ y) / sqrt((x @ x) * (y @ y)), -1, 1))


def _efficiency(a: stats.FloatArray, b: stats.FloatArray, d: stats.FloatArray) -> float:
    unpaired, paired = stats.spread(a) ** 2 + stats.spread(b) ** 2, stats.spread(d) ** 2
    if paired == 0:
        return inf if unpaired > 0 else nan
    return unpaired / paired


def _shared(a: ArrayLike, b: ArrayLike) -> tuple[stats.FloatArray, stats.FloatArray, stats.FloatArray]:
    """Both arms' scores [blocks] and their differences: NaN where a score is missing, 0 for a tie."""
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(
            f"a and b must be 1-D with one score per shared block (NaN where a run is missing), "
            f"got shapes {x.shape} and {y.shape}"
        )
    x, y = np.where(np.isfinite(x), x, nan), np.where(np.isfinite(y), y, nan)
    d = x - y
    return x, y, np.where(np.abs(d) <= _FLOAT32_ROUNDING * np.maximum(np.abs(x), np.abs(y)), 0.0, d)


def compare(
    a: ArrayLike,
    b: ArrayLike,
    *,
    arm: str = "a",
    reference: str = "b",
    higher_is_better: bool = True,
    margin: float | None = None,
    alpha: float = 0.05,
    comparisons: int = 1,
    ceiling: float = 1.0,
    seed: int = 0,
) -> Comparison:
    """Compare arms A and B by their scores a[block], b[block]; NaN or inf marks a run without a score.

    The verdict rests on the exact sign-flip p from 8 blocks on, unless its minimum exceeds alpha/comparisons
    and it could never reject; then, and below 8 blocks, on the paired t. Below 4 blocks nothing is claimed.
    With `margin`, an arm whose difference is shown to lie inside it is "equivalent", significant or not.
    `comparisons` is the size of the declared family, `ceiling` the best possible score (errors are ceiling -
    score; for a loss, the score itself). Scores that differ by less than float32 rounding tie.
    """
    x, y, all_differences = _shared(a, b)
    known = np.isfinite(all_differences)
    xs, ys, d = x[known], y[known], all_differences[known]
    n = len(d)
    first_step = alpha / max(1, comparisons)
    t = stats.paired_t(d, alpha)
    p_sign_flip = stats.sign_flip_p(d, seed=seed)
    p_method, p, p_minimum = "paired t", t.p, 0.0
    if n < FEWEST_BLOCKS:
        p_method, p, p_minimum = "none", nan, nan
    elif n >= SIGN_FLIP_BLOCKS and stats.sign_flip_minimum(n) < first_step:
        p_method, p, p_minimum = "sign-flip", p_sign_flip, stats.sign_flip_minimum(n)
    gains = d if higher_is_better else -d
    wins, ties = int((gains > 0).sum()), int((gains == 0).sum())
    better = stats.share_interval(wins + ties / 2, n, alpha)
    errors = stats.error_ratio(*((ceiling - xs, ceiling - ys) if higher_is_better else (xs, ys)), alpha)
    comparison = Comparison(
        arm=arm,
        reference=reference,
        n=n,
        missing_a=int(np.isnan(x).sum()),
        missing_b=int(np.isnan(y).sum()),
        mean_a=float(xs.mean()) if n else nan,
        mean_b=float(ys.mean()) if n else nan,
        difference=t.value,
        ci_low=t.low,
        ci_high=t.high,
        p=p,
        p_method=p_method,
        p_minimum=p_minimum,
        p_t=t.p,
        p_sign_flip=p_sign_flip,
        p_holm=nan,
        p_max_t=nan,
        d_z=stats.hedges_d_z(d),
        rho=_correlation(xs, ys),
        efficiency=_efficiency(xs, ys, d),
        wins=wins,
        ties=ties,
        losses=n - wins - ties,
        p_better=better.value,
        p_better_low=better.low,
        p_better_high=better.high,
        error_ratio=errors.value,
        error_ratio_low=errors.low,
        error_ratio_high=errors.high,
        mde=smallest_detectable(n, first_step) * stats.spread(d),
        margin=nan if margin is None else margin,
        tost_p=nan if margin is None else stats.tost_p(d, margin),
        tost_p_holm=nan,
        verdict="",
    )
    return replace(comparison, verdict=_verdict(comparison, p, comparison.tost_p, alpha, higher_is_better))


def compare_family(
    scores: Mapping[str, ArrayLike],
    baseline: str,
    *,
    family: Literal["baseline", "all_pairs"] = "baseline",
    method: Literal["holm", "max_t"] = "holm",
    higher_is_better: bool = True,
    margin: float | None = None,
    alpha: float = 0.05,
    ceiling: float = 1.0,
    seed: int = 0,
    size: int | None = None,
) -> tuple[Comparison, ...]:
    """Compare the arms of a sweep, scores[arm][block], with verdicts that hold for the whole family.

    The family is every other arm against `baseline` (in the order given), or all pairs with the earlier arm
    as reference and the baseline first. `method` says which adjusted p decides: `p_holm`, filled in either
    way, or `p_max_t`. Max-T has no resolution below 8 blocks: where a comparison has fewer, Holm decides for
    the whole family and `p_max_t` stays NaN. Equivalence is decided by Holm over the TOST p. `size`: comparisons of
    the family, where these are but some of them, whose p are still to be adjusted together.
    """
    if baseline not in scores:
        raise ValueError(f"baseline {baseline!r} is not among the arms: {', '.join(scores)}")
    arms = [baseline, *(name for name in scores if name != baseline)]
    pairs = [(name, baseline) for name in arms[1:]]
    if family == "all_pairs":
        pairs = [(later, earlier) for earlier, later in combinations(arms, 2)]
    if not pairs:
        return ()
    compared = [
        compare(
            scores[one],
            scores[other],
            arm=one,
            reference=other,
            higher_is_better=higher_is_better,
            margin=margin,
            alpha=alpha,
            comparisons=size or len(pairs),
            ceiling=ceiling,
            seed=seed,
        )
        for one, other in pairs
    ]
    p_holm = stats.holm([c.p for c in compared])
    tost_holm = stats.holm([c.tost_p for c in compared])
    p_max_t = np.full(len(pairs), nan)
    enough = np.array([c.n >= FEWEST_BLOCKS for c in compared])
    resolved = enough.any() and min(c.n for c in compared if c.n >= FEWEST_BLOCKS) >= SIGN_FLIP_BLOCKS
    if method == "max_t" and resolved:
        differences = np.stack([_shared(scores[one], scores[other])[2] for one, other in pairs], axis=1)
        p_max_t = np.where(enough, stats.max_t_p(differences, seed=seed), nan)
    deciding = p_max_t if method == "max_t" and resolved else p_holm
    return tuple(
        replace(
            c,
            p_holm=float(p_holm[i]),
            p_max_t=float(p_max_t[i]),
            tost_p_holm=float(tost_holm[i]),
            verdict=_verdict(c, float(deciding[i]), float(tost_holm[i]), alpha, higher_is_better),
        )
        for i, c in enumerate(compared)
    )
