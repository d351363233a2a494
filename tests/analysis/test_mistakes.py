"""The sheet of the worst mistakes: which images are on it, and how they look."""

from __future__ import annotations

import numpy as np
import pytest

from harness.analysis.mistakes import CELL, COLUMNS, GAP, SIDE, worst_mistakes


def sheet(images: np.ndarray, wrong: list[int], names: tuple[str, str] = ("a", "b")) -> np.ndarray:
    """Pixels (height, width, 3), where those named are called b with certainty, the first of them the most."""
    logits = np.zeros((1, len(images), 2))
    for place, index in enumerate(wrong):
        logits[0, index, 1] = 10 - place
    return np.asarray(worst_mistakes(logits, images, np.zeros(len(images), int), names, count=len(wrong)))


def test_the_worst_come_first() -> None:
    images = np.linspace(0, 1, 12).reshape(12, 1, 1, 1) * np.ones((12, 4, 4, 3))
    wrong = [7, 2, 11, 5, 0, 9, 1, 3, 8, 4]

    pixels = sheet(images, wrong)

    assert pixels.shape == (2 * CELL[1], COLUMNS * CELL[0], 3)
    middles = [pixels[GAP + SIDE // 2 + CELL[1] * row, CELL[0] // 2 :: CELL[0], 0] for row in (0, 1)]
    np.testing.assert_array_equal(np.concatenate(middles)[:10], np.rint(255 * images[wrong, 0, 0, 0]))


@pytest.mark.parametrize(("channels", "high"), [(1, 0), (2, 0), (3, 255)])
def test_one_channel_is_dark_on_white_and_three_are_colours(channels: int, high: int) -> None:
    image = np.zeros((1, 2, 2, channels))
    image[0, 0] = 7.5

    pixels = sheet(image, [0])

    left = GAP
    np.testing.assert_array_equal(pixels[GAP : GAP + SIDE // 2, left : left + SIDE], high)
    np.testing.assert_array_equal(pixels[GAP + SIDE // 2 : GAP + SIDE, left : left + SIDE], 255 - high)


@pytest.mark.parametrize(("height", "width", "shown"), [(28, 28, (84, 84)), (300, 150, (96, 48)), (50, 90, (50, 90))])
def test_an_image_keeps_its_shape(height: int, width: int, shown: tuple[int, int]) -> None:
    image = np.zeros((1, height, width, 3))
    image[..., 0] = 1.0

    red = (sheet(image, [0]) == (255, 0, 0)).all(axis=2)

    assert (red.any(axis=1).sum(), red.any(axis=0).sum()) == shown


def test_long_names_stay_in_their_cell() -> None:
    pixels = sheet(np.zeros((2, 4, 4, 1)), [0, 1], ("a name " * 9, "another name " * 9))

    captions = pixels[SIDE + 2 * GAP :, : 2 * CELL[0]]
    assert (captions < 128).any()
    for edge in (0, CELL[0], 2 * CELL[0]):
        assert (captions[:, max(0, edge - GAP // 2) : edge + GAP // 2] == 255).all()
