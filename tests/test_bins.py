"""The histogram bins that never change."""

from __future__ import annotations

import numpy as np

from harness.bins import EDGES


def test_there_are_ten_bins_a_decade_on_either_side_of_zero() -> None:
    assert EDGES.shape == (244,)
    assert (np.diff(EDGES) > 0).all()
    positive = EDGES[123:]
    np.testing.assert_allclose(positive, 10.0 ** (np.arange(121) / 10 - 6), rtol=1e-6)
    np.testing.assert_array_equal(EDGES[:121], -positive[::-1])


def test_zero_has_a_bin_of_its_own() -> None:
    assert EDGES[121] == 0
    assert EDGES[122] == np.finfo(np.float32).tiny
