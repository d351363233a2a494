"""What a training asks to have written into MLflow: plain values that one process hands to another."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

PARENT = "mlflow.parentRunId"
"""MLflow's tag of a run that stands below another; until it is written it holds the arm's key."""
Point = tuple[str, float, int, int]
"""A metric's name, its value, milliseconds since the epoch, training steps."""


def of_steps(names: Iterable[str]) -> list[str]:
    """Those of an artifact's names that are checkpoints of a step, the oldest first."""
    return sorted(name for name in names if name.startswith("checkpoints/step_"))


@dataclass(frozen=True)
class Opening:
    """Where all that follows goes: an MLflow experiment, in the folder and environment of who says so.

    What cannot be written for up to `patience` seconds is kept in the folder `spool`; None: it is an error at once.
    What earlier processes `left` in theirs is written first. `claim` is held until all is written.
    """

    uri: str
    experiment_id: str
    sweep: str
    folder: str
    environment: Mapping[str, str] = field(repr=False)
    spool: str | None = None
    left: Sequence[str] = ()
    patience: float = 0.0
    claim: str | None = None


@dataclass(frozen=True)
class Entry:
    """Something that happened in one run; what is empty is left as it is.

    Attributes:
        run: the run key; all entries of a run have the same one.
        create: the tags of the MLflow run that is made for it; `PARENT` holds the arm's key.
        resume: the id of the MLflow run that goes on instead.
        metrics: points of its curves.
        params: config columns.
        tags: facts.
        files: name -> content of artifacts.
        keep: of the checkpoints, this many of the latest stay.
        status: in which it ends, as MLflow calls it.
    """

    run: str
    create: Mapping[str, str] | None = None
    resume: str | None = None
    metrics: Sequence[Point] = ()
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    keep: int | None = None
    status: str | None = None

    def then(self, later: "Entry") -> "Entry":
        """Both as one, where nothing is lost by it but checkpoints that would not stay."""
        files, keep = {**self.files, **later.files}, later.keep if later.keep is not None else self.keep
        for old in of_steps(files)[:-keep] if keep is not None else ():
            del files[old]
        return Entry(
            self.run,
            self.create,
            self.resume,
            (*self.metrics, *later.metrics),
            {**self.params, **later.params},
            {**self.tags, **later.tags},
            files,
            keep,
            later.status,
        )


@dataclass(frozen=True)
class ArmStart:
    """An arm begins: its parent run is taken up again, or made."""

    arm_key: str
    tags: Mapping[str, str]
    params: Mapping[str, str]


@dataclass(frozen=True)
class ArmEnd:
    """No run of the arm is waited for any more: its aggregates and figures can be made.

    `run_keys` are those of all its blocks, `data` is the digest of a `TestSet` that was sent before.
    """

    arm_key: str
    run_keys: Sequence[str]
    data: str
    run_figures: bool = False


@dataclass(frozen=True)
class TestSet:
    """What figures show of a data set: its test examples (n, …), labels (n,) and the names of its classes."""

    __test__ = False  # no test case, whatever its name

    digest: str
    x_test: npt.NDArray[Any] = field(repr=False)
    y_test: npt.NDArray[np.int32] = field(repr=False)
    class_names: Sequence[str]
    is_image: bool


@dataclass(frozen=True)
class Lost:
    """Said by the writer: a run that others have deleted, so that nothing more can be written into it."""

    run: str
    cause: str


@dataclass(frozen=True)
class Receipt:
    """Asks for the number back once all that came before is written."""

    number: int


Message = Opening | Entry | ArmStart | ArmEnd | TestSet | Receipt
