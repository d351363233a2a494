"""Which checkpoints of a run are saved: a Recorder between the training and where it is recorded."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from harness.training import checkpoints
from harness.training.checkpoints import State
from harness.training.recorder import Outcome, Recorder, Statistics

ARTIFACT = "checkpoints/best.npz"
METRIC = "accuracy/val"
_CARRIED = "best/"


def keeping(recorder: Recorder, keep: int | str, state: Callable[[], State], resume: bytes | None) -> Recorder:
    """The recorder as a policy has it: `none` saves no checkpoint, `best` the state of the best evaluation too.

    Args:
        recorder: where all else goes.
        keep: best | none | anything else, which is for the recorder itself to heed.
        state: of the training, now.
        resume: the checkpoint that the training goes on from, if any.
    """
    if keep == "none":
        return _None(recorder)
    return _Best(recorder, state, resume) if keep == "best" else recorder


class _Passing:
    """A Recorder that passes everything on."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def params(self, values: Mapping[str, object]) -> None:
        self._recorder.params(values)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self._recorder.metrics(step, values)

    def histograms(self, step: int, values: Statistics) -> None:
        self._recorder.histograms(step, values)

    def checkpoint(self, step: int, content: bytes) -> None:
        self._recorder.checkpoint(step, content)

    def artifact(self, name: str, content: bytes) -> None:
        self._recorder.artifact(name, content)

    def finish(self, outcome: Outcome) -> None:
        self._recorder.finish(outcome)


class _None(_Passing):
    """No checkpoints."""

    def checkpoint(self, step: int, content: bytes) -> None:
        pass

    def finish(self, outcome: Outcome) -> None:
        if outcome.kind == "interrupted":
            outcome = dataclasses.replace(outcome, reason="stopped; the same command begins again")
        super().finish(outcome)


class _Best(_Passing):
    """Keeps the state of the highest validation accuracy, the first of equals, until the run ends.

    Every checkpoint carries it along, so that a run that goes on has not lost it.
    """

    def __init__(self, recorder: Recorder, state: Callable[[], State], resume: bytes | None) -> None:
        super().__init__(recorder)
        self._state = state
        earlier = checkpoints.unpack(resume) if resume is not None else {}
        self._best = {name.removeprefix(_CARRIED): earlier[name] for name in earlier if name.startswith(_CARRIED)}

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        super().metrics(step, values)
        accuracy = values.get(METRIC)
        if step > 0 and accuracy is not None and (not self._best or accuracy > float(self._best[METRIC])):
            self._best = {**self._state(), "step": np.array(step), METRIC: np.array(accuracy)}

    def checkpoint(self, step: int, content: bytes) -> None:
        carried = {f"{_CARRIED}{name}": value for name, value in self._best.items()}
        super().checkpoint(step, checkpoints.pack({**checkpoints.unpack(content), **carried}))

    def finish(self, outcome: Outcome) -> None:
        if self._best and outcome.kind != "interrupted":
            self.artifact(ARTIFACT, checkpoints.pack(self._best))
        super().finish(outcome)
