"""3x3 convolutions of small maps by Winograd's minimal filtering: a quarter of the multiplications, for CPUs.

F(4x4, 3x3) of Lavin and Gray 2016 (arXiv 1509.09308, section 4): a tile of 6x6 inputs and the kernel are each carried
to the values of their polynomials at five points and at infinity, multiplied there, and carried back to 4x4 outputs.
oneDNN has the direct algorithm only. All of it is matrix products, so that TensorFlow gives the gradients. The points
0, ±1, 1/2, -2 round less than the usual 0, ±1, ±2 (Barabasz et al. 2020, arXiv 1803.10986): the error is 3 to 5 times
that of a direct float32 convolution, about 1e-6 of the output's standard deviation.
"""

from functools import lru_cache
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

TILE, TAPS = 4, 3
POINTS = (0.0, 1.0, -1.0, 0.5, -2.0)
"""Where the polynomials are evaluated, beside infinity."""
FEWEST_CHANNELS = 32
LARGEST_SIDE = 8
"""Of a map: larger ones would leave the processor's cache between the matrix products."""

Matrix = npt.NDArray[np.float64]


def use(model: keras.Model) -> None:
    """Let the net's convolutions for which it pays be computed in this way; what is saved of the net stays the same."""
    for layer in model.layers:
        if pays(layer):
            layer.convolution_op = convolution


def pays(layer: keras.Layer) -> bool:
    """Whether a layer is a 3x3 convolution with stride 1 and zeros around, of maps and channels that gain by it."""
    if type(layer) is not keras.layers.Conv2D or layer.compute_dtype != "float32":
        return False
    plain = (layer.kernel_size, layer.strides, layer.dilation_rate, layer.groups) == ((TAPS, TAPS), (1, 1), (1, 1), 1)
    if not plain or layer.padding != "same" or layer.data_format != "channels_last":
        return False
    _, height, width, channels = layer.input.shape
    multiplications = (TILE + TAPS - 1) ** 2 * _tiles(height) * _tiles(width)
    return bool(
        min(channels, layer.filters) >= FEWEST_CHANNELS
        and max(height, width) <= LARGEST_SIDE
        and multiplications <= TAPS**2 * height * width / 2
    )


def convolution(images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """The maps (n, height, width, filters) of `tf.nn.conv2d(images, kernel, 1, "SAME")`, up to rounding.

    Args:
        images: (n, height, width, channels) float32; height and width are known.
        kernel: (3, 3, channels, filters).
    """
    (height, width), (channels, filters) = images.shape[1:3], kernel.shape[2:]
    down, across = _tiles(height), _tiles(width)
    (into_rows, out_of_rows), (into_columns, out_of_columns) = _of_maps(height), _of_maps(width)
    count, points = tf.shape(images)[0], TILE + TAPS - 1
    # Examples and channels come last: every carrying over is then one product with a small matrix from the left.
    x = tf.reshape(tf.transpose(images, (1, 2, 0, 3)), (height, -1))
    x = tf.reshape(tf.matmul(into_rows, x), (points * down, width, -1))
    x = tf.reshape(tf.matmul(into_columns, x), (points, down, points, -1))
    x = tf.reshape(tf.transpose(x, (0, 2, 1, 3)), (points**2, -1, channels))
    k = tf.matmul(_of_kernels(), tf.reshape(tf.convert_to_tensor(kernel), (TAPS**2, channels * filters)))
    y = tf.matmul(x, tf.reshape(k, (points**2, channels, filters)))
    y = tf.transpose(tf.reshape(y, (points, points, down, -1)), (0, 2, 1, 3))
    y = tf.matmul(out_of_columns, tf.reshape(y, (points * down, points * across, -1)))
    y = tf.matmul(out_of_rows, tf.reshape(y, (points * down, -1)))
    return tf.transpose(tf.reshape(y, (height, width, count, filters)), (2, 0, 1, 3))


def _tiles(side: int) -> int:
    return -(-side // TILE)


@lru_cache(maxsize=1)
def _of_tiles() -> tuple[Matrix, Matrix, Matrix]:
    """What carries a tile's inputs to the points (6, 6), the kernel to them (6, 3), and products to outputs (4, 6)."""
    points, there = TILE + TAPS - 1, np.array(POINTS)
    others = [np.delete(there, place) for place in range(len(there))]
    inputs = np.zeros((points, points))
    for place, roots in enumerate(others):
        inputs[place, :-1] = np.poly(roots)[::-1]
    inputs[-1] = np.poly(there)[::-1]
    taps = np.vander(there, TAPS, increasing=True) / [
        [np.prod(point - roots)] for point, roots in zip(there, others, strict=True)
    ]
    # Powers of two, which round nothing, bring the inputs' rows to like lengths.
    scale = 2.0 ** np.round(np.log2(np.linalg.norm(inputs, axis=1, keepdims=True)))
    kernel = np.vstack([taps, np.eye(TAPS)[-1]]) * scale
    outputs = np.hstack([np.vander(there, TILE, increasing=True).T, np.eye(TILE)[:, -1:]])
    return inputs / scale, kernel, outputs


@lru_cache
def _of_maps(side: int) -> tuple[Any, Any]:
    """For rows or columns of maps of this side: to the points, (6 tiles, side), and back, (side, 6 tiles).

    The zeros around the map, and the outputs of the last tile beyond it, are left out.
    """
    inputs, _, outputs = _of_tiles()
    tiles, points = _tiles(side), TILE + TAPS - 1
    into, out_of = np.zeros((points, tiles, TILE * tiles + TAPS - 1)), np.zeros((TILE * tiles, points, tiles))
    for tile in range(tiles):
        into[:, tile, TILE * tile : TILE * tile + points] = inputs
        out_of[TILE * tile : TILE * (tile + 1), :, tile] = outputs
    into, out_of = into[:, :, 1 : side + 1], out_of[:side]
    return (
        into.reshape(points * tiles, side).astype(np.float32),
        out_of.reshape(side, points * tiles).astype(np.float32),
    )


@lru_cache(maxsize=1)
def _of_kernels() -> Any:
    """Kernels (9, n) to both directions' points, (36, 9)."""
    _, kernel, _ = _of_tiles()
    return np.kron(kernel, kernel).astype(np.float32)
