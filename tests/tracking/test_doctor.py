"""`python -m harness.doctor`: every damage done for real to a small real store, found, and put right."""

from __future__ import annotations

import fcntl
import io
import json
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from harness import doctor
from harness.__main__ import main
from harness.data.datasets import Dataset
from harness.tracking import spool
from harness.tracking.entries import Entry
from harness.tracking.provenance import process
from harness.tracking.store import open_store, sqlite_uri

SWEEP = (
    *("sweep.name=tiny", "arch=softmax", "optimizer=sgd", "data=npz", "data.path=rows.npz", "seeds=2", "reports=null"),
    *("train.steps=4", "train.batch_size=10", "train.evaluate={at:[0],every:null}", "train.probe.at=[0]"),
    "train.checkpoint={every:2,at:[]}",
)
DEAD = {"process_started": "1.00"}


@dataclass
class Store:
    """A folder in which SWEEP has run."""

    folder: Path

    @property
    def mlruns(self) -> Path:
        return self.folder / "mlruns"

    @property
    def client(self) -> MlflowClient:
        return open_store(None, self.mlruns)

    def sql(self, *statements: str) -> None:
        with closing(sqlite3.connect(self.mlruns / "mlflow.db")) as database:
            for statement in statements:
                database.execute(statement)
            database.commit()

    def runs(self) -> list[tuple[str, str, Path]]:
        """Id, status and artifact folder of the sweep's runs, by block."""
        found = self.client.search_runs(["1"], "tags.kind = 'run'")
        found.sort(key=lambda run: run.data.tags["block"])
        return [(run.info.run_id, run.info.status, Path(run.info.artifact_uri)) for run in found]

    def pretend(self, run_id: str, status: str, tags: Mapping[str, str]) -> None:
        """Leave a run as a process that ended without a word leaves it."""
        for name, value in tags.items():
            self.client.set_tag(run_id, name, value)
        self.sql(f"UPDATE runs SET status = '{status}' WHERE run_uuid = '{run_id}'")

    def doctor(self, *arguments: str) -> tuple[int, str]:
        out = io.StringIO()
        with redirect_stdout(out), redirect_stderr(out):
            code = doctor.main(["--folder", str(self.mlruns), *arguments])
        return code, out.getvalue()

    def is_put_right(self, *said: str) -> None:
        """It says this, changes nothing, does it when told to, and then finds nothing."""
        before = [path for path in sorted(self.mlruns.rglob("*")) if path.name != ".lock"]
        code, text = self.doctor()
        assert code == 1, text
        for each in said:
            assert each in text, text
        assert [path for path in sorted(self.mlruns.rglob("*")) if path.name != ".lock"] == before
        code, text = self.doctor("--fix")
        assert code == 0, text
        assert self.doctor() == (0, f"{self.mlruns}: nothing is wrong\n")

    def trains_again(self) -> str:
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as out:
            patch.chdir(self.folder)
            assert main(SWEEP) == 0, out.getvalue()
        assert self.doctor()[0] == 0
        return out.getvalue()


@pytest.fixture(scope="module")
def _trained(tmp_path_factory: pytest.TempPathFactory, rows: Dataset) -> tuple[Store, Path]:
    folder = tmp_path_factory.mktemp("doctor")
    parts = {"x_train": rows.x_train, "y_train": rows.y_train, "x_test": rows.x_test, "y_test": rows.y_test}
    np.savez(folder / "rows.npz", **parts)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()):
        patch.chdir(folder)
        assert main(SWEEP) == 0
    kept = tmp_path_factory.mktemp("kept") / "mlruns"
    shutil.copytree(folder / "mlruns", kept)
    return Store(folder), kept


@pytest.fixture
def store(_trained: tuple[Store, Path]) -> Iterator[Store]:
    """The store as the sweep left it; its database is filled again in place, as MLflow keeps it open."""
    store, kept = _trained
    yield store
    with (
        closing(sqlite3.connect(kept / "mlflow.db")) as whole,
        closing(sqlite3.connect(store.mlruns / "mlflow.db")) as mine,
    ):
        whole.backup(mine)
    for path in store.mlruns.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    shutil.copytree(kept / "artifacts", store.mlruns / "artifacts")


# Healthy, or not to be looked at


def test_a_store_that_a_sweep_has_left_is_healthy(store: Store) -> None:
    assert store.doctor() == (0, f"{store.mlruns}: nothing is wrong\n")


def test_the_folder_can_be_named_as_in_the_sweeps_command(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main([f"tracking.folder={store.mlruns}"]) == 0
    assert doctor.main(["tracking.uri=x"]) == 2
    assert "allowed: tracking.folder=FOLDER" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["nowhere", "file", "file/below"])
def test_what_is_no_store_cannot_be_looked_at(place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert doctor.main(["--folder", str(tmp_path / place)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: tracking.folder={tmp_path / place}: ")
    assert said.count("\n") == 1


# The database


def test_a_database_of_a_newer_mlflow_is_left_alone_by_both(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path)
    shutil.copytree(store.mlruns, other.mlruns)
    other.sql("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    code, text = other.doctor("--fix")
    assert code == 1
    assert "is of a newer MLflow (version ffffffffffff of its tables is not known here)" in text
    assert sorted(path.name for path in other.mlruns.glob("*")) == sorted(path.name for path in store.mlruns.glob("*"))


def test_a_database_of_an_older_mlflow_is_copied_and_upgraded(tmp_path: Path) -> None:
    import sqlalchemy
    from alembic import command
    from mlflow.store.db.utils import InitialBase, _get_alembic_config

    from harness.tracking.schema import _versions

    store, older = Store(tmp_path), _versions()[1]
    store.mlruns.mkdir()
    engine = sqlalchemy.create_engine(f"sqlite:///{store.mlruns}/mlflow.db")
    config = _get_alembic_config(str(engine.url))
    InitialBase.metadata.create_all(engine)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, older)
    engine.dispose()
    code, text = store.doctor()
    assert code == 1
    assert f"is of an older MLflow (version {older} of its tables, {_versions()[0]} here)" in text
    assert store.doctor("--fix")[0] == 0
    assert store.doctor()[0] == 0
    assert (store.mlruns / "mlflow.db.before-upgrade").is_file()
    open_store(None, store.mlruns)


def test_a_damaged_database_is_said_to_be_one(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path)
    shutil.copytree(store.mlruns, other.mlruns)
    with (other.mlruns / "mlflow.db").open("r+b") as file:
        for page in range(5, 60):
            file.seek(page * 4096)
            file.write(b"\xff" * 2048)
    code, text = other.doctor("--fix")
    assert code == 1
    assert "is damaged: " in text
    assert ".recover" in text


# Runs


def test_a_run_of_a_dead_process_is_closed_and_one_of_a_living_left(store: Store) -> None:
    (dead, _, _), (alive, _, _) = store.runs()
    store.pretend(alive, "RUNNING", process())
    assert store.doctor()[0] == 0
    store.pretend(dead, "RUNNING", process() | DEAD)
    store.is_put_right(f"run {dead}", "says RUNNING, but its process is dead\n    would set it to KILLED")
    assert [status for _, status, _ in store.runs()] == ["KILLED", "RUNNING"]


def test_arms_and_reports_are_closed_when_nothing_in_their_sweep_lives(store: Store) -> None:
    (run, _, _), _ = store.runs()
    store.sql("UPDATE runs SET status = 'RUNNING' WHERE run_uuid IN (SELECT run_uuid FROM tags WHERE value = 'arm')")
    (arm,) = store.client.search_runs(["1"], "tags.kind = 'arm'")
    store.pretend(arm.info.run_id, "RUNNING", DEAD)
    store.pretend(run, "RUNNING", process())
    assert store.doctor()[0] == 0
    store.pretend(run, "RUNNING", DEAD)
    store.is_put_right(f"run {run}", f"run {arm.info.run_id}")


def test_a_run_whose_folder_was_deleted_is_trained_again(store: Store) -> None:
    (run, _, folder), _ = store.runs()
    shutil.rmtree(folder)
    store.is_put_right(f"run {run}", f"is finished, but lacks its folder {folder}\n    would set it to FAILED")
    assert "1 runs are finished." in store.trains_again()


def test_a_run_that_lacks_files_gets_them_from_its_last_checkpoint(store: Store) -> None:
    (run, _, folder), _ = store.runs()
    (folder / "predictions.npz").unlink()
    (folder / "model.keras").unlink()
    store.is_put_right("is finished, but lacks predictions.npz, model.keras")
    assert store.client.get_run(run).data.tags["outcome.reason"] == "lost predictions.npz, model.keras"
    store.trains_again()
    assert (folder / "model.keras").is_file()


def test_a_finished_run_without_metrics_is_trained_again(store: Store) -> None:
    _, (run, _, _) = store.runs()
    store.sql(f"DELETE FROM metrics WHERE run_uuid = '{run}'", f"DELETE FROM latest_metrics WHERE run_uuid = '{run}'")
    store.is_put_right(f"run {run}", "lacks every metric")
    assert [status for _, status, _ in store.runs()] == ["FINISHED", "FAILED"]


def test_a_damaged_checkpoint_of_an_interrupted_run_is_laid_aside(store: Store) -> None:
    (run, _, folder), _ = store.runs()
    store.pretend(run, "KILLED", {})
    damaged = folder / "checkpoints" / "step_000000004.npz"
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-100])
    store.is_put_right("step_000000004.npz: a damaged checkpoint", "would move it to orphaned/")
    moved = store.mlruns / "orphaned" / damaged.relative_to(store.mlruns)
    assert moved.read_bytes() == content[:-100]


# Files


def test_artifacts_without_a_run_are_moved_not_deleted(store: Store) -> None:
    _, (run, _, folder) = store.runs()
    tables = ("tags", "params", "metrics", "latest_metrics", "runs")
    store.sql(*(f"DELETE FROM {table} WHERE run_uuid = '{run}'" for table in tables))
    files = sorted(path.name for path in folder.rglob("*"))
    store.is_put_right(f"{folder.parent}: artifacts with 2 checkpoints of a run that is not in the store")
    moved = store.mlruns / "orphaned" / folder.relative_to(store.mlruns)
    assert sorted(path.name for path in moved.rglob("*")) == files


def test_artifacts_of_a_run_in_mlflows_trash_stay(store: Store) -> None:
    (run, _, folder), _ = store.runs()
    store.client.delete_run(run)
    assert store.doctor("--fix")[0] == 0
    assert (folder / "model.keras").is_file()


def test_a_file_that_was_half_written_is_laid_aside(store: Store) -> None:
    (run, _, folder), _ = store.runs()
    part = folder / "checkpoints" / ".step_000000006.npz.part"
    part.write_bytes(b"PK half")
    store.pretend(run, "RUNNING", process())
    assert store.doctor()[0] == 0  # it is being written
    store.pretend(run, "FINISHED", {})
    store.is_put_right(f"{part}: half written")
    assert (store.mlruns / "orphaned" / part.relative_to(store.mlruns)).read_bytes() == b"PK half"


def test_claims_that_nobody_holds_are_taken_away_and_held_ones_left(store: Store) -> None:
    claims = store.mlruns / "claims"
    claims.mkdir()
    (claims / "1.left").write_text("")
    with (claims / "1.held").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        store.is_put_right("1.left: a claim that nobody holds")
        assert [path.name for path in claims.iterdir()] == ["1.held"]


def left_behind(store: Store, uri: str, experiment: str) -> Path:
    """The spool of a process that is dead: a run's one metric point."""
    (run, _, _), _ = store.runs()
    unwritten = store.mlruns / "unwritten"
    folder = unwritten / "@".join([spool._store(uri, experiment), process()["host"], "1", "1.00"])
    spool.Spool(folder).keep(Entry("key", metrics=[("late", 0.25, 7, 3)]), {"key": run})
    return folder


def test_what_a_dead_process_could_not_write_is_written(store: Store) -> None:
    folder = left_behind(store, sqlite_uri(store.mlruns), "1")
    store.is_put_right(f"{folder}: 1 messages that are not in the store yet\n    would write them into it")
    (point,) = store.client.get_metric_history(store.runs()[0][0], "late")
    assert (point.value, point.step) == (0.25, 3)


def test_what_is_for_another_store_or_for_nothing_is_never_written_here(store: Store) -> None:
    elsewhere = left_behind(store, "http://127.0.0.1:9", "1")
    gone = left_behind(store, sqlite_uri(store.mlruns), "99")
    half = store.mlruns / "unwritten" / elsewhere.name.replace("@1@", "@2@")
    (half / "000000001.part").mkdir(parents=True)
    code, text = store.doctor("--fix")
    assert code == 1
    assert f"{elsewhere}: 1 messages for another store\n    start the sweep with that tracking.uri again" in text
    assert f"{gone}: 1 messages for experiment 99, which is gone" in text
    assert f"{half}: a message that was half written" in text
    assert [path.name for path in (store.mlruns / "unwritten").iterdir()] == [elsewhere.name]
    kept = store.mlruns / "orphaned" / "unwritten" / gone.name / "000000001" / "message.json"
    assert json.loads(kept.read_text())[1]["metrics"] == [["late", 0.25, 7, 3]]
