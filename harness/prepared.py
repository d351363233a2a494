"""An arm made ready to train: its data, what to compile, its recipe in steps; checked before anything trains."""

import dataclasses
import json
import threading
from collections.abc import Mapping
from functools import cached_property

import numpy as np

from harness import durations
from harness.config import Arm, Config, ConfigError, block_ids
from harness.data import draws
from harness.data.datasets import Dataset
from harness.data.preprocess import Affine
from harness.models.architectures import ShapeError
from harness.models.initializers import Scheme
from harness.models.optimizers import learning_rates, optimizer
from harness.streams import Block, seed
from harness.targets import TARGET, TargetError, build, check_arguments, first_line
from harness.training import loop
from harness.training.replica import NetSpec


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
        parts = number_of_draws(self.arm.config)
        count = draw.examples if draw.examples is not None else there // parts
        if count * (parts if draw.scheme == "disjoint" else 1) > there:
            raise ConfigError(
                f"draw.examples: got {count} for each of {parts} draws, but {self.data.name} has {there} examples"
            )
        return count

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


def number_of_draws(config: Config) -> int:
    """How many different draws of the training data the blocks of a config make."""
    return config.draws if config.draws is not None else max(block_ids(config.seeds)) + 1


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
