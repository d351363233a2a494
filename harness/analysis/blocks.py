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
    """Whether several data draws meet several seeds (`draws=K seeds=S`): then neither alone is the block."""
    return bool(len(runs)) and runs["draw"].nunique() > 1 and runs["block"].nunique() > 1


def units(runs: pd.DataFrame) -> pd.Series:
    """Each run's block, by name: what it shares with one run of every other arm."""
    seeds, draws = "seed " + runs["block"].astype(str), "draw " + runs["draw"].astype(str)
    names = draws + " " + seeds if is_crossed(runs) else draws if len(runs) and runs["draw"].nunique() > 1 else seeds
    return (_root(runs) + names).rename("unit")


def _root(runs: pd.DataFrame) -> pd.Series:
    """A word to put first where there are several root seeds, as they change all streams."""
    if "root_seed" in runs and runs["root_seed"].nunique() > 1:
        return "root " + runs["root_seed"].astype(str) + " "
    return pd.Series("", runs.index)


def scores(runs: pd.DataFrame, arms: Sequence[str], metric: str) -> pd.DataFrame:
    """Final scores of finished runs: one row a block, one column an arm, in the units of `Scale.of(metric)`.

    A block on which an arm has no finished run is NaN.
    """
    if metric not in runs:
        return pd.DataFrame(index=pd.Index([], name="unit"), columns=list(arms), dtype=float)
    frame = runs[["arm"]].assign(unit=units(runs), value=_values(runs, metric))
    order = list(dict.fromkeys(frame.sort_values("unit", key=_natural)["unit"]))
    table = frame.pivot_table(index="unit", columns="arm", values="value", aggfunc="last", dropna=False)
    return table.reindex(index=order, columns=list(arms)).astype(float)


def grids(runs: pd.DataFrame, arms: Sequence[str], metric: str) -> dict[str, npt.NDArray[np.float64]]:
    """Arm -> final scores [draw, seed] over all draws and seeds of the runs, NaN where there is none."""
    root = _root(runs)
    frame = runs[["arm"]].assign(
        row=root + runs["draw"].astype(str), column=root + runs["block"].astype(str), value=_values(runs, metric)
    )
    rows, columns = (sorted(frame[name].unique(), key=lambda x: (len(x), x)) for name in ("row", "column"))
    found = {}
    for arm in arms:
        table = frame[frame["arm"] == arm].pivot_table(
            index="row", columns="column", values="value", aggfunc="last", dropna=False
        )
        found[arm] = table.reindex(index=rows, columns=columns).to_numpy(np.float64)
    return found


def _values(runs: pd.DataFrame, metric: str) -> pd.Series:
    return runs[metric].where(runs["outcome"] == "finished") * Scale.of(metric).factor


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
