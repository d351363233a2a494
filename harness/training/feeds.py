"""How examples reach a replica: all of them on its device, or those of the next steps, copied while others train."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from harness.data.datasets import Dataset

Indices = npt.NDArray[np.int32]

PIECE_BYTES = 64 * 2**20
"""Of examples that are streamed to a device at once; two such pieces are there at a time."""
GIB = 2**30


@dataclass(frozen=True)
class Piece:
    """Some rows of an array of indices, as tensors on the device.

    Attributes:
        rows: which ones.
        indices: these rows, now counting within `examples` and `labels`.
        examples: raw, as in the data set.
        labels: one for each.
    """

    rows: slice
    indices: tf.Tensor
    examples: tf.Tensor
    labels: tf.Tensor


class Feed(Protocol):
    """A data set as a device sees it: training examples are counted first, test examples after them."""

    data: Dataset
    device: str

    def pieces(self, indices: Indices, rows: int = 1) -> Iterator[Piece]:
        """The examples of `indices`, (n,) or (n, batch), in order; pieces are multiples of `rows` long."""


class DeviceData:
    """A data set that lies on one device as a whole."""

    def __init__(self, data: Dataset, device: str) -> None:
        self.data = data
        self.device = device
        with tf.device(device):
            self.examples = tf.concat([data.x_train, data.x_test], axis=0)
            self.labels = tf.concat([data.y_train, data.y_test], axis=0)
        self.test = np.arange(len(data.x_train), len(data.x_train) + len(data.x_test), dtype=np.int32)

    def pieces(self, indices: Indices, rows: int = 1) -> Iterator[Piece]:
        """See Feed: all at once."""
        with tf.device(self.device):
            yield Piece(slice(0, len(indices)), tf.constant(indices), self.examples, self.labels)


class HostData:
    """A data set that stays in the host's memory, or in a file that is mapped there.

    A thread gathers the next piece, not a `tf.data.Dataset`: `from_generator` (TensorFlow 2.21) holds on to what each
    call was given, which adds up over the calls of a sweep.
    """

    def __init__(self, data: Dataset, device: str, piece_bytes: int = PIECE_BYTES) -> None:
        self.data = data
        self.device = device
        self._labels = np.concatenate([data.y_train, data.y_test])
        self._piece_bytes = piece_bytes

    def pieces(self, indices: Indices, rows: int = 1) -> Iterator[Piece]:
        """See Feed: the next piece is gathered and copied while the caller works on the last one."""
        example_bytes = self.data.x_train.dtype.itemsize * int(np.prod(self.data.example_shape))
        row_bytes = example_bytes * int(np.prod(indices.shape[1:]))
        length = max(1, self._piece_bytes // (row_bytes * rows)) * rows
        parts = [slice(first, min(first + length, len(indices))) for first in range(0, len(indices), length)]
        with ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(self._piece, indices, parts[0]) if parts else None
            for following in [*parts[1:], None]:
                if coming is None:
                    return
                piece = coming.result()
                coming = None if following is None else ahead.submit(self._piece, indices, following)
                yield piece

    def _piece(self, indices: Indices, rows: slice) -> Piece:
        wanted = indices[rows]
        flat = wanted.reshape(-1)
        local = np.arange(len(flat), dtype=np.int32).reshape(wanted.shape)
        with tf.device(self.device):
            return Piece(rows, tf.constant(local), tf.constant(self._rows(flat)), tf.constant(self._labels[flat]))

    def _rows(self, flat: Indices) -> npt.NDArray[Any]:
        first, test = self.data.x_train, flat >= len(self.data.x_train)
        if not test.any():
            return first[flat]
        found = np.empty((len(flat), *first.shape[1:]), first.dtype)
        found[~test] = first[flat[~test]]
        found[test] = self.data.x_test[flat[test] - len(first)]
        return found


def feed(data: Dataset, device: str, stream_above_gib: float) -> DeviceData | HostData:
    """On the device, unless the examples take more than `stream_above_gib`."""
    size = data.x_train.nbytes + data.x_test.nbytes
    return HostData(data, device) if size > stream_above_gib * GIB else DeviceData(data, device)
