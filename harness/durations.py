"""Durations as a person writes them (100, '2 epochs', '10 %') and the steps they mean."""

import re
from collections.abc import Iterable

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(steps?|epochs?|examples?|%)?\s*")
ALLOWED = "a number of steps, or '2 epochs', '500 examples', '10 %'"
DENSE_EARLY = "1-2-5"
"""In a schedule: steps 1, 2, 5, 10, 20, 50, 100, …"""


def steps(duration: int | float | str, *, epoch: int, batch_size: int, total: int | None = None) -> int:
    """The number of steps a duration means, at least 0, rounded to the nearest step.

    Args:
        duration: steps as a number, or text with a unit.
        epoch: steps an epoch.
        batch_size: examples a step.
        total: steps of the whole training, which percentages need.

    Raises:
        ValueError: the text is no duration, or a percentage has nothing to be a share of.
    """
    match = _DURATION.fullmatch(str(duration))
    if isinstance(duration, bool) or match is None:
        raise ValueError(f"got {duration!r}; allowed: {ALLOWED}")
    number, unit = float(match[1]), (match[2] or "steps").rstrip("s")
    if unit == "%":
        if total is None:
            raise ValueError(f"got {duration!r}, a share of a length that is not known here")
        return round(number / 100 * total)
    return round(number * {"step": 1.0, "epoch": epoch, "example": 1 / batch_size}[unit])


def check(moment: object) -> None:
    """Refuse what is no moment of a schedule: a duration, or the series '1-2-5'.

    Raises:
        ValueError: with the value seen and what is allowed.
    """
    if moment == DENSE_EARLY:
        return
    steps(moment, epoch=1, batch_size=1, total=1)  # type: ignore[arg-type]


def occasions(
    at: Iterable[int | str], every: int | str | None, *, epoch: int, batch_size: int, total: int
) -> tuple[int, ...]:
    """The steps in [0, total], ascending, at which a schedule is due: those in `at`, and each multiple of `every`.

    `at` may hold the series '1-2-5', which is dense early. `every` shorter than half a step means each step.
    """
    due: set[int] = set()
    for moment in at:
        if moment == DENSE_EARLY:
            due |= {digit * 10**decade for decade in range(len(str(total))) for digit in (1, 2, 5)}
        else:
            due.add(steps(moment, epoch=epoch, batch_size=batch_size, total=total))
    if every is not None:
        stride = max(1, steps(every, epoch=epoch, batch_size=batch_size, total=total))
        due |= set(range(stride, total + 1, stride))
    return tuple(sorted(step for step in due if step <= total))
