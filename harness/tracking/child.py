"""The process in which `harness.tracking.writer` runs: started early, since its imports take seconds; then re-used."""

import atexit
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from socket import socketpair
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.tracking.entries import Message

_idle: list["Child"] = []
_lock = threading.Lock()


class ChildError(RuntimeError):
    """The process is gone."""


@dataclass
class Child:
    """A running writer; may be used by any thread."""

    process: subprocess.Popen[bytes]
    connection: Connection
    _sending: threading.Lock = field(default_factory=threading.Lock)

    def send(self, message: "Message | None") -> list[Any]:
        """Hand over a message; what the writer has said meanwhile.

        Raises:
            ChildError: it is gone.
        """
        from harness.tracking import wire  # not above: NumPy would keep the first writer from its start

        with self._sending:
            try:
                said = []
                while self.connection.poll():
                    said.append(self.connection.recv())
                wire.send(self.connection, message)
            except (EOFError, OSError):
                raise ChildError(self._gone()) from None
        return said

    def receive(self) -> Any:
        """Wait for what the writer says next.

        Raises:
            ChildError: it is gone.
        """
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            raise ChildError(self._gone()) from None

    def _gone(self) -> str:
        return f"the process that writes to it (pid {self.process.pid}) ended with code {self.process.wait()}"

    def end(self) -> None:
        """Let it write what it has, and wait for it."""
        self.connection.close()
        self.process.wait()


def start() -> Child:
    """A writer that waits for work."""
    here, there = socketpair()
    # A session of its own: Ctrl-C on the terminal is for the trainings, which still have things to be written then.
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "harness.tracking.writer", str(there.fileno())],
        pass_fds=[there.fileno()],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    there.close()
    return Child(process, Connection(here.detach()))


def warm_up() -> None:
    """Have a writer start now that will be wanted soon."""
    with _lock:
        if not _idle:
            _idle.append(start())


def take() -> Child:
    """A writer of one's own, until it is given back."""
    with _lock:
        return _idle.pop() if _idle else start()


def give_back(child: Child) -> None:
    """The writer waits for its next work."""
    with _lock:
        _idle.append(child)


@atexit.register
def _end_all() -> None:
    """Wait for those that only wait; the others end by themselves once they have written what they were given."""
    with _lock:
        while _idle:
            _idle.pop().end()
