"""The only writer to MLflow, in a process of its own: training neither waits for it nor shares an interpreter with it.

`python -m harness.tracking.writer FD` is started by `harness.tracking.child` and ends when the other end of that
connection is closed, after it has written all that came before.
"""

import contextlib
import gc
import importlib
import os
import sys
from collections.abc import Mapping
from functools import cached_property
from multiprocessing.connection import Connection

from mlflow import MlflowClient
from mlflow.entities import Metric, Run
from mlflow.store.db.db_types import DATABASE_ENGINES

from harness.quiet import set_levels
from harness.tracking import arms, artifacts, batches
from harness.tracking.artifacts import CHECKPOINTS
from harness.tracking.claims import claims_at, hold
from harness.tracking.delivery import Delivery
from harness.tracking.entries import PARENT, ArmEnd, ArmStart, Entry, Lost, Message, Opening, Receipt, TestSet, of_steps
from harness.tracking.frames import Results
from harness.tracking.inbox import Inbox

ENDED = {"outcome", "outcome.step", "outcome.reason"}
"""Tags that say how a run ended."""


class Writer:
    """Writes what happens into one MLflow experiment, in the order in which it is told."""

    def __init__(self, uri: str, experiment_id: str, sweep: str, claim: str | None = None) -> None:
        self._uri, self.experiment_id, self.sweep, self._claim = uri, experiment_id, sweep, claim
        self._runs: dict[str, Run] = {}  # run key or arm key -> its MLflow run, until it ends
        self._test_sets: dict[str, TestSet] = {}
        self._claims = claims_at(uri, experiment_id)

    def close(self) -> None:
        """Nothing more comes."""
        self._claims.close()

    @cached_property
    def client(self) -> MlflowClient:
        """Opened with the first message: the store may be away at the start."""
        return MlflowClient(tracking_uri=self._uri)

    def write(self, message: Message, again: bool = False) -> None:
        """Write one message; `again` if some of it may have been written before, which does no harm."""
        if self._claim is not None:
            self._claims.take(self._claim)
            self._claim = None
        match message:
            case Entry():
                self._write(message, again)
            case ArmStart():
                self._start(message)
            case ArmEnd():
                self._end(message)
            case TestSet():
                self._test_sets[message.digest] = message
            case _:
                raise TypeError(f"{type(message).__name__} is nothing to write")

    @property
    def known(self) -> dict[str, str]:
        """Run key or arm key -> MLflow run id, of those that have not ended."""
        return {key: run.info.run_id for key, run in self._runs.items()}

    def recall(self, runs: Mapping[str, str]) -> None:
        """Take up runs that another writer knew."""
        for key, run_id in runs.items():
            if key not in self._runs:
                self._runs[key] = self.client.get_run(run_id)

    def _write(self, entry: Entry, again: bool) -> None:
        if entry.create is not None:
            if entry.run not in self._runs:
                tags = {**entry.create, PARENT: self._id(entry.create[PARENT])}
                there = self._created(tags) if again else None
                self._runs[entry.run] = there or self.client.create_run(self.experiment_id, tags=tags)
        elif entry.resume is not None:
            self.client.update_run(entry.resume, status="RUNNING")
            self._runs[entry.run] = self.client.get_run(entry.resume)
            for outdated in ENDED & self._runs[entry.run].data.tags.keys():
                self.client.delete_tag(entry.resume, outdated)
        run = self._runs[entry.run]
        batches.log(self.client, run.info.run_id, [Metric(*point) for point in entry.metrics], entry.params, entry.tags)
        if entry.files:
            artifacts.write(self.client, run, entry.files)
        if entry.keep is not None:
            for old in of_steps(artifacts.names(self.client, run, CHECKPOINTS))[: -entry.keep]:
                artifacts.delete(run, old)
        if entry.status is not None:
            self.client.set_terminated(run.info.run_id, entry.status)
            del self._runs[entry.run]

    def _id(self, key: str) -> str:
        return str(self._runs[key].info.run_id)

    def _created(self, tags: Mapping[str, str]) -> Run | None:
        """The run that was made with these tags although the store's answer was lost."""
        names = ("run_key", "host", "pid", "process_started")
        where = " and ".join(f"tags.{name} = '{tags[name]}'" for name in names if name in tags)
        found = self.client.search_runs([self.experiment_id], f"{where} and attributes.status = 'RUNNING'")
        return found[0] if found else None

    def _start(self, arm: ArmStart) -> None:
        where = f"tags.kind = 'arm' and tags.arm_key = '{arm.arm_key}'"
        with hold(self._claims, f"arm-{arm.arm_key}"):  # of two processes one makes it
            found = self.client.search_runs([self.experiment_id], where, max_results=1)
            if found:
                self._runs[arm.arm_key] = found[0]
                self.client.update_run(found[0].info.run_id, status="RUNNING")
            else:
                run = self._runs[arm.arm_key] = self.client.create_run(self.experiment_id, tags=dict(arm.tags))
                batches.log(self.client, run.info.run_id, params=arm.params)

    def _end(self, arm: ArmEnd) -> None:
        results = Results(self.client, self.sweep, [arm.arm_key], arm.run_keys)
        with hold(self._claims, f"arm-{arm.arm_key}"):  # MLflow breaks where two set one tag at once
            arms.close(self.client, self._runs[arm.arm_key], results, self._test_sets[arm.data], arm)


def serve(connection: Connection) -> None:
    """Write what comes until the connection is closed.

    `None` is answered by None once all before it is written, a Receipt by itself. What cannot be written is answered by
    one line, once.
    """

    def say(what: str | Lost | Receipt | None) -> None:
        with contextlib.suppress(OSError):  # whoever sent it is gone
            connection.send(what)

    inbox = Inbox(connection)
    delivery: Delivery | None = None
    while (message := inbox.next()) is not EOFError:
        match message:
            case None:
                if delivery is not None:
                    delivery.close()
                delivery = None
                say(None)
            case Opening():
                delivery = Delivery(_writer(message), message, inbox, say)
            case Receipt():
                if delivery is not None and not delivery.failed:
                    say(message)
            case Entry() | ArmStart() | ArmEnd() | TestSet():
                if delivery is not None:
                    delivery.deliver(message)
    if delivery is not None:  # whoever sent has died: what it told is written
        delivery.close()


def _writer(opening: Opening) -> Writer:
    os.environ.update(opening.environment)
    # Waiting for a server is for Delivery, which keeps what comes meanwhile.
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "1"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.chdir(opening.folder)
    if opening.uri.partition(":")[0].partition("+")[0] in DATABASE_ENGINES:
        # Half a second, for which no message has to wait.
        importlib.import_module("mlflow.store.tracking.sqlalchemy_store")
    return Writer(opening.uri, opening.experiment_id, opening.sweep, opening.claim)


if __name__ == "__main__":
    set_levels()
    gc.collect()
    gc.freeze()  # what the imports made stays; looking through it again and again takes longer than drawing a figure
    gc.set_threshold(50_000, 20, 50)  # a figure makes many objects that are gone with it
    serve(Connection(int(sys.argv[1])))
