"""The training's side of MLflow: what is there already, and the hand-over of what is to be written."""

import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient

from harness.data.datasets import Dataset
from harness.tracking import artifacts, child, provenance, spool
from harness.tracking.artifacts import CHECKPOINTS
from harness.tracking.claims import claims_at, hold
from harness.tracking.entries import ArmEnd, ArmStart, Entry, Lost, Message, Opening, Receipt, TestSet
from harness.tracking.standing import Standing, standings
from harness.training.checkpoints import CheckpointError, unpack


class TrackingError(RuntimeError):
    """Something could not be logged; the message says what MLflow answered."""


class LostRunError(RuntimeError):
    """A run into which nothing more can be written; others are not concerned."""


@dataclass(frozen=True)
class Earlier:
    """A run of the store with the run key that was asked for."""

    run_id: str
    finished: bool
    alive: bool


class Tracker:
    """Has one MLflow experiment written, by a process of its own (see `harness.tracking.writer`).

    Args:
        client: of an open store.
        experiment_id: the sweep's experiment.
        sweep: the sweep's name.
        tags: facts about this invocation that every run carries.
        folder: where on this machine what cannot be written is kept until it can; None: nowhere.
        patience: seconds for which it is tried.

    Attributes:
        on_error: called when patience has ended; what is put after that is kept in the folder.

    Raises:
        TrackingError: what an earlier process left in the folder cannot be written.
    """

    def __init__(
        self,
        client: MlflowClient,
        experiment_id: str,
        sweep: str,
        tags: Mapping[str, str],
        folder: Path | None = None,
        patience: float = 0.0,
    ) -> None:
        self.client, self.experiment_id, self.sweep = client, experiment_id, sweep
        self.patience = patience
        self.tags = {"sweep": sweep, **provenance.process(), **provenance.git(), **tags}
        self._error: str | None = None
        self._test_sets: set[str] = set()
        self._actions: dict[int, Callable[[], None]] = {}
        self._counting, self._numbers = threading.Lock(), itertools.count()
        self._lost: dict[str, str] = {}
        self.on_error: Callable[[], None] | None = None
        own, left = None, list[str]()
        if folder is not None:
            own = str(spool.own(folder.resolve(), client.tracking_uri, experiment_id))
            left = list(map(str, spool.left(folder.resolve(), client.tracking_uri, experiment_id)))
            left += [own] if Path(own).exists() else []
        self._child = child.take()
        environment = dict(os.environ)
        claim = provenance.writing_for(self.tags)
        self.put(
            Opening(client.tracking_uri, experiment_id, sweep, os.getcwd(), environment, own, left, patience, claim)
        )
        if left:
            self.when_written(lambda: None)
            self.wait_for_actions()

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

    def open_arms(self, arm_keys: Iterable[str]) -> set[str]:
        """Those of the arms whose parent run says that it goes on: nobody was there to end it."""
        where = "tags.kind = 'arm' and attributes.status != 'FINISHED'"
        running = self.client.search_runs([self.experiment_id], where, max_results=10_000)
        return {run.data.tags["arm_key"] for run in running} & set(arm_keys)

    def start_arm(self, name: str, arm_key: str, params: Mapping[str, object]) -> None:
        """Make the arm's parent run, or take up the one there is."""
        tags = {**self.tags, "kind": "arm", "arm": name, "arm_key": arm_key, "mlflow.runName": name}
        self.put(ArmStart(arm_key, tags, {name: str(value) for name, value in params.items()}))

    def end_arm(self, arm_key: str, run_keys: Sequence[str], data: Dataset, run_figures: bool) -> None:
        """Have the arm's aggregates and figures made, once all that was put before is written."""
        if data.digest not in self._test_sets:
            self._test_sets.add(data.digest)
            self.put(TestSet(data.digest, data.x_test, data.y_test, tuple(data.class_names), data.is_image))
        self.put(ArmEnd(arm_key, run_keys, data.digest, run_figures))

    def put(self, message: Message) -> None:
        """Have it written after all that was put before; any thread may call this, and does not wait.

        Raises:
            TrackingError: something earlier could not be written, and nobody was to be told.
            LostRunError: the run was deleted by others.
        """
        if self.on_error is None:
            self._raise()
        if isinstance(message, Entry) and message.run in self._lost:
            raise LostRunError(f"its MLflow run was deleted while it trained: {self._lost[message.run]}")
        try:
            said = self._child.send(message)
        except child.ChildError as error:
            self._error = str(error)
            self._raise()
        for each in said:
            self._hear(each)
        if self.on_error is None:
            self._raise()

    def when_written(self, action: Callable[[], None]) -> None:
        """Do this some time after all that was put before is written: at a later call, in whichever thread makes it.

        Raises:
            TrackingError: something earlier could not be written.
        """
        with self._counting:
            receipt = Receipt(next(self._numbers))
            self._actions[receipt.number] = action
        self.put(receipt)

    def _hear(self, said: Receipt | Lost | str) -> None:
        if isinstance(said, Receipt):
            self._actions.pop(said.number)()
        elif isinstance(said, Lost):
            self._lost[said.run] = said.cause
        else:
            self._error = said
            if self.on_error is not None:
                self.on_error()

    def wait_for_actions(self) -> None:
        """Wait until every action of `when_written` is done: all that was put before the last of them is written.

        Raises:
            TrackingError: something could not be written.
        """
        while self._actions:
            self._raise()
            try:
                self._hear(self._child.receive())
            except child.ChildError as error:
                self._error = str(error)
        self._raise()

    def close(self) -> None:
        """Wait until everything is written.

        Raises:
            TrackingError: something could not be written.
        """
        try:
            for said in self._child.send(None):
                self._hear(said)
            while (said := self._child.receive()) is not None:
                self._hear(said)
        except child.ChildError as error:
            self._error = self._error or str(error)
        else:
            child.give_back(self._child)
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise TrackingError(f"MLflow could not be written: {self._error}")


def earlier_runs(
    client: MlflowClient,
    experiment_id: str,
    arm_keys: Iterable[str],
    reconcile: bool = False,
    run_key: str | None = None,
) -> dict[str, Earlier]:
    """Run key -> its run in the store: a finished one before an interrupted one, the latest of those.

    Args:
        client: of the store.
        experiment_id: the sweep's.
        arm_keys: whose runs.
        reconcile: set runs to KILLED that say RUNNING but whose process on this machine is dead, once all that it has
            told is written.
        run_key: look for this one alone.
    """
    arm_keys, found = set(arm_keys), dict[str, Earlier]()
    runs = [*standings(client, experiment_id, arm_keys, run_key)]
    if reconcile and (dead := {provenance.writing_for(run.tags) for run in runs if _is_dead(run)}):
        claims = claims_at(client.tracking_uri, experiment_id)
        for writing in dead:
            with hold(claims, writing):
                pass
        claims.close()
        runs = [*standings(client, experiment_id, arm_keys, run_key)]
    for run in runs:
        tags, is_dead = run.tags, _is_dead(run)
        alive = run.status == "RUNNING" and not is_dead
        if reconcile and is_dead:
            client.set_terminated(run.run_id, "KILLED")
        finished = run.status == "FINISHED" and "outcome" in tags
        known = found.get(tags["run_key"])
        if known is None or (finished and not known.finished):
            found[tags["run_key"]] = Earlier(run.run_id, finished, alive)
    return found


def _is_dead(run: Standing) -> bool:
    """Whether it says that it is in training, by a process of this machine that is not there."""
    process = (run.tags.get(part, "") for part in ("host", "pid", "process_started"))
    return run.status == "RUNNING" and not provenance.alive(*process)
