"""When the recorder of a run has what it is told written: at once, or with what follows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from harness.tracking import runs
from harness.tracking.runs import RunRecorder
from harness.tracking.tracker import Tracker
from harness.training.recorder import Outcome

ARM, RUN = "a" * 16, "b" * 16


@pytest.fixture
def recorder(store: tuple[MlflowClient, str]) -> Iterator[RunRecorder]:
    tracker = Tracker(*store, "any", {})
    tracker.start_arm("arm", ARM, {})
    yield RunRecorder(tracker, ARM, {"run_key": RUN}, {"seed": 0}, None, keep=2)
    tracker.close()


def written(recorder: RunRecorder, store: tuple[MlflowClient, str]) -> list[str]:
    """The files of the run once all is written that was put."""
    recorder._tracker.when_written(lambda: None)
    recorder._tracker.wait_for_actions()
    (run,) = store[0].search_runs([store[1]], f"tags.run_key = '{RUN}'")
    folder = Path(run.info.artifact_uri)
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_checkpoints_of_less_training_than_may_be_lost_are_written_with_the_end(
    recorder: RunRecorder, store: tuple[MlflowClient, str]
) -> None:
    for step in range(4):
        recorder.checkpoint(step, b"state")
    assert written(recorder, store) == []

    recorder.finish(Outcome("finished", 3))

    kept = ["checkpoints/step_000000002.npz", "checkpoints/step_000000003.npz", "histograms.npz"]
    assert written(recorder, store) == kept


def test_a_checkpoint_of_more_training_is_written_at_once_whatever_was_written_meanwhile(
    recorder: RunRecorder, store: tuple[MlflowClient, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "LINGER_SECONDS", 0.2)
    time.sleep(0.25)
    recorder.metrics(1, {"loss/train": 1.0})

    recorder.checkpoint(1, b"state")

    assert written(recorder, store) == ["checkpoints/step_000000001.npz", "histograms.npz"]


def test_a_checkpoint_that_waits_is_written_with_the_next_evaluation(
    recorder: RunRecorder, store: tuple[MlflowClient, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder.checkpoint(1, b"state")
    monkeypatch.setattr(runs, "LINGER_SECONDS", 0.0)

    recorder.metrics(2, {"loss/train": 1.0})

    assert written(recorder, store) == ["checkpoints/step_000000001.npz", "histograms.npz"]
