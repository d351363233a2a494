"""What a message is when it arrives."""

from __future__ import annotations

import threading
from multiprocessing import Pipe

import pytest

from harness.tracking.entries import ArmStart, Entry, Message, Receipt
from harness.tracking.wire import receive, send

LARGE = bytes(range(256)) * 40_000
MESSAGES = [
    Entry("run", metrics=[("m", 1.0, 2, 3)], files={"large": LARGE, "empty": b"", "small": b"text"}, keep=2),
    Entry("run", tags={"only": "facts"}),
    ArmStart("arm", {"kind": "arm"}, {"width": "8"}),
    Receipt(7),
    None,
]


def test_messages_arrive_whole_and_in_order() -> None:
    here, there = Pipe()
    sender = threading.Thread(target=lambda: [send(here, message) for message in MESSAGES])  # more than a pipe holds
    sender.start()
    found: list[Message | None] = [receive(there) for _ in MESSAGES]
    sender.join()
    assert found == MESSAGES


def test_a_message_that_was_cut_off_does_not_arrive() -> None:
    here, there = Pipe()
    here.send(Entry("run", files={"a": b"", "b": b""}))
    here.send_bytes(b"content of a")
    here.close()
    with pytest.raises(EOFError):
        receive(there)
