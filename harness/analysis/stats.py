"""Intervals, tests and effect sizes for a handful of scores: one score per block.

Non-finite scores stand for diverged or missing runs and are left out; what remains may be one score or none,
and then whatever cannot be estimated is NaN. Formula numbers (F1..F17) are those of METHODS.md, section 1.2.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import copysign, inf, nan, sqrt
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

FloatArray = NDArray[np.float64]

EXACT_BLOCKS = 20
_ROUNDING = 1e-12
_TIE = 1e-9


@dataclass(frozen=True)
class Interval:
    """A value between two bounds, from `n` scores; the bounds are NaN where `n` allows none."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class MeanTest:
    """A difference of means with its t interval, two-sided p and degrees of freedom."""

    value: float
    low: float
    high: float
    p: float
    df: float


@dataclass(frozen=True)
class SeedSpread:
    """Standard deviation of the accuracy over runs, and how much of it is coin flipping on the test set.

    `floor` is the standard deviation that independent errors alone would give; `distribution_variance` is
    the variance of the accuracy on the test distribution, which an estimate may put below zero.
    """

    sd: float
    floor: float
    distribution_variance: float


def finite(x: ArrayLike) -> FloatArray:
    """Return the finite values of a 1-D array, as float64."""
    values = np.asarray(x, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"scores must be a 1-D array with one score per block, got shape {values.shape}")
    return values[np.isfinite(values)]


def spread(x: FloatArray) -> float:
    """Sample standard deviation (ddof=1): NaN below two values, exactly 0 for a constant up to rounding."""
    if len(x) < 2:
        return nan
    sd = float(np.std(x, ddof=1))
    return 0.0 if sd <= _ROUNDING * float(np.max(np.abs(x))) else sd


def _t_test(value: float, se: float, df: float, alpha: float) -> MeanTest:
    if not df > 0 or not np.isfinite(se):
        return MeanTest(value, nan, nan, nan, df)
    half = float(special.stdtrit(df, 1 - alpha / 2)) * se
    t = abs(value) / se if se > 0 else (inf if value else 0.0)
    p = 2 * float(special.stdtr(df, -t))
    return MeanTest(value, value - half, value + half, p, df)


def paired_t(differences: ArrayLike, alpha: float = 0.05) -> MeanTest:
    """Student t interval and two-sided p of the mean of within-block differences (F1).

    Valid from n=3 on if the differences are roughly symmetric. Constant differences give a point interval
    and p=0 (p=1 if they are zero); n=1 gives NaN bounds, an empty array NaN throughout.
    """
    d = finite(differences)
    n = len(d)
    value = float(d.mean()) if n else nan
    return _t_test(value, spread(d) / sqrt(n) if n else nan, n - 1, alpha)


def mean_ci(x: ArrayLike, alpha: float = 0.05) -> Interval:
    """Mean of one arm's finite scores with its t interval; NaN bounds at n=1, all NaN at n=0."""
    test = paired_t(x, alpha)
    return Interval(test.value, test.low, test.high, len(finite(x)))


def welch_t(a: ArrayLike, b: ArrayLike, alpha: float = 0.05) -> MeanTest:
    """Welch's t for mean(a) - mean(b) where the blocks are not shared (F4); each arm needs two scores."""
    x, y = finite(a), finite(b)
    value = float(x.mean() - y.mean()) if len(x) and len(y) else nan
    if len(x) < 2 or len(y) < 2:
        return MeanTest(value, nan, nan, nan, nan)
    u, v = spread(x) ** 2 / len(x), spread(y) ** 2 / len(y)
    df = (u + v) ** 2 / (u**2 / (len(x) - 1) + v**2 / (len(y) - 1)) if u + v > 0 else len(x) + len(y) - 2.0
    return _t_test(value, sqrt(u + v), df, alpha)


@lru_cache(maxsize=2)
def _signs(n: int, seed: int, resamples: int) -> FloatArray | None:
    """Random sign vectors [resamples, n], or None where all of them can be enumerated."""
    if n <= EXACT_BLOCKS:
        return None
    signs = np.random.default_rng(seed).choice(np.array([-1.0, 1.0]), size=(resamples, n))
    signs.flags.writeable = False
    return signs


def _flipped_sums(d: FloatArray, signs: FloatArray | None) -> FloatArray:
    """Sums of `d` under sign flips: the given ones, or all 2^(n-1) that leave the first sign alone."""
    if signs is not None:
        return signs @ d
    sums = d[:1]
    for value in d[1:]:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _share_as_extreme(hits: NDArray[np.bool_], signs: FloatArray | None) -> float:
    return float(hits.mean()) if signs is None else float((hits.sum() + 1) / (len(hits) + 1))


def sign_flip_p(differences: ArrayLike, *, seed: int = 0, resamples: int = 19_999) -> float:
    """Two-sided p of the mean under random signs of the within-block differences (F2).

    Exact, by enumeration, up to `EXACT_BLOCKS` blocks; above, `resamples` random sign vectors from `seed`,
    and p = (k+1)/(resamples+1). Assumes differences symmetric about zero under the null hypothesis. NaN if
    empty.
    """
    d = finite(differences)
    if not len(d):
        return nan
    signs = _signs(len(d), seed, resamples)
    slack = _TIE * float(np.abs(d).sum())
    return _share_as_extreme(np.abs(_flipped_sums(d, signs)) >= abs(float(d.sum())) - slack, signs)


def sign_flip_minimum(n: int, resamples: int = 19_999) -> float:
    """Smallest p that `sign_flip_p` can give with n blocks: 2/2^n, or 1/(resamples+1) where it samples."""
    if n < 1:
        return nan
    return 2.0 ** (1 - n) if n <= EXACT_BLOCKS else 1 / (resamples + 1)


def max_t_p(differences: ArrayLike, *, seed: int = 0, resamples: int = 19_999) -> FloatArray:
    """Adjusted p of m comparisons over shared blocks: single-step max-T, Westfall & Young 1993 (F12).

    differences[n, m]: whole blocks flip together and each |t_k| is compared with the largest over k, which
    uses the dependence between comparisons that share a baseline. Needs n>=8 for resolution. Assumes a
    block's differences jointly symmetric about zero. NaN entries are left out of their own comparison; a
    column with fewer than two values gets NaN.
    """
    d = np.asarray(differences, dtype=np.float64)
    if d.ndim != 2:
        raise ValueError(f"differences must have shape [blocks, comparisons], got {d.shape}")
    n, m = d.shape
    known = np.isfinite(d)
    d = np.where(known, d, 0.0)
    counts = known.sum(axis=0)
    tested = np.flatnonzero(counts >= 2)
    adjusted = np.full(m, nan)
    if not len(tested):
        return adjusted
    signs = _signs(n, seed, resamples)

    def squared_t(sums: FloatArray, k: np.intp) -> FloatArray:
        square_sum = float(d[:, k] @ d[:, k])
        if square_sum == 0:
            return np.zeros_like(sums)
        r2: FloatArray = sums**2 / (counts[k] * square_sum)
        rest = np.where(r2 > 1 - _ROUNDING, 0.0, 1 - r2)
        np.divide((counts[k] - 1) * r2, rest, out=r2, where=rest > 0)
        r2[rest == 0] = inf
        return r2

    largest = np.zeros(resamples if signs is not None else 2 ** (n - 1))
    for k in tested:
        largest = np.maximum(largest, squared_t(_flipped_sums(d[:, k], signs), k))
    for k in tested:
        observed = float(squared_t(np.array([d[:, k].sum()]), k)[0])
        adjusted[k] = _share_as_extreme(largest >= observed * (1 - _TIE), signs)
    return adjusted


def holm(p: ArrayLike) -> FloatArray:
    """Holm-adjusted p of a declared family p[m] (F11). NaN stays NaN but counts as a member of the family."""
    raw = np.asarray(p, dtype=np.float64)
    order = np.argsort(raw, kind="stable")
    factors = len(raw) - np.arange(len(raw))
    stepped = np.maximum.accumulate(np.minimum(1.0, np.nan_to_num(raw[order], nan=1.0) * factors))
    adjusted = np.empty_like(raw)
    adjusted[order] = stepped
    return np.where(np.isnan(raw), nan, adjusted)


def tost_p(differences: ArrayLike, margin: float) -> float:
    """P of the two one-sided t tests for a mean inside (-margin, margin) (F9); NaN for n<2."""
    if not margin > 0:
        raise ValueError(f"margin must be > 0, in the units of the score, got {margin}")
    d = finite(differences)
    sd = spread(d)
    if np.isnan(sd):
        return nan
    room = margin - abs(float(d.mean()))
    if sd == 0:
        return 0.0 if room > 0 else 1.0
    return float(special.stdtr(len(d) - 1, -room / (sd / sqrt(len(d)))))


def clopper_pearson(k: float, n: int, alpha: float = 0.05) -> Interval:
    """Share k/n with its exact binomial interval, for wins or diverged runs (F6, F17).

    Half wins (ties) are allowed. n=0 gives NaN inside [0, 1].
    """
    low = float(special.betaincinv(k, n - k + 1, alpha / 2)) if k > 0 else 0.0
    high = float(special.betaincinv(k + 1, n - k, 1 - alpha / 2)) if k < n else 1.0
    return Interval(k / n if n else nan, low, high, n)


def wilson(k: float, n: int, alpha: float = 0.05) -> Interval:
    """Share k/n with Wilson's score interval (F6). n=0 gives NaN inside [0, 1]."""
    if not n:
        return Interval(nan, 0.0, 1.0, 0)
    z = float(special.ndtri(1 - alpha / 2))
    share = k / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half), n)


def share_interval(k: float, n: int, alpha: float = 0.05) -> Interval:
    """Share k/n with a Clopper-Pearson interval below 8 blocks and a Wilson interval from 8 on (F6)."""
    return clopper_pearson(k, n, alpha) if n < 8 else wilson(k, n, alpha)


def unpaired_p_better(a: ArrayLike, b: ArrayLike) -> float:
    """P(A>B) over all pairs of scores, ties half, where blocks are not shared (F6; Mann-Whitney U)."""
    x, y = finite(a)[:, None], finite(b)[None, :]
    return float(((x > y) + 0.5 * (x == y)).mean()) if x.size and y.size else nan


def failure_p(k_a: int, n_a: int, k_b: int, n_b: int, method: Literal["barnard", "fisher"] = "barnard") -> float:
    """Two-sided exact p that two arms share one failure rate, from k failures in n runs each (F17).

    NaN where an arm has no runs, 1 where all runs or none failed.
    """
    if not n_a or not n_b:
        return nan
    if k_a + k_b in (0, n_a + n_b):
        return 1.0
    from scipy import stats as tests  # half a second, for what few sweeps have

    table = np.array([[k_a, k_b], [n_a - k_a, n_b - k_b]])
    exact = tests.barnard_exact if method == "barnard" else tests.fisher_exact
    return float(exact(table).pvalue)


def hedges_d_z(differences: ArrayLike) -> float:
    """Standardised mean difference dbar/s_d with Hedges' factor 1-3/(4(n-1)-1) (F8).

    NaN for n<3, where the factor leaves nothing; 0 or an infinity where the differences are constant.
    """
    d = finite(differences)
    n = len(d)
    if n < 3:
        return nan
    mean, sd = float(d.mean()), spread(d)
    if sd == 0:
        return 0.0 if mean == 0 else copysign(inf, mean)
    return mean / sd * (1 - 3 / (4 * (n - 1) - 1))


def error_ratio(errors_a: ArrayLike, errors_b: ArrayLike, alpha: float = 0.05) -> Interval:
    """Geometric mean of err_a/err_b over shared blocks, t interval taken on the logarithms (F8).

    Errors (or losses) > 0, one per block. NaN where an error is zero or negative: a ratio then says nothing.
    """
    a, b = np.asarray(errors_a, dtype=np.float64), np.asarray(errors_b, dtype=np.float64)
    known = np.isfinite(a) & np.isfinite(b)
    n = int(known.sum())
    if not n or min(a[known].min(), b[known].min()) <= 0:
        return Interval(nan, nan, nan, n)
    logs = mean_ci(np.log(a[known]) - np.log(b[known]), alpha)
    bounds = [float(np.exp(min(x, 700.0))) for x in (logs.value, logs.low, logs.high)]
    return Interval(bounds[0], bounds[1], bounds[2], n)


def two_way_ci(differences: ArrayLike, alpha: float = 0.05) -> Interval:
    """Mean of D[run, example] with an interval for new runs *and* new test examples (F15).

    D is correct_A - correct_B (or one arm's correctness), crossed and complete. SE^2 = (MS_run + MS_example
    - MS_rest) / (runs x examples), never below either part alone; degrees of freedom after Satterthwaite.
    Needs two runs and two examples, else NaN bounds.
    """
    d = np.asarray(differences, dtype=np.float64)
    if d.ndim != 2:
        raise ValueError(f"differences must have shape [runs, examples], got {d.shape}")
    runs, examples = d.shape
    value = float(d.mean()) if d.size else nan
    if runs < 2 or examples < 2:
        return Interval(value, nan, nan, runs)
    by_run, by_example = d.mean(axis=1), d.mean(axis=0)
    ms_run = examples * float(by_run.var(ddof=1))
    ms_example = runs * float(by_example.var(ddof=1))
    total = float(((d - value) ** 2).sum())
    df_run, df_example, df_rest = runs - 1, examples - 1, (runs - 1) * (examples - 1)
    ms_rest = max(0.0, total - ms_run * df_run - ms_example * df_example) / df_rest
    both = max(ms_run + ms_example - ms_rest, ms_run, ms_example)
    weight = ms_run**2 / df_run + ms_example**2 / df_example + ms_rest**2 / df_rest
    df = both**2 / weight if weight > 0 else float(df_run)
    test = _t_test(value, sqrt(both / (runs * examples)), df, alpha)
    return Interval(value, test.low, test.high, runs)


def seed_spread(correct: ArrayLike) -> SeedSpread:
    """Spread of the accuracy over runs, from correct[run, example] in {0, 1} (F16).

    Jordan 2024, "On the variance of neural network training with respect to test sets and distributions".
    NaN below two runs or two examples.
    """
    c = np.asarray(correct, dtype=np.float64)
    if c.ndim != 2:
        raise ValueError(f"correct must have shape [runs, examples], got {c.shape}")
    runs, examples = c.shape
    if runs < 2 or examples < 2:
        return SeedSpread(nan, nan, nan)
    share = c.mean(axis=0)
    floor = runs / (runs - 1) * float((share * (1 - share)).sum()) / examples**2
    observed = spread(c.mean(axis=1)) ** 2
    return SeedSpread(sqrt(observed), sqrt(floor), examples / (examples - 1) * (observed - floor))
