"""One compiled net with its optimizer on one device slot, re-used for run after run."""

import hashlib
import json
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from harness.data.preprocess import Affine
from harness.models import architectures
from harness.models.initializers import Scheme, initial_weights
from harness.models.optimizers import optimizer
from harness.streams import Block, seed
from harness.targets import TARGET, build, locate
from harness.training import graphs, probes, winograd
from harness.training.checkpoints import State
from harness.training.export import Export, saved
from harness.training.feeds import DeviceData, Feed

__all__ = ["DeviceData", "Feed", "NetSpec", "Replica", "Stretch"]

Indices = npt.NDArray[np.int32]
Images = npt.NDArray[np.float32]
EVALUATED_AT_ONCE = 128, 512
"""Examples, at least and at most: as many as leave the widest layer's output in WIDEST_BYTES, near the core."""
WIDEST_BYTES = 2**20

_building = threading.RLock()  # the dtype policy is global while a net is built


@dataclass(frozen=True)
class NetSpec:
    """Everything that is compiled: two runs with equal specs on one data set share a replica."""

    arch: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    augment: Sequence[Mapping[str, Any]]
    l2: float
    dropout: float
    batch_norm: bool
    label_smoothing: float
    batch_size: int
    precision: str
    xla: bool
    winograd: bool

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
        if self.batch_norm:
            arguments["batch_norm"] = True
        with _building:
            before = keras.config.dtype_policy()
            keras.config.set_dtype_policy(self.precision)
            try:
                return architectures.build(locate(self.arch[TARGET]), example_shape, classes, arguments)
            finally:
                keras.config.set_dtype_policy(before)


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
        on_device: the data, already on the device or streamed to it.
        like: a replica of the same spec on the same device; what one of them traces or exports first serves all.
    """

    def __init__(self, spec: NetSpec, on_device: Feed, like: "Replica | None" = None) -> None:
        data = on_device.data
        self.spec, self._on_device = spec, on_device
        self.data, self.device = data, on_device.device
        with tf.device(on_device.device):
            self.model = spec.build(data.example_shape, data.classes)
            if spec.winograd and not spec.xla and "CPU" in on_device.device:
                winograd.use(self.model)
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
        self._built_weights = [_remembered(weight.numpy()) for weight in self.model.weights]
        self._built_slots = [_remembered(slot.numpy()) for slot in self._optimizer.variables]
        kernels = {id(weight) for weight in self.model.weights}
        self._dropout_generators = [v for v in self.model.variables if id(v) not in kernels]
        self._augment_generators = [v for layer in self._augment for v in layer.variables]
        self._taps = probes.taps(self.model)
        self._weighted = [layer for layer in self.model.layers if layer.name in self._kernels]
        self._watched = keras.Model(
            self.model.inputs,
            [tap.tensor for tap in self._taps]
            + [layer.input for layer in self._weighted]
            + [layer.output for layer in self._weighted]
            + self.model.outputs,
        )
        widest = 4 * max(math.prod(tensor.shape[1:]) for tensor in self._watched.outputs)
        self._at_once = min(max(EVALUATED_AT_ONCE[0], WIDEST_BYTES // widest), EVALUATED_AT_ONCE[1])
        self._take_step = tf.function(self._step, jit_compile=True, autograph=False) if spec.xla else self._step
        self._compiled: dict[graphs.Place, graphs.Concrete] = {}
        # What this replica and those like it have traced, and which of them did.
        self._traced: graphs.Shared[Replica] = graphs.Shared() if like is None else like._traced
        self._wholes: dict[tuple[bytes, bytes], keras.Model] = {}
        self._exports: dict[tuple[bytes, bytes], Export] = {} if like is None else like._exports
        self._exports_lock: threading.Lock = threading.Lock() if like is None else like._exports_lock

    @property
    def _variables(self) -> list[tf.Variable]:
        """Every variable that a graph may touch, in an order that is the same for all replicas of a spec."""
        own = [self._mean, self._scale, *self._before_step]
        return [variable.value for group in self._groups.values() for variable in group] + own

    def trace(self, probed: int | None) -> None:
        """Have all that a run calls traced, in its order, meanwhile: probes of so many examples, or none."""
        for place in ([] if probed is None else [("probe", probed)]) + [("infer", None), ("train", None)]:
            if place not in self._compiled:
                self._wanted(place)

    def _wanted(self, place: graphs.Place) -> "Future[graphs.Traced[Replica]]":
        """The graph, which is traced now or was before, by this replica or one like it."""
        name, size = place
        # With the rows that the smallest call takes, which changes nothing.
        examples, labels = ((source, 1) for source in self._sources)
        indices = tf.TensorSpec((size,), tf.int32), 1
        order = tf.TensorSpec((None, self.spec.batch_size), tf.int32), 0
        rates, loss = ((tf.TensorSpec(shape, tf.float32), 0) for shape in ((None,), ()))
        functions: dict[str, tuple[Callable[..., Any], graphs.Signature]] = {
            "probe": (self._probing, (indices, examples, labels)),
            "infer": (self._inference, (indices, examples)),
            "train": (self._stretch, (order, rates, loss, examples, labels)),
        }

        return self._traced.get(place, lambda: graphs.trace(*functions[name], self, self.device))

    def _graph(self, name: str, size: int | None = None) -> graphs.Concrete:
        """The compiled function: of this replica, or taken over from one like it."""
        place = (name, size)
        if place not in self._compiled:
            traced = self._wanted(place).result()
            other = traced.owner
            if name == "probe":
                self._arrays, self._moments = other._arrays, other._moments
            mine = traced.function
            if other is not self:
                mine = graphs.take_over(mine, other._variables, self._variables)
            self._compiled[place] = mine
        return self._compiled[place]

    def reset(self, block: Block, scheme: Scheme, affine: Affine) -> None:
        """Start a run: initial weights of the block, optimizer slots as built, generators from their streams."""
        self._set_preprocessing(affine)
        self.weights = initial_weights(self.model, scheme, block.init, self._built_weights)
        for slot, value in zip(self._optimizer.variables, self._built_slots, strict=True):
            slot.assign(value)
        _restart(self._dropout_generators, block.dropout)
        _restart(self._augment_generators, block.augment)

    def _set_preprocessing(self, affine: Affine) -> None:
        self._affine = affine
        shape = tuple(self._mean.shape)
        self._mean.assign(np.broadcast_to(affine.mean, shape))
        self._scale.assign(np.broadcast_to(1 / affine.std, shape))

    def train(self, order: Indices, rates: npt.NDArray[np.float32]) -> Stretch:
        """Take the steps of `order` (steps, batch_size) at these learning rates, in one call of a compiled loop."""
        with tf.device(self._on_device.device):
            graph = self._graph("train")
            taken, loss = 0, tf.constant(0.0)
            for piece in self._on_device.pieces(order):
                steps, loss, well, weights_finite, ratios = graph(
                    piece.indices, tf.constant(rates[piece.rows]), loss, piece.examples, piece.labels
                )
                taken += int(steps)
                if not well:
                    break
        lost = int(not well)
        return Stretch(
            taken,
            float(loss) / max(1, taken - lost),
            bool(well) and bool(weights_finite),
            dict(zip(self._kernels, ratios.numpy().tolist(), strict=True)),
        )

    def augmented(self, block: Block, indices: Indices, times: int) -> tuple[Images, Images]:
        """These examples in [0, 1] as they are, (n, *shape), and augmented `times` times, (n, times, *shape).

        By the same layers as in training, from the start of the block's stream; for a run, `reset` comes after it.
        """
        _restart(self._augment_generators, block.augment)
        with tf.device(self._on_device.device):
            (piece,) = self._on_device.pieces(indices, rows=len(indices))
            unit = self._unit(tf.gather(piece.examples, piece.indices))
            found = self._augmented(tf.repeat(unit, times, axis=0))
        return unit.numpy(), found.numpy().reshape(len(indices), times, *unit.shape[1:])

    def logits(self, indices: Indices) -> npt.NDArray[np.float32]:
        """Logits (n, classes) in inference mode, without augmentation; test examples are counted after the others."""
        with tf.device(self._on_device.device):
            graph = self._graph("infer")
            pieces = self._on_device.pieces(indices, rows=self._at_once)
            return np.concatenate([graph(piece.indices, piece.examples).numpy() for piece in pieces])

    def probe(self, indices: Indices) -> dict[str, dict[str, Any]]:
        """Statistics of every layer on these examples, in inference mode: `<layer>/<array>` -> moments and counts."""
        with tf.device(self._on_device.device):
            graph = self._graph("probe", len(indices))
            (piece,) = self._on_device.pieces(indices, rows=len(indices))
            moments, counts = (part.numpy() for part in graph(piece.indices, piece.examples, piece.labels))
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

    @weights.setter
    def weights(self, values: list[npt.NDArray[Any]]) -> None:
        for weight, value in zip(self.model.weights, values, strict=True):
            weight.assign(value)

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
        with self._exports_lock:
            if place not in self._exports:  # blocks come again in every arm
                self._exports[place] = Export(self._whole(place), self.model.weights)
        return self._exports[place].content(self.model.weights) or saved(self._whole(place))

    def _whole(self, place: tuple[bytes, bytes]) -> keras.Model:
        """The net with this run's preprocessing before it: one a place, as the net remembers where it was called."""
        if place not in self._wholes:
            self._wholes[place] = self._with_preprocessing()
        return self._wholes[place]

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

    @property
    def _sources(self) -> tuple[tf.TensorSpec, tf.TensorSpec]:
        """Of examples and labels: as many as the feed gives at once."""
        examples = self.data.x_train
        return tf.TensorSpec((None, *examples.shape[1:]), examples.dtype), tf.TensorSpec((None,), tf.int32)

    def _unit(self, raw: tf.Tensor) -> tf.Tensor:
        return (tf.cast(raw, tf.float32) - self._low) / self._span

    def _augmented(self, unit: tf.Tensor) -> tf.Tensor:
        for layer in self._augment:
            unit = layer(unit, training=True)
        return unit

    def _preprocess(self, unit: tf.Tensor) -> tf.Tensor:
        return (unit - self._mean) * self._scale

    def _loss(self, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        entropies = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=tf.cast(logits, tf.float32))
        return tf.reduce_mean(entropies)

    def _step(self, indices: tf.Tensor, rate: tf.Tensor, examples: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        x = self._preprocess(self._augmented(self._unit(tf.gather(examples, indices))))
        with tf.GradientTape() as tape:
            logits = self.model(x, training=True)
            loss = self._loss(logits, tf.gather(labels, indices))
            if self.spec.label_smoothing:
                loss += self.spec.label_smoothing * (_entropy_of_uniform_labels(logits) - loss)
            if self.spec.l2:
                loss += self.spec.l2 * tf.add_n([tf.reduce_sum(tf.square(k.value)) for k in self._kernels.values()])
            if self.model.losses:
                loss += tf.add_n(self.model.losses)
            scaled = self._optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, self.model.trainable_variables)
        getattr(self._optimizer, "inner_optimizer", self._optimizer).learning_rate.assign(rate)
        self._optimizer.apply(gradients, self.model.trainable_variables)
        return loss

    def _stretch(
        self, order: tf.Tensor, rates: tf.Tensor, loss_before: tf.Tensor, examples: tf.Tensor, labels: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        total = tf.shape(order)[0]

        def take(done: tf.Tensor, loss: tf.Tensor, finite: tf.Tensor) -> tuple[tf.Tensor, ...]:
            tf.cond(tf.equal(done, total - 1), self._remember, lambda: tf.constant(True))
            step_loss = self._take_step(order[done], rates[done], examples, labels)
            finite = tf.math.is_finite(step_loss)
            return done + 1, loss + tf.where(finite, step_loss, 0.0), finite

        done, loss, finite = tf.while_loop(
            lambda done, _, finite: (done < total) & finite, take, (0, loss_before, True), parallel_iterations=1
        )
        ratios = [
            tf.sqrt(tf.nn.l2_loss(kernel.value - before) / tf.nn.l2_loss(before))
            for before, kernel in zip(self._before_step, self._kernels.values(), strict=True)
        ]
        # A sum is finite only if all its terms are.
        sums = [tf.reduce_sum(variable.value) for variable in self.model.trainable_variables]
        return done, loss, finite, tf.math.is_finite(tf.add_n(sums)), tf.stack(ratios)

    def _remember(self) -> tf.Tensor:
        for before, kernel in zip(self._before_step, self._kernels.values(), strict=True):
            before.assign(kernel.value)
        return tf.constant(True)

    def _inference(self, indices: tf.Tensor, examples: tf.Tensor) -> tf.Tensor:
        size = tf.shape(indices)[0]
        batches = tf.math.floordiv(size + self._at_once - 1, self._at_once)

        def infer(part: tf.Tensor, found: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            some = indices[part * self._at_once : (part + 1) * self._at_once]
            logits = self.model(self._preprocess(self._unit(tf.gather(examples, some))), training=False)
            return part + 1, found.write(part, logits)

        found = tf.TensorArray(tf.float32, batches, infer_shape=False, element_shape=(None, self.data.classes))
        _, found = tf.while_loop(lambda part, _: part < batches, infer, (0, found), parallel_iterations=1)
        return found.concat()

    def _probing(self, indices: tf.Tensor, examples: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        x = self._preprocess(self._unit(tf.gather(examples, indices)))
        with tf.GradientTape() as tape:
            *seen, logits = self._watched(x, training=False)
            loss = self._loss(logits, tf.gather(labels, indices))
        taps, layers = len(self._taps), len(self._weighted)
        watched, inputs, outputs = seen[:taps], seen[taps:-layers], seen[-layers:]
        kernels = [kernel.value for kernel in self._kernels.values()]
        found = tape.gradient(loss, kernels + inputs + outputs)
        gradients = found[:layers]
        # The loss is the mean over the examples: times their number, an example's own.
        of_inputs, of_outputs = (
            [None if error is None else error * indices.shape[0] for error in part]
            for part in (found[layers:-layers], found[-layers:])
        )
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
        for layer, tensor, of_input, of_output in zip(self._weighted, inputs, of_inputs, of_outputs, strict=True):
            for moment, value in probes.errors(layer, of_output, of_input, tensor).items():
                moments[f"{layer.name}/pre_activation", moment] = value
        # What the rows are is known once the function is traced.
        self._arrays, self._moments = [name for name, _, _ in arrays], list(moments)
        return tf.stack(list(moments.values())), probes.counts([tensor for _, tensor, _ in arrays])


def _restart(generators: Sequence[keras.Variable], stream: int) -> None:
    for position, state in enumerate(generators):
        state.assign(np.array([seed(stream, position) % 2**32, 0], state.dtype))


def _entropy_of_uniform_labels(logits: tf.Tensor) -> tf.Tensor:
    """Cross-entropy against labels that say 1/classes for every class: label smoothing mixes it in."""
    wide = tf.cast(logits, tf.float32)
    return tf.reduce_mean(tf.reduce_logsumexp(wide, axis=-1) - tf.reduce_mean(wide, axis=-1))


def _remembered(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array; one that holds a single value as a view of that value: a wide net's zeros take gigabytes."""
    if array.size > 1 and (array == array.flat[0]).all():
        return np.broadcast_to(array.flat[0], array.shape)
    return array
