"""What of that which waits comes next."""

from __future__ import annotations

from multiprocessing import Pipe

from harness.tracking.entries import Entry, Receipt
from harness.tracking.inbox import Inbox


def test_what_waits_of_a_run_is_one_entry_and_the_rest_keeps_its_order() -> None:
    here, there = Pipe()
    incoming = Inbox(here)
    begun, other = Entry("a", metrics=[("loss", 1.0, 0, 0)]), Entry("b", metrics=[("loss", 2.0, 0, 0)])
    ended = Entry("a", tags={"outcome": "finished"}, status="FINISHED")
    incoming.put_first([begun, other, Receipt(1), ended])
    assert [incoming.next() for _ in range(3)] == [begun.then(ended), other, Receipt(1)]
    there.close()
