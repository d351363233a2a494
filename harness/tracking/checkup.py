"""What may be wrong with a store below a folder, and what puts it right: nothing that was measured is deleted.

The database is only read here, with plain SQL: a store of 10,000 runs is looked through in seconds, also while a sweep
writes to it. What no run claims any more is moved to `orphaned/` in the same folder.
"""

import contextlib
import fcntl
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from harness.tracking import provenance, spool
from harness.tracking.artifacts import CHECKPOINTS, local_path
from harness.tracking.schema import SchemaError, check_schema, upgrade
from harness.tracking.store import StoreError, open_store, sqlite_uri
from harness.training.checkpoints import CheckpointError, unpack

NEEDED = ("config.yaml", "provenance.json", "histograms.npz")
OF_A_FINISHED_RUN = ("predictions.npz", "model.keras")
ORPHANED = "orphaned"
_RUN_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Finding:
    """Something that is wrong: what, what puts it right, and the deed itself; None: only a person can do it."""

    what: str
    remedy: str
    fix: Callable[[], None] | None = None


@dataclass
class _Run:
    """A run as the database has it."""

    run_id: str
    experiment: str
    status: str
    deleted: bool
    folder: Path | None
    metrics: int
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"run {self.run_id} ({self.tags.get('mlflow.runName', self.tags.get('kind', 'of others'))})"

    @property
    def lives(self) -> bool:
        process = (self.tags.get(name, "") for name in ("host", "pid", "process_started"))
        return self.status == "RUNNING" and "host" in self.tags and provenance.alive(*process)


def check(folder: Path) -> list[Finding]:
    """Everything that is found in the store below a folder, in the order in which it should be put right.

    Raises:
        StoreError: there is no store, or it cannot be read at all.
    """
    database = folder.resolve() / "mlflow.db"
    try:
        there = database.is_file() and database.stat().st_size > 0  # else it is just being made
        folders = list(_artifact_folders(folder))  # before the database is read: a run is in it before its folder is
        parts = sorted(folder.glob("artifacts/**/.*.part"))
    except OSError as error:
        raise StoreError(f"tracking.folder={folder}: {error.strerror or error}") from None
    if not there:
        raise StoreError(f"tracking.folder={folder}: no mlflow.db there")
    try:
        check_schema(database)
    except SchemaError as error:
        fix = (lambda: upgrade(database)) if error.older else None
        remedy = f"copy it to {database.name}.before-upgrade, then upgrade it" if fix else error.way_out
        return [Finding(error.what, remedy, fix)]  # all else can only be told with a database that can be read
    try:
        runs, experiments = _read(database)
    except sqlite3.Error as error:
        raise StoreError(f"tracking.folder={folder}: {database} cannot be read: {error}") from None
    return [
        *_spools(folder, experiments),
        *_dead(folder, runs),
        *_missing(folder, runs),
        *_damaged_checkpoints(folder, runs),
        *_orphans(folder, runs, folders),
        *_half_written(folder, runs, parts),
        *_claims(folder),
    ]


def _read(database: Path) -> tuple[dict[str, _Run], dict[str, str]]:
    """Runs by id, and the names of experiments by id."""
    with contextlib.closing(sqlite3.connect(f"file:{quote(str(database))}?mode=ro", timeout=30, uri=True)) as store:
        runs = {
            run_id: _Run(run_id, str(experiment), status, stage == "deleted", local_path(uri or ""), 0)
            for run_id, experiment, status, stage, uri in store.execute(
                "SELECT run_uuid, experiment_id, status, lifecycle_stage, artifact_uri FROM runs ORDER BY start_time"
            )
        }
        for run_id, key, value in store.execute("SELECT run_uuid, key, value FROM tags"):
            if run_id in runs:
                runs[run_id].tags[key] = value
        for run_id, count in store.execute("SELECT run_uuid, count(*) FROM latest_metrics GROUP BY run_uuid"):
            if run_id in runs:
                runs[run_id].metrics = count
        experiments = {
            str(number): name for number, name in store.execute("SELECT experiment_id, name FROM experiments")
        }
    return runs, experiments


def _artifact_folders(folder: Path) -> Iterator[Path]:
    """Folders of runs: artifacts/<experiment>/<run id>."""
    for experiment in sorted((folder / "artifacts").glob("*")):
        if experiment.is_dir():
            yield from (path for path in sorted(experiment.iterdir()) if _RUN_ID.fullmatch(path.name))


def _spools(folder: Path, experiments: Mapping[str, str]) -> Iterator[Finding]:
    """What dead processes could not write."""
    uri = sqlite_uri(folder)
    for place in sorted(path for path in (folder / "unwritten").glob("*@*") if path.is_dir()):
        if provenance.alive(*place.name.split("@")[1:4]):
            continue
        count, number = len(spool.Spool(place)), place.name.split("@")[0].rpartition("-")[2]
        if count == 0:
            yield Finding(f"{place}: a message that was half written", f"move it to {ORPHANED}/", _aside(folder, place))
        elif place not in spool.left(folder / "unwritten", uri, number):
            yield Finding(
                f"{place}: {count} messages for another store",
                "start the sweep with that tracking.uri again, which writes them",
            )
        elif number not in experiments:
            what = f"{place}: {count} messages for experiment {number}, which is gone"
            yield Finding(what, f"move them to {ORPHANED}/", _aside(folder, place))
        else:
            what = f"{place}: {count} messages that are not in the store yet"
            yield Finding(what, "write them into it", _deliver(folder, number, experiments[number]))


def _deliver(folder: Path, number: str, sweep: str) -> Callable[[], None]:
    def deliver() -> None:
        from harness.tracking.tracker import Tracker

        Tracker(open_store(None, folder), number, sweep, {}, folder / "unwritten", 5.0).close()

    return deliver


def _dead(folder: Path, runs: Mapping[str, _Run]) -> Iterator[Finding]:
    """Runs that say RUNNING although nobody trains them: arms and reports go by the runs of their experiment."""
    busy = {run.experiment for run in runs.values() if run.lives}
    for run in runs.values():
        kind = run.tags.get("kind")
        if run.status != "RUNNING" or run.deleted or kind not in ("run", "arm", "report") or run.lives:
            continue
        if kind == "run" or run.experiment not in busy:
            yield Finding(
                f"{run.name}: says RUNNING, but its process is dead",
                "set it to KILLED",
                _end(folder, run, "KILLED", {}),
            )


def _missing(folder: Path, runs: Mapping[str, _Run]) -> Iterator[Finding]:
    """Runs that say that they are done, but lack what a done run has."""
    for run in runs.values():
        outcome = run.tags.get("outcome")
        if run.tags.get("kind") != "run" or run.status != "FINISHED" or run.deleted or outcome is None:
            continue
        lacks = []
        if run.folder is not None and not run.folder.is_dir():
            lacks.append(f"its folder {run.folder}")
        elif run.folder is not None:
            names = (*NEEDED, *(OF_A_FINISHED_RUN if outcome == "finished" else ()))
            lacks += [name for name in names if not (run.folder / name).is_file()]
        if run.metrics == 0 and outcome == "finished":
            lacks.append("every metric")
        if lacks:
            listed = ", ".join(lacks)
            reason = f"lost {listed}"
            yield Finding(
                f"{run.name}: is finished, but lacks {listed}",
                "set it to FAILED, so that the sweep's command trains it again",
                _end(folder, run, "FAILED", {"outcome": "failed", "outcome.reason": reason}),
            )


def _damaged_checkpoints(folder: Path, runs: Mapping[str, _Run]) -> Iterator[Finding]:
    """Checkpoints from which an interrupted run would go on, if they could be read."""
    for run in runs.values():
        if run.folder is None or run.tags.get("kind") != "run" or run.status == "FINISHED" or run.lives:
            continue
        for file in sorted((run.folder / CHECKPOINTS).glob("step_*.npz")):
            try:
                unpack(file.read_bytes())
            except (CheckpointError, OSError):
                what = f"{file}: a damaged checkpoint of {run.name}; the one before it is used"
                yield Finding(what, f"move it to {ORPHANED}/", _aside(folder, file))


def _orphans(folder: Path, runs: Mapping[str, _Run], folders: list[Path]) -> Iterator[Finding]:
    """Folders of artifacts whose run the database does not know; those of runs in MLflow's trash stay."""
    for place in folders:
        if place.name not in runs:
            saved = len(list(place.glob(f"artifacts/{CHECKPOINTS}/*.npz")))
            held = f" with {saved} checkpoints" if saved else ""
            what = f"{place}: artifacts{held} of a run that is not in the store"
            yield Finding(what, f"move them to {ORPHANED}/", _aside(folder, place))


def _half_written(folder: Path, runs: Mapping[str, _Run], parts: list[Path]) -> Iterator[Finding]:
    """Files whose writing was cut off; the whole file of that name is an older one, or was never there."""
    for file in parts:
        place = file.relative_to(folder / "artifacts").parts
        run = runs.get(place[1]) if len(place) > 2 else None
        if run is not None and not run.lives:
            yield Finding(f"{file}: half written", f"move it to {ORPHANED}/", _aside(folder, file))


def _claims(folder: Path) -> Iterator[Finding]:
    """Claims that nobody holds: the kernel drops the lock of a process that dies, but not its file."""
    for file in sorted((folder / "claims").glob("*.*")):
        with contextlib.suppress(OSError), file.open("rb") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield Finding(f"{file}: a claim that nobody holds", "remove it", _unclaim(file))


def _unclaim(file: Path) -> Callable[[], None]:
    def unclaim() -> None:
        with contextlib.suppress(FileNotFoundError, BlockingIOError), file.open("rb") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.unlink()
        with contextlib.suppress(OSError):  # others are in it
            file.parent.rmdir()

    return unclaim


def _end(folder: Path, run: _Run, status: str, tags: Mapping[str, str]) -> Callable[[], None]:
    def end() -> None:
        client = open_store(None, folder)
        for name, value in tags.items():
            client.set_tag(run.run_id, name, value)
        client.set_terminated(run.run_id, status)

    return end


def _aside(folder: Path, path: Path) -> Callable[[], None]:
    """Move it to `orphaned/`, under the place that it had."""

    def aside() -> None:
        target = folder / ORPHANED / path.relative_to(folder)
        if target.exists():
            target = target.with_name(f"{target.name}.{time.time_ns()}")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(os.fspath(path), target)

    return aside
