"""Scores by unit of replication: the block, or the data draw where draws and seeds are crossed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd


@dataclass(frozen=True)
class Scale:
    """How a metric is shown: `factor` turns the logged number into `unit`; `ceiling` is the best score, in `unit`."""

    factor: float
    unit: str
    higher_is_better: bool
    ceiling: float

    @classmethod
    def of(cls, metric: str) -> "Scale":
        """Accuracies are logged as shares and shown in percentage points; losses are in nats."""
        share = "accuracy" in metric
        return cls(100.0 if share else 1.0, "points" if share else "nats", metric.startswith("accuracy"), 100.0)


def is_crossed(runs: pd.DataFrame) -> bool:
    """Whether numbered data draws meet the same seeds (`draws=K seeds=S`)."""
    return bool(len(runs)) and bool((runs["draw"] != "all").any())


def units(runs: pd.DataFrame) -> pd.Series:
    """Each run's unit of replication, by name.

    Runs of one draw share its training examples, so where draws are crossed with seeds the draw is the unit and its
    seeds are averaged. The root seed is part of the name where there are several, as it changes all streams.
    """
    seeds = "seed " + runs["block"].astype(str)
    names = seeds.where(runs["draw"] == "all", "draw " + runs["draw"].astype(str)) if is_crossed(runs) else seeds
    if "root_seed" in runs and runs["root_seed"].nunique() > 1:
        names = "root " + runs["root_seed"].astype(str) + " " + names
    return names.rename("unit")


def cells(runs: pd.DataFrame) -> pd.Series:
    """Each run's draw and seed, by name: what it shares with one run of every other arm."""
    crossed = is_crossed(runs)
    return (units(runs) + " seed " + runs["block"].astype(str)).rename("unit") if crossed else units(runs)


def scores(runs: pd.DataFrame, arms: Sequence[str], metric: str, every: bool = False) -> pd.DataFrame:
    """Final scores of finished runs: one row a unit, one column an arm, in the units of `Scale.of(metric)`.

    A unit on which an arm has no finished run is NaN. With `every`, a row is one draw and seed instead.
    """
    if metric not in runs:
        return pd.DataFrame(index=pd.Index([], name="unit"), columns=list(arms), dtype=float)
    frame = runs[["arm"]].assign(
        unit=cells(runs) if every else units(runs),
        value=runs[metric].where(runs["outcome"] == "finished") * Scale.of(metric).factor,
    )
    order = list(dict.fromkeys(frame.sort_values("unit", key=_natural)["unit"]))
    table = frame.pivot_table(index="unit", columns="arm", values="value", aggfunc="mean", dropna=False)
    return table.reindex(index=order, columns=list(arms)).astype(float)


def _natural(names: pd.Series) -> pd.Series:
    """`seed 10` after `seed 9`."""
    return names.str.replace(r"\d+", lambda digits: f"{int(digits[0]):012d}", regex=True)


def blocks_of(runs: pd.DataFrame, arm: str) -> set[str]:
    """The units on which an arm was run, whatever came of it."""
    return set(units(runs)[runs["arm"] == arm])


def run_grid(runs: pd.DataFrame, arm: str) -> tuple[list[str], list[int], npt.NDArray[np.object_]]:
    """An arm's finished runs as draws (K,), seeds (S,) and run ids (K, S), complete.

    Where cells are missing, the draw or the seed with most holes is left out until none is left.
    """
    mine = runs[(runs["arm"] == arm) & (runs["outcome"] == "finished")]
    table = mine.pivot_table(index="draw", columns="block", values="run_id", aggfunc="last")
    while table.size and table.isna().to_numpy().any():
        holes = table.isna()
        by_draw, by_seed = holes.mean(axis=1), holes.mean(axis=0)
        if by_draw.max() >= by_seed.max():
            table = table.drop(index=by_draw.idxmax())
        else:
            table = table.drop(columns=by_seed.idxmax())
    draws = sorted(table.index, key=lambda name: (len(str(name)), str(name)))
    return draws, [int(seed) for seed in table.columns], table.loc[draws].to_numpy(object)
