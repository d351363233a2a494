"""Ctrl-C and SIGTERM, in this process: what the second does is seen from outside, in test_damage."""

from __future__ import annotations

import os
import signal

import pytest

from harness.interrupts import SIGNALS, twice


@pytest.mark.parametrize("first", SIGNALS)
def test_the_first_of_both_signals_is_a_keyboard_interrupt(first: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt), twice():
        os.kill(os.getpid(), first)


def test_afterwards_the_signals_do_what_they_did_before() -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    with twice():
        assert [signal.getsignal(each) for each in SIGNALS] != before
    assert [signal.getsignal(each) for each in SIGNALS] == before
