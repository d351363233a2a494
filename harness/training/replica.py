"""One compiled net with its optimizer on one device slot, re-used for run after run."""

import hashlib
import json
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from harness.data.datasets import Dataset
from harness.data.preprocess import Affine
from harness.models import architectures
from harness.models.initializers import Scheme, initial_weights
from harness.models.optimizers import optimizer
from harness.streams import Block, seed
from harness.targets import TARGET, build, locate
from harness.training import graphs, probes
from harness.training.checkpoints import State

Indices = npt.NDArray[np.int32]
EVALUATION_BATCH = 128

_building = threading.RLock()  # the dtype policy is global while a net is built; graphs are traced one at a time


@dataclass(frozen=True)
class NetSpec:
    """Everything that is compiled: two runs with equal specs on one data set share a replica."""

    arch: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    augment: Sequence[Mapping[str, Any]]
    l2: float
    dropout: float
    batch_size: int
    precision: str
    xla: bool

    @cached_property
    def key(self) -> str:
        """A digest of all fields."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def build(self, example_shape: tuple[int, ...], classes: int) -> keras.Model:
        """The net, from preprocessed examples to logits.

        Raises:
            ShapeError: the net cannot be built on such examples.
        """
        arguments = {name: build(value) for name, value in self.arch.items() if name != TARGET}
        if self.dropout:
            arguments["dropout"] = self.dropout
        with _building:
            before = keras.config.dtype_policy()
            keras.config.set_dtype_policy(self.precision)
            try:
                return architectures.build(locate(self.arch[TARGET]), example_shape, classes, arguments)
            finally:
                keras.config.set_dtype_policy(before)


class DeviceData:
    """A data set on one device, training examples first, test examples after them."""

    def __init__(self, data: Dataset, device: str) -> None:
        self.data = data
        self.device = device
        with tf.device(device):
            self.examples = tf.concat([data.x_train, data.x_test], axis=0)
            self.labels = tf.concat([data.y_train, data.y_test], axis=0)
        self.test = np.arange(len(data.x_train), len(data.x_train) + len(data.x_test), dtype=np.int32)


@dataclass(frozen=True)
class Stretch:
    """What one call of `Replica.train` did.

    Attributes:
        steps: steps taken, fewer than asked for when the loss was not finite.
        loss: mean training loss over the steps with a finite loss, augmentation and penalty included.
        finite: whether the loss stayed finite.
        update_ratios: layer -> |change of the kernel in the last step| / |kernel|.
    """

    steps: int
    loss: float
    finite: bool
    update_ratios: dict[str, float]


class Replica:
    """One compiled net with its optimizer on one device.

    Args:
        spec: what to compile.
        on_device: the data, already on the device.
        like: a replica of the same spec on the same device, whose graphs are taken over instead of traced again.
    """

    def __init__(self, spec: NetSpec, on_device: DeviceData, like: "Replica | None" = None) -> None:
        data = on_device.data
        self.spec, self._on_device = spec, on_device
        self.data, self.device = data, on_device.device
        with tf.device(on_device.device):
            self.model = spec.build(data.example_shape, data.classes)
            self._optimizer = optimizer(spec.optimizer, spec.precision)
            self._optimizer.build(self.model.trainable_variables)
            self._augment = [build(layer) for layer in spec.augment]
            for layer in self._augment:
                layer(tf.zeros((1, *data.example_shape)), training=True)
            self._low, self._span = data.value_range[0], data.value_range[1] - data.value_range[0]
            self._mean = tf.Variable(tf.zeros(data.example_shape), trainable=False)
            self._scale = tf.Variable(tf.ones(data.example_shape), trainable=False)
            self._kernels = {
                layer.name: layer.kernel for layer in self.model.layers if getattr(layer, "kernel", None) is not None
            }
            self._before_step = [tf.Variable(tf.zeros_like(kernel.value)) for kernel in self._kernels.values()]
        self._affine = Affine(np.zeros(1, np.float32), np.ones(1, np.float32))
        self._arrays: list[str] = []
        self._moments: list[tuple[str, str]] = []
        self._exported: dict[tuple[bytes, bytes], keras.Model] = {}
        self._built_weights = [weight.numpy() for weight in self.model.weights]
        self._built_slots = [slot.numpy() for slot in self._optimizer.variables]
        kernels = {id(weight) for weight in self.model.weights}
        self._dropout_generators = [v for v in self.model.variables if id(v) not in kernels]
        self._augment_generators = [v for layer in self._augment for v in layer.variables]
        self._taps = probes.taps(self.model)
        self._weighted = [layer for layer in self.model.layers if layer.name in self._kernels]
        self._watched = keras.Model(
            self.model.inputs,
            [tap.tensor for tap in self._taps] + [layer.input for layer in self._weighted] + self.model.outputs,
        )
        self._take_step = tf.function(self._step, jit_compile=True, autograph=False) if spec.xla else self._step
        self._like = like
        self._compiled: dict[tuple[str, int | None], graphs.Concrete] = {}

    @property
    def _variables(self) -> list[tf.Variable]:
        """Every variable that a graph may touch, in an order that is the same for all replicas of a spec."""
        own = [self._mean, self._scale, *self._before_step]
        return [variable.value for group in self._groups.values() for variable in group] + own

    def _graph(self, name: str, function: Callable[..., Any], *signature: tf.TensorSpec) -> graphs.Concrete:
        """The compiled function: traced, or taken over from a replica like this one that has it."""
        place = (name, signature[0].shape[0])
        if place not in self._compiled:
            with _building:
                there = self._like is not None and self._like._compiled.get(place)
                if there and self._like is not None:
                    self._arrays, self._moments = self._like._arrays, self._like._moments
                    mine = graphs.take_over(there, signature, self._like._variables, self._variables)
                else:
                    mine = graphs.trace(function, signature)
                self._compiled[place] = mine
        return self._compiled[place]

    def reset(self, block: Block, scheme: Scheme, affine: Affine) -> None:
        """Start a run: initial weights of the block, optimizer slots as built, generators from their streams."""
        self._set_preprocessing(affine)
        for weight, value in zip(
            self.model.weights,
            initial_weights(self.model, scheme, block.init, self._built_weights),
            strict=True,
        ):
            weight.assign(value)
        for slot, value in zip(self._optimizer.variables, self._built_slots, strict=True):
            slot.assign(value)
        for stream, generators in (
            (block.dropout, self._dropout_generators),
            (block.augment, self._augment_generators),
        ):
            for position, state in enumerate(generators):
                state.assign(np.array([seed(stream, position) % 2**32, 0], state.dtype))

    def _set_preprocessing(self, affine: Affine) -> None:
        self._affine = affine
        shape = tuple(self._mean.shape)
        self._mean.assign(np.broadcast_to(affine.mean, shape))
        self._scale.assign(np.broadcast_to(1 / affine.std, shape))

    def train(self, order: Indices, rates: npt.NDArray[np.float32]) -> Stretch:
        """Take the steps of `order` (steps, batch_size) at these learning rates, in one call of a compiled loop."""
        with tf.device(self._on_device.device):
            graph = self._graph(
                "train",
                self._stretch,
                tf.TensorSpec((None, self.spec.batch_size), tf.int32),
                tf.TensorSpec((None,), tf.float32),
            )
            steps, loss, well, weights_finite, ratios = graph(tf.constant(order), tf.constant(rates))
        taken, lost = int(steps), int(not well)
        return Stretch(
            taken,
            float(loss) / max(1, taken - lost),
            bool(well) and bool(weights_finite),
            dict(zip(self._kernels, ratios.numpy().tolist(), strict=True)),
        )

    def logits(self, indices: Indices) -> npt.NDArray[np.float32]:
        """Logits (n, classes) in inference mode, without augmentation; test examples are counted after the others."""
        with tf.device(self._on_device.device):
            graph = self._graph("infer", self._inference, tf.TensorSpec((None,), tf.int32))
            return graph(tf.constant(indices)).numpy()  # type: ignore[no-any-return]

    def probe(self, indices: Indices) -> dict[str, dict[str, Any]]:
        """Statistics of every layer on these examples, in inference mode: `<layer>/<array>` -> moments and counts."""
        with tf.device(self._on_device.device):
            graph = self._graph("probe", self._probing, tf.TensorSpec((len(indices),), tf.int32))
            moments, counts = (part.numpy() for part in graph(tf.constant(indices)))
        found: dict[str, dict[str, Any]] = {
            name: {"counts": row} for name, row in zip(self._arrays, counts, strict=True)
        }
        for (array, moment), value in zip(self._moments, moments.tolist(), strict=True):
            if array in found:  # a layer with a fused activation has no pre-activation to see
                found[array][moment] = value
        for numbers in found.values():
            numbers["mean_square"] = numbers["mean"] ** 2 + numbers["std"] ** 2
        return found

    @property
    def weights(self) -> list[npt.NDArray[Any]]:
        """The current weights of the net, in the net's order."""
        return [weight.numpy() for weight in self.model.weights]

    @property
    def state(self) -> State:
        """All that a run needs to go on: weights, optimizer slots, generators."""
        return {
            f"{kind}/{position}": variable.numpy()
            for kind, group in self._groups.items()
            for position, variable in enumerate(group)
        }

    @state.setter
    def state(self, state: State) -> None:
        for kind, group in self._groups.items():
            for position, variable in enumerate(group):
                variable.assign(state[f"{kind}/{position}"])

    @property
    def _groups(self) -> dict[str, list[Any]]:
        return {
            "weight": self.model.weights,
            "optimizer": self._optimizer.variables,
            "dropout": self._dropout_generators,
            "augment": self._augment_generators,
        }

    def export(self) -> bytes:
        """The trained net as a .keras file, from raw examples to logits: plain Keras layers do its preprocessing."""
        place = (self._affine.mean.tobytes(), self._affine.std.tobytes())
        if place not in self._exported:  # building it takes longer than saving it; blocks come again in every arm
            self._exported[place] = self._with_preprocessing()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.keras"
            self._exported[place].save(path)
            return path.read_bytes()

    def _with_preprocessing(self) -> keras.Model:
        shape = self.data.example_shape
        mean, std = self._affine.mean, self._affine.std
        # Normalization keeps the axes along which its statistics differ.
        statistic = np.broadcast_shapes(mean.shape, std.shape)
        axes = tuple(axis - len(shape) for axis, length in enumerate(statistic) if length > 1) or None
        flat = [np.broadcast_to(part, statistic).squeeze() for part in (mean, std)]
        inputs = keras.Input(shape, name="raw")
        x = keras.layers.Rescaling(1 / self._span, -self._low / self._span, name="to_unit")(inputs)
        x = keras.layers.Normalization(axis=axes, mean=flat[0], variance=flat[1] ** 2, name="preprocess")(x)
        return keras.Model(inputs, self.model(x), name=self.model.name)

    # What is compiled.

    def _examples(self, indices: tf.Tensor) -> tf.Tensor:
        raw = tf.gather(self._on_device.examples, indices)
        return (tf.cast(raw, tf.float32) - self._low) / self._span

    def _preprocess(self, unit: tf.Tensor) -> tf.Tensor:
        return (unit - self._mean) * self._scale

    def _loss(self, logits: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
        labels = tf.gather(self._on_device.labels, indices)
        entropies = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=tf.cast(logits, tf.float32))
        return tf.reduce_mean(entropies)

    def _step(self, indices: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
        unit = self._examples(indices)
        for layer in self._augment:
            unit = layer(unit, training=True)
        x = self._preprocess(unit)
        with tf.GradientTape() as tape:
            loss = self._loss(self.model(x, training=True), indices)
            if self.spec.l2:
                loss += self.spec.l2 * tf.add_n([tf.reduce_sum(tf.square(k.value)) for k in self._kernels.values()])
            if self.model.losses:
                loss += tf.add_n(self.model.losses)
            scaled = self._optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, self.model.trainable_variables)
        getattr(self._optimizer, "inner_optimizer", self._optimizer).learning_rate.assign(rate)
        self._optimizer.apply(gradients, self.model.trainable_variables)
        return loss

    def _stretch(self, order: tf.Tensor, rates: tf.Tensor) -> tuple[tf.Tensor, ...]:
        total = tf.shape(order)[0]

        def take(done: tf.Tensor, loss: tf.Tensor, finite: tf.Tensor) -> tuple[tf.Tensor, ...]:
            tf.cond(tf.equal(done, total - 1), self._remember, lambda: tf.constant(True))
            step_loss = self._take_step(order[done], rates[done])
            finite = tf.math.is_finite(step_loss)
            return done + 1, loss + tf.where(finite, step_loss, 0.0), finite

        done, loss, finite = tf.while_loop(
            lambda done, _, finite: (done < total) & finite, take, (0, 0.0, True), parallel_iterations=1
        )
        ratios = [
            tf.norm(kernel.value - before) / tf.norm(before)
            for before, kernel in zip(self._before_step, self._kernels.values(), strict=True)
        ]
        # A sum is finite only if all its terms are.
        sums = [tf.reduce_sum(variable.value) for variable in self.model.trainable_variables]
        return done, loss, finite, tf.math.is_finite(tf.add_n(sums)), tf.stack(ratios)

    def _remember(self) -> tf.Tensor:
        for before, kernel in zip(self._before_step, self._kernels.values(), strict=True):
            before.assign(kernel.value)
        return tf.constant(True)

    def _inference(self, indices: tf.Tensor) -> tf.Tensor:
        size = tf.shape(indices)[0]
        batches = tf.math.floordiv(size + EVALUATION_BATCH - 1, EVALUATION_BATCH)

        def infer(part: tf.Tensor, found: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            some = indices[part * EVALUATION_BATCH : (part + 1) * EVALUATION_BATCH]
            logits = self.model(self._preprocess(self._examples(some)), training=False)
            return part + 1, found.write(part, logits)

        found = tf.TensorArray(tf.float32, batches, infer_shape=False, element_shape=(None, self.data.classes))
        _, found = tf.while_loop(lambda part, _: part < batches, infer, (0, found), parallel_iterations=1)
        return found.concat()

    def _probing(self, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        x = self._preprocess(self._examples(indices))
        with tf.GradientTape() as tape:
            *seen, logits = self._watched(x, training=False)
            loss = self._loss(logits, indices)
        gradients = tape.gradient(loss, [kernel.value for kernel in self._kernels.values()])
        watched, inputs = seen[: len(self._taps)], seen[len(self._taps) :]
        arrays = [(tap.name, tensor, tap.activation) for tap, tensor in zip(self._taps, watched, strict=True)]
        arrays.append(("predictions/activation", tf.nn.softmax(tf.cast(logits, tf.float32)), "softmax"))
        for (layer, kernel), gradient in zip(self._kernels.items(), gradients, strict=True):
            arrays += [(f"{layer}/weight", kernel.value, None), (f"{layer}/gradient", gradient, None)]
        moments = {
            (name, moment): value
            for name, tensor, activation in arrays
            for moment, value in probes.moments(tensor, activation).items()
        }
        for layer, tensor in zip(self._weighted, inputs, strict=True):
            if (sums := probes.input_square_sum(layer, tensor)) is not None:
                moments[f"{layer.name}/pre_activation", "input_square_sum"] = sums
        # What the rows are is known once the function is traced.
        self._arrays, self._moments = [name for name, _, _ in arrays], list(moments)
        return tf.stack(list(moments.values())), tf.stack([probes.counts(tensor) for _, tensor, _ in arrays])
