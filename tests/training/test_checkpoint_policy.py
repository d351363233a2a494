"""Which checkpoints stay, and what the plan says of the disk they take."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest

from harness import disk
from harness.__main__ import main
from harness.data.datasets import Dataset
from harness.prepared import Prepared
from harness.streams import Block
from harness.training import checkpoints, loop
from harness.training.recorder import MemoryRecorder
from harness.training.replica import Replica

Prepare = Callable[..., Prepared]
ReplicaOf = Callable[..., Replica]
BEST = (
    "train.checkpoint.keep=best",
    "train.evaluate={at:[0],every:2}",
    "learning_rate.value=0.03",
    "train.steps=40",
    "optimizer=adam",
)


def trained(prepared: Prepared, replica: Replica, **more: object) -> MemoryRecorder:
    recorder = MemoryRecorder()
    block = Block.of(0)
    loop.train(replica, prepared.recipe, prepared.draw(block), block, recorder, **more)  # type: ignore[arg-type]
    return recorder


def test_the_best_is_the_first_of_the_highest_validation_accuracies(prepare: Prepare, replica_of: ReplicaOf) -> None:
    prepared = prepare(*BEST)
    replica = replica_of(prepared)
    recorder = trained(prepared, replica)
    curve = {step: value for step, value in recorder.curves["accuracy/val"].items() if step > 0}
    highest = max(curve.values())
    best = checkpoints.unpack(recorder.artifacts["checkpoints/best.npz"])
    assert float(best["accuracy/val"]) == highest
    assert int(best["step"]) == min(step for step, value in curve.items() if value == highest) < 40
    replica.state = best
    logits = replica.logits(prepared.draw(Block.of(0)).split.val)
    labels = prepared.data.y_train[prepared.draw(Block.of(0)).split.val]
    assert (logits.argmax(axis=1) == labels).mean() == highest, "its weights are those of that step"


def test_an_interrupted_run_does_not_forget_its_best(prepare: Prepare, replica_of: ReplicaOf) -> None:
    prepared = prepare(*BEST, "train.checkpoint={at:[],every:30}")
    replica = replica_of(prepared)
    whole = trained(prepared, replica)
    best = int(checkpoints.unpack(whole.artifacts["checkpoints/best.npz"])["step"])
    assert best < 30, "else this test shows nothing"
    rest = trained(prepared, replica, resume=whole.checkpoints[30])
    assert rest.artifacts["checkpoints/best.npz"] == whole.artifacts["checkpoints/best.npz"]
    assert rest.facts["weights.final"] == whole.facts["weights.final"]


def test_with_none_nothing_is_saved_even_when_stopped(prepare: Prepare, replica_of: ReplicaOf) -> None:
    prepared = prepare("train.checkpoint.keep=none")
    assert not trained(prepared, replica_of(prepared)).checkpoints
    stop = threading.Event()
    stop.set()
    recorder = trained(prepared, replica_of(prepared), stop=stop)
    assert not recorder.checkpoints
    assert recorder.outcome is not None
    assert recorder.outcome.reason == "stopped; the same command begins again"


def test_other_policies_save_on_schedule(prepare: Prepare, replica_of: ReplicaOf) -> None:
    for keep in ("3", "all"):
        prepared = prepare(f"train.checkpoint.keep={keep}", "train.checkpoint.every=3", "train.checkpoint.at=[]")
        recorder = trained(prepared, replica_of(prepared))
        assert list(recorder.checkpoints) == [3, 6, 9, 12]
        assert "checkpoints/best.npz" not in recorder.artifacts


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, rows: Dataset) -> Path:
    folder = tmp_path_factory.mktemp("policies")
    np.savez(folder / "rows.npz", x_train=rows.x_train, y_train=rows.y_train, x_test=rows.x_test, y_test=rows.y_test)
    return folder


def command(folder: Path, keep: str, *more: str) -> str:
    arguments = (
        *("arch=mlp", "arch.widths=[8]", "data=npz", "data.path=rows.npz", "seeds=1", "train.steps=12"),
        *("train.batch_size=10", "train.val_share=0.2", "train.probe.at=[]", "train.checkpoint={at:[],every:3}"),
        *(f"train.checkpoint.keep={keep}", f"sweep.name=keep_{keep}", "reports=null"),
    )
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(out):
        patch.chdir(folder)
        assert main([*arguments, *more]) == 0, out.getvalue()
    return out.getvalue()


WEIGHTS = 4 * (64 * 8 + 8 + 8 * 3 + 3)
STATE = 3 * WEIGHTS + 8 + 4
"""Bytes: 64x8 + 8 + 8x3 + 3 weights of 4; Adam's two slots for each, its count of steps and rate."""


def test_the_plan_counts_the_best_weights_that_early_stopping_carries(folder: Path) -> None:
    plan = command(folder, "1", "regularizer.patience=2", "dry_run=true")
    assert f"(last 1 kept) {disk._bytes(STATE + WEIGHTS)}, " in plan


def test_the_plan_says_where_the_clock_may_add_some(folder: Path) -> None:
    few = "train.checkpoint={at:[],every:12}"
    assert "(more where train.checkpoint.seconds adds some)" in command(folder, "2", few, "dry_run=true")
    assert "more where" not in command(folder, "2", few, "train.checkpoint.seconds=null", "dry_run=true")


@pytest.mark.parametrize(
    ("keep", "files"),
    [("1", ["step_12"]), ("all", ["step_3", "step_6", "step_9", "step_12"]), ("best", ["best", "step_12"])],
)
def test_the_store_holds_what_the_policy_keeps_and_the_plan_said_so(keep: str, files: list[str], folder: Path) -> None:
    plan = command(folder, keep, "dry_run=true")
    command(folder, keep)
    found = sorted(folder.glob(f"mlruns/artifacts/keep_{keep}/*/artifacts/checkpoints/*"))
    assert [path.stem.replace("step_00000000", "step_").replace("step_0000000", "step_") for path in found] == files
    policy = "last 1" if keep == "1" else keep
    states = len(files) + (keep == "best")  # the last one carries the best along
    assert f"Disk for 1 runs: checkpoints ({policy} kept) {disk._bytes(states * STATE)}" in plan
    assert f"nets {disk._bytes(WEIGHTS)}." in plan
    arrays = sum(array.nbytes for path in found for array in checkpoints.unpack(path.read_bytes()).values())
    assert states * STATE <= arrays <= states * (STATE + 50)


def test_sizes_are_said_in_units_of_a_thousand() -> None:
    assert [disk._bytes(n) for n in (0, 999, 1000, 1_234_567, 5 * 10**13)] == [
        "0 B",
        "999 B",
        "1 kB",
        "1.23 MB",
        "50 TB",
    ]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["train.checkpoint.keep=0"], "allowed: a whole number from 1 up, best, all, none"),
        (["train.checkpoint.keep=some"], "allowed: a whole number from 1 up, best, all, none"),
        (["train.checkpoint.keep=best", "train.val_share=0"], "as there are no validation examples"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(overrides: list[str], said: str, prepare: Prepare) -> None:
    with pytest.raises(ValueError, match=rf"^train\.checkpoint\.keep: got .*{said}"):
        prepare(*overrides)
