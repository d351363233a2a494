"""The comparisons of a sweep as one table: paired by block, or Welch where no block is shared."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import comb, nan, sqrt
from typing import Literal

import numpy as np
import pandas as pd

from harness.analysis import stats
from harness.analysis.blocks import Scale, blocks_of, grids, is_crossed, scores
from harness.analysis.comparison import FEWEST_BLOCKS, Comparison, compare_family
from harness.analysis.crossed import compare_crossed, complete
from harness.analysis.examples import Examples
from harness.analysis.power import smallest_detectable

Family = Literal["baseline", "all_pairs"]
Correction = Literal["holm", "max_t"]


@dataclass(frozen=True)
class Rules:
    """What a sweep declares about its comparisons; the margin is in the metric's logged units (0.01: one point)."""

    family: Family = "baseline"
    correction: Correction = "holm"
    margin: float | None = None
    alpha: float = 0.05


def compare_arms(
    runs: pd.DataFrame,
    arms: Sequence[str],
    baseline: str,
    metric: str = "accuracy/test",
    rules: Rules | None = None,
    size: int | None = None,
) -> tuple[Comparison, ...]:
    """All declared comparisons of a sweep on one metric, in the units of `Scale.of(metric)`.

    Arms that share no block by design are compared by Welch's t, unpaired, and crossed draws and seeds by a t for new
    draws and new seeds; `p_method` says so. `size`: comparisons of the family, where these are but some of them.

    Raises:
        ValueError: the baseline is no arm.
    """
    rules, scale = rules or Rules(), Scale.of(metric)
    if baseline not in arms:
        raise ValueError(f"baseline {baseline!r} is not among the arms: {', '.join(arms)}")
    table = scores(runs, arms, metric)
    columns = {arm: table[arm].to_numpy() for arm in arms}
    margin = None if rules.margin is None else rules.margin * scale.factor
    compared = compare_family(
        columns,
        baseline,
        family=rules.family,
        method=rules.correction,
        higher_is_better=scale.higher_is_better,
        margin=margin,
        alpha=rules.alpha,
        ceiling=scale.ceiling,
        size=size,
    )
    family = size or len(compared)
    ran = {arm: blocks_of(runs, arm) for arm in arms}
    apart = [not ran[c.arm] & ran[c.reference] for c in compared]
    if is_crossed(runs):
        grid = grids(runs, arms, metric)
        chosen = []
        for c, alone in zip(compared, apart, strict=True):
            a, b = grid[c.arm], grid[c.reference]
            if alone:
                c = _unpaired(c, columns[c.arm], columns[c.reference], scale, margin, rules.alpha / family)
            elif min(complete(a - b).shape) > 1:  # not so for sweeps taken together of which some have one draw
                c = compare_crossed(
                    a,
                    b,
                    arm=c.arm,
                    reference=c.reference,
                    higher_is_better=scale.higher_is_better,
                    margin=margin,
                    alpha=rules.alpha,
                    comparisons=family,
                    ceiling=scale.ceiling,
                )
            chosen.append(c)
        return _decided(chosen, [True] * len(chosen), rules, scale)
    if not any(apart):
        return compared
    chosen = [
        _unpaired(c, columns[c.arm], columns[c.reference], scale, margin, rules.alpha / family) if alone else c
        for c, alone in zip(compared, apart, strict=True)
    ]
    return _decided(chosen, apart, rules, scale)


def compare_groups(
    runs: pd.DataFrame, groups: Mapping[str, Sequence[str]], metric: str = "accuracy/test", rules: Rules | None = None
) -> tuple[Comparison, ...]:
    """Comparisons within groups of arms (first arm -> all its arms), one family over all of them, corrected by Holm."""
    rules = rules or Rules()
    counts = [len(arms) - 1 if rules.family == "baseline" else comb(len(arms), 2) for arms in groups.values()]
    found = [
        c
        for first, arms in groups.items()
        for c in compare_arms(runs[runs["arm"].isin(arms)], arms, first, metric, rules, sum(counts))
    ]
    return _decided(found, [True] * len(found), rules, Scale.of(metric))


def _decided(
    comparisons: Sequence[Comparison], which: Sequence[bool], rules: Rules, scale: Scale
) -> tuple[Comparison, ...]:
    """Give the comparisons named by `which` their Holm p over the whole family, and a verdict."""
    adjusted, equivalent = stats.holm([c.p for c in comparisons]), stats.holm([c.tost_p for c in comparisons])
    return tuple(
        replace(
            c,
            p_holm=float(adjusted[i]),
            tost_p_holm=float(equivalent[i]),
            verdict=_verdict(c, float(adjusted[i]), float(equivalent[i]), rules.alpha, scale.higher_is_better),
        )
        if chosen
        else c
        for i, (c, chosen) in enumerate(zip(comparisons, which, strict=True))
    )


def _unpaired(
    c: Comparison, a: stats.FloatArray, b: stats.FloatArray, scale: Scale, margin: float | None, alpha: float
) -> Comparison:
    """The same comparison by Welch's t: `n` is the smaller number of scores, wins count pairs of scores."""
    x, y = stats.finite(a), stats.finite(b)
    test, n = stats.welch_t(x, y), min(len(x), len(y))
    sign = 1 if scale.higher_is_better else -1
    spread = sqrt(stats.spread(x) ** 2 + stats.spread(y) ** 2)
    tost = nan
    if margin is not None:
        # Two one-sided tests at alpha, already shared out over the family: the 1 - 2 alpha interval inside the margin.
        inner = stats.welch_t(x, y, alpha=2 * alpha)
        tost = 0.0 if max(abs(inner.low), abs(inner.high)) < margin else 1.0
    return replace(
        c,
        n=n,
        mean_a=float(x.mean()) if len(x) else nan,
        mean_b=float(y.mean()) if len(y) else nan,
        difference=test.value,
        ci_low=test.low,
        ci_high=test.high,
        p=test.p if n >= FEWEST_BLOCKS else nan,
        p_t=test.p,
        p_method="Welch, unpaired" if n >= FEWEST_BLOCKS else "none",
        p_minimum=0.0 if n >= FEWEST_BLOCKS else nan,
        p_better=stats.unpaired_p_better(sign * x, sign * y),
        mde=smallest_detectable(n, alpha) * spread if n >= 2 else nan,
        tost_p=tost,
    )


def _verdict(c: Comparison, p: float, tost: float, alpha: float, higher_is_better: bool) -> str:
    if c.p_method == "none":
        return "too few blocks to say"
    if tost < alpha:
        return f"equivalent within {c.margin:.3g}"
    if p < alpha:
        return "better" if (c.difference > 0) == higher_is_better else "worse"
    return f"not distinguishable (smallest detectable difference {c.mde:.3g})"


def table(comparisons: Sequence[Comparison], metric: str, examples: Examples | None = None) -> pd.DataFrame:
    """One row a comparison: every field of `Comparison`, the unit, and the interval on the test distribution (F15)."""
    rows = []
    for c in comparisons:
        row = {"metric": metric, "unit": Scale.of(metric).unit, **asdict(c), "meaning": c.meaning()}
        wide = stats.Interval(nan, nan, nan, 0)
        if examples is not None and metric == "accuracy/test":
            wide = examples.difference(c.arm, c.reference)
        rows.append({**row, "distribution_low": 100 * wide.low, "distribution_high": 100 * wide.high})
    return pd.DataFrame(rows)


def failures(runs: pd.DataFrame, arms: Sequence[str], baseline: str | None) -> pd.DataFrame:
    """Arms with diverged runs: k of n, the share with its Clopper-Pearson interval, Barnard's p to the baseline."""
    ended = runs[runs["outcome"].isin(["finished", "diverged"])]
    counted = {
        arm: (int((mine["outcome"] == "diverged").sum()), len(mine))
        for arm in arms
        if len(mine := ended[ended["arm"] == arm])
    }
    rows = []
    for arm, (k, n) in counted.items():
        if k == 0:
            continue
        share = stats.clopper_pearson(k, n)
        against = counted.get(baseline or "")
        p = stats.failure_p(k, n, *against) if against and arm != baseline else nan
        rows.append(
            {"arm": arm, "diverged": k, "runs": n, "share": share.value, "low": share.low, "high": share.high, "p": p}
        )
    return pd.DataFrame(rows)


def differences(
    table_of_scores: pd.DataFrame, pairs: Sequence[tuple[str, str]]
) -> Mapping[tuple[str, str], stats.FloatArray]:
    """The within-block differences (arm - reference) of each pair, without the blocks that lack either."""
    found = {}
    for arm, reference in pairs:
        both = (table_of_scores[arm] - table_of_scores[reference]).to_numpy(float)
        found[arm, reference] = both[np.isfinite(both)]
    return found
