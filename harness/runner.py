"""An arm's runs over the replicas: what is done is skipped, what was interrupted goes on, failures are kept."""

import contextlib
import dataclasses
import json
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import yaml

from harness import durations
from harness.config import Arm, Config, ConfigError, block_ids
from harness.data import draws
from harness.data.datasets import Dataset
from harness.data.preprocess import Affine
from harness.models.architectures import ShapeError
from harness.models.initializers import Scheme
from harness.models.optimizers import learning_rates, optimizer
from harness.progress import Display
from harness.streams import Block, seed
from harness.targets import TARGET, TargetError, build, check_arguments, first_line
from harness.tracking import provenance
from harness.tracking.runs import RunRecorder
from harness.tracking.tracker import Earlier, Tracker, TrackingError
from harness.training import checkpoints, loop
from harness.training.replica import DeviceData, NetSpec, Replica


class Prepared:
    """An arm made ready to train: its data, what to compile, its recipe; everything is checked on the way.

    Raises:
        ConfigError: the arm cannot be run on its data.
    """

    def __init__(self, arm: Arm, data: Dataset, draws: "Draws") -> None:
        self.arm, self.data, self._draws = arm, data, draws
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
        drawn = self._drawn()
        examples = drawn - round(drawn * config.train.val_share)
        if config.train.batch_size > examples:
            raise ConfigError(
                f"train.batch_size: got {config.train.batch_size}, but {data.name} leaves {examples} training "
                "examples a run; take a smaller batch"
            )
        self.epoch = examples // config.train.batch_size
        if config.augment.layers and not data.is_image:
            raise ConfigError(f"augment: {data.name} holds vectors, not images; use augment=none")

    def _drawn(self) -> int:
        """How many examples a block draws, before the validation share."""
        draw, there = self.arm.config.draw, len(self.data.y_train)
        if draw.scheme in ("all", "bootstrap"):
            return there
        parts = self.parts
        count = draw.examples if draw.examples is not None else there // parts
        if count * (parts if draw.scheme == "disjoint" else 1) > there:
            raise ConfigError(
                f"draw.examples: got {count} for each of {parts} draws, but {self.data.name} has {there} examples"
            )
        return count

    @property
    def parts(self) -> int:
        """How many different draws there are."""
        config = self.arm.config
        return config.draws if config.draws is not None else max(block_ids(config.seeds)) + 1

    def check_net(self) -> None:
        """Build the net once.

        Raises:
            ConfigError: it cannot be built on these data, or does not take an argument.
        """
        arch = self.arm.config.arch
        try:
            check_arguments(arch, "arch")
            self.spec.build(self.data.example_shape, self.data.classes)
        except (ShapeError, TargetError, ValueError, TypeError) as error:
            name, shape = str(arch[TARGET]).rpartition(".")[2], "x".join(map(str, self.data.example_shape))
            raise ConfigError(f"arch={name} on {self.data.name} ({shape}): {first_line(error)}") from None

    def check(self) -> None:
        """Build all but the net: initializers, optimizer, schedule, augmentations, the split and its preprocessing.

        Raises:
            ConfigError: an argument that a class does not take, or a value that it refuses.
        """
        config = self.arm.config
        try:
            check_arguments(config.optimizer, "optimizer")
            optimizer(config.optimizer, config.runtime.precision)
            if config.learning_rate.schedule:
                check_arguments(config.learning_rate.schedule, "learning_rate.schedule")
            for role in ("default", "conv", "dense", "output", "bias"):
                if spec := getattr(config.initializer, role):
                    check_arguments(spec, f"initializer.{role}")
                    build(spec)
            self._check_augmentation()
            self.recipe  # noqa: B018 (made here, so that its errors come before any training)
            self.draw(Block.of(0))
        except (TargetError, ValueError, TypeError) as error:
            raise ConfigError(f"{self.arm.name}: {first_line(error)}") from None

    def _check_augmentation(self) -> None:
        example = np.zeros((1, *self.data.example_shape), np.float32)
        for position, spec in enumerate(self.arm.config.augment.layers):
            if not isinstance(spec, Mapping) or TARGET not in spec:
                raise ConfigError(f"augment.layers: entry {position} is {spec!r}; give _target_ and its arguments")
            check_arguments(spec, "augment.layers")
            if (shape := tuple(build(spec)(example, training=True).shape)) != example.shape:
                raise ConfigError(
                    f"augment.layers: {spec[TARGET]} makes {shape[1:]} of examples of {example.shape[1:]}; "
                    "an augmentation keeps their shape"
                )

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
            evaluate_examples=train.evaluate.examples,
            probe=durations.occasions(train.probe.at, train.probe.every, **unit),
            probe_examples=train.probe.examples,
            checkpoint=durations.occasions(train.checkpoint.at, train.checkpoint.every, **unit),
            checkpoint_seconds=train.checkpoint.seconds,
        )

    def draw(self, block: Block) -> loop.Draw:
        """The block's split of the data, and the preprocessing measured on its training part."""
        return self._draws.get(self.data, self.arm.config, block)


class Draws:
    """What blocks see of data sets: made once for all arms that agree on it."""

    def __init__(self) -> None:
        self._made: dict[tuple[object, ...], loop.Draw] = {}
        self._lock = threading.Lock()

    def get(self, data: Dataset, config: Config, block: Block) -> loop.Draw:
        """The draw, made when it is not there yet."""
        share, count = config.train.val_share, config.train.eval_examples or min(2000, len(data.y_test))
        how = json.dumps(
            [dataclasses.asdict(config.draw), config.draws, config.seeds, config.preprocess], sort_keys=True
        )
        place = (data.digest, block.draw, block.draw_id, share, count, how, config.root_seed)
        with self._lock:
            if place not in self._made:
                part = block.id if block.draw_id is None else block.draw_id
                parts = config.draws if config.draws is not None else max(block_ids(config.seeds)) + 1
                split = draws.draw(
                    data.y_train,
                    str(config.draw.scheme),
                    config.draw.examples,
                    draws.Part(part, parts, seed(config.root_seed, "draw", "partition")),
                    block.draw,
                    share,
                    count,
                )
                affine: Affine = build(config.preprocess, x=data.x_train[split.train], value_range=data.value_range)
                self._made[place] = loop.Draw(data, split, affine)
            return self._made[place]


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
        return Replica(prepared.spec, on_device)

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
