"""Two spirals in the plane (LTFN 3b): a shallow net needs engineered inputs, a deep one does not."""

from typing import Literal, get_args

import numpy as np

from harness.data.datasets import DataError, Dataset, from_arrays

Features = Literal["raw", "engineered"]
ENGINEERED = ("x", "y", "x^2", "y^2", "xy", "sin x", "sin y")

RADIUS = 5.0


def spiral(
    examples: int = 1000,
    noise: float = 0.5,
    turns: float = 1.75,
    features: Features = "raw",
    test_share: float = 0.5,
    seed: int = 0,
) -> Dataset:
    """Two arms, half a turn apart, from the middle of the plane to the radius 5; class 0 and class 1.

    An arm's points lie evenly along its radius and are then moved by the noise, as in TensorFlow Playground.

    Args:
        examples: training and test points together, at least 8; each arm has half of them.
        noise: both coordinates move by up to this much, uniformly; from 0 up.
        turns: of an arm around the middle, above 0.
        features: raw: (x, y); engineered: (x, y, x^2, y^2, xy, sin x, sin y).
        test_share: of each arm alike, above 0, below 1.
        seed: of noise and split, from 0 up.

    Raises:
        DataError: an argument out of range.
    """
    for key, value, ok, allowed in (
        ("examples", examples, examples >= 8, "8 up"),
        ("noise", noise, 0 <= noise < np.inf, "a number from 0 up"),
        ("turns", turns, 0 < turns < np.inf, "a number above 0"),
        ("features", features, features in get_args(Features), ", ".join(get_args(Features))),
        ("test_share", test_share, 0 < test_share < 1, "0 < share < 1"),
        ("seed", seed, seed >= 0, "0 up"),
    ):
        if not ok:
            raise DataError(f"data.{key}: got {value}; allowed: {allowed}")
    rng = np.random.default_rng(seed)
    labels = np.arange(examples) % 2
    along = (np.arange(examples) // 2) / (examples / 2)
    angle = 2 * np.pi * turns * along + np.pi * labels
    points = RADIUS * along[:, None] * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    points += rng.uniform(-noise, noise, points.shape)
    test = np.zeros(examples, bool)
    for label in (0, 1):
        members = rng.permutation(np.flatnonzero(labels == label))
        test[members[: min(max(1, round(test_share * len(members))), len(members) - 1)]] = True
    x = engineered(points) if features == "engineered" else points
    arrays = {"x_train": x[~test], "y_train": labels[~test], "x_test": x[test], "y_test": labels[test]}
    return from_arrays("spiral", arrays, "spiral", classes=2)


def engineered(points: np.ndarray) -> np.ndarray:
    """Points (N, 2) as (N, 7): `ENGINEERED`."""
    x, y = points[:, 0], points[:, 1]
    return np.stack([x, y, x**2, y**2, x * y, np.sin(x), np.sin(y)], axis=1)
