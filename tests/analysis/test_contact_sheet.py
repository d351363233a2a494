"""The contact sheet: every image at its place, as it is."""

from __future__ import annotations

import numpy as np
import pytest

from harness.analysis.contact_sheet import contact_sheet

RNG = np.random.default_rng(0)


def page(images: np.ndarray, augmented: np.ndarray) -> tuple[np.ndarray, list[str]]:
    figure = contact_sheet(images, augmented, ["zero", "one"])
    (axes,) = figure.axes
    (drawn,) = axes.images
    return np.asarray(drawn.get_array()), [label.get_text() for label in axes.get_yticklabels()]


def test_a_row_is_an_image_and_what_was_made_of_it() -> None:
    images, augmented = RNG.uniform(0, 1, (2, 5, 4, 3)), RNG.uniform(0, 1, (2, 3, 5, 4, 3))
    drawn, names = page(images, augmented)
    assert names == ["zero", "one"]
    # One white pixel between images, two more between the image and what was made of it.
    for row, top in enumerate((0, 6)):
        np.testing.assert_array_equal(drawn[top : top + 5, :4], images[row])
        for column, left in enumerate((7, 12, 17)):
            np.testing.assert_array_equal(drawn[top : top + 5, left : left + 4], augmented[row, column])
    assert (drawn[:, 4:7] == 1).all()
    assert (drawn[5] == 1).all()


def test_one_channel_is_gray_and_values_are_clipped() -> None:
    images, augmented = np.full((2, 4, 4, 1), 0.5), np.full((2, 1, 4, 4, 1), 1.5)
    drawn, _ = page(images, augmented)
    assert drawn.shape[-1] == 3
    assert (drawn[:4, :4] == 0.5).all()
    assert drawn.max() == 1


@pytest.mark.parametrize("channels", [2, 4])
def test_of_other_channels_the_first_is_shown(channels: int) -> None:
    images, augmented = RNG.uniform(0, 1, (2, 4, 4, channels)), RNG.uniform(0, 1, (2, 1, 4, 4, channels))
    drawn, _ = page(images, augmented)
    np.testing.assert_array_equal(drawn[:4, :4, 1], images[0, ..., 0])
