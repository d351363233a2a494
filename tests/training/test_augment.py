"""Our augmentations: whole pixels, another draw for each image, nothing outside training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import chisquare

from harness.data.augment import PadAndCrop, Saturate, ShiftOrMirror

IMAGES = np.random.default_rng(0).uniform(0.1, 1, (200, 6, 5, 2)).astype(np.float32)
COLOURS = np.random.default_rng(1).uniform(0.3, 0.7, (200, 4, 4, 3)).astype(np.float32)
LAYERS: list[tuple[Callable[..., object], np.ndarray]] = [
    (lambda **more: PadAndCrop(padding=2, **more), IMAGES),
    (ShiftOrMirror, IMAGES),
    (Saturate, COLOURS),
]
each = pytest.mark.parametrize(("make", "images"), LAYERS, ids=["crop", "cnt", "saturation"])


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


def test_one_of_six_changes_comes_to_each_image_each_as_likely() -> None:
    many = np.resize(IMAGES, (1200, 6, 5, 2))
    found = ShiftOrMirror(seed=1)(many, training=True).numpy()
    mirrored = (found == many[:, :, ::-1]).all(axis=(1, 2, 3))
    corners = [shift_of(a, b, 1) for a, b in zip(many[~mirrored], found[~mirrored], strict=True)]
    ways = {(1, 1), (0, 1), (2, 1), (1, 0), (1, 2)}  # as it is, down, up, right, left
    assert set(corners) == ways
    counts = [int(mirrored.sum()), *(corners.count(way) for way in ways)]
    assert chisquare(counts).pvalue > 0.001


def test_saturation_moves_pixels_along_the_line_through_their_gray() -> None:
    found = Saturate(factor=0.5, seed=1)(COLOURS, training=True).numpy()
    gray = COLOURS @ np.array([0.299, 0.587, 0.114], np.float32)
    shares = (found - gray[..., None]) / (COLOURS - gray[..., None])
    share = np.median(shares, axis=(1, 2, 3))
    np.testing.assert_allclose(
        found, gray[..., None] + share[:, None, None, None] * (COLOURS - gray[..., None]), atol=1e-5
    )
    assert share.min() >= 0.499
    assert share.max() <= 1.501
    assert len(np.unique(share.round(4))) > 150


def test_gray_images_have_no_saturation_to_change() -> None:
    gray = IMAGES[..., :1]
    np.testing.assert_array_equal(Saturate(factor=0.5)(gray, training=True), gray)


@each
def test_nothing_happens_outside_training(make: Callable[..., object], images: np.ndarray) -> None:
    np.testing.assert_array_equal(make()(images, training=False), images)


@each
def test_two_calls_differ_and_two_layers_of_one_seed_do_not(make: Callable[..., object], images: np.ndarray) -> None:
    first, second = make(seed=1), make(seed=1)
    once = first(images, training=True).numpy()
    assert not np.array_equal(first(images, training=True), once)
    np.testing.assert_array_equal(second(images, training=True), once)


def test_what_they_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="padding must be >= 1, got 0"):
        PadAndCrop(padding=0)
    with pytest.raises(ValueError, match=r"factor must be in \[0, 1\], got 2"):
        Saturate(factor=2)


def test_they_survive_being_saved() -> None:
    crop = PadAndCrop.from_config(PadAndCrop(padding=3, seed=5).get_config())
    assert (crop.padding, crop.seed) == (3, 5)
    saturation = Saturate.from_config(Saturate(factor=0.3, seed=5).get_config())
    assert (saturation.factor, saturation.seed) == (0.3, 5)
    assert ShiftOrMirror.from_config(ShiftOrMirror(seed=5).get_config()).seed == 5
