"""An arm's runs over the replicas: what is done is skipped, what was interrupted goes on, failures are kept."""

import contextlib
import dataclasses
import json
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import yaml

from harness.config import Arm, Config, flat
from harness.data.datasets import Dataset
from harness.disk import kept
from harness.prepared import Prepared
from harness.progress import Display
from harness.streams import Block
from harness.tracking import provenance
from harness.tracking.claims import Claim, Claims, Stop, Unclaimed
from harness.tracking.outages import Answer, OutageError, StoppedError, asked
from harness.tracking.runs import RunRecorder, TakenOverError
from harness.tracking.tracker import Earlier, Tracker, TrackingError, earlier_runs
from harness.training import checkpoints, loop, memory
from harness.training.feeds import Feed, feed
from harness.training.replica import Replica

if TYPE_CHECKING:
    from harness.continuation import Origin


@dataclass(frozen=True)
class Cell:
    """One arm on one block: what one run trains."""

    prepared: Prepared
    block: Block
    earlier: Earlier | None = None
    origin: "Origin | None" = None

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
        end_arm: called when an arm has no run left to wait for.
        fail_fast: stop at the first failure.
        claims: which runs this process may train; one that another process trains is waited for.
        rerun: train finished runs again.
    """

    slots: Sequence[str]
    tracker: Tracker
    display: Display
    end_arm: Callable[[Prepared], None]
    fail_fast: bool = False
    claims: Claims = field(default_factory=Unclaimed)
    rerun: bool = False
    failures: list[Failure] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        """Nothing is on a device yet."""
        self.tracker.on_error = self.stop.set  # runs in flight end with a checkpoint, which is kept like all the rest
        self._lock = threading.Lock()
        self._on_device: dict[tuple[str, str, float], Feed] = {}
        self._started: set[str] = set()
        self._documents: dict[str, bytes] = {}  # each arm's config: YAML is slow to write
        self._likes: weakref.WeakValueDictionary[tuple[str, str, str], Replica] = weakref.WeakValueDictionary()
        self._left: dict[str, int] = {}
        self._drawn: set[str] = set()

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
            _wait_for(ended)
        except BaseException:
            self.stop.set()
            _wait_for(ended)
            raise

    def _work(self, device: str, waiting: "queue.SimpleQueue[Cell]") -> None:
        replica: Replica | None = None
        turned_away = 0
        while not self.stop.is_set():
            try:
                cell = waiting.get_nowait()
            except queue.Empty:
                return
            prepared, began = cell.prepared, time.monotonic()
            try:
                claim = self._asked(partial(self.claims.take, cell.run_key))
                if claim is None:  # in training elsewhere: asked for again after the others
                    waiting.put(cell)
                    turned_away += 1
                    if turned_away > waiting.qsize():
                        self.tracker.when_written(lambda: None)  # hears what is, so that no claim of ours is kept
                        self.stop.wait(self.claims.pause)
                    continue
                turned_away = 0
                try:
                    cell = self._asked(partial(self._as_it_stands, cell))
                    if cell.earlier is not None and cell.earlier.finished and not self.rerun:
                        self.display.run_elsewhere(cell.name)
                    else:
                        self._start_arm(prepared)
                        on_device = self._data(prepared, device)
                        replica = self.replica(replica, prepared, on_device)
                        self._train(replica, cell, began, claim)
                finally:
                    self.tracker.when_written(claim.release)
            except TakenOverError:
                waiting.put(cell)
                continue
            except (TrackingError, StoppedError):  # the first is raised again where the tracker is closed
                self.stop.set()
                return
            except OutageError as error:
                self._fail(cell, error)
                self.stop.set()
            except Exception as error:
                self._fail(cell, error)
            with contextlib.suppress(TrackingError):  # as above
                self._leave(prepared)

    def replica(self, last: Replica | None, prepared: Prepared, on_device: Feed) -> Replica:
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

    def _asked(self, question: Callable[[], Answer]) -> Answer:
        return asked(question, self.tracker.patience, self.stop)

    def _as_it_stands(self, cell: Cell) -> Cell:
        """The cell with what other processes have made of its run since the sweep was planned."""
        if self.rerun or isinstance(self.claims, Unclaimed):
            return cell
        tracker = self.tracker
        found = earlier_runs(tracker.client, tracker.experiment_id, [cell.prepared.arm.key], True, cell.run_key)
        return dataclasses.replace(cell, earlier=found.get(cell.run_key))

    def _train(self, replica: Replica, cell: Cell, began: float, claim: Claim) -> None:
        prepared, block = cell.prepared, cell.block
        resume = checkpoint = None
        if cell.earlier is not None and not cell.earlier.finished:
            run_id = cell.earlier.run_id
            checkpoint = self._asked(partial(self.tracker.last_checkpoint, run_id))
            if checkpoint is not None:
                resume = self._asked(partial(self.tracker.client.get_run, run_id))
        origin = cell.origin
        if checkpoint is None and origin is not None:
            checkpoint = origin.checkpoint
        tags = {
            "arm": prepared.arm.name,
            "arm_key": prepared.arm.key,
            "run_key": cell.run_key,
            "block": str(block.id),
            "draw": "all" if block.draw_id is None else str(block.draw_id),
            "data.digest": prepared.data.digest,
            "device": replica.device,
            "mlflow.runName": cell.name,
            **({} if origin is None else {"resumed_from": origin.run.info.run_id}),
            **{f"seed.{stream}": str(value) for stream, value in block.seeds.items()},
        }
        recorder = RunRecorder(
            self.tracker,
            prepared.arm.key,
            tags,
            params(prepared.arm),
            resume,
            kept(prepared.arm.config.train.checkpoint.keep),
            claim.lost,
        )
        try:
            if origin is not None and resume is None:
                origin.retell(recorder)
            elif checkpoint is not None:
                self._asked(partial(recorder.restore_layers, int(checkpoints.unpack(checkpoint)["step"])))
            recorder.artifact("config.yaml", self._documents[prepared.arm.key])
            recorder.artifact("provenance.json", json.dumps(provenance_of(cell, replica.device), indent=2).encode())
            if prepared.arm.config.augment.layers and self._is_first(prepared):
                recorder.artifact("augmented.png", augmented_examples(replica, cell))
            outcome = loop.train(
                replica,
                prepared.recipe,
                prepared.draw(block),
                block,
                recorder,
                resume=checkpoint,
                stop=Stop(self.stop, claim.lost),
                progress=self.display.steps,
            )
        except TakenOverError:
            raise
        except BaseException as error:
            told = memory.explained(error, prepared.arm.config.train.batch_size, replica.device)
            recorder.fail(told)
            if told is error:
                raise
            raise told from error
        self.display.run_ended(cell.name, outcome, time.monotonic() - began)

    def _is_first(self, prepared: Prepared) -> bool:
        """Whether the arm's augmented images are still to be drawn: once an arm in a process."""
        with self._lock:
            first = prepared.arm.key not in self._drawn
            self._drawn.add(prepared.arm.key)
        return first

    def _start_arm(self, prepared: Prepared) -> None:
        with self._lock:
            key = prepared.arm.key
            if key not in self._started:
                self._started.add(key)
                self._documents[key] = config_yaml(prepared.arm.config)
                self.tracker.start_arm(prepared.arm.name, key, params(prepared.arm))

    def _data(self, prepared: Prepared, device: str) -> Feed:
        data, stream_above = prepared.data, prepared.arm.config.runtime.stream_above_gib
        with self._lock:
            place = (device, data.digest, stream_above)
            if place not in self._on_device:
                self._on_device[place] = feed(data, device, stream_above)
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
        if last and key in self._started:
            self.end_arm(prepared)


def _wait_for(events: Iterable[threading.Event]) -> None:
    """Wait until all are set, and hear signals meanwhile.

    Of two at once the kernel may give one to another thread; the handlers then wait for this one to look up.
    """
    for event in events:
        while not event.wait(0.2):
            pass


def augmented_examples(replica: Replica, cell: Cell) -> bytes:
    """A contact sheet (PNG) of training images as they are and as the block's augmentation stream changes them."""
    from harness.analysis.contact_sheet import ROWS, TIMES, contact_sheet  # most sweeps draw nothing in this process
    from harness.analysis.figure import png

    data, indices = cell.prepared.data, cell.prepared.draw(cell.block).split.train[:ROWS]
    names = [data.class_names[label] for label in data.y_train[indices]]
    return png(contact_sheet(*replica.augmented(cell.block, indices, TIMES), names))


def params(arm: Arm) -> dict[str, object]:
    """The config columns of an arm and its runs: every leaf of the config but where and how much is run."""
    found = flat(dataclasses.asdict(arm.config))
    left_out = (
        *("sweep", "tracking", "reports", "seeds", "confirm", "dry_run", "rerun", "fail_fast", "resume_from"),
        *("trust", "runtime"),
    )
    kept = {name: value for name, value in found.items() if not name.startswith(left_out)}
    return {**arm.choices, **kept, "runtime.precision": arm.config.runtime.precision}


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
        "data": about(cell.prepared.data),
    }


def about(data: Dataset) -> dict[str, object]:
    """What a reader of a run's logits needs to know of its data."""
    return {
        "name": data.name,
        "digest": data.digest,
        "class_names": data.class_names,
        "value_range": data.value_range,
    }
