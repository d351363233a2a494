"""`python -m harness.report SWEEP`: a stored sweep as table, figures and pages, with no training."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from rich.table import Table

from harness.analysis import plots, render
from harness.analysis.stats import Interval, mean_ci
from harness.tracking import sweeps
from harness.tracking.frames import Results, load
from harness.tracking.store import StoreError
from harness.tracking.sweeps import Declaration

SCORES = {
    "accuracy/test": "test accuracy",
    "gap/accuracy": "gap",
    "accuracy/val": "val accuracy",
    "accuracy/train": "train accuracy",
    "loss/test": "test loss",
}


def summary_table(runs: pd.DataFrame, arms: Sequence[str], planned: int | None = None) -> pd.DataFrame:
    """One row an arm, in the order declared: n, then mean, 95 % t interval (and the test accuracy's sd) of each score.

    n counts finished runs; `diverged`, `failed` and `missing` count the others; `seconds` is the mean wall time of a run.
    """
    rows = []
    for arm in arms:
        mine = runs[runs["arm"] == arm] if len(runs) else runs
        outcomes = mine["outcome"].value_counts() if len(mine) else {}
        done = mine[mine["outcome"] == "finished"] if len(mine) else mine
        row: dict[str, object] = {"arm": arm, "n": len(done)}
        for metric in SCORES:
            scores = done[metric].to_numpy(float) if metric in done else np.zeros(0)
            interval = mean_ci(scores) if len(scores) else Interval(np.nan, np.nan, np.nan, 0)
            row |= {
                metric: interval.value,
                f"{metric}.ci_low": interval.low,
                f"{metric}.ci_high": interval.high,
            }
            if metric == "accuracy/test":
                row[f"{metric}.sd"] = float(np.std(scores, ddof=1)) if len(scores) > 1 else np.nan
        row |= {kind: int(outcomes.get(kind, 0)) for kind in ("diverged", "failed")}
        ended = len(done) + int(outcomes.get("diverged", 0))
        row["missing"] = max(0, (planned or ended) - ended - int(outcomes.get("failed", 0)))
        row["seconds"] = float(mine["seconds"].mean()) if len(mine) else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def plus_minus(row: pd.Series, metric: str, scale: float = 100, digits: int = 2) -> str:
    """Mean +- half width of the interval, in percent unless `scale` says otherwise; a dash where there is no run."""
    value, low, high = (row[name] * scale for name in (metric, f"{metric}.ci_low", f"{metric}.ci_high"))
    if np.isnan(value):
        return "–"
    return f"{value:.{digits}f}" if np.isnan(low) else f"{value:.{digits}f} ± {(high - low) / 2:.{digits}f}"


def shown(table: pd.DataFrame, baseline: str | None) -> pd.DataFrame:
    """The summary as text: what the terminal and the pages print."""
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
    return pd.DataFrame(rows)


def terminal_table(table: pd.DataFrame, question: str, baseline: str | None) -> Table:
    """The summary for a terminal."""
    drawn = Table(
        title=question or None,
        title_justify="left",
        caption="mean ± half width of the 95 % t interval over seeds",
    )
    text = shown(table, baseline)
    for column in text:
        drawn.add_column(str(column), justify="left" if column == "arm" else "right", overflow="fold")
    for row in text.itertuples(index=False):
        drawn.add_row(*map(str, row))
    return drawn


def write(results: Results, folder: Path, declaration: Declaration) -> Path:
    """Write FOLDER/SWEEP/: index.html, report.md, tables/*.csv, figures/*.svg, and log them to MLflow.

    Returns:
        The path of index.html.
    """
    target, arms = folder / declaration.sweep, list(declaration.arms)
    (target / "tables").mkdir(parents=True, exist_ok=True)
    (target / "figures").mkdir(exist_ok=True)
    summary = summary_table(results.runs, arms, len(declaration.seeds))
    for name, table in (("summary", summary), ("runs", results.runs), ("curves", results.curves)):
        table.to_csv(target / "tables" / f"{name}.csv", index=False)
    figures = {}
    if len(results.curves):
        figures["Learning curves"] = plots.svg(plots.learning_curves(results.curves, arms))
    by_arm = {arm: results.mean_histograms(arm) for arm in arms}
    if by_arm := {arm: histogram for arm, histogram in by_arm.items() if len(histogram[0])}:
        figures["Histograms of the pre-activations"] = plots.svg(plots.histograms(by_arm))
    for title, figure in figures.items():
        (target / "figures" / render.figure_file(title)).write_text(figure)
    page = render.Page(
        declaration.sweep,
        declaration.question,
        shown(summary, declaration.baseline),
        figures,
        notes(summary, declaration),
    )
    (target / "index.html").write_text(page.html())
    (target / "report.md").write_text(page.markdown())
    sweeps.log_report(results.client, results.experiment_id, target)
    return target / "index.html"


def notes(summary: pd.DataFrame, declaration: Declaration) -> list[str]:
    """Sentences that the data call for: how to read the table, and what is missing or weak."""
    lines = [
        "Mean ± half width of the 95 % Student t interval over seeds; gap = train accuracy - test accuracy, both in inference mode."
    ]
    fewest = int(summary["n"].min()) if len(summary) else 0
    if 0 < fewest < 4:
        lines.append(f"Only {fewest} finished runs in an arm: too few blocks to say more than what is seen.")
    for _, row in summary.iterrows():
        if row["diverged"]:
            lines.append(
                f"{row['arm']}: {row['diverged']} runs diverged; its means are over the {row['n']} that did not."
            )
        if row["failed"] or row["missing"]:
            lines.append(
                f"{row['arm']}: {row['failed']} runs failed, {row['missing']} are missing of {len(declaration.seeds)}."
            )
    if declaration.baseline:
        lines.append(f"The baseline is {declaration.baseline}.")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m harness.report", description=__doc__)
    parser.add_argument("sweep", help="name of a sweep in the store")
    parser.add_argument("--uri", help="an MLflow tracking URI (default: sqlite below --folder)")
    parser.add_argument("--folder", default="mlruns", help="folder of the local store (default: mlruns)")
    parser.add_argument("--reports", default="reports", help="where to write (default: reports)")
    given = parser.parse_args(arguments)
    try:
        results = load(given.sweep, given.uri, given.folder)
    except StoreError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if results.declaration is None or not len(results.runs):
        print(f"error: sweep {given.sweep!r} has no runs yet", file=sys.stderr)
        return 2
    print(write(results, Path(given.reports), results.declaration))
    return 0


if __name__ == "__main__":
    sys.exit(main())
