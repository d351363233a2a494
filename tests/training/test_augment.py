"""Padding and cropping: whole pixels, another place for each image."""

from __future__ import annotations

import numpy as np
import pytest

from harness.data.augment import PadAndCrop

IMAGES = np.random.default_rng(0).uniform(0.1, 1, (200, 6, 5, 2)).astype(np.float32)


def shift_of(image: np.ndarray, cropped: np.ndarray, padding: int) -> tuple[int, int]:
    """The one corner of the padded image from which `cropped` was cut."""
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    height, width = image.shape[:2]
    found = [
        (row, column)
        for row in range(2 * padding + 1)
        for column in range(2 * padding + 1)
        if np.array_equal(padded[row : row + height, column : column + width], cropped)
    ]
    assert len(found) == 1
    return found[0]


def test_each_image_is_cut_at_a_place_of_its_own_by_whole_pixels() -> None:
    cropped = PadAndCrop(padding=2, seed=1)(IMAGES, training=True).numpy()
    assert cropped.shape == IMAGES.shape
    corners = [shift_of(image, result, 2) for image, result in zip(IMAGES, cropped, strict=True)]
    assert set(corners) == {(row, column) for row in range(5) for column in range(5)}


def test_nothing_happens_outside_training() -> None:
    np.testing.assert_array_equal(PadAndCrop(padding=2)(IMAGES, training=False), IMAGES)


def test_two_calls_differ_and_two_layers_of_one_seed_do_not() -> None:
    first, second = PadAndCrop(padding=2, seed=1), PadAndCrop(padding=2, seed=1)
    once = first(IMAGES, training=True).numpy()
    assert not np.array_equal(first(IMAGES, training=True), once)
    np.testing.assert_array_equal(second(IMAGES, training=True), once)


def test_no_padding_is_refused() -> None:
    with pytest.raises(ValueError, match="padding must be >= 1, got 0"):
        PadAndCrop(padding=0)


def test_it_survives_being_saved() -> None:
    layer = PadAndCrop.from_config(PadAndCrop(padding=3, seed=5).get_config())
    assert (layer.padding, layer.seed) == (3, 5)
