"""The one interface through which a training says what happens."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

Statistics = Mapping[str, Mapping[str, float | npt.NDArray[Any]]]
"""`<layer>/<array>` -> named numbers (moments) and named arrays (`counts` of the fixed bins)."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `finished`; `diverged` at a step, with what was not finite; `interrupted` after a step.

    `metrics` are those of a finished run's last evaluation.
    """

    kind: Literal["finished", "diverged", "interrupted"]
    step: int
    reason: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)


class Recorder(Protocol):
    """What a training reports. Calls return at once; one that cannot be recorded raises here or at the next call."""

    def params(self, values: Mapping[str, object]) -> None:
        """Facts about the run, known at its start: name -> value."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers after `step` training steps: name -> finite value."""

    def histograms(self, step: int, values: Statistics) -> None:
        """Per-layer statistics after `step` training steps."""

    def checkpoint(self, step: int, content: bytes) -> None:
        """The whole state after `step` training steps."""

    def artifact(self, name: str, content: bytes) -> None:
        """A file of the run."""

    def finish(self, outcome: Outcome) -> None:
        """The last call."""


@dataclass
class MemoryRecorder:
    """Keeps everything in lists and dicts: for notebooks, `harness.verify` and tests."""

    facts: dict[str, object] = field(default_factory=dict)
    curves: dict[str, dict[int, float]] = field(default_factory=dict)
    layers: dict[int, Statistics] = field(default_factory=dict)
    checkpoints: dict[int, bytes] = field(default_factory=dict)
    artifacts: dict[str, bytes] = field(default_factory=dict)
    outcome: Outcome | None = None

    def params(self, values: Mapping[str, object]) -> None:
        """See Recorder."""
        self.facts |= values

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """See Recorder."""
        for name, value in values.items():
            if not np.isfinite(value):
                raise ValueError(f"{name} at step {step} is {value}; only finite numbers are recorded")
            self.curves.setdefault(name, {})[step] = value

    def histograms(self, step: int, values: Statistics) -> None:
        """See Recorder."""
        self.layers[step] = values

    def checkpoint(self, step: int, content: bytes) -> None:
        """See Recorder."""
        self.checkpoints[step] = content

    def artifact(self, name: str, content: bytes) -> None:
        """See Recorder."""
        self.artifacts[name] = content

    def finish(self, outcome: Outcome) -> None:
        """See Recorder."""
        self.outcome = outcome
