"""Per-layer statistics on a fixed batch: moments of whole arrays, and histograms over bins that never change."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from harness.bins import DECADES, EDGES, PER_DECADE

SAMPLE = 8_000
"""A histogram takes at most this many values of an array, evenly spread; moments take all."""

_ACTIVATIONS = ("Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax")
_THROUGH = ("BatchNormalization", "LayerNormalization", "GroupNormalization")


@dataclass(frozen=True)
class Tap:
    """A tensor of the net worth watching: `<layer>/<array>`."""

    name: str
    tensor: Any
    activation: str | None = None


def taps(model: keras.Model) -> list[Tap]:
    """Each weighted layer's pre-activations (after a normalization that follows it) and activations, in order.

    A layer with a fused activation has no pre-activation to see and gives its activations alone.
    """
    found = []
    for layer in model.layers:
        if getattr(layer, "kernel", None) is None:
            continue
        fused = getattr(getattr(layer, "activation", None), "__name__", "linear")
        if fused != "linear":
            found.append(Tap(f"{layer.name}/activation", layer.output, fused))
            continue
        last = _consumer(layer, _THROUGH) or layer
        found.append(Tap(f"{layer.name}/pre_activation", last.output))
        if (after := _consumer(last, _ACTIVATIONS)) is not None:
            kind = getattr(getattr(after, "activation", None), "__name__", type(after).__name__.lower())
            found.append(Tap(f"{layer.name}/activation", after.output, kind))
    return found


def _consumer(layer: keras.Layer, kinds: tuple[str, ...]) -> keras.Layer | None:
    consumers = [node.operation for node in layer._outbound_nodes]
    return consumers[0] if len(consumers) == 1 and type(consumers[0]).__name__ in kinds else None


def moments(x: tf.Tensor, activation: str | None = None) -> dict[str, tf.Tensor]:
    """Exact moments of an array whose first axis is the batch; float32 scalars.

    mean, std (population; the mean square is mean^2 + std^2); of activations also zeros: share of exact zeros, dead:
    share of units (positions and channels) that are 0 on the whole batch; and where the activation is bounded
    (sigmoid, tanh, softmax) saturated: share within 1 % of a bound.
    """
    x = tf.cast(x, tf.float32)
    found = {
        "mean": tf.reduce_mean(x),
        "std": tf.math.reduce_std(x),
    }
    if activation is not None:
        share = tf.reduce_mean(tf.cast(tf.equal(x, 0.0), tf.float32), axis=0)
        found |= {"zeros": tf.reduce_mean(share), "dead": _share(tf.equal(share, 1.0))}
    if activation in ("sigmoid", "softmax"):
        found["saturated"] = _share((x < 0.01) | (x > 0.99))
    if activation == "tanh":
        found["saturated"] = _share(tf.abs(x) > 0.99)
    return found


def input_square_sum(layer: keras.Layer, x: tf.Tensor) -> tf.Tensor | None:
    """What a pre-activation's variance is proportional to at the start: the squared inputs that a unit sees, summed.

    Averaged over the batch, and for convolutions over positions (a convolution of the squares with ones, padded as the
    layer pads). None for other layers than dense ones and 2-D convolutions (He et al. 2015, section 2.2).
    """
    squares = tf.square(tf.cast(x, tf.float32))
    if type(layer).__name__ == "Dense":
        return tf.reduce_mean(tf.reduce_sum(squares, axis=-1))
    if type(layer).__name__ == "Conv2D" and layer.groups == 1:
        ones = tf.ones((*layer.kernel_size, 1, 1))
        maps = tf.reduce_sum(squares, axis=-1, keepdims=True)
        return tf.reduce_mean(
            tf.nn.conv2d(maps, ones, layer.strides, layer.padding.upper(), dilations=layer.dilation_rate)
        )
    return None


def errors(
    layer: keras.Layer, of_output: tf.Tensor | None, of_input: tf.Tensor | None, x: tf.Tensor
) -> dict[str, tf.Tensor]:
    """The signal on its way back through a linear layer, from the gradients of its output and of its input.

    error_mean_square: of the output's. Where the input has a gradient, also input_error_mean_square, and what that is
    proportional to at the start, error_square_sum: the squared errors that an input feeds, summed over units, averaged
    over the batch and positions (He et al. 2015, section 2.2). Nothing for other layers than dense ones and 2-D
    convolutions.

    Args:
        layer: whose.
        of_output: gradient of the loss of one example, or None.
        of_input: the same.
        x: the layer's input.
    """
    dense = type(layer).__name__ == "Dense"
    known = dense or (type(layer).__name__ == "Conv2D" and layer.groups == 1 and max(layer.dilation_rate) == 1)
    if of_output is None or not known or getattr(layer.activation, "__name__", "linear") != "linear":
        return {}
    squares = tf.square(tf.cast(of_output, tf.float32))
    found = {"error_mean_square": tf.reduce_mean(squares)}
    if of_input is None:
        return found
    sums = tf.reduce_sum(squares, axis=-1, keepdims=True)
    if not dense:
        ones = tf.ones((*layer.kernel_size, 1, 1))
        shape = tf.concat([tf.shape(x)[:-1], [1]], axis=0)
        sums = tf.nn.conv2d_transpose(sums, ones, shape, layer.strides, layer.padding.upper())
    return found | {
        "input_error_mean_square": tf.reduce_mean(tf.square(tf.cast(of_input, tf.float32))),
        "error_square_sum": tf.reduce_mean(sums),
    }


def counts(arrays: Sequence[tf.Tensor]) -> tf.Tensor:
    """Counts (arrays, 245) int32 in the bins of EDGES, of at most SAMPLE values of each array, evenly spread."""
    samples = [tf.reshape(tf.cast(x, tf.float32), [-1])[:: _stride(math.prod(x.shape), x.shape[-1])] for x in arrays]
    bins = len(EDGES) + 1
    first = np.repeat(np.arange(len(arrays), dtype=np.int32) * bins, [sample.shape[0] for sample in samples])
    total = bins * len(arrays)
    found = tf.math.bincount(_bins(tf.concat(samples, axis=0)) + first, minlength=total, maxlength=total)
    return tf.reshape(found, (len(arrays), bins))


def _bins(x: tf.Tensor) -> tf.Tensor:
    """The bin of each value: its logarithm tells the nearest edge, with which it is compared.

    A search among the edges, as Bucketize does it, takes three times as long.
    """
    x = tf.where(tf.math.is_nan(x), np.float32(np.inf), x)
    decades = tf.math.log(tf.abs(x) + np.finfo(np.float32).tiny) * (PER_DECADE / math.log(10))
    outward = tf.round(tf.clip_by_value(decades - PER_DECADE * DECADES[0], 0, PER_DECADE * (DECADES[1] - DECADES[0])))
    zero = int(np.searchsorted(EDGES, 0.0))
    nearest = tf.cast(zero + 0.5 + tf.sign(x) * (outward + 1.5), tf.int32)
    return nearest + tf.cast(x >= tf.gather(EDGES, nearest), tf.int32)


def _share(which: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.cast(which, tf.float32))


def _stride(size: int, channels: int) -> int:
    """A stride that leaves at most SAMPLE values and visits every channel."""
    stride = math.ceil(size / SAMPLE)
    while math.gcd(stride, channels) > 1:
        stride += 1
    return stride
