"""What a process is told over a connection, as it waits to be done."""

import contextlib
import queue
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection

from harness.tracking.entries import Entry, Message
from harness.tracking.wire import receive

End = type[EOFError]
MOST_WAITING = 1000


class Inbox:
    """Takes in what comes while the process does other things; `EOFError` (the class) means that nothing more comes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._queue: queue.Queue[Message | End | None] = queue.Queue(MOST_WAITING)
        self._ahead: list[Message | End | None] = []
        threading.Thread(target=self._receive, daemon=True).start()

    def _receive(self) -> None:
        try:
            while True:
                self._queue.put(receive(self._connection))
        except (EOFError, OSError):
            self._queue.put(EOFError)

    def next(self) -> Message | End | None:
        """The next message, with those of the same run that wait behind it: a call costs more than what is in it."""
        if not self._ahead:
            self._ahead.append(self._queue.get())
        self._take_in()
        message = self._ahead.pop(0)
        if isinstance(message, Entry):
            for later in [each for each in self._ahead if isinstance(each, Entry) and each.run == message.run]:
                message = message.then(later)
                self._ahead.remove(later)
        return message

    def all_within(self, seconds: float) -> list[Message | End | None]:
        """Everything that waits or comes within that time, which ends early when nothing more will come."""
        if EOFError not in self._ahead:
            with contextlib.suppress(queue.Empty):
                self._ahead.append(self._queue.get(timeout=seconds))
        self._take_in()
        everything, self._ahead = self._ahead, []
        return everything

    def put_first(self, messages: Sequence[Message | End | None]) -> None:
        """Have these be the next."""
        self._ahead[:0] = messages

    def _take_in(self) -> None:
        with contextlib.suppress(queue.Empty):
            while len(self._ahead) < MOST_WAITING:
                self._ahead.append(self._queue.get_nowait())
