"""Delivery of messages to a writer: what cannot be written now is kept on the disk, tried again, and never let go."""

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from mlflow.exceptions import MlflowException

from harness.tracking.entries import PARENT, ArmEnd, ArmStart, Entry, Lost, Message, Opening, TestSet
from harness.tracking.inbox import Inbox
from harness.tracking.outages import FIRST_PAUSE, LONGEST_PAUSE, explained, may_pass
from harness.tracking.spool import Spool

Written = Entry | ArmStart | ArmEnd | TestSet


class Writes(Protocol):
    """What `Writer` is to a delivery."""

    def close(self) -> None:
        """Nothing more comes."""

    @property
    def known(self) -> dict[str, str]:
        """Run key or arm key -> MLflow run id."""

    def recall(self, runs: Mapping[str, str]) -> None:
        """Take up runs that another writer knew."""

    def write(self, message: Message, again: bool = False) -> None:
        """Write one message; `again` if some of it may have been written before."""


class Delivery:
    """Hands messages to a writer in order, for as long as it may take.

    Args:
        writer: writes them.
        opening: how long to be patient, where to keep what waits, and what others have left to be written.
        inbox: from which more comes while it waits.
        say: tells whoever sends that something could not be written: one line, once; and of each run that is lost.
    """

    def __init__(self, writer: Writes, opening: Opening, inbox: Inbox, say: Callable[[str | Lost], None]) -> None:
        self._writer, self._inbox, self._say = writer, inbox, say
        self._patience = opening.patience
        self._spool = None if opening.spool is None else Spool(Path(opening.spool))
        self._lost: set[str] = set()
        self.failed = False
        for folder in opening.left:
            try:
                kept = Spool(Path(folder))
                with kept.alone():
                    self._take_up(kept)
            except Exception as error:
                self._fail(error, None)
                return

    def close(self) -> None:
        """Nothing more comes."""
        self._writer.close()

    def deliver(self, message: Written) -> None:
        """Write a message, or keep it, with all that comes, until it can be written or patience ends."""
        if self.failed:
            self._keep(message)
            return
        try:
            self._write(message)
        except Exception as error:
            if self._spool is None or not may_pass(error):
                self._fail(error, message)
            else:
                self._wait(error, message, self._spool)

    def _write(self, message: Written, again: bool = False, runs: Mapping[str, str] | None = None) -> None:
        if isinstance(message, Entry) and message.run in self._lost:
            return
        try:
            self._writer.recall(runs or {})
            self._writer.write(message, again)
        except MlflowException as error:
            if isinstance(message, TestSet) or not is_lost(error):
                raise
            key = message.run if isinstance(message, Entry) else message.arm_key
            self._lost.add(key)
            self._say(Lost(key, explained(error)))
            if not isinstance(message, Entry):
                print(f"the arm's run in MLflow was deleted: {explained(error)}", file=sys.stderr, flush=True)

    def _wait(self, error: Exception, first: Written, spool: Spool) -> None:
        print(
            f"MLflow could not be written ({explained(error)}); what comes is kept here and written later, "
            f"tried for {self._patience:g} s",
            file=sys.stderr,
            flush=True,
        )
        began, pause = time.monotonic(), FIRST_PAUSE
        behind: list[Message | type[EOFError] | None] = []  # what is no entry has its turn after them
        kept = self._keep(first)
        room = kept or not isinstance(first, Entry | ArmStart)
        while True:
            if not room:  # whoever sends waits, once as much as a pipe and an inbox hold is on its way
                time.sleep(pause)
            for message in self._inbox.all_within(pause) if room else ():
                room = room and (not isinstance(message, Entry | ArmStart) or self._keep(message))
                if not room or not isinstance(message, Entry | ArmStart):
                    behind.append(message)
            try:
                self._take_up(spool)
                if not kept:
                    self._write(first, again=True)
                break
            except Exception as again:
                error = again
                if EOFError in behind or time.monotonic() - began > self._patience or not may_pass(again):
                    self._fail(again, None)
                    break
            pause = min(2 * pause, LONGEST_PAUSE)
        self._inbox.put_first(behind)

    def _take_up(self, spool: Spool) -> None:
        """Write what is kept, in order."""
        for name, message, runs in spool.waiting():
            concerned = (message.run, (message.create or {}).get(PARENT)) if isinstance(message, Entry) else ()
            self._write(message, True, {key: run for key, run in runs.items() if key in concerned})
            spool.done(name)

    def _fail(self, error: Exception, message: Written | None) -> None:
        self.failed = True
        if message is not None:
            self._keep(message)
        kept = len(self._spool) if self._spool is not None else 0
        later = "; what could not be is kept here, and written when the sweep is started again" if kept else ""
        self._say(f"{explained(error)}{later}")

    def _keep(self, message: Written) -> bool:
        """Whether it is on the disk now: there may be no room, and not all messages are kept."""
        if self._spool is None or not isinstance(message, Entry | ArmStart):
            return False
        try:
            self._spool.keep(message, self._writer.known)
        except OSError:
            return False
        return True


def is_lost(error: MlflowException) -> bool:
    """Whether the run was deleted, for now or for good."""
    return error.error_code == "RESOURCE_DOES_NOT_EXIST" or "must be in the 'active' state" in str(error)
