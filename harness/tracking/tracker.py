"""The only writer to MLflow: arms and runs, written by one thread in the order in which they happen."""

import contextlib
import json
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from harness.tracking import histograms, provenance
from harness.training.checkpoints import CheckpointError, unpack
from harness.training.recorder import Outcome, Statistics

MOST_METRICS, MOST_PARAMS = 1000, 100  # MLflow's limits on one log_batch
CHECKPOINTS = "checkpoints"


class TrackingError(RuntimeError):
    """Something could not be logged; the message says what MLflow answered."""


@dataclass(frozen=True)
class Earlier:
    """A run of the store with the run key that was asked for."""

    run_id: str
    finished: bool
    alive: bool


class Tracker:
    """Writes to one MLflow experiment.

    Args:
        client: of an open store.
        experiment_id: the sweep's experiment.
        sweep: the sweep's name.
        tags: facts about this invocation that every run carries.
    """

    def __init__(self, client: MlflowClient, experiment_id: str, sweep: str, tags: Mapping[str, str]) -> None:
        self.client, self.experiment_id, self.sweep = client, experiment_id, sweep
        self._tags = {"sweep": sweep, **provenance.process(), **provenance.git(), **tags}
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue(maxsize=1000)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._write, name="tracker", daemon=True)
        self._thread.start()

    def earlier(self, arm_keys: Iterable[str]) -> dict[str, Earlier]:
        """See `earlier_runs`. Dead RUNNING runs of this machine are set to KILLED on the way."""
        return earlier_runs(self.client, self.experiment_id, arm_keys, reconcile=True)

    def last_checkpoint(self, run_id: str) -> bytes | None:
        """The newest whole checkpoint of a run, or None."""
        names = [file.path for file in self.client.list_artifacts(run_id, CHECKPOINTS)]
        for name in sorted(names, reverse=True):
            with tempfile.TemporaryDirectory() as folder:
                content = Path(self.client.download_artifacts(run_id, name, folder)).read_bytes()
            with contextlib.suppress(CheckpointError):  # killed while it was written: the one before is whole
                unpack(content)
                return content
        return None

    def arm(self, name: str, arm_key: str, params: Mapping[str, object]) -> str:
        """The parent run of an arm, RUNNING: the one there is, or a new one."""
        for run in _search(self.client, self.experiment_id, f"tags.kind = 'arm' and tags.arm_key = '{arm_key}'"):
            self.client.update_run(run.info.run_id, status="RUNNING")
            return str(run.info.run_id)
        tags = {**self._tags, "kind": "arm", "arm": name, "arm_key": arm_key, "mlflow.runName": name}
        run = self.client.create_run(self.experiment_id, tags=tags)
        self._log(run.info.run_id, params=params)
        return str(run.info.run_id)

    def run(
        self,
        parent: str,
        tags: Mapping[str, str],
        params: Mapping[str, object],
        resume: str | None,
        keep: int,
    ) -> "RunRecorder":
        """A recorder for one run below its arm.

        Args:
            parent: the arm's run id.
            tags: what the run is searched by.
            params: its config.
            resume: the id of the interrupted run that goes on, or None.
            keep: how many checkpoints stay.
        """
        tags = {**self._tags, "kind": "run", "mlflow.parentRunId": parent, **tags}
        return RunRecorder(self, tags, params, resume, keep)

    def enqueue(self, action: Callable[[], None]) -> None:
        """Have the writer do this after all that was enqueued before it.

        Raises:
            TrackingError: something earlier could not be written.
        """
        self._raise()
        self._queue.put(action)

    def close(self) -> None:
        """Wait until everything is written, and stop the writer.

        Raises:
            TrackingError: something could not be written.
        """
        self._queue.put(None)
        self._thread.join()
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            cause = str(self._error).strip().splitlines()[0][:300]
            raise TrackingError(f"MLflow could not be written: {cause}") from self._error

    def _write(self) -> None:
        while (action := self._queue.get()) is not None:
            if self._error is None:
                try:
                    action()
                except BaseException as error:  # raised again in whichever thread comes next
                    self._error = error

    def _log(
        self,
        run_id: str,
        metrics: list[Metric] | None = None,
        params: Mapping[str, object] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        metrics = metrics or []
        listed = [Param(name, str(value)[:6000]) for name, value in (params or {}).items()]
        marks = [RunTag(name, value) for name, value in (tags or {}).items()]
        while metrics or listed or marks:
            first, now = metrics[:MOST_METRICS], listed[:MOST_PARAMS]
            # One call takes at most 1,000 metrics, params and tags together.
            now = now[: MOST_METRICS - len(first)]
            some = marks[: MOST_METRICS - len(first) - len(now)]
            self.client.log_batch(run_id, first, now, some, synchronous=True)
            metrics, listed, marks = metrics[len(first) :], listed[len(now) :], marks[len(some) :]


class RunRecorder:
    """The Recorder of one MLflow run. Its calls return at once; the tracker's thread writes.

    Per-layer moments wait for the next evaluation, so that each evaluation is one batch.
    """

    def __init__(
        self,
        tracker: Tracker,
        tags: Mapping[str, str],
        params: Mapping[str, object],
        resume: str | None,
        keep: int,
    ) -> None:
        self._tracker, self._run_id, self._keep = tracker, resume or "", keep
        self._pending: list[Metric] = []
        self._layers: dict[int, Statistics] = {}
        self._artifacts: dict[str, bytes] = {}
        tracker.enqueue(lambda: self._start(dict(tags), params))

    @property
    def run_id(self) -> str:
        """The MLflow run's id, known once the tracker has come to it."""
        return self._run_id

    def _start(self, tags: dict[str, str], params: Mapping[str, object]) -> None:
        client = self._tracker.client
        if self._run_id:
            client.update_run(self._run_id, status="RUNNING")
            self._tracker._log(self._run_id, tags=tags)
            return
        self._run_id = client.create_run(self._tracker.experiment_id, tags=tags).info.run_id
        self._tracker._log(self._run_id, params=params)

    def restore_layers(self, step: int) -> None:
        """Take up the per-layer statistics that an interrupted run logged up to its checkpoint at `step`."""
        run_id = self._run_id
        with tempfile.TemporaryDirectory() as folder:
            path = self._tracker.client.download_artifacts(run_id, "histograms.npz", folder)
            self._layers = {s: v for s, v in histograms.unpack(Path(path).read_bytes()).items() if s <= step}

    def params(self, values: Mapping[str, object]) -> None:
        """Facts about the run: tags, as some are only known at its end."""
        self._tracker.enqueue(lambda: self._tracker._log(self._run_id, tags={k: str(v) for k, v in values.items()}))

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """See Recorder."""
        now = int(time.time() * 1000)
        batch = self._pending + [Metric(name, value, now, step) for name, value in values.items()]
        self._pending = []
        self._tracker.enqueue(lambda: self._tracker._log(self._run_id, metrics=batch))

    def histograms(self, step: int, values: Statistics) -> None:
        """See Recorder. Numbers become metrics `<layer>/<array>.<moment>`; what is not finite only the artifact keeps."""
        self._layers[step] = values
        now = int(time.time() * 1000)
        self._pending += [
            Metric(f"{array}.{name}", value, now, step)
            for array, numbers in values.items()
            for name, value in numbers.items()
            if isinstance(value, float) and np.isfinite(value)
        ]

    def checkpoint(self, step: int, content: bytes) -> None:
        """See Recorder. Written beside the histograms so far, which a resumed run takes up; old ones are removed."""
        files = {
            f"{CHECKPOINTS}/step_{step:09d}.npz": content,
            "histograms.npz": histograms.pack(self._layers),
        }

        def write() -> None:
            self._upload(files)
            listed = sorted(file.path for file in self._tracker.client.list_artifacts(self._run_id, CHECKPOINTS))
            if len(listed) > self._keep:
                artifacts = get_artifact_repository(self._tracker.client.get_run(self._run_id).info.artifact_uri)
                for old in listed[: -self._keep]:
                    artifacts.delete_artifacts(old)

        self._tracker.enqueue(write)

    def artifact(self, name: str, content: bytes) -> None:
        """See Recorder."""
        self._artifacts[name] = content

    def finish(self, outcome: Outcome) -> None:
        """See Recorder. FINISHED also when diverged; KILLED when interrupted."""
        status = "KILLED" if outcome.kind == "interrupted" else "FINISHED"
        self._end(
            status,
            {"outcome": outcome.kind, "outcome.step": str(outcome.step), "outcome.reason": outcome.reason},
        )

    def fail(self, error: BaseException) -> None:
        """End the run as FAILED with its cause."""
        self._end("FAILED", {"outcome": "failed", "outcome.reason": f"{type(error).__name__}: {error}"[:5000]})

    def _end(self, status: str, tags: Mapping[str, str]) -> None:
        metrics, self._pending = self._pending, []
        files = {**self._artifacts, "histograms.npz": histograms.pack(self._layers)}

        def write() -> None:
            self._upload(files)
            self._tracker._log(self._run_id, metrics=metrics, tags={k: v for k, v in tags.items() if v})
            self._tracker.client.set_terminated(self._run_id, status)

        self._tracker.enqueue(write)

    def _upload(self, files: Mapping[str, bytes]) -> None:
        upload(self._tracker.client, self._run_id, files)


def earlier_runs(
    client: MlflowClient, experiment_id: str, arm_keys: Iterable[str], reconcile: bool = False
) -> dict[str, Earlier]:
    """Run key -> its run in the store: a finished one before an interrupted one, the latest of those.

    Args:
        client: of the store.
        experiment_id: the sweep's.
        arm_keys: whose runs.
        reconcile: set runs to KILLED that say RUNNING but whose process on this machine is dead.
    """
    found: dict[str, Earlier] = {}
    for arm_key in dict.fromkeys(arm_keys):
        for run in _search(client, experiment_id, f"tags.kind = 'run' and tags.arm_key = '{arm_key}'"):
            tags, running = run.data.tags, run.info.status == "RUNNING"
            alive = running and provenance.alive(
                tags.get("host", ""), tags.get("pid", ""), tags.get("process_started", "")
            )
            if reconcile and running and not alive:
                client.set_terminated(run.info.run_id, "KILLED")
            finished = run.info.status == "FINISHED" and "outcome" in tags
            known = found.get(tags["run_key"])
            if known is None or (finished and not known.finished):
                found[tags["run_key"]] = Earlier(run.info.run_id, finished, alive)
    return found


def _search(client: MlflowClient, experiment_id: str, filter_string: str) -> Iterable[Run]:
    """Runs of an experiment, the latest first."""
    token = None
    while True:
        page = client.search_runs(
            [experiment_id], filter_string, max_results=1000, page_token=token, order_by=["start_time DESC"]
        )
        yield from page
        token = page.token
        if not token:
            return


def upload(client: MlflowClient, run_id: str, files: Mapping[str, bytes]) -> None:
    """Log files (name -> content) as artifacts of a run, in one call."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        client.log_artifacts(run_id, folder)


def as_json(content: object) -> bytes:
    """Readable JSON for an artifact."""
    return json.dumps(content, indent=2, sort_keys=True, default=str).encode()
