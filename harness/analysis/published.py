"""Published numbers beside measured ones: over several runs, does a number from one run lie inside their spread?"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from harness.analysis.stats import mean_ci

BEST = "best "
"""`best accuracy/test`: of every run the best of its evaluations, as if the moment were chosen on the test set; of a
loss the smallest."""
GAIN = "best - last "
"""`best - last accuracy/test`: of every run how much that choice adds to its last evaluation."""
IN_PERCENT = ("accuracy", "gap")
NUMBERS = ("n", "diverged", "planned", "mean", "ci_low", "ci_high", "min", "max")


def measured(
    runs: pd.DataFrame, curves: pd.DataFrame, arms: Mapping[str, str], planned: int, metrics: Sequence[str]
) -> pd.DataFrame:
    """One row an arm and metric: n, diverged, planned, mean, ci_low, ci_high (95 % t), min, max; as logged.

    `minutes`: of the arm's runs, one after the other, all that finished as fast as the fastest: others wait for a
    machine that is used for something else as well.

    Args:
        runs: arm_key, run_id, outcome, seconds, and the metrics of finished runs.
        curves: run_id, metric, step, value.
        arms: name -> key.
        planned: runs an arm.
        metrics: columns of `runs`, or `best ` or `best - last ` and the metric of a curve.
    """
    rows: list[dict[str, object]] = []
    for arm, key in arms.items():
        mine = runs[runs["arm_key"] == key] if len(runs) else runs
        done = mine[mine["outcome"] == "finished"] if len(mine) else mine
        diverged = int((mine["outcome"] == "diverged").sum()) if len(mine) else 0
        seconds = mine["seconds"].sum() - done["seconds"].sum() if len(mine) else 0.0
        seconds += len(done) * done["seconds"].min() if len(done) else 0.0
        for metric in metrics:
            values = _values(done, curves, metric)
            interval = mean_ci(values)
            low, high = (float(values.min()), float(values.max())) if len(values) else (np.nan, np.nan)
            counts = {"n": len(done), "diverged": diverged, "planned": planned}
            bounds = {"mean": interval.value, "ci_low": interval.low, "ci_high": interval.high, "min": low, "max": high}
            rows.append({"arm": arm, "metric": metric, **counts, **bounds, "minutes": seconds / 60})
    return pd.DataFrame(rows)


def _values(done: pd.DataFrame, curves: pd.DataFrame, metric: str) -> np.ndarray:
    curve = of_curve(metric)
    values = done[curve].to_numpy(float) if curve in done else np.full(len(done), np.nan)
    if curve != metric and len(done):
        course = curves[curves["metric"] == curve]
        best = course.groupby("run_id")["value"].agg("min" if curve.startswith("loss") else "max")
        found = best.reindex(done["run_id"]).to_numpy(float)
        values = found - values if metric.startswith(GAIN) else found
    finite: np.ndarray = values[np.isfinite(values)]
    return finite


def of_curve(metric: str) -> str:
    """The logged metric behind `best …` and `best - last …`, or the metric itself."""
    return metric.removeprefix(GAIN).removeprefix(BEST)


def beside(results: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """The measured rows with `published`, `note` and `inside`; a published row that was not measured has n = 0.

    inside: "yes" where min <= published <= max over two runs or more, "no" where not, "" where nothing can be said.
    """
    on = [name for name in ("sweep", "arm", "metric") if name in results and name in published]
    both = results.merge(published.rename(columns={"value": "published"}), on=on, how="outer", sort=False)
    both = both.astype({name: float for name in (*NUMBERS, "published")})
    order = {tuple(row): place for place, row in enumerate(results[on].itertuples(index=False))}
    keys = [tuple(row) for row in both[on].itertuples(index=False)]
    both = both.iloc[sorted(range(len(both)), key=lambda place: order.get(keys[place], len(order)))]
    both = both.assign(**{name: both[name].fillna(0).astype(int) for name in ("n", "diverged", "planned")})
    known = both["published"].notna() & (both["n"] >= 2) & both["min"].notna()
    within = (both["min"] <= both["published"]) & (both["published"] <= both["max"])
    note = both["note"].astype(object).where(both["note"].notna(), "") if "note" in both else ""
    return both.assign(note=note, inside=np.where(known, np.where(within, "yes", "no"), "")).reset_index(drop=True)


def shown(value: float, metric: str, digits: int = 4) -> str:
    """A share in percent, a loss with so many digits, a dash for what is not there."""
    if not np.isfinite(value):
        return "–"
    if of_curve(metric).startswith(IN_PERCENT):
        return f"{100 * value:.2f} %"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"


def markdown(table: pd.DataFrame) -> str:
    """Published beside measured, as a Markdown table."""
    several = "sweep" in table and table["sweep"].nunique() > 1
    head = [*(["sweep"] if several else []), "arm", "metric", "published", "mean ± 95 % CI", "min to max", "n"]
    lines = [_line([*head, "diverged", "published inside min to max"]), _line(["---"] * (len(head) + 2))]
    for _, row in table.iterrows():
        half = (row["ci_high"] - row["ci_low"]) / 2
        mean = shown(row["mean"], row["metric"]) + (f" ± {shown(half, row['metric'])}" if np.isfinite(half) else "")
        spread = f"{shown(row['min'], row['metric'])} to {shown(row['max'], row['metric'])}" if row["n"] > 1 else "–"
        told = [shown(row["published"], row["metric"], 5) if pd.notna(row["published"]) else "", row["note"]]
        runs = f"{row['n']} of {row['planned']}" if row["n"] + row["diverged"] < row["planned"] else str(row["n"])
        cells = [row["arm"], row["metric"], ", ".join(filter(None, told)) or "–", mean, spread, runs, row["diverged"]]
        lines.append(_line([*([row["sweep"]] if several else []), *map(str, cells), row["inside"] or "–"]))
    return "\n".join(lines)


def sentences(table: pd.DataFrame) -> list[str]:
    """What follows for each published number, in fixed words."""
    found = []
    for _, row in table.iterrows():
        if pd.isna(row["published"]):
            continue
        said = f"{row['arm']}, {row['metric']}: the published {shown(row['published'], row['metric'], 5)}"
        if row["inside"]:
            where = "inside" if row["inside"] == "yes" else "outside"
            spread = f"{shown(row['min'], row['metric'])} to {shown(row['max'], row['metric'])}"
            found.append(f"{said} lies {where} the spread of {row['n']} single runs, {spread}.")
        elif row["n"] == 1:
            found.append(f"{said} stands beside {shown(row['mean'], row['metric'])} from one run; one has no spread.")
        elif row["diverged"] and not row["n"]:
            found.append(
                f"{said} could not be had with these settings: {row['diverged']} of {row['diverged']} runs diverged."
            )
        else:
            found.append(f"{said} has nothing beside it yet.")
    return found


def shapes_beside(built: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Published entries of tables of layers (net, layer, column, value) with `built` and `equal`.

    Args:
        built: net, layer, output, kernel, bias and so on, one row a layer.
        published: with the layer's name as the harness has it.
    """
    index = built.astype(str).set_index(["net", "layer"])
    rows = []
    for net, layer, column, value in published[["net", "layer", "column", "value"]].astype(str).itertuples(index=False):
        found = str(index.loc[(net, layer), column]) if (net, layer) in index.index else "–"
        rows.append((net, layer, column, value, found, "yes" if found == value else "no"))
    return pd.DataFrame(rows, columns=["net", "layer", "column", "published", "built", "equal"])


def plain(table: pd.DataFrame) -> str:
    """Any table as Markdown."""
    lines = [_line(list(map(str, table.columns))), _line(["---"] * table.shape[1])]
    return "\n".join([*lines, *(_line(list(map(str, row))) for row in table.itertuples(index=False))])


def _line(cells: Sequence[object]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"
