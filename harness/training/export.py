"""A net as a `.keras` file, again and again with other weights: Keras walks the net once, not for every run."""

import io
import math
import tempfile
import zipfile
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
        model: to be saved; its variables are changed for a moment.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._variables = list(model.variables)
        self._offsets: list[int] | None = None
        if sum(4 * math.prod(variable.shape) for variable in self._variables) > LARGE:
            return
        before = [variable.numpy() for variable in self._variables]
        try:
            # Each variable is filled with a number of its own, by which its place in the file is known.
            for number, variable in enumerate(self._variables, 1):
                variable.assign(np.full(variable.shape, number, before[number - 1].dtype))
            content = _saved(model)
        finally:
            for variable, value in zip(self._variables, before, strict=True):
                variable.assign(value)
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            self._others = {name: file.read(name) for name in file.namelist() if name != WEIGHTS}
            self._weights = file.read(WEIGHTS)
        self._offsets = self._places()

    def _places(self) -> list[int] | None:
        """Where in the weights' file the bytes of each variable begin; None if one is not there as plain bytes."""
        found: dict[float, int | None] = {}

        def look(_: str, item: object) -> None:
            if isinstance(item, h5py.Dataset) and item.size:
                values = np.asarray(item[...]).ravel()
                if (values == values[0]).all():
                    found[float(values[0])] = item.id.get_offset()

        with h5py.File(io.BytesIO(self._weights)) as file:
            file.visititems(look)
        offsets = [found.get(number) for number in range(1, len(self._variables) + 1)]
        return None if None in offsets else [offset for offset in offsets if offset is not None]

    def content(self) -> bytes:
        """The file with the present values."""
        if self._offsets is None:
            return _saved(self._model)
        weights = bytearray(self._weights)
        for offset, variable in zip(self._offsets, self._variables, strict=True):
            value = np.ascontiguousarray(variable.numpy())
            weights[offset : offset + value.nbytes] = value.tobytes()
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            for name, content in {**self._others, WEIGHTS: weights}.items():
                file.writestr(zipfile.ZipInfo(name), bytes(content))
        return buffer.getvalue()


def _saved(model: keras.Model) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        return path.read_bytes()
