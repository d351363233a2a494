"""The story of one run, on a small real net: what is reported when, and which weights it ends in."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss

from harness.data.datasets import Dataset, from_arrays
from harness.models.initializers import digest
from harness.prepared import Prepared
from harness.streams import Block
from harness.training import loop
from harness.training.recorder import MemoryRecorder, Outcome
from harness.training.replica import Replica

Prepare = Callable[..., Prepared]
ReplicaOf = Callable[..., Replica]
NOISY = ("arch.dropout=0.3", "augment=shift", "optimizer=adam")


def run(prepared: Prepared, replica: Replica, block: int | Block = 0, **more: Any) -> tuple[Outcome, MemoryRecorder]:
    recorder = MemoryRecorder()
    block = Block.of(block) if isinstance(block, int) else block
    outcome = loop.train(replica, prepared.recipe, prepared.draw(block), block, recorder, **more)
    return outcome, recorder


def final(prepared: Prepared, replica: Replica, block: int = 0, **more: Any) -> object:
    outcome, recorder = run(prepared, replica, block, **more)
    assert outcome.kind == "finished"
    assert recorder.facts["weights.final"] == digest(replica.weights)
    return recorder.facts["weights.final"]


@pytest.fixture
def plain(prepare: Prepare) -> Prepared:
    """12 steps of 10 examples with plain gradient descent, evaluated every 4 steps."""
    return prepare("optimizer=sgd")


@pytest.fixture
def finished(plain: Prepared, replica_of: ReplicaOf) -> tuple[Outcome, MemoryRecorder, Replica]:
    replica = replica_of(plain)
    return (*run(plain, replica), replica)


# What is reported when


def test_evaluations_probes_and_checkpoints_come_when_they_are_due(
    finished: tuple[Outcome, MemoryRecorder, Replica],
) -> None:
    _, recorder, _ = finished
    for curve in ("loss/train", "loss/val", "loss/test", "accuracy/test", "gap/accuracy", "gap/loss"):
        assert list(recorder.curves[curve]) == [0, 4, 8, 12], curve
    for curve in ("loss/batch", "learning_rate", "examples_per_second"):
        assert list(recorder.curves[curve]) == [4, 8, 12], curve
    assert list(recorder.layers) == [0, 1, 2, 5]
    assert list(recorder.checkpoints) == [6]


def test_the_end_is_evaluated_whatever_the_schedule(prepare: Prepare, replica_of: ReplicaOf) -> None:
    prepared = prepare("optimizer=sgd", "train.evaluate={at:[],every:null}")
    outcome, recorder = run(prepared, replica_of(prepared))
    assert list(recorder.curves["accuracy/test"]) == [12]
    assert outcome.metrics["accuracy/test"] == recorder.curves["accuracy/test"][12]


def test_a_run_ends_with_its_outcome_and_its_files(finished: tuple[Outcome, MemoryRecorder, Replica]) -> None:
    outcome, recorder, replica = finished
    assert (outcome.kind, outcome.step, outcome.reason) == ("finished", 12, "")
    assert recorder.outcome == outcome
    assert set(recorder.artifacts) == {"model.keras", "predictions.npz"}
    assert recorder.facts["weights.final"] == digest(replica.weights)


def test_the_gap_is_train_minus_test(finished: tuple[Outcome, MemoryRecorder, Replica]) -> None:
    curves = finished[1].curves
    for score in ("accuracy", "loss"):
        for step, gap in curves[f"gap/{score}"].items():
            assert gap == pytest.approx(curves[f"{score}/train"][step] - curves[f"{score}/test"][step])


def test_train_val_and_test_are_measured_by_the_same_code_on_their_own_examples(
    plain: Prepared, finished: tuple[Outcome, MemoryRecorder, Replica]
) -> None:
    outcome, _, replica = finished
    data, split = plain.data, plain.draw(Block.of(0)).split
    labels = np.concatenate([data.y_train, data.y_test])
    for part, indices in (
        ("train", split.train_eval),
        ("val", split.val),
        ("test", np.arange(60, 80, dtype=np.int32)),
    ):
        logits = replica.logits(indices).astype(np.float64)
        shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        assert outcome.metrics[f"loss/{part}"] == pytest.approx(log_loss(labels[indices], shares, labels=[0, 1, 2]))
        assert outcome.metrics[f"accuracy/{part}"] == accuracy_score(labels[indices], logits.argmax(axis=1))


def test_the_predictions_are_the_logits_of_the_last_evaluation(
    plain: Prepared, finished: tuple[Outcome, MemoryRecorder, Replica]
) -> None:
    outcome, recorder, replica = finished
    with np.load(io.BytesIO(recorder.artifacts["predictions.npz"])) as file:
        stored = {name: file[name] for name in file.files}
    np.testing.assert_array_equal(stored["test_logits"], replica.logits(np.arange(60, 80, dtype=np.int32)))
    assert (stored["test_logits"].argmax(axis=1) == plain.data.y_test).mean() == outcome.metrics["accuracy/test"]
    np.testing.assert_array_equal(stored["train_indices"], plain.draw(Block.of(0)).split.train_eval)
    np.testing.assert_array_equal(stored["train_logits"], replica.logits(stored["train_indices"]))
    np.testing.assert_array_equal(stored["train_labels"], plain.data.y_train[stored["train_indices"]])


def test_without_validation_examples_there_are_no_validation_curves(prepare: Prepare, replica_of: ReplicaOf) -> None:
    prepared = prepare("optimizer=sgd", "train.val_share=0")
    _, recorder = run(prepared, replica_of(prepared))
    assert not [name for name in recorder.curves if "val" in name]
    assert "accuracy/train" in recorder.curves


def test_the_learning_rate_reported_is_that_of_the_last_step(prepare: Prepare, replica_of: ReplicaOf) -> None:
    prepared = prepare("optimizer=sgd", "learning_rate.value=0.12", "learning_rate.warmup=12")
    _, recorder = run(prepared, replica_of(prepared))
    assert recorder.curves["learning_rate"] == pytest.approx({4: 0.04, 8: 0.08, 12: 0.12})


def test_progress_adds_up_to_the_steps(plain: Prepared, replica_of: ReplicaOf) -> None:
    taken: list[int] = []
    run(plain, replica_of(plain), progress=taken.append)
    assert sum(taken) == 12


def test_it_learns(prepare: Prepare, replica_of: ReplicaOf) -> None:
    prepared = prepare("optimizer=adam", "learning_rate.value=0.01", "train.steps=100")
    outcome, recorder = run(prepared, replica_of(prepared))
    assert outcome.metrics["loss/train"] < recorder.curves["loss/train"][0] / 10


def test_evaluation_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(50, 4)).astype(np.float32), rng.integers(0, 4, 50).astype(np.int32)
    loss, accuracy = loop.evaluation(logits, labels)
    shares = np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum(axis=1, keepdims=True)
    assert loss == pytest.approx(log_loss(labels, shares, labels=range(4)))
    assert accuracy == accuracy_score(labels, logits.argmax(axis=1))


def test_evaluation_by_hand() -> None:
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]], np.float32))
    loss, accuracy = loop.evaluation(logits, np.array([0, 1], np.int32))
    assert loss == pytest.approx((-np.log(0.5) - np.log(0.2)) / 2, rel=1e-6)
    assert accuracy == 0.5


def test_evaluation_of_huge_logits_does_not_overflow() -> None:
    loss, _ = loop.evaluation(np.array([[3e38, -3e38]], np.float32), np.array([1], np.int32))
    assert loss == pytest.approx(6e38, rel=1e-6)


# The same bits


@pytest.mark.parametrize("overrides", [("optimizer=sgd",), NOISY], ids=["plain", "noisy"])
def test_a_run_ends_in_the_same_weights_whatever_ran_before_it_and_where(
    overrides: tuple[str, ...], prepare: Prepare, replica_of: ReplicaOf
) -> None:
    prepared = prepare(*overrides)
    replica, other = replica_of(prepared), replica_of(prepared, fresh=True)
    first = final(prepared, replica)
    assert final(prepared, replica) == first, "again"
    assert final(prepared, replica, block=1) != first, "another block"
    assert final(prepared, replica) == first, "after another run"
    final(prepared, other, block=2)
    assert final(prepared, other) == first, "on another replica"


def test_runs_side_by_side_do_not_disturb_each_other(prepare: Prepare, replica_of: ReplicaOf) -> None:
    prepared = prepare(*NOISY)
    replicas = [replica_of(prepared), replica_of(prepared, fresh=True)]
    alone = [final(prepared, replicas[0], block=block) for block in (0, 1)]
    together: dict[int, object] = {}

    def work(block: int) -> None:
        together[block] = final(prepared, replicas[block], block=block)

    threads = [threading.Thread(target=work, args=(block,)) for block in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[0], together[1]] == alone


@pytest.mark.parametrize(
    "overrides",
    [
        ("optimizer=sgd",),
        ("optimizer=momentum", "arch.dropout=0.5"),
        NOISY,
        ("augment=crop", "augment.layers.crop.padding=1", "learning_rate=cosine"),
        ("runtime.precision=mixed_float16",),
        ("~arch.widths", "arch=cnt_regularized", "augment=cnt"),
    ],
    ids=["sgd", "dropout", "noisy", "crop", "float16", "batch_norm"],
)
def test_a_resumed_run_ends_in_the_same_weights_and_reports_the_same(
    overrides: tuple[str, ...], prepare: Prepare, replica_of: ReplicaOf
) -> None:
    prepared = prepare(*overrides)
    replica = replica_of(prepared)
    _, whole = run(prepared, replica)
    run(prepared, replica, block=1)
    outcome, rest = run(prepared, replica, resume=whole.checkpoints[6])
    assert outcome.kind == "finished"
    assert rest.facts == whole.facts
    assert list(rest.curves["loss/test"]) == [8, 12]
    for name in ("loss/train", "loss/val", "loss/test", "accuracy/test", "gap/loss"):
        assert rest.curves[name] == {step: whole.curves[name][step] for step in (8, 12)}, name
    assert rest.artifacts["predictions.npz"] == whole.artifacts["predictions.npz"]


@pytest.mark.parametrize(
    "schedules",
    [
        ("train.evaluate.every=1", "train.probe.at=[]"),
        ("train.evaluate={at:[],every:null}", "train.probe.at=[0,3,7,11]", "train.checkpoint.at=[]"),
    ],
)
def test_when_one_looks_does_not_change_what_is_trained(
    schedules: tuple[str, ...], prepare: Prepare, replica_of: ReplicaOf
) -> None:
    prepared, often = prepare(*NOISY), prepare(*NOISY, *schedules)
    assert final(often, replica_of(often)) == final(prepared, replica_of(prepared))


def test_each_stream_alone_changes_the_run(prepare: Prepare, replica_of: ReplicaOf) -> None:
    prepared = prepare(*NOISY)
    replica = replica_of(prepared)
    block = Block.of(0)
    ends = {"none": run(prepared, replica, block)[1].facts["weights.final"]}
    for stream in ("draw", "init", "order", "augment", "dropout"):
        seeds = {**block.seeds, stream: block.seeds[stream] + 1}
        ends[stream] = run(prepared, replica, Block(id=0, **seeds))[1].facts["weights.final"]
    assert len(set(ends.values())) == 6, ends


def test_the_initial_weights_are_reported(finished: tuple[Outcome, MemoryRecorder, Replica], plain: Prepared) -> None:
    _, recorder, replica = finished
    replica.reset(Block.of(0), plain.scheme, plain.draw(Block.of(0)).affine)
    assert recorder.facts["weights.initial"] == digest(replica.weights)


# What a training may see


def blanked(data: Dataset, val: np.ndarray) -> Dataset:
    """The same data with the validation and test images replaced by noise."""
    rng = np.random.default_rng(9)
    x_train, x_test = data.x_train.copy(), rng.integers(0, 255, data.x_test.shape).astype(np.uint8)
    x_train[val] = rng.integers(0, 255, x_train[val].shape)
    arrays = {"x_train": x_train, "y_train": data.y_train, "x_test": x_test, "y_test": data.y_test}
    return from_arrays("blanked", arrays, "blanked")


def test_neither_validation_nor_test_examples_reach_the_weights(
    prepare: Prepare, replica_of: ReplicaOf, rows: Dataset
) -> None:
    # A run of several epochs, with the preprocessing measured on the training part.
    overrides = ("optimizer=sgd", "preprocess=standardize", "preprocess.per=pixel")
    prepared = prepare(*overrides)
    other = prepare(*overrides, data=blanked(rows, prepared.draw(Block.of(0)).split.val))
    assert prepared.steps > 2 * prepared.epoch
    assert final(prepared, replica_of(prepared)) == final(other, replica_of(other))


@pytest.mark.parametrize("augment", ["flip", "shift", "crop", "rotate", "color", "cnt", "[crop,flip]"])
def test_each_augmentation_trains_and_is_never_seen_by_an_evaluation_or_a_probe(
    augment: str, prepare: Prepare, replica_of: ReplicaOf
) -> None:
    still = ("optimizer=sgd", "learning_rate.value=0")
    plain, augmented = prepare(*still), prepare(*still, f"augment={augment}")
    _, without = run(plain, replica_of(plain))
    _, with_it = run(augmented, replica_of(augmented))
    for name in ("loss/train", "loss/val", "loss/test", "accuracy/train"):
        assert with_it.curves[name] == without.curves[name], name
    assert with_it.layers[5]["dense1/activation"]["mean"] == without.layers[5]["dense1/activation"]["mean"]
    assert with_it.curves["loss/batch"][12] != without.curves["loss/batch"][12]


def test_dropout_is_never_seen_by_an_evaluation(prepare: Prepare, replica_of: ReplicaOf) -> None:
    still = ("optimizer=sgd", "learning_rate.value=0")
    plain, dropping = prepare(*still), prepare(*still, "regularizer=dropout")
    _, without = run(plain, replica_of(plain))
    _, with_it = run(dropping, replica_of(dropping))
    assert with_it.curves["loss/train"] == without.curves["loss/train"]
    assert with_it.curves["loss/batch"][12] != without.curves["loss/batch"][12]


# Ends


def test_a_loss_that_is_not_finite_ends_the_run_at_its_step_and_nothing_follows(
    prepare: Prepare, replica_of: ReplicaOf
) -> None:
    prepared = prepare("optimizer=sgd", "learning_rate.value=1e30", "train.steps=40", "train.evaluate.every=20")
    replica = replica_of(prepared)
    outcome, recorder = run(prepared, replica)
    assert outcome.kind == "diverged"
    assert 0 < outcome.step < 10
    assert "not finite" in outcome.reason
    assert recorder.outcome == outcome
    assert not recorder.artifacts
    assert "weights.final" not in recorder.facts
    assert max(step for curve in recorder.curves.values() for step in curve) < outcome.step
    assert max(recorder.layers) <= outcome.step
    assert not recorder.checkpoints


def test_a_diverged_run_does_not_spoil_the_next(prepare: Prepare, replica_of: ReplicaOf) -> None:
    well, ill = prepare("optimizer=sgd"), prepare("optimizer=sgd", "learning_rate.value=1e30")
    replica = replica_of(well)
    assert replica_of(ill) is not None
    first = final(well, replica)
    assert run(ill, replica)[0].kind == "diverged"
    assert final(well, replica) == first


def test_weights_that_start_beyond_all_bounds_diverge_at_step_zero(prepare: Prepare, replica_of: ReplicaOf) -> None:
    prepared = prepare("optimizer=sgd", "initializer=normal", "initializer.default.stddev=1e30")
    outcome, recorder = run(prepared, replica_of(prepared))
    assert (outcome.kind, outcome.step) == ("diverged", 0)
    assert not recorder.curves


def test_a_stopped_run_saves_a_checkpoint_from_which_it_ends_as_if_never_stopped(
    prepare: Prepare, replica_of: ReplicaOf
) -> None:
    prepared = prepare(*NOISY)
    replica = replica_of(prepared)
    _, whole = run(prepared, replica)
    stop = threading.Event()
    taken: list[int] = []

    def after_five(steps: int) -> None:
        taken.append(steps)
        if sum(taken) >= 5:
            stop.set()

    outcome, recorder = run(prepared, replica, stop=stop, progress=after_five)
    assert (outcome.kind, outcome.step) == ("interrupted", sum(taken))
    assert "weights.final" not in recorder.facts
    assert final(prepared, replica, resume=recorder.checkpoints[outcome.step]) == whole.facts["weights.final"]


def test_a_run_stopped_before_its_first_step_saves_its_beginning(plain: Prepared, replica_of: ReplicaOf) -> None:
    stop = threading.Event()
    stop.set()
    replica = replica_of(plain)
    outcome, recorder = run(plain, replica, stop=stop)
    assert (outcome.kind, outcome.step) == ("interrupted", 0)
    assert final(plain, replica, resume=recorder.checkpoints[0]) == final(plain, replica)
