"""A run's per-layer statistics as one npz artifact, `histograms.npz`."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.bins import EDGES
from harness.training.recorder import Statistics


def pack(layers: Mapping[int, Statistics]) -> bytes:
    """Statistics by step as one npz.

    steps (T,), arrays (A,) names, moments (M,) names, values (T, A, M) float32 with NaN where there is none, counts
    (T, A, 245) int32 with -1 where there is none, edges (244,).
    """
    steps = sorted(layers)
    arrays = list(dict.fromkeys(array for step in steps for array in layers[step]))
    moments = list(
        dict.fromkeys(
            name for step in steps for numbers in layers[step].values() for name in numbers if name != "counts"
        )
    )
    values = np.full((len(steps), len(arrays), len(moments)), np.nan, np.float32)
    counts = np.full((len(steps), len(arrays), len(EDGES) + 1), -1, np.int32)
    for t, step in enumerate(steps):
        for a, array in enumerate(arrays):
            numbers: Mapping[str, Any] = layers[step].get(array, {})
            for m, moment in enumerate(moments):
                values[t, a, m] = numbers.get(moment, np.nan)
            if "counts" in numbers:
                counts[t, a] = numbers["counts"]
    buffer = io.BytesIO()
    np.savez(
        buffer,
        allow_pickle=False,
        steps=np.array(steps, np.int64),
        arrays=np.array(arrays, str),
        moments=np.array(moments, str),
        values=values,
        counts=counts,
        edges=EDGES,
    )
    return buffer.getvalue()


def unpack(content: bytes) -> dict[int, Statistics]:
    """The statistics that `pack` packed."""
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        data = {name: file[name] for name in file.files}
    layers: dict[int, Statistics] = {}
    for t, step in enumerate(data["steps"].tolist()):
        layers[step] = {
            array: {
                moment: float(data["values"][t, a, m])
                for m, moment in enumerate(data["moments"].tolist())
                if not np.isnan(data["values"][t, a, m])
            }
            | ({"counts": data["counts"][t, a]} if data["counts"][t, a, 0] >= 0 else {})
            for a, array in enumerate(data["arrays"].tolist())
        }
    return layers
