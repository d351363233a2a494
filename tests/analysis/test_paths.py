"""The surface, and paths over it, by hand."""

from __future__ import annotations

import numpy as np

from harness.analysis import paths


def test_the_ravine_is_ten_times_as_steep_in_y() -> None:
    assert paths.ravine(np.array(-4.0), np.array(2.0)) == 8 + 20
    assert paths.ravine(np.array(0.0), np.array(0.0)) == 0


def test_overshoot_is_the_way_beyond_the_minimum() -> None:
    assert paths.overshoot(np.array([[-4.0, 2.0], [0.5, 0.0], [-0.1, 0.0]])) == 0.5
    assert paths.overshoot(np.array([[-4.0, 2.0], [-0.5, 0.0]])) == 0
