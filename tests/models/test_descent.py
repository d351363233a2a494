"""The path of an optimizer over a surface, against its formula."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from harness.analysis.paths import ravine
from harness.config import Config
from harness.models.descent import path

pytestmark = pytest.mark.usefixtures("slots")


def test_sgd_shrinks_each_coordinate_by_its_own_factor(config_of: Callable[..., Config]) -> None:
    way = path(config_of("optimizer=sgd").optimizer, 0.01, ravine, (-4, 2), 120)
    steps = np.arange(121)
    # x' = x - 0.01 x, y' = y - 0.01 * 10 y
    np.testing.assert_allclose(way[:, 0], -4 * 0.99**steps, rtol=1e-4)
    np.testing.assert_allclose(way[:, 1], 2 * 0.9**steps, rtol=1e-4)


def test_momentum_goes_beyond_the_minimum_and_sgd_does_not_reach_it(config_of: Callable[..., Config]) -> None:
    ways = {
        name: path(config_of(f"optimizer={name}").optimizer, 0.01, ravine, (-4, 2), 120) for name in ("sgd", "momentum")
    }
    assert ways["sgd"][-1, 0] < -1
    assert ways["momentum"][:, 0].max() > 0.1


def test_the_first_step_of_adam_is_its_rate(config_of: Callable[..., Config]) -> None:
    way = path(config_of("optimizer=adam").optimizer, 0.1, ravine, (-4, 2), 1)
    np.testing.assert_allclose(way[1] - way[0], (0.1, -0.1), rtol=1e-4)
