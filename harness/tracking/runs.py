"""The Recorder of one MLflow run."""

import time
from collections.abc import Mapping

import numpy as np
from mlflow.entities import Metric, Run

from harness.tracking import artifacts, histograms
from harness.tracking.tracker import CHECKPOINTS, Tracker
from harness.training.recorder import Outcome, Statistics

LINGER_SECONDS = 1.0
"""Evaluations that follow each other faster are written together: a call to MLflow costs more than what is in it."""
CURVES_OF_LAYERS = ("mean", "std", "zeros", "dead", "saturated", "ratio")
"""Moments that become step metrics; of weights and gradients only std. `histograms.npz` keeps all."""


class RunRecorder:
    """Reports one run to MLflow. Its calls return at once; the tracker's thread writes.

    Args:
        tracker: whose thread writes.
        parent: run id of the arm.
        tags: what the run is searched by.
        params: its config.
        resume: the interrupted run that goes on, or None.
        keep: how many checkpoints stay.
    """

    def __init__(
        self,
        tracker: Tracker,
        parent: str,
        tags: Mapping[str, str],
        params: Mapping[str, object],
        resume: Run | None,
        keep: int,
    ) -> None:
        self._tracker, self._run, self._keep = tracker, resume, keep
        self._metrics: list[Metric] = []
        self._params: dict[str, object] = {} if resume else dict(params)
        self._tags: dict[str, str] = {}
        self._written = time.monotonic()
        self._layers: dict[int, Statistics] = {}
        self._artifacts: dict[str, bytes] = {}
        marks = {**tracker.tags, "kind": "run", "mlflow.parentRunId": parent, **tags}
        tracker.enqueue(lambda: self._start(marks))

    def _start(self, tags: dict[str, str]) -> None:
        client = self._tracker.client
        if self._run is None:
            self._run = client.create_run(self._tracker.experiment_id, tags=tags)
        else:
            client.update_run(self._run.info.run_id, status="RUNNING")
            self._tracker.log(self._run.info.run_id, tags=tags)

    def restore_layers(self, step: int) -> None:
        """Take up the per-layer statistics that an interrupted run logged up to its checkpoint at `step`."""
        assert self._run is not None
        content = artifacts.read(self._tracker.client, self._run, "histograms.npz")
        if content is not None:
            self._layers = {s: layers for s, layers in histograms.unpack(content).items() if s <= step}

    def params(self, values: Mapping[str, object]) -> None:
        """Facts about the run: as tags, since some are known only at its end."""
        self._tags |= {name: str(value) for name, value in values.items()}

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """See Recorder."""
        now = int(time.time() * 1000)
        self._metrics += [Metric(name, value, now, step) for name, value in values.items()]
        if time.monotonic() - self._written > LINGER_SECONDS:
            self._flush()

    def histograms(self, step: int, values: Statistics) -> None:
        """See Recorder. Finite moments become metrics `<layer>/<array>.<moment>`; the artifact keeps all."""
        self._layers[step] = values
        now = int(time.time() * 1000)
        self._metrics += [
            Metric(f"{array}.{name}", value, now, step)
            for array, numbers in values.items()
            for name, value in numbers.items()
            if name in CURVES_OF_LAYERS and (name == "std" or not array.endswith(("/weight", "/gradient")))
            if isinstance(value, float) and np.isfinite(value)
        ]

    def checkpoint(self, step: int, content: bytes) -> None:
        """See Recorder. Written beside the histograms so far, which a resumed run takes up; old ones are removed."""
        files = {f"{CHECKPOINTS}/step_{step:09d}.npz": content, "histograms.npz": histograms.pack(self._layers)}
        self._flush()

        def write() -> None:
            assert self._run is not None
            artifacts.write(self._tracker.client, self._run, files)
            for old in artifacts.names(self._tracker.client, self._run, CHECKPOINTS)[: -self._keep]:
                artifacts.delete(self._run, old)

        self._tracker.enqueue(write)

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

    def _flush(self) -> None:
        metrics, params, tags = self._metrics, self._params, self._tags
        self._metrics, self._params, self._tags = [], {}, {}
        self._written = time.monotonic()

        def write() -> None:
            assert self._run is not None
            self._tracker.log(self._run.info.run_id, metrics, params, tags)

        self._tracker.enqueue(write)

    def _end(self, status: str, tags: Mapping[str, str]) -> None:
        files = {**self._artifacts, "histograms.npz": histograms.pack(self._layers)}
        self._tags |= tags

        def write() -> None:
            assert self._run is not None
            artifacts.write(self._tracker.client, self._run, files)

        self._tracker.enqueue(write)
        self._flush()
        self._tracker.enqueue(lambda: self._terminate(status))

    def _terminate(self, status: str) -> None:
        assert self._run is not None
        self._tracker.client.set_terminated(self._run.info.run_id, status)
