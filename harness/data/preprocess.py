"""What is done to pixels once they lie in [0, 1]: a shift and a scale, measured on the training examples."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Range = tuple[float, float]
Per = Literal["channel", "pixel", "all"]

_CHUNK = 1 << 18  # values converted to float64 at a time: 2 MiB, so that a chunk stays in the cache


@dataclass(frozen=True, eq=False)
class Affine:
    """Maps x01, examples in [0, 1], to `(x01 - mean) / std`.

    Both have as many dimensions as an example, of length 1 where a statistic is shared: (1, 1, 1), (1, 1, C)
    or (H, W, C) for images, (1,) or (d,) for vectors.
    """

    mean: Floats
    std: Floats

    def __call__(self, x01: Floats) -> Floats:
        """Examples or batches of them, (..., H, W, C) or (..., d), of the same shape after it."""
        return (x01 - self.mean) / self.std


def scale(x: npt.NDArray[Any], value_range: Range) -> Affine:
    """[0, 1] as it is; neither argument is looked at beyond the dimensions of an example."""
    ones = np.ones((1,) * (x.ndim - 1), np.float32)
    return Affine(mean=np.zeros_like(ones), std=ones)


def mean_image(x: npt.NDArray[Any], value_range: Range) -> Affine:
    """Subtract the mean training image, one value a pixel and channel; the scale stays."""
    mean, _ = _moments(x, value_range)
    return Affine(mean=mean.astype(np.float32), std=np.ones((1,) * mean.ndim, np.float32))


def standardize(x: npt.NDArray[Any], value_range: Range, per: Per = "channel", eps: float = 1e-3) -> Affine:
    """Mean 0 and standard deviation 1 over the training examples.

    Args:
        x: (N, H, W, C) or (N, d) raw training examples.
        value_range: the two raw values that map to 0 and 1.
        per: one mean and std a channel (of vectors: a feature), a pixel and channel, or for all values.
        eps: the least std, in units of [0, 1], so that a constant pixel stays finite.

    Raises:
        ValueError: an unknown `per`, an `eps` that is not positive, or no examples.
    """
    if per not in get_args(Per):
        raise ValueError(f"standardize: per must be one of {', '.join(get_args(Per))}, got {per!r}")
    if not 0 < eps < np.inf:
        raise ValueError(f"standardize: eps must be positive and finite, got {eps}")
    mean, square = _moments(x, value_range)
    pooled = {"pixel": (), "all": tuple(range(mean.ndim)), "channel": tuple(range(mean.ndim - 1))}[per]
    mean, square = (moment.mean(axis=pooled, keepdims=True) for moment in (mean, square))
    std = np.sqrt(np.maximum(square - mean**2, 0))
    return Affine(mean=mean.astype(np.float32), std=np.maximum(std, eps).astype(np.float32))


def _moments(x: npt.NDArray[Any], value_range: Range) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """E[x01] and E[x01^2] over the examples, each of an example's shape, in float64, a chunk at a time."""
    if len(x) == 0:
        raise ValueError("x holds no training examples; a statistic needs at least one")
    low, high = value_range
    rows = x.reshape(len(x), -1)
    total, square = np.zeros((2, rows.shape[1]))
    step = max(1, _CHUNK // rows.shape[1])
    for first in range(0, len(rows), step):
        # from the low end of the range, not from 0: far from 0 the squares would cancel
        chunk = rows[first : first + step].astype(np.float64)
        chunk -= low
        total += chunk.sum(axis=0)
        square += np.einsum("ij,ij->j", chunk, chunk)
    width = high - low
    shape = x.shape[1:]
    return (total / (len(x) * width)).reshape(shape), (square / (len(x) * width**2)).reshape(shape)
