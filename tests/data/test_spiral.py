"""Two spirals: where their points lie, what is engineered from them, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from harness.data.datasets import DataError
from harness.data.spiral import engineered, spiral


def test_without_noise_the_points_lie_on_two_arms_half_a_turn_apart() -> None:
    data = spiral(examples=100, noise=0, turns=1)
    points = np.concatenate([data.x_train, data.x_test])
    labels = np.concatenate([data.y_train, data.y_test])
    radius = np.hypot(*points.T)
    angle = 2 * np.pi * radius / 5 + np.pi * labels
    np.testing.assert_allclose(points, radius[:, None] * np.stack([np.sin(angle), np.cos(angle)], 1), atol=1e-5)
    assert radius.max() == pytest.approx(5 * 49 / 50)


def test_half_of_each_arm_is_tested() -> None:
    data = spiral(examples=100, test_share=0.5)
    assert np.bincount(data.y_train).tolist() == np.bincount(data.y_test).tolist() == [25, 25]
    assert data.example_shape == (2,)


def test_the_noise_moves_each_coordinate_by_at_most_its_size() -> None:
    still, moved = spiral(noise=0), spiral(noise=0.3)
    assert (still.y_train == moved.y_train).all()
    apart = np.abs(still.x_train - moved.x_train)
    assert 0.29 < apart.max() <= 0.3 + 1e-6


def test_seeds_make_it() -> None:
    assert spiral().digest == spiral(seed=0).digest != spiral(seed=1).digest


def test_engineered_features_by_hand() -> None:
    (row,) = engineered(np.array([[2.0, -3.0]]))
    assert row.tolist() == [2, -3, 4, 9, -6, np.sin(2), np.sin(-3)]
    raw, more = spiral(), spiral(features="engineered")
    np.testing.assert_array_equal(more.x_train[:, :2], raw.x_train)
    np.testing.assert_allclose(more.x_train, engineered(raw.x_train), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("key", "value"),
    [("examples", 7), ("noise", -0.1), ("turns", 0), ("features", "cooked"), ("test_share", 1.0), ("seed", -1)],
)
def test_arguments_out_of_range_are_refused(key: str, value: object) -> None:
    with pytest.raises(DataError, match=f"data.{key}: got {value}; allowed: "):
        spiral(**{key: value})  # type: ignore[arg-type]
