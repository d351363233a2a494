"""Durations as a person writes them."""

from __future__ import annotations

import pytest

from harness import durations


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (0, 0),
        (7, 7),
        ("7", 7),
        ("7 steps", 7),
        ("1 step", 1),
        ("2 epochs", 24),
        ("2epochs", 24),
        ("1.5 epoch", 18),
        ("500 examples", 5),
        ("149 examples", 1),
        ("10000 examples", 100),
        ("10 %", 24),
        ("100%", 240),
        ("33.4 %", 80),
        ("200 %", 480),
    ],
)
def test_a_duration_in_steps_at_12_steps_an_epoch_100_examples_a_step_and_240_steps(
    written: int | str, meant: int
) -> None:
    assert durations.steps(written, epoch=12, batch_size=100, total=240) == meant


@pytest.mark.parametrize("written", ["", "abc", "-1", -1, "5 parsecs", "1e3", True, None, [1], "2 epochs 3", "nan"])
def test_what_is_no_duration_is_refused_with_what_is(written: object) -> None:
    with pytest.raises(ValueError, match=r"allowed: a number of steps, or '2 epochs', '500 examples', '10 %'"):
        durations.check(written)


def test_a_share_of_an_unknown_length_is_refused() -> None:
    with pytest.raises(ValueError, match="a share of a length that is not known"):
        durations.steps("10 %", epoch=1, batch_size=1)


def test_occasions_join_moments_and_multiples_up_to_the_end() -> None:
    due = durations.occasions([0, "5 %", 1000], "1 epochs", epoch=40, batch_size=1, total=100)
    assert due == (0, 5, 40, 80)


def test_a_schedule_can_be_dense_early() -> None:
    due = durations.occasions([0, "1-2-5", "100 %"], None, epoch=1, batch_size=1, total=110)
    assert due == (0, 1, 2, 5, 10, 20, 50, 100, 110)


def test_no_every_means_the_moments_alone() -> None:
    assert durations.occasions(["100 %", 3], None, epoch=1, batch_size=1, total=10) == (3, 10)


def test_every_shorter_than_half_a_step_means_each_step() -> None:
    assert durations.occasions([], "1 examples", epoch=5, batch_size=100, total=4) == (1, 2, 3, 4)
