"""Initial weights, made layer by layer from (init seed, layer path), never by the layers themselves."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from harness.streams import seed
from harness.targets import TARGET, TargetError, build, first_line

Weights = list[npt.NDArray[Any]]


@dataclass(frozen=True)
class Scheme:
    """Specs of Keras initializers: `output` goes before `conv` or `dense`, those before `default`."""

    default: Mapping[str, Any]
    conv: Mapping[str, Any] | None = None
    dense: Mapping[str, Any] | None = None
    output: Mapping[str, Any] | None = None
    bias: Mapping[str, Any] | None = None

    def spec(self, layer: keras.Layer) -> Mapping[str, Any]:
        """The spec for a layer's kernel."""
        kind = self.conv if "conv" in type(layer).__name__.lower() else self.dense
        return (self.output if layer.name == "logits" else None) or kind or self.default


def initial_weights(model: keras.Model, scheme: Scheme, init_seed: int, built: Weights) -> Weights:
    """New values for `model.weights`, in their order.

    Kernels and biases come from the scheme, seeded by hash(init_seed, variable path), so that the same block starts the
    same layer alike in every architecture; other weights (batch norm's) keep the value they were built with.

    Args:
        model: the net.
        scheme: which initializer each layer gets.
        init_seed: the block's init stream.
        built: the values of `model.weights` right after building.
    """
    values = {id(weight): value for weight, value in zip(model.weights, built, strict=True)}
    # On the CPU, whatever the device: the same block starts alike on every machine.
    with tf.device("/CPU:0"):
        for layer in model._flatten_layers(include_self=False):
            for role in ("kernel", "bias"):
                variable = getattr(layer, role, None)
                spec = scheme.spec(layer) if role == "kernel" else scheme.bias
                if isinstance(variable, keras.Variable) and spec is not None:
                    path = f"{layer.name}/{role}"
                    initializer = build(spec, seed=seed(init_seed, path) % 2**31)
                    values[id(variable)] = np.asarray(initializer(tuple(variable.shape), dtype="float32"))
    return [values[id(weight)] for weight in model.weights]


def try_scheme(scheme: Scheme, model: keras.Model) -> None:
    """Draw the smallest kernel of each rank, and a bias, with each spec: Keras checks some arguments only then.

    Raises:
        TargetError: an initializer fails on the shapes of this net; names its key.
    """
    smallest: dict[tuple[str, int], tuple[int, str, keras.Variable, Mapping[str, Any]]] = {}
    keys = {id(getattr(scheme, role)): role for role in ("bias", "default", "dense", "conv", "output")}
    for layer in model._flatten_layers(include_self=False):
        for role in ("kernel", "bias"):
            variable = getattr(layer, role, None)
            spec = scheme.spec(layer) if role == "kernel" else scheme.bias
            if isinstance(variable, keras.Variable) and spec is not None:
                size, place = int(np.prod(variable.shape)), (keys[id(spec)], len(variable.shape))
                if place not in smallest or size < smallest[place][0]:
                    smallest[place] = (size, f"{layer.name}/{role}", variable, spec)
    for (key, _), (_, path, variable, spec) in smallest.items():
        shape = tuple(variable.shape)
        try:
            value = np.asarray(build(spec, seed=0)(shape, dtype="float32"))
            if value.shape != shape:
                raise ValueError(f"it makes {value.shape}")
        except Exception as error:  # Keras and TensorFlow have many kinds
            raise TargetError(
                f"initializer.{key}: {spec[TARGET]} cannot make {path} {shape}: {first_line(error)}"
            ) from None


def digest(weights: Iterable[npt.NDArray[Any]]) -> str:
    """sha256 (16 hex characters) over the bytes of all weights, in order."""
    total = hashlib.sha256()
    for weight in weights:
        total.update(np.ascontiguousarray(weight).data)
    return total.hexdigest()[:16]
