"""What a person sees while a sweep trains: a live display on a terminal, plain lines elsewhere."""

import sys
import threading
import time
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from harness.targets import first_line
from harness.training.recorder import Outcome


class Display(Protocol):
    """What the runner tells."""

    def steps(self, count: int) -> None:
        """Some training steps were taken."""

    def run_ended(self, run: str, outcome: Outcome, seconds: float) -> None:
        """A run ended by itself."""

    def run_failed(self, run: str, error: BaseException) -> None:
        """A run ended with an error."""

    def run_elsewhere(self, run: str) -> None:
        """A run was trained by another process meanwhile."""


def _described(run: str, outcome: Outcome) -> str:
    if outcome.kind != "finished":
        return f"{run}: {outcome.kind}, {outcome.reason}"
    return f"{run}: test accuracy {outcome.metrics['accuracy/test']:.4f}"


class Lines:
    """One line a run."""

    def __init__(self, runs: int) -> None:
        self._runs, self._done, self._lock = runs, 0, threading.Lock()

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def steps(self, count: int) -> None:
        """See Display."""

    def run_ended(self, run: str, outcome: Outcome, seconds: float) -> None:
        """See Display."""
        self._line(f"{_described(run, outcome)} ({seconds:.1f} s)")

    def run_failed(self, run: str, error: BaseException) -> None:
        """See Display."""
        self._line(f"{run}: FAILED, {first_line(error)}")

    def run_elsewhere(self, run: str) -> None:
        """See Display."""
        self._line(f"{run}: trained by another process meanwhile")

    def _line(self, text: str) -> None:
        with self._lock:
            self._done += 1
            print(f"[{self._done}/{self._runs}] {text}", flush=True)


class Live:
    """A bar over all steps, with arms, runs, steps/s, time left and the latest result."""

    def __init__(self, console: Console, arms: int, runs: int, steps: int) -> None:
        self._lock = threading.Lock()
        self._runs, self._done, self._taken, self._began = runs, 0, 0, time.monotonic()
        self._bar = Progress(
            TextColumn(f"{arms} arms, {{task.fields[done]}}/{runs} runs"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]:.0f} steps/s"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[latest]}", style="dim"),
            console=console,
        )
        self._task = self._bar.add_task("", total=steps, done=0, rate=0.0, latest="")

    def __enter__(self) -> "Live":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def steps(self, count: int) -> None:
        """See Display."""
        with self._lock:
            self._taken += count
            rate = self._taken / max(time.monotonic() - self._began, 1e-9)
            self._bar.update(self._task, advance=count, rate=rate)

    def run_ended(self, run: str, outcome: Outcome, seconds: float) -> None:
        """See Display."""
        self._ended(_described(run, outcome))

    def run_failed(self, run: str, error: BaseException) -> None:
        """See Display."""
        self._bar.console.print(f"[red]{escape(run)}: FAILED[/red], {escape(first_line(error))}")
        self._ended(f"{run}: failed")

    def run_elsewhere(self, run: str) -> None:
        """See Display."""
        self._ended(f"{run}: trained by another process")

    def _ended(self, latest: str) -> None:
        with self._lock:
            self._done += 1
            self._bar.update(self._task, done=self._done, latest=escape(latest))


def display(arms: int, runs: int, steps: int) -> Lines | Live:
    """The live display when standard output is a terminal, plain lines when not."""
    console = Console(file=sys.stdout)
    return Live(console, arms, runs, steps) if console.is_terminal else Lines(runs)
