"""The store: made once, refused in a line when it cannot be used."""

from __future__ import annotations

import contextlib
import http.server
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from harness.tracking import artifacts, schema, store
from harness.tracking.store import StoreError, experiment_id, open_store, sqlite_uri

NewStore = Callable[[Path], MlflowClient]


def refusal(uri: str | None, folder: Path = Path("mlruns"), create: bool = True) -> str:
    with pytest.raises(StoreError) as error:
        open_store(uri, folder, create)
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.fixture
def closed_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_a_new_store_is_sqlite_below_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "make", schema.make)
    client = open_store(None, tmp_path / "some" / "mlruns")
    assert (tmp_path / "some" / "mlruns" / "mlflow.db").is_file()
    assert experiment_id(client, "first", tmp_path / "artifacts") == experiment_id(client, "first", None)
    again = open_store(None, tmp_path / "some" / "mlruns", create=False)
    experiment = again.get_experiment_by_name("first")
    assert experiment is not None
    assert experiment.artifact_location == str(tmp_path / "artifacts" / "first")


def test_a_folder_with_odd_characters_works(tmp_path: Path, new_store: NewStore) -> None:
    folder = tmp_path / "späce & 100 #1"
    client = new_store(folder)
    run = client.create_run(experiment_id(client, "mine", folder / "artifacts"))
    artifacts.write(client, run, {"a/b.txt": b"here"})
    assert (folder / "artifacts" / "mine" / run.info.run_id / "artifacts" / "a" / "b.txt").read_bytes() == b"here"
    assert artifacts.read(client, run, "a/b.txt") == b"here"
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_a_folder_that_is_deleted_while_a_file_is_written_is_made_again(
    tmp_path: Path, new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = new_store(tmp_path)
    run = client.create_run(experiment_id(client, "mine", tmp_path / "artifacts"))
    replace, deleted = artifacts.os.replace, []

    def after_it_is_deleted(part: Path, path: Path) -> None:
        if not deleted:
            deleted.append(shutil.rmtree(path.parent))
        replace(part, path)

    monkeypatch.setattr(artifacts.os, "replace", after_it_is_deleted)
    artifacts.write(client, run, {"a/b.txt": b"here"})
    assert deleted
    assert artifacts.read(client, run, "a/b.txt") == b"here"


@pytest.mark.parametrize("name", ["why?", "100 %41"])
def test_a_folder_whose_database_would_lie_beside_it_is_refused(name: str, tmp_path: Path) -> None:
    assert "which means something else in a database's address; give another folder" in refusal(None, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_read_is_not_one_that_is_not_there(tmp_path: Path, new_store: NewStore) -> None:
    client = new_store(tmp_path)
    run = client.create_run(experiment_id(client, "mine", tmp_path / "artifacts"))
    artifacts.write(client, run, {"a/b.txt": b"here"})
    assert artifacts.read(client, run, "a/c.txt") is None
    assert artifacts.read(client, run, "a/b.txt/c") is None
    with pytest.raises(StoreError, match=rf"^run {run.info.run_id}: a cannot be read: .*Is a directory"):
        artifacts.read(client, run, "a")


def opening(folder: Path, uri: str | None = None) -> subprocess.Popen[str]:
    """A process that opens the store, making it where it is not there, and prints the id of an experiment."""
    script = (
        "import sys; from pathlib import Path; from harness.tracking.store import open_store, experiment_id\n"
        "client = open_store(sys.argv[2] or None, Path(sys.argv[1]))\n"
        "print(experiment_id(client, 'shared', None))"
    )
    command = [sys.executable, "-c", script, str(folder), uri or ""]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_process_killed_while_it_makes_the_store_leaves_none_half_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "make", schema.make)

    def tables() -> int:
        with contextlib.suppress(FileNotFoundError):
            return max((file.stat().st_size for file in tmp_path.glob("*mlflow.db*")), default=0)
        return 0

    with opening(tmp_path) as process:
        while tables() < 100_000 and process.poll() is None:
            time.sleep(0.005)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert "no mlflow.db there" in refusal(None, tmp_path, create=False)
    assert open_store(None, tmp_path).search_experiments()
    assert sorted(file.name for file in tmp_path.iterdir()) == [".lock", "mlflow.db"]


def test_two_processes_making_the_same_store_at_once_both_succeed(tmp_path: Path) -> None:
    folder = tmp_path / "mlruns"
    both = [opening(folder), opening(folder, sqlite_uri(folder))]
    ends = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    assert ends[0][0] == ends[1][0]


def test_nothing_is_made_when_only_reading(tmp_path: Path) -> None:
    assert "no mlflow.db there; train something first" in refusal(None, tmp_path / "mlruns", create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        message = refusal(None, folder)
        assert message.startswith(f"tracking.folder={folder}: ")
        assert message.endswith("give a folder you can write")


def test_a_database_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"something else" * 100)
    for uri in (None, sqlite_uri(tmp_path)):
        assert "mlflow.db cannot be used: file is not a database" in refusal(uri, tmp_path)


def test_a_database_of_a_newer_mlflow_is_refused(tmp_path: Path, new_store: NewStore) -> None:
    new_store(tmp_path / "now")
    shutil.copytree(tmp_path / "now", tmp_path / "future")
    with closing(sqlite3.connect(tmp_path / "future" / "mlflow.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
        connection.commit()
    for uri in (None, sqlite_uri(tmp_path / "future")):
        message = refusal(uri, tmp_path / "future")
        assert "is of a newer MLflow (version ffffffffffff of its tables is not known here); install" in message


def test_a_database_of_another_program_is_refused_and_not_changed(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    assert "is no database of MLflow's; give another folder" in refusal(None, tmp_path)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("recipes",)]


def test_a_database_with_damaged_pages_is_refused_before_training(tmp_path: Path, new_store: NewStore) -> None:
    new_store(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "damaged")
    with (tmp_path / "damaged" / "mlflow.db").open("r+b") as file:
        for page in range(5, 60):
            file.seek(page * 4096)
            file.write(b"\xff" * 2048)
    assert "database disk image is malformed" in refusal(None, tmp_path / "damaged")


def test_a_database_that_cannot_be_opened_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").mkdir()
    assert "unable to open database file" in refusal(None, tmp_path)


def test_a_read_only_database_is_refused_before_training_but_can_be_read(tmp_path: Path, new_store: NewStore) -> None:
    new_store(tmp_path)
    (tmp_path / "mlflow.db").chmod(0o444)
    try:
        with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
            connection.execute("CREATE TABLE probe (x)")
        pytest.skip("this user may write read-only files")
    except sqlite3.OperationalError:
        assert "readonly" in refusal(None, tmp_path)
        open_store(None, tmp_path, create=False)


def test_a_locked_database_is_not_a_broken_one(
    tmp_path: Path, new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.tracking.store.PATIENCE_SECONDS", 0.1)
    new_store(tmp_path)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as writer:
        writer.execute("BEGIN IMMEDIATE")
        open_store(None, tmp_path)


def test_a_server_that_is_not_there_is_refused(closed_port: int) -> None:
    message = refusal(f"http://127.0.0.1:{closed_port}")
    assert message.startswith(f"tracking.uri=http://127.0.0.1:{closed_port}: no MLflow server answers (")
    assert "Connection refused" in message


def test_a_database_server_that_is_not_there_is_refused(closed_port: int) -> None:
    message = refusal(f"postgresql://127.0.0.1:{closed_port}/db")
    assert message.startswith(f"tracking.uri=postgresql://127.0.0.1:{closed_port}/db: ")


@pytest.mark.parametrize(
    "uri",
    [
        "http://user:s3cret@127.0.0.1:{port}",
        "http://user:s3cret@127.0.0.1.invalid",
        "postgresql://user:s3cret@127.0.0.1:{port}/db",
        "postgresql://user:s3c@ret@127.0.0.1:{port}/db",
        "mysql://user:s3cret@127.0.0.1:{port}/db",
    ],
)
def test_a_password_is_in_no_message(uri: str, closed_port: int) -> None:
    message = refusal(uri.format(port=closed_port))
    assert "s3c" not in message
    assert "127.0.0.1" in message


@pytest.fixture
def server() -> Iterator[tuple[str, list[int]]]:
    """A server that answers every request with the status in the list."""
    status = [500]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(status[0])

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_address[1]}", status
        listening.shutdown()
        thread.join()


def test_a_server_that_fails_is_refused_with_its_answer(server: tuple[str, list[int]]) -> None:
    assert "answers HTTP Error 500" in refusal(server[0])


@pytest.mark.parametrize("uri", ["nonsense", "ftp://x", "http://", "http://[::1"])
def test_an_address_that_is_none_is_refused(uri: str) -> None:
    assert refusal(uri).startswith(f"tracking.uri={uri}: ")


def test_an_experiment_in_the_trash_is_refused_with_the_way_out(tmp_path: Path, new_store: NewStore) -> None:
    client = new_store(tmp_path)
    number = experiment_id(client, "mine", tmp_path / "artifacts")
    client.delete_experiment(number)
    restore = f"MLFLOW_TRACKING_URI={sqlite_uri(tmp_path)} mlflow experiments restore -x"
    with pytest.raises(StoreError, match=f"sweep.name=mine: .*`{restore} {number}`"):
        experiment_id(client, "mine", tmp_path / "artifacts")
