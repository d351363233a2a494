"""What happened in a run waits for what follows it shortly, and for nothing that somebody waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import Pipe
from multiprocessing.connection import Connection

import pytest

from harness.tracking import inbox
from harness.tracking.entries import Entry, Message, Receipt
from harness.tracking.inbox import Inbox

BEGUN, ENDED = Entry("a", metrics=[("loss", 1.0, 0, 0)]), Entry("a", tags={"outcome": "finished"}, status="FINISHED")


@pytest.fixture
def sender() -> Iterator[tuple[Connection, Inbox]]:
    here, there = Pipe()
    yield there, Inbox(here)
    there.close()


def at_once(incoming: Inbox) -> object:
    """What is next, which must not take the hour that entries wait in these tests."""
    found: list[object] = []
    asking = threading.Thread(target=lambda: found.append(incoming.next()), daemon=True)
    asking.start()
    asking.join(20)
    assert found, "nothing came within 20 s"
    return found[0]


def test_a_short_run_is_one_entry(sender: tuple[Connection, Inbox]) -> None:
    there, incoming = sender
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(incoming.next)
        there.send(BEGUN)
        time.sleep(inbox.LINGER_SECONDS / 3)
        there.send(ENDED)
    assert found.result() == BEGUN.then(ENDED)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ([ENDED], ENDED),
        ([BEGUN, ENDED], BEGUN.then(ENDED)),
        ([BEGUN, Receipt(1)], BEGUN),
        ([BEGUN, None], BEGUN),
        ([Receipt(1)], Receipt(1)),
    ],
)
def test_what_has_ended_or_is_waited_for_does_not_linger(
    sent: list[Message | None], expected: Message, sender: tuple[Connection, Inbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    there, incoming = sender
    monkeypatch.setattr(inbox, "LINGER_SECONDS", 3600.0)
    for message in sent:
        there.send(message)
    assert at_once(incoming) == expected


def test_other_runs_keep_their_order(sender: tuple[Connection, Inbox]) -> None:
    there, incoming = sender
    other = Entry("b", metrics=[("loss", 2.0, 0, 0)])
    for message in (BEGUN, other, ENDED):
        there.send(message)
    assert [incoming.next(), incoming.next()] == [BEGUN.then(ENDED), other]
