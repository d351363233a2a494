"""An arm's runs over the replicas: what is done is skipped, what was interrupted goes on, failures are kept."""

import dataclasses
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import yaml

from harness import durations
from harness.config import Arm, Config, ConfigError
from harness.data import draws
from harness.data.datasets import Dataset
from harness.data.preprocess import Affine
from harness.models.architectures import ShapeError
from harness.models.initializers import Scheme
from harness.models.optimizers import learning_rates
from harness.progress import Display
from harness.streams import Block
from harness.targets import TargetError, build, check_arguments
from harness.tracking import provenance
from harness.tracking.tracker import Earlier, Tracker, as_json
from harness.training import checkpoints, loop
from harness.training.replica import DeviceData, NetSpec, Replica


class Prepared:
    """An arm made ready to train: its data, what to compile, its recipe; everything is checked on the way.

    Raises:
        ConfigError: the arm cannot be run on its data.
    """

    def __init__(self, arm: Arm, data: Dataset) -> None:
        self.arm, self.data = arm, data
        config = arm.config
        self.spec = NetSpec(
            config.arch,
            config.optimizer,
            config.augment.layers,
            config.regularizer.l2,
            config.regularizer.dropout,
            config.train.batch_size,
            config.runtime.precision,
            config.runtime.xla,
        )
        initializer = config.initializer
        self.scheme = Scheme(
            initializer.default, initializer.conv, initializer.dense, initializer.output, initializer.bias
        )
        self._draws: dict[int, loop.Draw] = {}
        self._lock = threading.Lock()
        examples = len(data.y_train) - round(len(data.y_train) * config.train.val_share)
        if config.train.batch_size > examples:
            raise ConfigError(
                f"train.batch_size: got {config.train.batch_size}, but {data.name} leaves {examples} training examples; "
                "take a smaller batch"
            )
        self.epoch = examples // config.train.batch_size
        if config.augment.layers and not data.is_image:
            raise ConfigError(f"augment: {data.name} holds vectors, not images; use augment=none")

    def check(self) -> None:
        """Build the net once and look at every argument; takes TensorFlow.

        Raises:
            ConfigError: a net that cannot be built on these data, or an argument that a class does not take.
        """
        config = self.arm.config
        try:
            for key, spec in (
                ("optimizer", config.optimizer),
                ("learning_rate.schedule", config.learning_rate.schedule),
            ):
                if spec:
                    check_arguments(spec, key)
            for role in ("default", "conv", "dense", "output", "bias"):
                if spec := getattr(config.initializer, role):
                    check_arguments(spec, f"initializer.{role}")
                    build(spec)
            for layer in config.augment.layers:
                check_arguments(layer, "augment.layers")
            self.spec.build(self.data.example_shape, self.data.classes)
            self.recipe  # noqa: B018 (made here, so that its errors come before any training)
            self.draw(Block.of(0))
        except ShapeError as error:
            raise ConfigError(
                f"arch={_short(config.arch)} on {self.data.name} {self.data.example_shape}: {error}"
            ) from None
        except (TargetError, ValueError, TypeError) as error:
            raise ConfigError(f"{self.arm.name}: {error}") from None

    @cached_property
    def steps(self) -> int:
        """Length of the training."""
        train = self.arm.config.train
        return train.steps if train.steps is not None else max(1, round(train.epochs * self.epoch))

    @cached_property
    def recipe(self) -> loop.Recipe:
        """The training with all its durations in steps."""
        train, rate = self.arm.config.train, self.arm.config.learning_rate
        unit: dict[str, int] = {"epoch": self.epoch, "batch_size": train.batch_size, "total": self.steps}
        schedule = rate.schedule and {
            name: durations.steps(value, **unit) if name.endswith("_steps") else value
            for name, value in rate.schedule.items()
        }
        warmup = durations.steps(rate.warmup, **unit)
        if schedule and warmup:
            schedule = {
                name: max(1, value - warmup) if name.endswith("_steps") else value for name, value in schedule.items()
            }
        return loop.Recipe(
            steps=self.steps,
            batch_size=train.batch_size,
            learning_rates=learning_rates(rate.value, warmup, schedule, self.steps),
            scheme=self.scheme,
            evaluate=durations.occasions(train.evaluate.at, train.evaluate.every, **unit),
            probe=durations.occasions(train.probe.at, train.probe.every, **unit),
            probe_examples=train.probe.examples,
            checkpoint=durations.occasions(train.checkpoint.at, train.checkpoint.every, **unit),
            checkpoint_seconds=train.checkpoint.seconds,
        )

    def draw(self, block: Block) -> loop.Draw:
        """The block's split of the data, and the preprocessing measured on its training part; kept for all runs."""
        train = self.arm.config.train
        with self._lock:
            if block.draw not in self._draws:
                count = train.eval_examples or len(self.data.y_test)
                split = draws.split(self.data.y_train, block.draw, train.val_share, count)
                affine: Affine = build(
                    self.arm.config.preprocess,
                    x=self.data.x_train[split.train],
                    value_range=self.data.value_range,
                )
                self._draws[block.draw] = loop.Draw(self.data, split, affine)
            return self._draws[block.draw]


def _short(spec: Mapping[str, Any]) -> str:
    return str(spec["_target_"]).rpartition(".")[2]


@dataclass(frozen=True)
class Cell:
    """One arm on one block: what one run trains."""

    prepared: Prepared
    block: Block
    earlier: Earlier | None = None

    @property
    def run_key(self) -> str:
        """The run's identity."""
        return self.prepared.arm.run_key(self.block, self.prepared.data.digest)


@dataclass
class Failure:
    """A run that ended with an error."""

    arm: str
    block: int
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
        threads = [
            threading.Thread(target=self._work, args=(device, waiting), name=f"slot {number}")
            for number, device in enumerate(self.slots[: len(cells)])
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException:
            self.stop.set()
            for thread in threads:
                thread.join()
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
                if replica is None or (replica.spec.key, replica.data.digest) != (
                    prepared.spec.key,
                    prepared.data.digest,
                ):
                    replica = Replica(prepared.spec, on_device)
                self._train(replica, cell, parent, began)
            except Exception as error:
                self._fail(cell, error)
            self._leave(prepared)

    def _train(self, replica: Replica, cell: Cell, parent: str, began: float) -> None:
        prepared, block = cell.prepared, cell.block
        resume = checkpoint = None
        if cell.earlier is not None and not cell.earlier.finished:
            checkpoint = self.tracker.last_checkpoint(cell.earlier.run_id)
            resume = cell.earlier.run_id if checkpoint is not None else None
        tags = {
            "arm": prepared.arm.name,
            "arm_key": prepared.arm.key,
            "run_key": cell.run_key,
            "block": str(block.id),
            "data.digest": prepared.data.digest,
            "device": replica.device,
            "mlflow.runName": f"{prepared.arm.name} seed={block.id}",
            **{f"seed.{stream}": str(value) for stream, value in block.seeds.items()},
        }
        recorder = self.tracker.run(
            parent, tags, params(prepared.arm), resume, keep=prepared.arm.config.train.checkpoint.keep
        )
        try:
            if checkpoint is not None:
                recorder.restore_layers(int(checkpoints.unpack(checkpoint)["step"]))
            recorder.artifact("config.yaml", config_yaml(prepared.arm.config))
            recorder.artifact("provenance.json", as_json(provenance_of(cell, replica.device)))
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
        self.display.run_ended(prepared.arm.name, block.id, outcome, time.monotonic() - began)

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
            self.failures.append(Failure(cell.prepared.arm.name, cell.block.id, error))
        self.display.run_failed(cell.prepared.arm.name, cell.block.id, error)
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
    """The whole resolved config as YAML."""
    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False).encode()


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
