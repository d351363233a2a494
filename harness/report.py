"""`python -m harness.report SWEEP`: what a stored sweep says, as claims, tables and figures; nothing is trained."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.markup import escape
from rich.table import Table

from harness.analysis import contents, held, pairs
from harness.analysis.confirmed import Confirmed
from harness.analysis.layout import weighted_layers
from harness.analysis.study import METRIC, Study
from harness.analysis.summary import brief, summary_table
from harness.tracking import sweeps
from harness.tracking.frames import Combined, Results, load, of_runs
from harness.tracking.store import StoreError, open_store
from harness.tracking.sweeps import Declaration

__all__ = ["main", "study", "summary_table", "terminal_table", "write"]


def terminal_table(table: pd.DataFrame, question: str, baseline: str | None) -> Table:
    """The summary for a terminal."""
    drawn = Table(
        title=question or None,
        title_justify="left",
        caption="mean ± half width of the 95 % t interval over blocks; with draws=K a draw is a block",
    )
    text = brief(table, baseline)
    for column in text:
        drawn.add_column(str(column), justify="left" if column == "arm" else "right", overflow="fold")
    for row in text.itertuples(index=False):
        drawn.add_row(*(escape(str(cell)) for cell in row))  # `augment=[crop,flip]` is no markup
    return drawn


def study(results: Results, declaration: Declaration) -> Study:
    """The stored results as the analysis takes them."""
    arms = list(declaration.arms)
    rules = pairs.Rules(declaration.family, declaration.correction, declaration.margin)  # type: ignore[arg-type]
    return Study(
        name=declaration.sweep,
        question=declaration.question,
        arms=arms,
        baseline=declaration.baseline,
        planned=len(declaration.blocks),
        rules=rules,
        tune=tuple(declaration.tune),
        runs=results.runs,
        curves=results.curves,
        command=_command(results.runs),
        confirmed=_confirmed(results, rules),
        search=declaration.search,
        facts=facts(results),
        read_layers=lambda: results.moments([0]),
        read_histograms=lambda: {arm: results.mean_histograms(arm) for arm in arms},
        read_nets=lambda: {arm: weighted_layers(config) for arm, config in results.nets().items()},
        read_predictions=lambda: results.predictions,
        read_mistakes=lambda some: {
            arm: png for arm in some if (png := results.arm_artifact(arm, "figures/worst_mistakes.png")) is not None
        },
    )


def facts(results: Results) -> dict[str, str]:
    """Provenance as name -> text."""
    runs = results.runs
    commands = [command for command in dict.fromkeys(runs["command"]) if command]
    found = {"sweep": ", ".join(dict.fromkeys(runs["sweep"])), "command": "; ".join(commands[:3])}
    dirty = ", with changes that were not committed" if (runs["git.dirty"] == "true").any() else ""
    found["code"] = (", ".join(sorted(set(runs["git.sha"]) - {""})) or "not in a git repository") + dirty
    for run_id in runs["run_id"]:
        if (content := results.artifact(run_id, "provenance.json")) is not None:
            document = json.loads(content)
            found["versions"] = ", ".join(f"{name} {number}" for name, number in document["versions"].items())
            found["data"] = (
                f"{document['data']['name']}, sha256 {', '.join(sorted({d[:16] for d in runs['data.digest']}))}"
            )
            break
    found["device"] = ", ".join(sorted(set(runs["device"]) - {""}))
    return {name: text for name, text in found.items() if text}


def _confirmed(results: Results, rules: pairs.Rules) -> Confirmed | None:
    """What became of the chosen arms on fresh blocks, where any were run."""
    found = results.confirmation
    if found is None or not len(results.confirmed):
        return None
    return Confirmed(results.confirmed, list(found.arms), found.baseline, found.blocks, found.chosen_on, rules)


def _command(runs: pd.DataFrame) -> str:
    """The command most runs come from."""
    commands = runs["command"][runs["command"] != ""] if "command" in runs else runs.iloc[:0]
    return str(commands.mode().iloc[0]) if len(commands) else "python -m harness"


def write(
    results: Results, folder: Path, declaration: Declaration, log: bool = True, subject: Study | None = None
) -> Path:
    """Write FOLDER/SWEEP/: index.html, report.md, tables/*.csv, figures/*.svg, results.parquet; log them to MLflow.

    Args:
        results: of the sweep.
        folder: of all reports.
        declaration: what the sweep set out to do.
        log: into MLflow too.
        subject: the results as the analysis takes them, where they were read already.

    Returns:
        The path of index.html.
    """
    subject = subject or study(results, declaration)
    target = folder / declaration.sweep
    for kind, suffix in (("tables", "csv"), ("figures", "svg"), ("figures", "png")):
        (target / kind).mkdir(parents=True, exist_ok=True)
        for old in (target / kind).glob(f"*.{suffix}"):
            old.unlink()
    page = contents.page(subject)
    (target / "index.html").write_text(page.html(), encoding="utf-8")
    (target / "report.md").write_text(page.markdown(), encoding="utf-8")
    for drawing in page.drawings:
        (target / "figures" / f"{drawing.name}.svg").write_text(drawing.svg, encoding="utf-8")
    for picture in page.pictures:
        (target / "figures" / f"{picture.name}.png").write_bytes(picture.png)
    for name, table in tables(subject).items():
        table.to_csv(target / "tables" / f"{name}.csv", index=name == "scores")
    results.runs.to_parquet(target / "results.parquet", index=False)
    if log:
        sweeps.log_report(results.client, results.experiment_id, target)
    return target / "index.html"


def tables(subject: Study) -> dict[str, pd.DataFrame]:
    """Everything a report shows, as numbers: file name -> table."""
    found = {
        "summary": subject.summary,
        "runs": subject.runs,
        "curves": subject.curves,
        "scores": subject.scores,
        "comparisons": pairs.table(subject.comparisons, METRIC, subject.examples),
        "bias_variance": subject.decomposition,
        "diverged": pairs.failures(subject.runs, subject.arms, subject.baseline),
        "tuning": subject.tuning,
        "across_data": subject.across_table,
        "sources": held.one_at_a_time(subject.runs, subject.arms, subject.examples),
    }
    if subject.confirmed is not None:
        found["confirmed_runs"] = subject.confirmed.runs
        found["confirmed_comparisons"] = pairs.table(subject.confirmed.comparisons, METRIC)
    return {name: table for name, table in found.items() if len(table)}


def _checked(results: Results, force: bool) -> Results:
    """Refuse runs that saw different data.

    Raises:
        StoreError: several data digests, and no force.
    """
    by_digest = dict(zip(results.runs["data.digest"], results.runs["arm"], strict=True))
    if len(by_digest) > 1 and not force:
        seen = "; ".join(f"{digest[:12]} ({arm})" for digest, arm in by_digest.items())
        raise StoreError(
            f"data: got runs on {len(by_digest)} different data sets: {seen}; their scores cannot be compared; "
            "--force does so nevertheless"
        )
    return results


def _asked(given: argparse.Namespace) -> tuple[Results, bool]:
    """The results that a command line names, and whether they are one sweep's own."""
    if given.sweep and not given.runs and not given.compare:
        return load(given.sweep, given.uri, given.folder), True
    if given.runs:
        client = open_store(given.uri, Path(given.folder), create=False)
        return _checked(of_runs(client, given.runs), given.force), False
    parts = [load(name, given.uri, given.folder) for name in given.compare]
    return _checked(Combined(parts, "_vs_".join(given.compare)), given.force), False


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m harness.report", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("sweep", nargs="?", help="name of a sweep in the store")
    what.add_argument("--compare", nargs="+", metavar="SWEEP", help="take sweeps together, on the blocks they share")
    what.add_argument("--runs", nargs="+", metavar="ID", help="these runs, of any sweep")
    parser.add_argument("--baseline", metavar="ARM", help="compare with this arm (default: the declared one)")
    parser.add_argument("--force", action="store_true", help="also where the runs saw different data")
    parser.add_argument("--uri", help="an MLflow tracking URI (default: sqlite below --folder)")
    parser.add_argument("--folder", default="mlruns", help="folder of the local store (default: mlruns)")
    parser.add_argument("--reports", default="reports", help="where to write (default: reports)")
    given = parser.parse_args(arguments)
    try:
        results, own = _asked(given)
        declaration = results.declaration
        if declaration is None or not len(results.runs):
            raise StoreError(f"sweep {results.sweep!r} has no runs yet")
        if given.baseline is not None:
            if given.baseline not in declaration.arms:
                raise StoreError(f"--baseline {given.baseline!r}: no arm; arms: {', '.join(declaration.arms)}")
            declaration = Declaration(**{**vars(declaration), "baseline": given.baseline})
            own = False  # what was declared stays what is logged
        print(write(results, Path(given.reports), declaration, log=own))
    except StoreError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
