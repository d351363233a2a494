"""The shift and scale of each scheme, on arrays small enough to work out by hand."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from harness.data.preprocess import mean_image, scale, standardize

BYTES = (0.0, 255.0)
# two images of 1 x 2 pixels and one channel; as x01: (0, 1) and (0, 0)
IMAGES = np.array([0, 255, 0, 0], np.uint8).reshape(2, 1, 2, 1)


def test_scale_leaves_the_unit_range_as_it_is() -> None:
    x01 = np.array([0, 0.25, 1], np.float32).reshape(1, 3, 1, 1)
    assert scale(np.zeros((9, 3, 1, 1)), BYTES)(x01).ravel().tolist() == [0, 0.25, 1]


def test_mean_image_subtracts_each_pixels_mean_and_keeps_the_scale() -> None:
    affine = mean_image(IMAGES, BYTES)
    assert affine.mean.shape == (1, 2, 1)
    assert affine.mean.ravel().tolist() == [0, 0.5]
    assert affine.std.ravel().tolist() == [1]


def test_standardize_pools_all_pixels_of_a_channel() -> None:
    affine = standardize(IMAGES, BYTES)
    assert affine.mean.shape == affine.std.shape == (1, 1, 1)
    assert affine.mean.item() == 0.25
    assert affine.std.item() == pytest.approx(3**0.5 / 4)


def test_standardize_keeps_channels_apart_and_all_pools_them() -> None:
    # first channel 0 and 1, second 1 and 1
    x = np.array([0, 255, 255, 255], np.uint8).reshape(1, 2, 1, 2)
    apart, pooled = standardize(x, BYTES, "channel", eps=0.01), standardize(x, BYTES, "all")
    assert apart.mean.shape == (1, 1, 2)
    assert apart.mean.ravel().tolist() == [0.5, 1]
    assert apart.std.ravel().tolist() == pytest.approx([0.5, 0.01])
    assert pooled.mean.shape == (1, 1, 1)
    assert pooled.mean.item() == 0.75
    assert pooled.std.item() == pytest.approx(3**0.5 / 4)


def test_standardize_per_pixel() -> None:
    affine = standardize(IMAGES, BYTES, "pixel")
    assert affine.mean.ravel().tolist() == [0, 0.5]
    assert affine.std.ravel().tolist() == pytest.approx([1e-3, 0.5])


def test_a_channel_of_a_vector_is_a_feature() -> None:
    x = np.array([[0, 4], [2, 8]], np.float32)  # as x01: (0, 0.5) and (0.25, 1)
    affine = standardize(x, (0, 8))
    assert affine.mean.tolist() == [0.125, 0.75]
    assert affine.std.tolist() == [0.125, 0.25]
    assert standardize(x, (0, 8), "all").mean.shape == (1,)


def test_a_constant_pixel_stays_finite() -> None:
    affine = standardize(np.full((5, 2), 7, np.uint8), BYTES, "pixel")
    assert affine.std.tolist() == pytest.approx([1e-3, 1e-3])
    assert np.abs(affine(np.array([[7 / 255, 7 / 255]], np.float32))).max() < 1e-3


def test_standardized_training_examples_have_mean_0_and_std_1() -> None:
    x = np.random.default_rng(0).integers(0, 256, (3000, 8, 8, 3)).astype(np.uint8)  # more than one chunk
    z = standardize(x, BYTES)((x / 255).astype(np.float32))
    assert z.dtype == np.float32
    assert z.mean(axis=(0, 1, 2)) == pytest.approx([0, 0, 0], abs=1e-4)
    assert z.std(axis=(0, 1, 2)) == pytest.approx([1, 1, 1], abs=1e-4)


def test_statistics_survive_a_range_far_from_zero() -> None:
    x = np.array([[2**23], [2**23 + 1]] * 1000, np.float32)
    affine = standardize(x, (2.0**23, 2.0**23 + 1))
    assert affine.mean.tolist() == [0.5]
    assert affine.std.tolist() == [0.5]


def test_statistics_are_float32_whatever_the_pixels() -> None:
    for affine in (scale(IMAGES, BYTES), mean_image(IMAGES, BYTES), standardize(IMAGES, BYTES)):
        assert affine.mean.dtype == affine.std.dtype == np.float32


def test_statistics_take_little_memory() -> None:
    x = np.zeros((20_000, 784), np.uint8)  # 125 MB in float64
    tracemalloc.start()
    mean_image(x, BYTES)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"per": "image"}, "per must be one of channel, pixel, all, got 'image'"),
        ({"eps": 0.0}, "eps must be positive and finite, got 0.0"),
        ({"eps": float("nan")}, "eps must be"),
        ({"x": IMAGES[:0]}, "no training examples"),
    ],
)
def test_standardize_refuses(kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        standardize(**{"x": IMAGES, "value_range": BYTES, **kwargs})  # type: ignore[arg-type]
