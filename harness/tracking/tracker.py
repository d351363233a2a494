"""The only writer to MLflow: one thread that writes in the order in which things happen."""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag

from harness.targets import first_line
from harness.tracking import artifacts, provenance
from harness.training.checkpoints import CheckpointError, unpack

MOST_METRICS, MOST_PARAMS, MOST_TAGS = 800, 100, 100  # in one log_batch, which takes 1,000 of all
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
        self.tags = {"sweep": sweep, **provenance.process(), **provenance.git(), **tags}
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue(maxsize=1000)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._write, name="tracker", daemon=True)
        self._thread.start()

    def earlier(self, arm_keys: Iterable[str]) -> dict[str, Earlier]:
        """See `earlier_runs`. Dead RUNNING runs of this machine are set to KILLED on the way."""
        return earlier_runs(self.client, self.experiment_id, arm_keys, reconcile=True)

    def last_checkpoint(self, run_id: str) -> bytes | None:
        """The newest whole checkpoint of a run, or None."""
        run = self.client.get_run(run_id)
        for name in reversed(artifacts.names(self.client, run, CHECKPOINTS)):
            content = artifacts.read(self.client, run, name)
            with contextlib.suppress(CheckpointError):  # damaged: the one before it may be whole
                if content is not None:
                    unpack(content)
                    return content
        return None

    def arm(self, name: str, arm_key: str, params: Mapping[str, object]) -> str:
        """The parent run of an arm, RUNNING: the one there is, or a new one."""
        for run in _search(self.client, self.experiment_id, f"tags.kind = 'arm' and tags.arm_key = '{arm_key}'"):
            self.client.update_run(run.info.run_id, status="RUNNING")
            return str(run.info.run_id)
        tags = {**self.tags, "kind": "arm", "arm": name, "arm_key": arm_key, "mlflow.runName": name}
        run = self.client.create_run(self.experiment_id, tags=tags)
        self.log(run.info.run_id, params=params)
        return str(run.info.run_id)

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
            cause = self._error
            while cause.__cause__ is not None:  # the database's own words, not what was wrapped around them
                cause = cause.__cause__
            raise TrackingError(f"MLflow could not be written: {first_line(cause)[:300]}") from self._error

    def _write(self) -> None:
        while (action := self._queue.get()) is not None:
            if self._error is None:
                try:
                    action()
                except BaseException as error:  # raised again in whichever thread comes next
                    self._error = error

    def log(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, object] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Write at once, in as few calls as MLflow's limits allow; for the writer's own thread."""
        points = list(metrics)
        facts = [Param(name, str(value)[:6000]) for name, value in (params or {}).items()]
        marks = [RunTag(name, value) for name, value in (tags or {}).items() if value]
        while points or facts or marks:
            batch = points[:MOST_METRICS], facts[:MOST_PARAMS], marks[:MOST_TAGS]
            self.client.log_batch(run_id, *batch, synchronous=True)
            points, facts, marks = points[MOST_METRICS:], facts[MOST_PARAMS:], marks[MOST_TAGS:]


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
