"""Comparing arms whose runs cross data draws with seeds: both are samples, and neither alone is the block."""

from dataclasses import dataclass
from math import isfinite, nan, sqrt

import numpy as np
from scipy import special

from harness.analysis import stats
from harness.analysis.comparison import Comparison
from harness.analysis.power import smallest_detectable
from harness.analysis.stats import FloatArray, MeanTest

METHOD = "t, draws × seeds"
FEWEST_LEVELS = 3


@dataclass(frozen=True)
class CrossedMean:
    """A mean over draws and seeds with its t interval, two-sided p, standard error and degrees of freedom."""

    test: MeanTest
    se: float


def complete(table: FloatArray) -> FloatArray:
    """`table[K, S]` without the draws and seeds whose cells are not all finite, leaving out as few as it can."""
    while table.size and not np.isfinite(table).all():
        holes = ~np.isfinite(table)
        by_draw, by_seed = holes.mean(axis=1), holes.mean(axis=0)
        if by_draw.max() >= by_seed.max():
            table = np.delete(table, int(by_draw.argmax()), axis=0)
        else:
            table = np.delete(table, int(by_seed.argmax()), axis=1)
    return table


def crossed_mean(table: FloatArray, alpha: float = 0.05) -> CrossedMean:
    """Mean of table[K, S] for new draws *and* new seeds.

    SE^2 = (MS_draw + MS_seed - MS_rest) / (K S), never below either part alone, as in METHODS F15 with seeds in the
    place of test examples; degrees of freedom after Satterthwaite, at least min(K, S) - 1. NaN bounds below 2 x 2.
    """
    draws, seeds = table.shape
    value = float(table.mean()) if table.size else nan
    if draws < 2 or seeds < 2:
        return CrossedMean(MeanTest(value, nan, nan, nan, nan), nan)
    by_draw, by_seed = table.mean(axis=1), table.mean(axis=0)
    rest = table - by_draw[:, None] - by_seed + value
    ms_draw, ms_seed = seeds * float(by_draw.var(ddof=1)), draws * float(by_seed.var(ddof=1))
    ms_rest = float((rest**2).sum()) / ((draws - 1) * (seeds - 1))
    both = max(ms_draw + ms_seed - ms_rest, ms_draw, ms_seed)
    parts = ms_draw**2 / (draws - 1) + ms_seed**2 / (seeds - 1) + ms_rest**2 / ((draws - 1) * (seeds - 1))
    fewest = float(min(draws, seeds) - 1)
    df = max(both**2 / parts, fewest) if parts > 0 else fewest
    se = sqrt(both / (draws * seeds))
    half = float(special.stdtrit(df, 1 - alpha / 2)) * se
    t = abs(value) / se if se > 0 else (np.inf if value else 0.0)
    return CrossedMean(MeanTest(value, value - half, value + half, 2 * float(special.stdtr(df, -t)), df), se)


def compare_crossed(
    a: FloatArray,
    b: FloatArray,
    *,
    arm: str,
    reference: str,
    higher_is_better: bool = True,
    margin: float | None = None,
    alpha: float = 0.05,
    comparisons: int = 1,
    ceiling: float = 1.0,
) -> Comparison:
    """Compare arms by their scores a[draw, seed], b[draw, seed]; NaN marks a run without a score.

    `n` is the number of shared cells; wins and P(A>B) count cells, the interval as if there were only min(K, S) of
    them. Nothing is claimed below 3 draws or 3 seeds. The verdict is left to the family.
    """
    d = complete(a - b)
    known = np.isfinite(a - b)
    draws, seeds = d.shape
    mean, n = crossed_mean(d, alpha), d.size
    test, enough = mean.test, min(draws, seeds) >= FEWEST_LEVELS
    gains = d if higher_is_better else -d
    wins, ties = int((gains > 0).sum()), int((gains == 0).sum())
    fewest = min(draws, seeds)
    better = stats.share_interval((wins + ties / 2) / n * fewest, fewest, alpha) if n else stats.share_interval(0, 0)
    errors = (ceiling - a, ceiling - b) if higher_is_better else (a, b)
    ratio = MeanTest(nan, nan, nan, nan, nan)
    if n and min(errors[0][known].min(), errors[1][known].min()) > 0:
        logs = crossed_mean(complete(np.log(errors[0]) - np.log(errors[1])), alpha).test
        ratio = MeanTest(float(np.exp(logs.value)), float(np.exp(logs.low)), float(np.exp(logs.high)), logs.p, logs.df)
    detectable = nan
    if isfinite(test.df):
        like = max(2, round(test.df) + 1)
        detectable = smallest_detectable(like, alpha / max(1, comparisons)) * mean.se * sqrt(like)
    tost = nan
    if margin is not None and mean.se > 0:
        tost = float(special.stdtr(test.df, -(margin - abs(test.value)) / mean.se))
    return Comparison(
        arm=arm,
        reference=reference,
        n=n,
        missing_a=int((~np.isfinite(a)).sum()),
        missing_b=int((~np.isfinite(b)).sum()),
        mean_a=float(a[known].mean()) if n else nan,
        mean_b=float(b[known].mean()) if n else nan,
        difference=test.value,
        ci_low=test.low,
        ci_high=test.high,
        p=test.p if enough else nan,
        p_method=METHOD if enough else "none",
        p_minimum=0.0 if enough else nan,
        p_t=test.p,
        p_sign_flip=nan,
        p_holm=nan,
        p_max_t=nan,
        d_z=nan,
        rho=nan,
        efficiency=nan,
        wins=wins,
        ties=ties,
        losses=n - wins - ties,
        p_better=better.value,
        p_better_low=better.low,
        p_better_high=better.high,
        error_ratio=ratio.value,
        error_ratio_low=ratio.low,
        error_ratio_high=ratio.high,
        mde=detectable,
        margin=nan if margin is None else margin,
        tost_p=tost,
        tost_p_holm=nan,
        verdict="",
    )
