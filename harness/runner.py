"""An arm's runs over the replicas: what is done is skipped, what was interrupted goes on, failures are kept."""

import contextlib
import dataclasses
import json
import queue
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from harness.config import Arm, Config
from harness.data.datasets import Dataset
from harness.prepared import Prepared
from harness.progress import Display
from harness.streams import Block
from harness.tracking import provenance
from harness.tracking.runs import RunRecorder
from harness.tracking.tracker import Earlier, Tracker, TrackingError
from harness.training import checkpoints, loop
from harness.training.replica import DeviceData, Replica


@dataclass(frozen=True)
class Cell:
    """One arm on one block: what one run trains."""

    prepared: Prepared
    block: Block
    earlier: Earlier | None = None

    @property
    def name(self) -> str:
        """Arm and block, for people."""
        return f"{self.prepared.arm.name} {self.block.name}"

    @property
    def run_key(self) -> str:
        """The run's identity."""
        return self.prepared.arm.run_key(self.block, self.prepared.data.digest)


@dataclass
class Failure:
    """A run that ended with an error."""

    run: str
    error: BaseException


@dataclass
class Runner:
    """Trains cells on device slots, one thread a slot.

    Args:
        slots: the device of each slot.
        tracker: where everything goes.
        display: what a person sees.
        close_arm: called in the tracker's thread when an arm has no run left to wait for: (arm, parent run id).
        fail_fast: stop at the first failure.
        rerun: train finished runs again.
    """

    slots: Sequence[str]
    tracker: Tracker
    display: Display
    close_arm: Callable[[Prepared, str], None]
    fail_fast: bool = False
    failures: list[Failure] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        """Nothing is on a device yet."""
        self._lock = threading.Lock()
        self._on_device: dict[tuple[str, str], DeviceData] = {}
        self._parents: dict[str, str] = {}
        self._likes: weakref.WeakValueDictionary[tuple[str, str, str], Replica] = weakref.WeakValueDictionary()
        self._left: dict[str, int] = {}

    def run(self, cells: Sequence[Cell]) -> None:
        """Train all cells; their failures are kept in `failures`.

        Raises:
            KeyboardInterrupt: after every run in flight has saved a checkpoint and ended as interrupted.
            TrackingError: MLflow could not be written.
        """
        waiting: queue.SimpleQueue[Cell] = queue.SimpleQueue()
        for cell in cells:
            waiting.put(cell)
            key = cell.prepared.arm.key
            self._left[key] = self._left.get(key, 0) + 1
        # Events, as Ctrl-C in Thread.join takes a thread that still runs for one that has ended (Python 3.11).
        ended = [threading.Event() for _ in self.slots[: len(cells)]]

        def work(device: str, end: threading.Event) -> None:
            try:
                self._work(device, waiting)
            finally:
                end.set()

        for number, (device, end) in enumerate(zip(self.slots, ended, strict=False)):
            threading.Thread(target=work, args=(device, end), name=f"slot {number}").start()
        try:
            for end in ended:
                end.wait()
        except BaseException:
            self.stop.set()
            for end in ended:
                end.wait()
            raise

    def _work(self, device: str, waiting: "queue.SimpleQueue[Cell]") -> None:
        replica: Replica | None = None
        while not self.stop.is_set():
            try:
                cell = waiting.get_nowait()
            except queue.Empty:
                return
            prepared, began = cell.prepared, time.monotonic()
            try:
                parent = self._parent(prepared)
                on_device = self._data(prepared.data, device)
                replica = self.replica(replica, prepared, on_device)
                self._train(replica, cell, parent, began)
            except TrackingError:  # raised again where the tracker is closed
                self.stop.set()
                return
            except Exception as error:
                self._fail(cell, error)
            with contextlib.suppress(TrackingError):  # as above
                self._leave(prepared)

    def replica(self, last: Replica | None, prepared: Prepared, on_device: DeviceData) -> Replica:
        """The slot's last replica, if what is compiled is the same, or a new one."""
        if last is not None and (last.spec.key, last.data.digest) == (prepared.spec.key, prepared.data.digest):
            return last
        kind = (prepared.spec.key, prepared.data.digest, on_device.device)
        with self._lock:
            like = self._likes.get(kind)
            made = Replica(prepared.spec, on_device, like)
            if like is None:
                self._likes[kind] = made
        return made

    def _train(self, replica: Replica, cell: Cell, parent: str, began: float) -> None:
        prepared, block = cell.prepared, cell.block
        resume = checkpoint = None
        if cell.earlier is not None and not cell.earlier.finished:
            checkpoint = self.tracker.last_checkpoint(cell.earlier.run_id)
            resume = self.tracker.client.get_run(cell.earlier.run_id) if checkpoint is not None else None
        tags = {
            "arm": prepared.arm.name,
            "arm_key": prepared.arm.key,
            "run_key": cell.run_key,
            "block": str(block.id),
            "draw": "all" if block.draw_id is None else str(block.draw_id),
            "data.digest": prepared.data.digest,
            "device": replica.device,
            "mlflow.runName": cell.name,
            **{f"seed.{stream}": str(value) for stream, value in block.seeds.items()},
        }
        recorder = RunRecorder(
            self.tracker, parent, tags, params(prepared.arm), resume, prepared.arm.config.train.checkpoint.keep
        )
        try:
            if checkpoint is not None:
                recorder.restore_layers(int(checkpoints.unpack(checkpoint)["step"]))
            recorder.artifact("config.yaml", config_yaml(prepared.arm.config))
            recorder.artifact("provenance.json", json.dumps(provenance_of(cell, replica.device), indent=2).encode())
            outcome = loop.train(
                replica,
                prepared.recipe,
                prepared.draw(block),
                block,
                recorder,
                resume=checkpoint,
                stop=self.stop,
                progress=self.display.steps,
            )
        except BaseException as error:
            recorder.fail(error)
            raise
        self.display.run_ended(cell.name, outcome, time.monotonic() - began)

    def _parent(self, prepared: Prepared) -> str:
        with self._lock:
            key = prepared.arm.key
            if key not in self._parents:
                self._parents[key] = self.tracker.arm(prepared.arm.name, key, params(prepared.arm))
            return self._parents[key]

    def _data(self, data: Dataset, device: str) -> DeviceData:
        with self._lock:
            place = (device, data.digest)
            if place not in self._on_device:
                self._on_device[place] = DeviceData(data, device)
            return self._on_device[place]

    def _fail(self, cell: Cell, error: Exception) -> None:
        with self._lock:
            self.failures.append(Failure(cell.name, error))
        self.display.run_failed(cell.name, error)
        if self.fail_fast:
            self.stop.set()

    def _leave(self, prepared: Prepared) -> None:
        with self._lock:
            key = prepared.arm.key
            self._left[key] -= 1
            last = self._left[key] == 0
        if last and key in self._parents:
            self.tracker.enqueue(lambda: self.close_arm(prepared, self._parents[key]))


def params(arm: Arm) -> dict[str, object]:
    """The config columns of an arm and its runs: every leaf of the config but where and how much is run."""
    found = flat(dataclasses.asdict(arm.config))
    left_out = ("sweep", "tracking", "reports", "seeds", "dry_run", "rerun", "fail_fast", "trust", "runtime")
    kept = {name: value for name, value in found.items() if not name.startswith(left_out)}
    return {**arm.choices, **kept, "runtime.precision": arm.config.runtime.precision}


def flat(node: Any, prefix: str = "") -> dict[str, object]:
    """Nested mappings as dotted keys; lists stay whole."""
    if not isinstance(node, Mapping):
        return {prefix: node}
    leaves: dict[str, object] = {}
    for name, value in node.items():
        leaves |= flat(value, f"{prefix}.{name}" if prefix else str(name))
    return leaves


def config_yaml(config: Config) -> bytes:
    """The whole resolved config as YAML, without passwords."""
    return provenance.without_password(yaml.safe_dump(dataclasses.asdict(config), sort_keys=False)).encode()


def provenance_of(cell: Cell, device: str) -> dict[str, object]:
    """Where a run comes from, as one document."""
    return {
        "command": provenance.command_line(),
        "versions": provenance.versions(),
        "git": provenance.git(),
        "process": provenance.process(),
        "device": device,
        "arm_key": cell.prepared.arm.key,
        "run_key": cell.run_key,
        "block": cell.block.id,
        "seeds": cell.block.seeds,
        "data": {"name": cell.prepared.data.name, "digest": cell.prepared.data.digest},
    }
