"""An arm made ready to train: its data, what to compile, its recipe in steps; checked before anything trains."""

import dataclasses
import json
import threading
from collections.abc import Mapping
from functools import cached_property

import keras
import numpy as np

from harness import durations
from harness.config import Arm, Config, ConfigError, Schedule, number_of_draws
from harness.data import draws
from harness.data.datasets import Dataset
from harness.data.preprocess import Affine
from harness.models.architectures import ShapeError
from harness.models.initializers import Scheme, try_scheme
from harness.models.optimizers import learning_rates, try_optimizer
from harness.streams import Block, seed
from harness.targets import TARGET, TargetError, build, check_arguments, first_line
from harness.training import loop
from harness.training.memory import out_of_memory
from harness.training.replica import NetSpec

MOST_STEPS, MOST_MOMENTS = 100_000_000, 1_000_000
"""Of one training: the learning rate of every step, and every moment of a schedule, are kept in memory."""


class Prepared:
    """An arm made ready to train: its data, what to compile, its recipe; everything is checked on the way.

    Raises:
        ConfigError: the arm cannot be run on its data.
    """

    def __init__(self, arm: Arm, data: Dataset, draws: "Draws") -> None:
        self.arm, self.data, self._draws = arm, data, draws
        config = arm.config
        self.spec = net_spec(config)
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
        parts = number_of_draws(self.arm.config)
        count = draw.examples if draw.examples is not None else there // parts
        if count * (parts if draw.scheme == "disjoint" else 1) > there:
            raise ConfigError(
                f"draw.examples: got {count} for each of {parts} draws, but {self.data.name} has {there} examples"
            )
        return count

    def check_net(self) -> keras.Model:
        """Build the net once, for `check`.

        Raises:
            ConfigError: it cannot be built on these data, or does not take an argument.
        """
        check_arguments(self.arm.config.arch, "arch")
        return build_net(self.arm.config, self.data.example_shape, self.data.classes, self.data.name)

    def check(self, net: keras.Model | None = None) -> None:
        """Build and try all but the net: initializers, optimizer, schedule, augmentations, split and preprocessing.

        Args:
            net: what `check_net` built, to try the initializers on.

        Raises:
            ConfigError: an argument that a class does not take, or a value that it refuses.
        """
        config = self.arm.config
        try:
            check_arguments(config.optimizer, "optimizer")
            try_optimizer(config.optimizer, config.runtime.precision)
            if config.learning_rate.schedule:
                check_arguments(config.learning_rate.schedule, "learning_rate.schedule")
            for role in ("default", "conv", "dense", "output", "bias"):
                if spec := getattr(config.initializer, role):
                    check_arguments(spec, f"initializer.{role}")
                    build(spec)
            if net is not None:
                try_scheme(self.scheme, net)
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
        steps = train.steps if train.steps is not None else max(1, round(train.epochs * self.epoch))
        if steps > MOST_STEPS:
            given = f"train.steps={train.steps}" if train.steps is not None else f"train.epochs={train.epochs:g}"
            raise ConfigError(f"{given}: {steps:,} steps of {train.batch_size} examples; allowed: up to {MOST_STEPS:,}")
        return steps

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
        due = {name: self._occasions(name, getattr(train, name), unit) for name in ("evaluate", "probe", "checkpoint")}
        if schedule and warmup:
            schedule = {
                name: max(1, value - warmup) if name.endswith("_steps") else value for name, value in schedule.items()
            }
        return loop.Recipe(
            steps=self.steps,
            batch_size=train.batch_size,
            learning_rates=learning_rates(rate.value, warmup, schedule, self.steps),
            scheme=self.scheme,
            evaluate=due["evaluate"],
            evaluate_examples=train.evaluate.examples,
            probe=due["probe"],
            probe_examples=train.probe.examples,
            checkpoint=due["checkpoint"],
            checkpoint_seconds=train.checkpoint.seconds,
            keep=train.checkpoint.keep,
            patience=self.arm.config.regularizer.patience,
        )

    def _occasions(self, name: str, schedule: Schedule, unit: dict[str, int]) -> tuple[int, ...]:
        """When a schedule is due, refused where that is too often to keep a list of."""
        if schedule.every is not None:
            stride = max(1, durations.steps(schedule.every, **unit))
            if self.steps // stride > MOST_MOMENTS:
                raise ConfigError(
                    f"train.{name}.every: got {schedule.every!r}, {self.steps // stride:,} times in a training of "
                    f"{self.steps:,} steps; allowed: up to {MOST_MOMENTS:,} times"
                )
        return durations.occasions(schedule.at, schedule.every, **unit)

    def draw(self, block: Block) -> loop.Draw:
        """The block's split of the data, and the preprocessing measured on its training part."""
        return self._draws.get(self.data, self.arm.config, block)


def net_spec(config: Config) -> NetSpec:
    """What a config has compiled."""
    regularizer = config.regularizer
    return NetSpec(
        config.arch,
        config.optimizer,
        config.augment.layers,
        regularizer.l2,
        regularizer.dropout,
        regularizer.batch_norm,
        regularizer.label_smoothing,
        config.train.batch_size,
        config.runtime.precision,
        config.runtime.xla,
        config.runtime.winograd,
    )


def build_net(config: Config, shape: tuple[int, ...], classes: int, where: str = "an input") -> keras.Model:
    """The net of a config on examples of this shape.

    Raises:
        ConfigError: it cannot be built on them, or does not take an argument; `where` says what they are.
    """
    try:
        check_arguments(config.arch, "arch")
        return net_spec(config).build(shape, classes)
    except (ShapeError, TargetError, ValueError, TypeError) as error:
        name, sides = str(config.arch[TARGET]).rpartition(".")[2], "x".join(map(str, shape))
        raise ConfigError(f"arch={name} on {where} ({sides}): {first_line(error)}") from None
    except Exception as error:
        if not out_of_memory(error):
            raise
        name = str(config.arch[TARGET]).rpartition(".")[2]
        raise ConfigError(
            f"arch={name}: its weights do not fit in memory ({first_line(error)[:200]}); make it smaller"
        ) from None


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
                split = draws.draw(
                    data.y_train,
                    str(config.draw.scheme),
                    config.draw.examples,
                    draws.Part(part, number_of_draws(config), seed(config.root_seed, "draw", "partition")),
                    block.draw,
                    share,
                    count,
                )
                affine: Affine = build(config.preprocess, x=data.x_train[split.train], value_range=data.value_range)
                self._made[place] = loop.Draw(data, split, affine)
            return self._made[place]
