"""Per-layer statistics as one file."""

from __future__ import annotations

import io

import numpy as np

from harness.bins import EDGES
from harness.tracking.histograms import pack, unpack

COUNTS = np.arange(245, dtype=np.int32)
LAYERS = {
    0: {"dense1/activation": {"mean": 0.5, "zeros": 0.25, "counts": COUNTS}, "dense1/weight": {"mean": -1.0}},
    5: {"dense1/activation": {"mean": 1.5, "counts": COUNTS[::-1].copy()}, "dense1/update": {"ratio": 0.125}},
}


def test_what_is_packed_comes_back() -> None:
    found = unpack(pack(LAYERS))
    assert list(found) == [0, 5]
    for step, arrays in LAYERS.items():
        for array, numbers in arrays.items():
            assert set(found[step][array]) == set(numbers)
            for name, value in numbers.items():
                np.testing.assert_array_equal(found[step][array][name], value)


def test_the_file_says_where_there_is_nothing() -> None:
    with np.load(io.BytesIO(pack(LAYERS)), allow_pickle=False) as file:
        data = {name: file[name] for name in file.files}
    assert data["arrays"].tolist() == ["dense1/activation", "dense1/weight", "dense1/update"]
    assert data["moments"].tolist() == ["mean", "zeros", "ratio"]
    assert data["values"].shape == (2, 3, 3)
    assert np.isnan(data["values"][1, 0, 1])
    assert (data["counts"][0, 1] == -1).all()
    np.testing.assert_array_equal(data["edges"], EDGES)


def test_no_statistics_are_packed_as_none() -> None:
    assert unpack(pack({})) == {}
