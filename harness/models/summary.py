"""A net as a table: what each layer gives, its parameters, multiply-adds and activation memory for one image."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import keras
import tensorflow as tf

VIEWS = ("Flatten", "Reshape")
"""Layers whose output is their input in another shape: no memory of their own."""


@dataclass(frozen=True)
class Row:
    """One layer, for one example.

    Attributes:
        layer: its name.
        kind: its class.
        output: shape of what it gives.
        kernel: number of weights in its kernel.
        bias: number of biases.
        other: numbers of another kind: batch norm's scale, shift and moving statistics.
        multiply_adds: of the kernel with the input, padding included; 0 for layers without a kernel.
        activation_bytes: memory of the output in the layer's own precision.
    """

    layer: str
    kind: str
    output: tuple[int, ...]
    kernel: int
    bias: int
    other: int
    multiply_adds: int
    activation_bytes: int


def rows(model: keras.Model) -> Iterator[Row]:
    """The layers in the order of the net, the input first."""
    for layer in model.layers:
        output = tuple(layer.output.shape[1:])
        kernel, bias = (_size(getattr(layer, role, None)) for role in ("kernel", "bias"))
        yield Row(
            layer=layer.name,
            kind=type(layer).__name__,
            output=output,
            kernel=kernel,
            bias=bias,
            other=layer.count_params() - kernel - bias,
            multiply_adds=kernel * math.prod(output[:-1]),
            activation_bytes=0
            if type(layer).__name__ in VIEWS
            else math.prod(output) * tf.as_dtype(layer.output.dtype).size,
        )


def _size(variable: object) -> int:
    return math.prod(variable.shape) if isinstance(variable, keras.Variable) else 0
