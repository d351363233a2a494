"""A store that is away for a while: what may pass, and how long to ask again."""

import errno
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import requests
import sqlalchemy.exc
from mlflow.exceptions import MlflowException

from harness.targets import first_line

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0
PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EAGAIN, errno.ESTALE}

AWAY = (sqlalchemy.exc.OperationalError, requests.RequestException, ConnectionError, TimeoutError)
# MLflow's client of a server says no more than this.
AWAY_SAID = re.compile(r"API request to .* failed with (exception|timeout exception|error code (429|5\d\d))")


Answer = TypeVar("Answer")


class OutageError(RuntimeError):
    """A store that was away for longer than patience lasts."""


class StoppedError(RuntimeError):
    """Whoever asked is to end."""


def asked(question: Callable[[], Answer], patience: float, stop: threading.Event) -> Answer:
    """What the store answers; asked again while it is away, with growing pauses.

    Args:
        question: asks it.
        patience: seconds for which it is asked again.
        stop: ends the waiting.

    Raises:
        OutageError: patience has ended.
        StoppedError: stopped while it waited.
    """
    began, pause = time.monotonic(), FIRST_PAUSE
    while True:
        try:
            return question()
        except Exception as error:
            if not may_pass(error):
                raise
            if time.monotonic() - began > patience:
                raise OutageError(f"MLflow did not answer for {patience:g} s: {explained(error)}") from error
        if stop.wait(pause):
            raise StoppedError("stopped while MLflow did not answer")
        pause = min(2 * pause, LONGEST_PAUSE)


def may_pass(error: BaseException) -> bool:
    """Whether it may work later: a server that is away, a store that is locked, a disk that is full."""
    for each in _chain(error):
        if isinstance(each, AWAY):
            return True
        if isinstance(each, OSError) and each.errno in PASSING:
            return True
        if isinstance(each, MlflowException):
            if each.error_code in ("TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED"):
                return True
            if AWAY_SAID.search(str(each)):
                return True
    return False


def explained(error: BaseException) -> str:
    """One line: the database's own words, not what was wrapped around them."""
    return first_line(list(_chain(error))[-1])[:300]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
