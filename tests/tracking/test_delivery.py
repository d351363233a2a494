"""A store that is away: nothing that was measured is lost, nothing is written twice."""

from __future__ import annotations

import dataclasses
import errno
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from multiprocessing import Pipe
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from harness.data.datasets import Dataset
from harness.tracking import child
from harness.tracking.delivery import Delivery
from harness.tracking.entries import ArmStart, Entry, Opening
from harness.tracking.inbox import Inbox
from harness.tracking.outages import OutageError, StoppedError, asked, may_pass
from harness.tracking.spool import Spool
from harness.tracking.store import experiment_id
from harness.tracking.tracker import LostRunError, Tracker
from harness.tracking.writer import Writer

ARM, RUN, OTHER = "a" * 16, "b" * 16, "c" * 16
TAGS = {"kind": "run", "run_key": RUN, "mlflow.parentRunId": ARM}


@pytest.fixture
def store(tmp_path: Path, new_store: Callable[[Path], MlflowClient]) -> tuple[MlflowClient, str]:
    made = experiment_id(new_store(tmp_path), "any", tmp_path / "artifacts")
    return MlflowClient(f"sqlite:///{tmp_path}/mlflow.db"), made


class Away:
    """A store in which nothing can be found for as long as this lasts."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._rename("runs", "away")

    def end(self) -> None:
        self._rename("away", "runs")

    def _rename(self, old: str, new: str) -> None:
        with closing(sqlite3.connect(self._database, isolation_level=None)) as connection:
            connection.execute("PRAGMA legacy_alter_table = ON")  # what refers to the table is left as it is
            connection.execute(f"ALTER TABLE {old} RENAME TO {new}")


def told(tracker: Tracker, steps: range) -> None:
    for step in steps:
        tracker.put(Entry(RUN, metrics=[("loss", step / 2, step, step)]))


def losses(store: tuple[MlflowClient, str], key: str = RUN) -> list[tuple[int, float]]:
    (run,) = store[0].search_runs([store[1]], f"tags.run_key = '{key}'")
    return [(point.step, point.value) for point in store[0].get_metric_history(run.info.run_id, "loss")]


def test_a_spool_gives_back_what_it_was_given(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    start = ArmStart(ARM, {"kind": "arm"}, {"width": "8"})
    entry = Entry(RUN, TAGS, None, [("m", 0.1, 1, 2)], {"p": "1"}, {"t": "x"}, {"a/b.bin": b"\x00\xff"}, 2, "FINISHED")
    spool.keep(start, {})
    spool.keep(entry, {ARM: "id"})
    again = Spool(tmp_path / "spool")
    found = [(message, runs) for _, message, runs in again.waiting()]
    assert found == [(start, {}), (entry, {ARM: "id"})]


def test_a_spool_is_gone_when_all_is_done(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.done(spool.keep(Entry(RUN), {}))
    assert not (tmp_path / "spool").exists()
    spool.keep(Entry(RUN), {})
    assert len(spool) == 1


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (OSError(errno.ENOSPC, "no space"), True),
        (FileNotFoundError(errno.ENOENT, "no file"), False),
        (ConnectionResetError("reset"), True),
        (MlflowException("API request to http://x failed with exception refused"), True),
        (MlflowException("API request to endpoint /api failed with error code 503 != 200"), True),
        (MlflowException("API request to endpoint /api failed with error code 403 != 200"), False),
        (KeyError("run"), False),
    ],
)
def test_only_what_may_pass_is_waited_for(error: Exception, passes: bool) -> None:
    assert may_pass(error) is passes


def test_a_store_that_fails_for_a_while_is_waited_for_and_every_point_is_there_once(
    tmp_path: Path, store: tuple[MlflowClient, str]
) -> None:
    child._end_all()  # a new writer: its stderr is this test's
    tracker = Tracker(*store, "any", {}, tmp_path / "unwritten", 60)
    tracker.start_arm("arm", ARM, {})
    tracker.put(Entry(RUN, create=TAGS))
    told(tracker, range(3))
    written = threading.Event()
    tracker.when_written(written.set)
    while not written.wait(0.05):
        told(tracker, range(3))  # the same points again are the same points
    away = Away(tmp_path / "mlflow.db")
    told(tracker, range(3, 6))
    deadline = time.monotonic() + 40
    while not list((tmp_path / "unwritten").glob("*/*/message.json")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    told(tracker, range(6, 9))
    away.end()
    tracker.put(Entry(RUN, status="FINISHED"))
    tracker.close()
    assert losses(store) == [(step, step / 2) for step in range(9)]
    assert not list((tmp_path / "unwritten").iterdir())


def test_what_patience_was_too_short_for_is_written_at_the_next_start(
    tmp_path: Path, store: tuple[MlflowClient, str]
) -> None:
    client, experiment = store
    teller = f"""
        import sqlite3, sys, threading
        from pathlib import Path
        from mlflow import MlflowClient
        from harness.tracking.entries import Entry
        from harness.tracking.tracker import Tracker, TrackingError
        tracker = Tracker(MlflowClient({client.tracking_uri!r}), {experiment!r}, "any", {{}}, Path("unwritten"), 0.5)
        stopped = threading.Event()
        tracker.on_error = stopped.set
        tracker.start_arm("arm", {ARM!r}, {{}})
        started = threading.Event()
        tracker.when_written(started.set)
        while not started.wait(0.05):
            tracker.when_written(started.set)
        store = sqlite3.connect({str(tmp_path / "mlflow.db")!r}, isolation_level=None)
        store.execute("PRAGMA legacy_alter_table = ON")
        store.execute("ALTER TABLE runs RENAME TO away")
        tracker.put(Entry({RUN!r}, create={TAGS!r}))
        step = 0
        while not stopped.wait(0.1):
            tracker.put(Entry({RUN!r}, metrics=[("loss", step / 2, step, step)]))
            step += 1
        tracker.put(Entry({RUN!r}, files={{"checkpoints/last.npz": b"state"}}))
        try:
            tracker.close()
        except TrackingError as error:
            print(step, error)
        store.execute("ALTER TABLE away RENAME TO runs")
        """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(teller)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    count, _, said = done.stdout.partition(" ")
    assert "no such table: runs" in said
    assert said.endswith("is kept here, and written when the sweep is started again\n")
    assert len(client.search_runs([experiment], f"tags.run_key = '{RUN}'")) == 0
    Tracker(client, experiment, "any", {}, tmp_path / "unwritten", 5).close()
    assert losses(store) == [(step, step / 2) for step in range(int(count))]
    (run,) = client.search_runs([experiment], f"tags.run_key = '{RUN}'")
    assert (Path(run.info.artifact_uri) / "checkpoints/last.npz").read_bytes() == b"state"


def test_a_run_deleted_while_it_trains_is_lost_alone(tmp_path: Path, store: tuple[MlflowClient, str]) -> None:
    tracker = Tracker(*store, "any", {}, tmp_path / "unwritten", 5)
    tracker.start_arm("arm", ARM, {})
    for key in (RUN, OTHER):
        tracker.put(Entry(key, create=TAGS | {"run_key": key}))
    deleted = threading.Event()

    def delete() -> None:
        (run,) = store[0].search_runs([store[1]], f"tags.run_key = '{RUN}'")
        store[0].delete_run(run.info.run_id)
        deleted.set()

    tracker.when_written(delete)
    with pytest.raises(LostRunError, match=r"^its MLflow run was deleted while it trained"):
        for step in range(1000):
            tracker.put(Entry(RUN, metrics=[("loss", 0.0, step, step)]) if deleted.is_set() else Entry(OTHER))
            time.sleep(0.02)
    tracker.put(Entry(OTHER, metrics=[("loss", 1.0, 1, 1)], status="FINISHED"))
    tracker.close()
    assert losses(store, OTHER) == [(1, 1.0)]


def test_an_arm_deleted_while_its_runs_train_costs_its_aggregates_alone(
    tmp_path: Path, store: tuple[MlflowClient, str], rows: Dataset
) -> None:
    client, experiment = store
    tracker = Tracker(client, experiment, "any", {}, tmp_path / "unwritten", 5)
    tracker.start_arm("arm", ARM, {})
    tracker.put(Entry(RUN, create=TAGS))
    started = threading.Event()
    tracker.when_written(started.set)
    while not started.wait(0.05):
        tracker.when_written(started.set)
    (arm,) = client.search_runs([experiment], "tags.kind = 'arm'")
    client.delete_run(arm.info.run_id)
    tracker.end_arm(ARM, [RUN], rows, False)
    tracker.put(Entry(RUN, metrics=[("loss", 1.0, 1, 1)], status="FINISHED"))
    tracker.close()
    assert losses(store) == [(1, 1.0)]


def left_behind(folder: Path, *messages: tuple[Entry, dict[str, str]]) -> Opening:
    """What a process that has died kept in a folder, to be taken up."""
    for message, runs in messages:
        Spool(folder).keep(message, runs)
    return Opening("", "", "any", "", {}, None, [str(folder)], 5.0, None)


def taken_up(store: tuple[MlflowClient, str], opening: Opening) -> Delivery:
    here, _ = Pipe()
    return Delivery(Writer(store[0].tracking_uri, store[1], "any"), opening, Inbox(here), lambda said: None)


def test_a_run_deleted_for_good_keeps_nothing_else_from_being_written(
    tmp_path: Path, store: tuple[MlflowClient, str]
) -> None:
    client, experiment = store
    there = client.create_run(experiment, tags={"run_key": OTHER}).info.run_id
    known = {RUN: "0" * 32, OTHER: there}
    point = Entry(RUN, metrics=[("loss", 1.0, 1, 1)])
    opening = left_behind(tmp_path / "left", (point, known), (dataclasses.replace(point, run=OTHER), known))
    assert not taken_up(store, opening).failed
    assert losses(store, OTHER) == [(1, 1.0)]
    assert not (tmp_path / "left").exists()


def test_what_was_left_is_written_once_by_those_that_start_together(
    tmp_path: Path, store: tuple[MlflowClient, str]
) -> None:
    client, experiment = store
    there = client.create_run(experiment, tags={"run_key": RUN}).info.run_id
    points = [(Entry(RUN, metrics=[("loss", 1.0, step, step)]), {RUN: there}) for step in range(20)]
    opening, failed = left_behind(tmp_path / "left", *points), []
    everyone = [threading.Thread(target=lambda: failed.append(taken_up(store, opening).failed)) for _ in range(4)]
    for one in everyone:
        one.start()
    for one in everyone:
        one.join()
    assert failed == [False] * 4
    assert losses(store) == [(step, 1.0) for step in range(20)]


def test_a_store_that_is_away_is_asked_again_until_it_answers() -> None:
    answers: list[str | Exception] = [ConnectionError("away"), ConnectionError("away"), "here"]

    def question() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert asked(question, 60, threading.Event()) == "here"


def test_asking_ends_with_patience_or_when_told_to_and_never_begins_for_what_will_not_pass() -> None:
    def away() -> None:
        raise ConnectionError("no route")

    def broken() -> None:
        raise KeyError("run")

    stopped = threading.Event()
    with pytest.raises(OutageError, match=r"^MLflow did not answer for 0 s: no route$"):
        asked(away, 0, stopped)
    with pytest.raises(KeyError):
        asked(broken, 60, stopped)
    stopped.set()
    with pytest.raises(StoppedError):
        asked(away, 60, stopped)


class Server:
    """A real MLflow server on loopback, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder, self.uri = folder, f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
                *("--host", "127.0.0.1", "--port", str(self.port)),
                *("--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"),
                *("--artifacts-destination", str(self.folder / "artifacts")),
            ],
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=1).close()
                return
            except OSError:
                time.sleep(0.1)
        raise TimeoutError("the MLflow server did not start")

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def server(tmp_path: Path, new_store: Callable[[Path], MlflowClient]) -> Iterator[Server]:
    new_store(tmp_path)
    made = Server(tmp_path)
    yield made
    made.kill()


@pytest.mark.slow
def test_every_point_is_there_once_after_the_server_was_killed_and_started_again(
    tmp_path: Path, server: Server
) -> None:
    client = MlflowClient(server.uri)
    store = client, experiment_id(client, "any", None)
    tracker = Tracker(*store, "any", {}, tmp_path / "unwritten", 120)
    tracker.start_arm("arm", ARM, {})
    tracker.put(Entry(RUN, create=TAGS))
    stop = threading.Event()

    def restart() -> None:
        server.kill()
        server.start()
        stop.set()

    told(tracker, range(5))
    restarting = threading.Thread(target=restart)
    restarting.start()
    step = 5
    while not stop.is_set():
        told(tracker, range(step, step + 1))
        step += 1
        time.sleep(0.05)
    restarting.join()
    tracker.put(Entry(RUN, files={"f.txt": b"text"}, status="FINISHED"))
    tracker.close()
    assert losses(store) == [(each, each / 2) for each in range(step)]
    (run,) = client.search_runs([store[1]], f"tags.run_key = '{RUN}'")
    assert run.info.status == "FINISHED"
    assert Path(client.download_artifacts(run.info.run_id, "f.txt", str(tmp_path))).read_bytes() == b"text"
