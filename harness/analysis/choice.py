"""What choosing costs: the luck of the best of K, the choice by validation, parameters tuned for each arm."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.analysis.blocks import grids, is_crossed, scores
from harness.analysis.crossed import complete
from harness.analysis.selection import Advantage, advantage, bootstrap_selection, winners


@dataclass(frozen=True)
class Choice:
    """The arm that validation chooses, in points of accuracy.

    Attributes:
        chosen: the arm, None where no arm has all its scores.
        apparent: its test mean as it stands.
        corrected: the same corrected for having been chosen (bootstrap over blocks); NaN below two blocks.
        luck: observed advantage of the best arm on the test set, and what equal arms would give.
        wins: arm -> share of the blocks on which it is the best on the test set.
        eligible: arms with a score on every block.
    """

    chosen: str | None
    apparent: float
    corrected: float
    luck: Advantage
    wins: Mapping[str, float]
    eligible: Sequence[str]


def choose(runs: pd.DataFrame, arms: Sequence[str]) -> Choice | None:
    """Choose by validation accuracy, score on the test set; None where either is missing or there is one arm."""
    validation, test = scores(runs, arms, "accuracy/val"), scores(runs, arms, "accuracy/test")
    if len(arms) < 2 or not len(validation) or not len(test):
        return None
    validation = validation.reindex(test.index)
    eligible = [arm for arm in arms if test[arm].notna().all() and validation[arm].notna().all()]
    if not eligible:
        return None
    picked = bootstrap_selection(validation.T.to_numpy(float), test.T.to_numpy(float))
    return Choice(
        arms[picked.index] if picked.index >= 0 else None,
        picked.apparent,
        picked.corrected,
        _luck(runs, test[eligible], eligible),
        winners({arm: test[arm].to_numpy(float) for arm in arms}),
        eligible,
    )


def best(runs: pd.DataFrame, arms: Sequence[str], count: int) -> list[str]:
    """The arms with the highest mean validation accuracy among those with a score on every block, the best first."""
    validation, test = scores(runs, arms, "accuracy/val"), scores(runs, arms, "accuracy/test")
    whole = [arm for arm in arms if len(test) and test[arm].notna().all() and validation[arm].notna().all()]
    means = {arm: float(np.mean(validation[arm].to_numpy(float))) for arm in whole}
    return sorted(whole, key=lambda arm: -means[arm])[:count]


def _luck(runs: pd.DataFrame, test: pd.DataFrame, arms: Sequence[str]) -> Advantage:
    """Where draws are crossed with seeds, the larger of what either leaves to luck."""
    if not is_crossed(runs):
        return advantage(test.T.to_numpy(float))
    tables = [complete(grid) for grid in grids(runs, arms, "accuracy/test").values()]
    if len({table.shape for table in tables}) > 1:
        return Advantage(np.nan, np.nan, len(arms), 0)
    found = [advantage([table.mean(axis=axis) for table in tables]) for axis in (0, 1)]
    return max(found, key=lambda each: each.expected)


def groups(arms: Sequence[str], tune: Sequence[str]) -> dict[str, list[str]]:
    """Arms that differ in nothing but the tuned parameters, by what is left of their names."""
    found: dict[str, list[str]] = {}
    for arm in arms:
        kept = [part for part in arm.split(",") if part.partition("=")[0] not in tune]
        found.setdefault(",".join(kept) or "all", []).append(arm)
    return found


def tuned(runs: pd.DataFrame, arms: Sequence[str], tune: Sequence[str]) -> pd.DataFrame:
    """One row a group of arms: the group, its trials, and the arm with the best mean validation accuracy in it.

    `chosen` is None where no trial has a validation accuracy; trials with missing or diverged runs lose to others.
    """
    validation = scores(runs, arms, "accuracy/val")
    rows = []
    for name, trials in groups(arms, tune).items():
        means = {arm: float(validation[arm].mean()) for arm in trials if validation[arm].notna().any()}
        whole = {arm: mean for arm, mean in means.items() if validation[arm].notna().all()} or means
        best = max(whole, key=lambda arm: whole[arm]) if whole else None
        rows.append({"arm": name, "trials": len(trials), "chosen": best, "val accuracy": whole.get(best or "", np.nan)})
    table = pd.DataFrame(rows, columns=["arm", "trials", "chosen", "val accuracy"])
    return table.assign(chosen=pd.Series([row["chosen"] for row in rows], dtype=object))  # of texts, None would be NaN
