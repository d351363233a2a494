"""Ctrl-C and SIGTERM: the first ends a sweep in good order, the second at once."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
AT_ONCE = b"interrupted again: ended at once; the same command goes on from the last checkpoints\n"


@contextlib.contextmanager
def twice() -> Iterator[None]:
    """The first of these signals raises KeyboardInterrupt: the runs in flight are saved, the report so far is written.

    The second ends the process there and then, whatever its threads do: the next start finds its runs dead, and goes on
    from their checkpoints. Other threads than the main one hear no signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.getsignal(each) for each in SIGNALS}
    first = True

    def heard(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if not first:
            os.write(2, AT_ONCE)
            os._exit(130)
        first = False
        raise KeyboardInterrupt

    for each in SIGNALS:
        signal.signal(each, heard)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
