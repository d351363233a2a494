"""One row an arm: what came out, in numbers and as text."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from harness.analysis.blocks import Scale, grids, is_crossed
from harness.analysis.crossed import complete, crossed_mean
from harness.analysis.examples import Examples
from harness.analysis.selection import iqm
from harness.analysis.stats import Interval, MeanTest, mean_ci, spread

SCORES = ("accuracy/test", "gap/accuracy", "accuracy/val", "accuracy/train", "loss/test")
IQM_BLOCKS = 8


def summary_table(
    runs: pd.DataFrame, arms: Sequence[str], planned: int | None = None, examples: Examples | None = None
) -> pd.DataFrame:
    """One row an arm, in the order declared: n, then mean and 95 % t interval of each score, as logged (shares, nats).

    n counts finished runs; `diverged`, `failed` and `missing` count the others; `seconds` is the mean wall time of a
    run. Of the test accuracy also sd, min, max, from 8 runs on the interquartile mean, and with `examples` the floor of
    the sd. `stopped` counts the runs that stopped early on validation, `stopped.step` is their mean last step. Where
    draws are crossed with seeds, the intervals are for new draws and new seeds.
    """
    crossed = is_crossed(runs)
    rows = []
    for arm in arms:
        mine = runs[runs["arm"] == arm] if len(runs) else runs
        outcomes = mine["outcome"].value_counts().to_dict() if len(mine) else {}
        done = mine[mine["outcome"] == "finished"] if len(mine) else mine
        row: dict[str, object] = {"arm": arm, "n": len(done)}
        for metric in SCORES:
            every = done[metric].to_numpy(float) if metric in done else np.zeros(0)
            interval: Interval | MeanTest = mean_ci(every)
            if crossed and metric in runs:
                interval = crossed_mean(complete(grids(runs, [arm], metric)[arm] / Scale.of(metric).factor)).test
            row |= {metric: interval.value, f"{metric}.ci_low": interval.low, f"{metric}.ci_high": interval.high}
            if metric == "accuracy/test":
                known = every[np.isfinite(every)]
                row |= {
                    f"{metric}.sd": spread(known),
                    f"{metric}.min": float(known.min()) if len(known) else np.nan,
                    f"{metric}.max": float(known.max()) if len(known) else np.nan,
                    f"{metric}.iqm": iqm(known) if len(known) >= IQM_BLOCKS else np.nan,
                    f"{metric}.sd_floor": examples.spread(arm).floor if examples else np.nan,
                }
        row |= {kind: int(outcomes.get(kind, 0)) for kind in ("diverged", "failed")}
        ended = len(done) + int(outcomes.get("diverged", 0))
        row["missing"] = max(0, (planned or ended) - ended - int(outcomes.get("failed", 0)))
        stopped = pd.to_numeric(done["stopped.step"]).dropna() if "stopped.step" in done else pd.Series(dtype=float)
        row |= {"stopped": len(stopped), "stopped.step": float(stopped.mean())}
        row["seconds"] = float(mine["seconds"].mean()) if len(mine) else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def plus_minus(row: pd.Series, metric: str, scale: float = 100, digits: int = 2) -> str:
    """Mean ± half width of the interval, in percent unless `scale` says otherwise; a dash where there is no run."""
    value, low, high = (row[name] * scale for name in (metric, f"{metric}.ci_low", f"{metric}.ci_high"))
    if np.isnan(value):
        return "–"
    return f"{value:.{digits}f}" if np.isnan(low) else f"{value:.{digits}f} ± {(high - low) / 2:.{digits}f}"


def brief(table: pd.DataFrame, baseline: str | None) -> pd.DataFrame:
    """The summary as text, as wide as a terminal."""
    rows = []
    for _, row in table.iterrows():
        other = [f"{row[kind]} {kind}" for kind in ("failed", "missing") if row[kind]]
        rows.append(
            {
                "arm": f"{row['arm']}{' (baseline)' if row['arm'] == baseline else ''}",
                "n": str(row["n"]) + (f" ({', '.join(other)})" if other else ""),
                "test accuracy %": plus_minus(row, "accuracy/test"),
                "gap %": plus_minus(row, "gap/accuracy"),
                "val accuracy %": plus_minus(row, "accuracy/val"),
                "test loss": plus_minus(row, "loss/test", 1, 3),
                "diverged": str(row["diverged"]),
                "s/run": "–" if np.isnan(row["seconds"]) else f"{row['seconds']:.1f}",
            }
        )
    text = pd.DataFrame(rows)
    if table["stopped"].any():
        found = zip(table["stopped.step"], table["stopped"], table["n"], strict=True)
        shown = [f"{step:.0f} ({count} of {n} runs)" if count else "–" for step, count, n in found]
        text.insert(list(text.columns).index("diverged"), "stopped at step", shown)
    return text


def full(table: pd.DataFrame, baseline: str | None) -> pd.DataFrame:
    """The summary as text with everything a page has room for; columns without any value are left out."""
    text = brief(table, baseline)
    percent = {
        "sd": "accuracy/test.sd",
        "floor sd": "accuracy/test.sd_floor",
        "min": "accuracy/test.min",
        "max": "accuracy/test.max",
        "IQM": "accuracy/test.iqm",
    }
    place = list(text.columns).index("test accuracy %") + 1
    for name, column in reversed(percent.items()):
        if table[column].notna().any():
            text.insert(place, name, ["–" if np.isnan(x) else f"{100 * x:.2f}" for x in table[column]])
    text.insert(
        list(text.columns).index("val accuracy %"),
        "train accuracy %",
        [plus_minus(r, "accuracy/train") for _, r in table.iterrows()],
    )
    return text
