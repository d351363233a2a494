"""Early stopping: when a run stops, what it ends with, and that a resume changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from harness.data.datasets import Dataset, from_arrays
from harness.prepared import Prepared
from harness.streams import Block
from harness.training import loop
from harness.training.early_stopping import Watch
from harness.training.recorder import MemoryRecorder
from harness.training.replica import Replica

Prepare = Callable[..., Prepared]
ReplicaOf = Callable[..., Replica]
SPEC = ("optimizer=adam", "learning_rate.value=0.003", "train.steps=24")


@pytest.fixture(scope="module")
def noise(rows: Dataset) -> Dataset:
    """Labels that the images say nothing about: what is learned makes the validation loss worse."""
    rng = np.random.default_rng(1)
    arrays = {"x_train": rows.x_train, "x_test": rows.x_test}
    return from_arrays("noise", arrays | {"y_train": rng.permutation(rows.y_train), "y_test": rows.y_test}, "noise")


def run(prepared: Prepared, replica: Replica, resume: bytes | None = None) -> MemoryRecorder:
    recorder = MemoryRecorder()
    outcome = loop.train(replica, prepared.recipe, prepared.draw(Block.of(0)), Block.of(0), recorder, resume=resume)
    assert outcome.kind == "finished", outcome
    return recorder


def weights(value: float) -> list[np.ndarray]:
    return [np.full((2, 3), value, np.float32), np.full(3, value, np.float32)]


def test_it_is_over_after_as_many_evaluations_without_a_smaller_loss() -> None:
    watch, over = Watch(2), []
    for step, loss in enumerate((3.0, 2.0, 2.5, 1.0, 1.0, 4.0)):
        watch.see(step, loss, weights(loss))
        over.append(watch.over)
    assert over == [False] * 5 + [True]  # a tie is no improvement
    assert (watch.best_step, watch.best_loss) == (3, 1.0)
    assert watch.best_weights[0][0, 0] == 1.0


def test_its_state_goes_through_a_checkpoint() -> None:
    first, second = Watch(3), Watch(3)
    for step, loss in ((0, 2.0), (4, 1.5), (8, 1.7), (12, 1.8)):
        first.see(step, loss, weights(loss))
    second.state = first.state
    assert (second.best_step, second.best_loss, second.over) == (4, 1.5, False)
    assert [array.tolist() for array in second.best_weights] == [array.tolist() for array in weights(1.5)]
    second.see(16, 1.9, weights(1.9))
    assert second.over


def test_a_run_that_gets_worse_stops_and_ends_with_its_best_weights(
    prepare: Prepare, replica_of: ReplicaOf, noise: Dataset
) -> None:
    plain, patient = prepare(*SPEC, data=noise), prepare(*SPEC, "regularizer.patience=2", data=noise)
    replica = replica_of(patient)
    curve = run(plain, replica).curves["loss/val"]
    best = min(curve, key=lambda step: curve[step])
    assert 0 < best < 16  # or this test shows nothing
    found = run(patient, replica)
    assert found.facts["best.step"] == best
    assert found.facts["stopped.step"] == best + 8
    assert found.outcome is not None
    assert found.outcome.step == best + 8
    assert found.outcome.metrics == {name: found.curves[name][best + 8] for name in found.outcome.metrics}
    # All points are those of the run without patience, but the last: it is of the weights that are kept.
    for step, loss in found.curves["loss/val"].items():
        assert loss == curve[step if step < best + 8 else best]
    short = prepare(*SPEC, f"train.steps={best}", data=noise)
    kept = run(short, replica)
    assert found.facts["weights.final"] == kept.facts["weights.final"]
    assert found.artifacts["predictions.npz"] == kept.artifacts["predictions.npz"]


def test_a_run_that_does_not_stop_ends_with_its_best_weights_too(
    prepare: Prepare, replica_of: ReplicaOf, noise: Dataset
) -> None:
    stopping = prepare(*SPEC, "regularizer.patience=2", data=noise)
    lasting = prepare(*SPEC, "regularizer.patience=50", data=noise)
    first, second = (run(each, replica_of(each)) for each in (stopping, lasting))
    assert "stopped.step" not in second.facts
    for fact in ("best.step", "weights.final"):
        assert first.facts[fact] == second.facts[fact]


def test_without_an_improvement_the_initial_weights_stay(prepare: Prepare, replica_of: ReplicaOf) -> None:
    prepared = prepare("optimizer=sgd", "learning_rate.value=0", "regularizer.patience=1")
    found = run(prepared, replica_of(prepared))
    assert (found.facts["best.step"], found.facts["stopped.step"]) == (0, 4)
    assert found.facts["weights.final"] == found.facts["weights.initial"]


@pytest.mark.parametrize("saved", ["[6,10]", "['100 %']"], ids=["on the way", "when it stopped"])
def test_a_resumed_run_stops_where_it_would_have(
    saved: str, prepare: Prepare, replica_of: ReplicaOf, noise: Dataset
) -> None:
    prepared = prepare(*SPEC, "regularizer.patience=2", f"train.checkpoint.at={saved}", data=noise)
    replica = replica_of(prepared)
    whole = run(prepared, replica)
    assert list(whole.checkpoints) == ([6, 10] if saved == "[6,10]" else [whole.facts["stopped.step"]])
    for content in whole.checkpoints.values():
        rest = run(prepared, replica, resume=content)
        assert (rest.outcome, rest.facts) == (whole.outcome, whole.facts)


def test_a_run_that_was_killed_after_its_last_step_is_still_evaluated(prepare: Prepare, replica_of: ReplicaOf) -> None:
    prepared = prepare("train.checkpoint.at=['100 %']")
    replica = replica_of(prepared)
    whole = run(prepared, replica)
    rest = run(prepared, replica, resume=whole.checkpoints[12])
    assert rest.outcome == whole.outcome
    assert rest.artifacts["predictions.npz"] == whole.artifacts["predictions.npz"]


@pytest.mark.parametrize("schedule", ["train.evaluate.every=2", "regularizer.patience=3", "train.evaluate.examples=5"])
def test_what_decides_when_to_stop_is_part_of_a_runs_identity(schedule: str, prepare: Prepare) -> None:
    first, other = prepare("regularizer.patience=2"), prepare("regularizer.patience=2", schedule)
    keys = {each.arm.run_key(Block.of(0), each.data.digest) for each in (first, other)}
    assert len(keys) == 2
