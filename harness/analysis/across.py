"""Methods across data sets: interquartile mean, profile, probability of improvement (Agarwal et al. 2021)."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from harness.analysis.figure import NARROW, legend, legend_height, new_figure, short_names, styles
from harness.analysis.selection import iqm
from harness.analysis.stats import FloatArray, unpaired_p_better

FEWEST_DATA_SETS, FEWEST_RUNS = 3, 5
Strata = Sequence[FloatArray]
"""A method's scores, one array a data set."""


def method(arm: str) -> str:
    """The arm's name without what it says about data: what is the same on every data set."""
    kept = [part for part in arm.split(",") if part.partition("=")[0].partition(".")[0] != "data"]
    return ",".join(kept) or "all"


def by_data(runs: pd.DataFrame, arms: Sequence[str]) -> dict[str, list[str]]:
    """Digest of the data -> the arms that were trained on them, in order."""
    found: dict[str, list[str]] = {}
    if "data.digest" in runs:
        seen = runs.drop_duplicates(["arm", "data.digest"])
        digests = dict(zip(seen["arm"], seen["data.digest"], strict=True))
        for arm in arms:
            if arm in digests:
                found.setdefault(digests[arm], []).append(arm)
    return found


def strata(runs: pd.DataFrame, arms: Sequence[str], classes: Mapping[str, int]) -> dict[str, Strata]:
    """Method -> (accuracy - chance) / (1 - chance) of its runs on each data set, chance being 1 / classes.

    A run that diverged scores 0, as chance does. Only methods with `FEWEST_RUNS` ended runs on every data set; empty
    below `FEWEST_DATA_SETS` data sets, or where the number of classes of one is not known.

    Args:
        runs: one row a run.
        arms: of the sweep.
        classes: arm -> number of classes of its data.
    """
    groups = by_data(runs, arms)
    methods = list(dict.fromkeys(method(arm) for arm in arms))
    if len(groups) < FEWEST_DATA_SETS or not set(arms) <= set(classes):
        return {}
    found: dict[str, Strata] = {}
    for name in methods:
        scores: list[FloatArray] = []
        for group in groups.values():
            for arm in (arm for arm in group if method(arm) == name):
                mine = runs[(runs["arm"] == arm) & runs["outcome"].isin(["finished", "diverged"])]
                chance = 1 / classes[arm]
                above = (mine["accuracy/test"] - chance) / (1 - chance)
                scores.append(above.where(mine["outcome"] == "finished", 0.0).to_numpy(np.float64))
        if len(scores) == len(groups) and min(map(len, scores)) >= FEWEST_RUNS:
            found[name] = scores
    return found


def resampled(scores: Strata, resamples: int, rng: np.random.Generator) -> list[FloatArray]:
    """Bootstrap samples (resamples, runs) of each data set's runs: stratified, as the data sets are those they are."""
    return [each[rng.integers(0, len(each), (resamples, len(each)))] for each in scores]


def iqm_interval(scores: Strata, resamples: int = 10_000, seed: int = 0) -> tuple[float, float, float]:
    """Interquartile mean over all runs of all data sets, with its 95 % stratified percentile bootstrap interval."""
    rng = np.random.default_rng(seed)
    samples = np.sort(np.concatenate(resampled(scores, resamples, rng), axis=1), axis=1)
    cut = samples.shape[1] // 4
    low, high = np.quantile(samples[:, cut : samples.shape[1] - cut].mean(axis=1), [0.025, 0.975])
    return iqm(np.concatenate(list(scores))), float(low), float(high)


def improvement(a: Strata, b: Strata, resamples: int = 2_000, seed: int = 0) -> tuple[float, float, float]:
    """Probability that a run of A beats one of B on the same data set, ties half, mean over the data sets; 95 % CI."""
    rng = np.random.default_rng(seed)
    x, y = resampled(a, resamples, rng), resampled(b, resamples, rng)
    wins = [
        ((p[:, :, None] > q[:, None, :]) + 0.5 * (p[:, :, None] == q[:, None, :])).mean(axis=(1, 2))
        for p, q in zip(x, y, strict=True)
    ]
    low, high = np.quantile(np.mean(wins, axis=0), [0.025, 0.975])
    value = float(np.mean([unpaired_p_better(p, q) for p, q in zip(a, b, strict=True)]))
    return value, float(low), float(high)


def table(found: Mapping[str, Strata], baseline: str | None) -> pd.DataFrame:
    """One row a method: method, data sets, runs, iqm, and improvement over the baseline's method, with intervals."""
    rows = []
    for name, scores in found.items():
        row: dict[str, object] = {"method": name, "data sets": len(scores), "runs": sum(map(len, scores))}
        row |= dict(zip(("iqm", "iqm_low", "iqm_high"), iqm_interval(scores), strict=True))
        better = (np.nan, np.nan, np.nan)
        if baseline is not None and baseline in found and name != baseline:
            better = improvement(scores, found[baseline])
        row |= dict(zip(("improvement", "improvement_low", "improvement_high"), better, strict=True))
        rows.append(row)
    return pd.DataFrame(rows)


def profile(scores: Strata, at: FloatArray) -> FloatArray:
    """Share of the runs whose score is above each of `at`, mean over the data sets."""
    shares: FloatArray = np.mean([(each[:, None] > at).mean(axis=0) for each in scores], axis=0)
    return shares


def profiles(found: Mapping[str, Strata], resamples: int = 2_000, seed: int = 0) -> Figure:
    """Performance profile of each method with its 95 % stratified bootstrap band."""
    look, names = styles(list(found)), short_names(list(found))
    lowest = min(float(each.min()) for scores in found.values() for each in scores)
    at = np.linspace(min(0.0, lowest), 1, 101)
    figure = new_figure(NARROW, 3.2 + legend_height(len(found)))
    axes = figure.subplots()
    for name, scores in found.items():
        color = look[name]["color"]
        samples = resampled(scores, resamples, np.random.default_rng(seed))
        shares = np.mean([[(each > t).mean(axis=1) for t in at] for each in samples], axis=0)
        low, high = np.quantile(shares, [0.025, 0.975], axis=1)
        axes.fill_between(at, low, high, color=color, alpha=0.18, linewidth=0)
        axes.plot(at, profile(scores, at), color=color, linestyle=look[name]["linestyle"], label=names[name])
    axes.set_xlabel("score: (accuracy − chance) / (1 − chance)")
    axes.set_ylabel("share of the runs above it")
    axes.set_ylim(-0.02, 1.02)
    axes.grid(alpha=0.25)
    legend(figure, axes)
    return figure
