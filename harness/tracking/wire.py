"""Messages on their way to the writer: the files of an entry follow it as they are, for to pickle them takes longer."""

from dataclasses import replace
from multiprocessing.connection import Connection

from harness.tracking.entries import Entry, Message


def send(connection: Connection, message: Message | None) -> None:
    """Hand a message over.

    Raises:
        OSError: nobody is there to take it.
    """
    if not isinstance(message, Entry):
        connection.send(message)
        return
    connection.send(replace(message, files=dict.fromkeys(message.files, b"")))
    for content in message.files.values():
        connection.send_bytes(content)


def receive(connection: Connection) -> Message | None:
    """Wait for a message, whole.

    Raises:
        EOFError, OSError: nothing more comes.
    """
    message: Message | None = connection.recv()
    if not isinstance(message, Entry):
        return message
    return replace(message, files={name: connection.recv_bytes() for name in message.files})
