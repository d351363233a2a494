"""A net as a `.keras` file, again and again with other weights: Keras walks the net once, not for every run."""

import io
import math
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import h5py
import keras
import numpy as np

WEIGHTS = "model.weights.h5"
LARGE = 64 * 2**20
"""Bytes of weights above which a copy of the file costs more than to have Keras walk the net."""


class Export:
    """The file of one net, in which each export replaces the values of the weights.

    Args:
        model: to be saved.
        variables: those of it that change from file to file; they are changed for a moment.
    """

    def __init__(self, model: keras.Model, variables: Sequence[keras.Variable]) -> None:
        self._offsets: list[int] | None = None
        if sum(4 * math.prod(variable.shape) for variable in variables) > LARGE:
            return
        before = [variable.numpy() for variable in variables]
        try:
            # Each variable is filled with a number of its own, by which its place in the file is known.
            for number, variable in enumerate(variables, 1):
                variable.assign(np.full(variable.shape, number, before[number - 1].dtype))
            content = saved(model)
        finally:
            for variable, value in zip(variables, before, strict=True):
                variable.assign(value)
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            self._others = {name: file.read(name) for name in file.namelist() if name != WEIGHTS}
            self._weights = file.read(WEIGHTS)
        self._offsets = self._places(len(variables))

    def _places(self, variables: int) -> list[int] | None:
        """Where in the weights' file the bytes of each variable begin; None if one is not there as plain bytes."""
        found: dict[float, int | None] = {}

        def look(_: str, item: object) -> None:
            if isinstance(item, h5py.Dataset) and item.size:
                values = np.asarray(item[...]).ravel()
                if (values == values[0]).all():
                    found[float(values[0])] = item.id.get_offset()

        with h5py.File(io.BytesIO(self._weights)) as file:
            file.visititems(look)
        offsets = [found.get(number) for number in range(1, variables + 1)]
        return None if None in offsets else [offset for offset in offsets if offset is not None]

    def content(self, variables: Sequence[keras.Variable]) -> bytes | None:
        """The file with the values of these variables, of the net or of one that is alike; None if only Keras can."""
        if self._offsets is None:
            return None
        weights = bytearray(self._weights)
        for offset, variable in zip(self._offsets, variables, strict=True):
            value = np.ascontiguousarray(variable.numpy())
            weights[offset : offset + value.nbytes] = value.tobytes()
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            for name, content in {**self._others, WEIGHTS: weights}.items():
                file.writestr(zipfile.ZipInfo(name), bytes(content))
        return buffer.getvalue()


def saved(model: keras.Model) -> bytes:
    """The file as Keras writes it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        return path.read_bytes()
