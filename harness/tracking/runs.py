"""The Recorder of one MLflow run."""

import threading
import time
from collections.abc import Mapping

import numpy as np
from mlflow.entities import Run

from harness.tracking import artifacts, histograms
from harness.tracking.artifacts import CHECKPOINTS
from harness.tracking.entries import PARENT, Entry, Point, of_steps
from harness.tracking.tracker import Tracker
from harness.training.recorder import Outcome, Statistics

LINGER_SECONDS = 1.0
"""What follows each other faster is written together: a call to MLflow costs more than what is in it."""
CURVES_OF_LAYERS = ("mean", "std", "zeros", "dead", "saturated", "ratio")
"""Moments that become step metrics; of weights and gradients only std. `histograms.npz` keeps all."""


class TakenOverError(RuntimeError):
    """A run that another process took for dead, and trains now."""


class RunRecorder:
    """Reports one run to MLflow. Its calls return at once; the writer's process writes.

    Args:
        tracker: how to reach the writer.
        arm_key: of the arm, whose run is this one's parent.
        tags: what the run is searched by, its `run_key` among them.
        params: its config.
        resume: the interrupted run that goes on, or None.
        keep: how many checkpoints stay.
        taken_over: set when another process trains the run; nothing is written into it from then on.
    """

    def __init__(
        self,
        tracker: Tracker,
        arm_key: str,
        tags: Mapping[str, str],
        params: Mapping[str, object],
        resume: Run | None,
        keep: int,
        taken_over: threading.Event | None = None,
    ) -> None:
        self._tracker, self._resumed, self._keep = tracker, resume, keep
        self._taken_over = taken_over or threading.Event()
        self._run = tags["run_key"]
        self._metrics: list[Point] = []
        self._params = {} if resume else {name: str(value) for name, value in params.items()}
        self._tags: dict[str, str] = {}
        self._written = self._saved = time.monotonic()
        self._layers: dict[int, Statistics] = {}
        self._artifacts: dict[str, bytes] = {}
        self._checkpoints: dict[str, bytes] = {}  # those that are still to be put
        marks = {**tracker.tags, "kind": "run", PARENT: arm_key, **tags}
        if resume is None:
            tracker.put(Entry(self._run, create=marks))
        else:
            del marks[PARENT]  # it has it
            tracker.put(Entry(self._run, resume=resume.info.run_id, tags=marks))

    def restore_layers(self, step: int) -> None:
        """Take up the per-layer statistics that an interrupted run logged up to its checkpoint at `step`."""
        assert self._resumed is not None
        content = artifacts.read(self._tracker.client, self._resumed, "histograms.npz")
        if content is not None:
            self._layers = {s: layers for s, layers in histograms.unpack(content).items() if s <= step}

    def params(self, values: Mapping[str, object]) -> None:
        """Facts about the run: as tags, since some are known only at its end."""
        self._tags |= {name: str(value) for name, value in values.items()}

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """See Recorder."""
        now = int(time.time() * 1000)
        self._metrics += [(name, value, now, step) for name, value in values.items()]
        if time.monotonic() - self._written > LINGER_SECONDS:
            self._put()

    def histograms(self, step: int, values: Statistics) -> None:
        """See Recorder. Finite moments become metrics `<layer>/<array>.<moment>`; the artifact keeps all."""
        self._layers[step] = values
        now = int(time.time() * 1000)
        self._metrics += [
            (f"{array}.{name}", value, now, step)
            for array, numbers in values.items()
            for name, value in numbers.items()
            if name in CURVES_OF_LAYERS and (name == "std" or not array.endswith(("/weight", "/gradient")))
            if isinstance(value, float) and np.isfinite(value)
        ]

    def checkpoint(self, step: int, content: bytes) -> None:
        """See Recorder. Written beside the histograms so far, which a resumed run takes up; old ones are removed.

        It waits for what follows if less than LINGER_SECONDS of training would be lost with it.
        """
        self._checkpoints[f"{CHECKPOINTS}/step_{step:09d}.npz"] = content
        for old in of_steps(self._checkpoints)[: -self._keep]:
            del self._checkpoints[old]
        if time.monotonic() - self._saved > LINGER_SECONDS:
            self._put()

    def artifact(self, name: str, content: bytes) -> None:
        """See Recorder."""
        self._artifacts[name] = content

    def finish(self, outcome: Outcome) -> None:
        """See Recorder. FINISHED also when diverged; KILLED when interrupted."""
        tags = {"outcome": outcome.kind, "outcome.step": str(outcome.step), "outcome.reason": outcome.reason}
        self._end("KILLED" if outcome.kind == "interrupted" else "FINISHED", tags)

    def fail(self, error: BaseException) -> None:
        """End the run as FAILED with its cause."""
        self._end("FAILED", {"outcome": "failed", "outcome.reason": f"{type(error).__name__}: {error}"[:5000]})

    def _end(self, status: str, tags: Mapping[str, str]) -> None:
        self._tags |= tags
        self._put(status)

    def _put(self, status: str | None = None) -> None:
        if self._taken_over.is_set():
            raise TakenOverError("another process trains it now")
        self._written = time.monotonic()
        files, keep = {**self._checkpoints, **({} if status is None else self._artifacts)}, None
        if self._checkpoints:
            keep, self._checkpoints, self._saved = self._keep, {}, self._written
        if files or status is not None:
            files["histograms.npz"] = histograms.pack(self._layers)
        metrics, params, tags = self._metrics, self._params, self._tags
        self._metrics, self._params, self._tags = [], {}, {}
        self._tracker.put(Entry(self._run, None, None, metrics, params, tags, files, keep, status))
