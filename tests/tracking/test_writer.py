"""The process that writes to MLflow: what it is told is written, in order, whatever happens to who told it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from harness.tracking import child
from harness.tracking.entries import Entry
from harness.tracking.tracker import Earlier, Tracker, TrackingError, earlier_runs

ARM, RUN = "a" * 16, "b" * 16
TAGS = {"kind": "run", "run_key": RUN, "mlflow.parentRunId": ARM}


@pytest.fixture
def tracker(store: tuple[MlflowClient, str]) -> Iterator[Tracker]:
    made = Tracker(*store, "any", {})
    made.start_arm("arm", ARM, {"width": 8})
    yield made
    if made._child not in child._idle:
        made._child.end()


def the_run(store: tuple[MlflowClient, str]) -> Run:
    client, experiment = store
    (found,) = client.search_runs([experiment], "tags.kind = 'run'")
    return found


def test_what_is_told_of_a_run_is_in_the_store_when_the_tracker_is_closed(
    tracker: Tracker, store: tuple[MlflowClient, str]
) -> None:
    tracker.put(Entry(RUN, create=TAGS))
    tracker.put(Entry(RUN, metrics=[("loss/test", 0.5, 1, 3)], params={"seed": "0"}))
    tracker.put(Entry(RUN, metrics=[("loss/test", 0.25, 2, 6)], tags={"outcome": "finished"}))
    tracker.put(Entry(RUN, files={"a/b.txt": b"text"}, status="FINISHED"))
    tracker.close()
    run = the_run(store)
    points = store[0].get_metric_history(run.info.run_id, "loss/test")
    assert [(point.step, point.value, point.timestamp) for point in points] == [(3, 0.5, 1), (6, 0.25, 2)]
    assert (run.info.status, run.data.params, run.data.tags["outcome"]) == ("FINISHED", {"seed": "0"}, "finished")
    assert (Path(run.info.artifact_uri) / "a/b.txt").read_bytes() == b"text"
    (arm,) = store[0].search_runs([store[1]], "tags.kind = 'arm'")
    assert run.data.tags["mlflow.parentRunId"] == arm.info.run_id


def test_a_run_that_goes_on_no_longer_says_how_it_ended(tracker: Tracker, store: tuple[MlflowClient, str]) -> None:
    run = store[0].create_run(store[1], tags=TAGS | {"outcome": "interrupted", "outcome.reason": "stopped"})
    tracker.put(Entry(RUN, resume=run.info.run_id))
    tracker.put(Entry(RUN, tags={"outcome": "finished", "outcome.reason": ""}, status="FINISHED"))
    tracker.close()
    tags = the_run(store).data.tags
    assert {name: tags[name] for name in tags if name.startswith("outcome")} == {"outcome": "finished"}


def test_entries_of_one_run_join_to_what_they_say_one_after_another() -> None:
    first = Entry(RUN, create=TAGS, metrics=[("m", 1.0, 1, 1)], tags={"t": "old"}, files={"f": b"old"}, keep=2)
    both = first.then(Entry(RUN, metrics=[("m", 2.0, 2, 2)], tags={"t": "new"}, files={"f": b"new"}, status="KILLED"))
    assert both == Entry(
        RUN, TAGS, None, (("m", 1.0, 1, 1), ("m", 2.0, 2, 2)), {}, {"t": "new"}, {"f": b"new"}, 2, "KILLED"
    )


def test_checkpoints_that_would_not_stay_are_not_written_first() -> None:
    entries = [Entry(RUN, files={f"checkpoints/step_{step}.npz": b"", f"{step}": b""}, keep=2) for step in range(4)]
    joined = entries[0].then(entries[1]).then(entries[2]).then(Entry(RUN)).then(entries[3])
    assert sorted(joined.files) == ["0", "1", "2", "3", "checkpoints/step_2.npz", "checkpoints/step_3.npz"]


def test_only_the_latest_checkpoints_are_kept(tracker: Tracker, store: tuple[MlflowClient, str]) -> None:
    tracker.put(Entry(RUN, create=TAGS))
    for step in range(4):
        tracker.put(Entry(RUN, files={f"checkpoints/step_{step}.npz": b""}, keep=2))
    tracker.close()
    folder = Path(the_run(store).info.artifact_uri) / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["step_2.npz", "step_3.npz"]


def test_an_error_of_the_writer_comes_back_in_one_line(tracker: Tracker, tmp_path: Path) -> None:
    (tmp_path / "artifacts").write_text("a file where the folder should be")
    tracker.put(Entry(RUN, create=TAGS))
    tracker.put(Entry(RUN, files={"f": b""}))
    with pytest.raises(TrackingError, match=r"^MLflow could not be written: .*[Nn]ot a directory"):
        tracker.close()


def test_after_an_error_nothing_more_is_taken(tracker: Tracker, tmp_path: Path) -> None:
    (tmp_path / "artifacts").write_text("a file where the folder should be")
    tracker.put(Entry(RUN, create=TAGS))
    tracker.put(Entry(RUN, files={"f": b""}))
    with pytest.raises(TrackingError):
        for _ in range(1000):
            tracker.put(Entry(RUN, tags={"more": "and more"}))
            time.sleep(0.01)


def test_a_writer_that_was_killed_is_an_error_not_a_silence(tracker: Tracker) -> None:
    tracker._child.process.kill()
    tracker._child.process.wait()
    with pytest.raises(TrackingError, match=r"ended with code -9$"):
        tracker.put(Entry(RUN, create=TAGS))
        tracker.close()


def test_what_is_to_be_done_when_all_is_written_is_done_then(tracker: Tracker, store: tuple[MlflowClient, str]) -> None:
    seen: list[str] = []
    tracker.put(Entry(RUN, create=TAGS))
    tracker.put(Entry(RUN, status="FINISHED"))
    tracker.when_written(lambda: seen.append(the_run(store).info.status))
    tracker.close()
    assert seen == ["FINISHED"]


def test_a_writer_is_used_again(store: tuple[MlflowClient, str]) -> None:
    first = Tracker(*store, "any", {})
    first.close()
    second = Tracker(*store, "any", {})
    assert second._child.process.pid == first._child.process.pid
    second.close()


def test_who_asks_what_is_there_waits_for_the_writer_of_a_process_that_was_killed(
    store: tuple[MlflowClient, str],
) -> None:
    client, experiment = store
    teller = f"""
        import os, signal, time
        from mlflow import MlflowClient
        from harness.tracking.entries import Entry
        from harness.tracking.tracker import Tracker
        tracker = Tracker(MlflowClient({client.tracking_uri!r}), {experiment!r}, "any", {{}})
        tracker.start_arm("arm", {ARM!r}, {{}})
        tracker.put(Entry({RUN!r}, create={TAGS!r} | {{"arm_key": {ARM!r}}} | tracker.tags))
        done = []
        tracker.when_written(lambda: done.append(1))
        while not done:
            time.sleep(0.05)  # what a stopped writer has not read must fit into the pipe
            tracker.when_written(lambda: None)
        os.kill(tracker._child.process.pid, signal.SIGSTOP)
        tracker.put(Entry({RUN!r}, tags={{"outcome": "finished"}}, status="FINISHED"))
        print(tracker._child.process.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(teller)], stdout=subprocess.PIPE, text=True) as told:
        assert told.stdout is not None
        writer = int(told.stdout.readline())
        assert told.wait(30) == -signal.SIGKILL
    assert the_run(store).info.status == "RUNNING"
    found: list[dict[str, Earlier]] = []
    asking = threading.Thread(target=lambda: found.append(earlier_runs(client, experiment, [ARM], reconcile=True)))
    asking.start()
    asking.join(1)
    assert asking.is_alive()
    os.kill(writer, signal.SIGCONT)
    asking.join(30)
    assert [(run.finished, run.alive) for run in found[0].values()] == [(True, False)]
    assert the_run(store).info.status == "FINISHED"


def test_what_was_told_before_the_teller_was_killed_is_written(store: tuple[MlflowClient, str]) -> None:
    client, experiment = store
    teller = f"""
        import os, signal
        from mlflow import MlflowClient
        from harness.tracking.entries import Entry
        from harness.tracking.tracker import Tracker
        tracker = Tracker(MlflowClient({client.tracking_uri!r}), {experiment!r}, "any", {{}})
        tracker.start_arm("arm", {ARM!r}, {{}})
        tracker.put(Entry({RUN!r}, create={TAGS!r}))
        tracker.put(Entry({RUN!r}, metrics=[("m", float(step), step, step) for step in range(500)]))
        print(tracker._child.process.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(teller)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    deadline = time.monotonic() + 30
    while running(int(done.stdout)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running(int(done.stdout))
    assert len(client.get_metric_history(the_run(store).info.run_id, "m")) == 500


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
