"""What goes wrong while a sweep runs, done for real: each a clear line, and nothing else is damaged."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from test_cli import Done, ended, here, in_training, save, trained

import harness
from harness.data.datasets import Dataset

pytestmark = pytest.mark.usefixtures("slots")
SHORT = (
    *("data=npz", "data.path=rows.npz", "arch=softmax", "optimizer=sgd", "seeds=1", "train.steps=12"),
    *("train.batch_size=10", "train.evaluate={at:[0],every:4}", "train.probe.at=[0]"),
    "train.checkpoint={every:4,at:[]}",
)

# Failures of runs

NETS = """
import keras
import tensorflow as tf
from harness.models.architectures import softmax

class Greedy(keras.layers.Layer):
    "Asks for 4 TB when it is called; as many as the input says, since TensorFlow would try a constant twice."
    def call(self, x):
        rows = keras.ops.shape(x)[0] + keras.ops.cast(0 * keras.ops.sum(x), "int32")
        return x + keras.ops.sum(keras.random.uniform((rows, 10**11), seed=1))

class Broken(keras.layers.Layer):
    "Fails when it is called."
    def call(self, x):
        with tf.control_dependencies([tf.debugging.assert_less(tf.shape(x)[0], 0, "it is broken")]):
            return tf.identity(x)

def greedy(input_shape, classes):
    inner = softmax(input_shape, classes)
    return keras.Model(inner.inputs, Greedy()(inner.outputs[0]))

def broken(input_shape, classes):
    inner = softmax(input_shape, classes)
    return keras.Model(inner.inputs, Broken()(inner.outputs[0]))
"""


@pytest.fixture
def failing(tmp_path: Path, rows: Dataset, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[str, ...]]:
    """A sweep of two arms, of which the first has a net of NETS."""
    save(rows, tmp_path)
    (tmp_path / "failing_nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(str(tmp_path))

    def sweep(net: str) -> tuple[str, ...]:
        both = f"[{{{net}: ['arch._target_=failing_nets.{net}']}}, {{plain: ['arch=softmax']}}]"
        return (*SHORT, f"sweep.name={net}", "trust=[failing_nets]", f"sweep.arms={both}", "runtime.replicas=1")

    return sweep


def test_memory_that_runs_out_names_the_setting_and_the_other_arm_is_finished(
    failing: Callable[[str], tuple[str, ...]], tmp_path: Path
) -> None:
    done = here(tmp_path, *failing("greedy"))
    assert done.code == 1, done
    (failed,) = [line for line in done.err.splitlines() if line.startswith("FAILED ")]
    assert failed.startswith("FAILED greedy seed 0: OutOfMemoryError: train.batch_size: got 10, for which ")
    assert "take a smaller batch" in failed
    assert "Traceback" not in done.out + done.err
    ends = {run["arm"]: (run["status"], run["outcome"]) for run in trained(tmp_path, "greedy")}
    assert ends == {"greedy": ("FAILED", "failed"), "plain": ("FINISHED", "finished")}


def test_fail_fast_stops_at_the_first_failure(failing: Callable[[str], tuple[str, ...]], tmp_path: Path) -> None:
    done = here(tmp_path, *failing("broken"), "fail_fast=true")
    assert done.code == 1
    assert "it is broken" in done.err, done
    assert [run["arm"] for run in trained(tmp_path, "broken")] == ["broken"]
    assert "2 runs are missing; the same command goes on where this one stopped." in done.err


# Interruptions


def test_a_second_ctrl_c_ends_it_at_once(tmp_path: Path, rows: Dataset) -> None:
    save(rows, tmp_path)
    process = in_training(tmp_path, "train.steps=900000", "train.checkpoint={every:100,at:[]}")
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)  # another signal, as two of one kind may arrive as one
    done = ended(process)
    assert done.code == 130, done
    assert done.err.endswith("interrupted again: ended at once; the same command goes on from the last checkpoints\n")
    assert "Traceback" not in done.err
    assert "report " not in done.out
    from harness import doctor

    patience = time.monotonic() + 100
    while here(tmp_path, "--fix", program=doctor.main).code != 0:  # its writer may still write what it was given
        assert time.monotonic() < patience
    assert {run["status"] for run in trained(tmp_path, "long")} == {"KILLED"}


# The store


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    place = tmp_path / "mlruns"
    place.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(mounting, capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_ends_the_sweep_with_its_cause_and_with_room_it_is_finished(
    mounted: Path, tmp_path: Path, rows: Dataset
) -> None:
    save(rows, tmp_path)
    words = (*SHORT, "sweep.name=full", "tracking.patience=1", "arch=mlp", "arch.widths=[64]")
    first = here(tmp_path, *words)
    assert first.code == 0, first
    room = shutil.disk_usage(mounted).free
    (mounted / "ballast").write_bytes(b"0" * (room - 40_000))
    done = here(tmp_path, *words, "seeds=3")
    assert done.code in (1, 2), done
    assert "No space left on device" in done.err or "disk is full" in done.err, done
    assert "Traceback" not in done.out + done.err
    (mounted / "ballast").unlink()
    again = here(tmp_path, *words, "seeds=3")
    assert again.code == 0, again
    curves = harness.load("full", folder=mounted).curves
    steps = curves[curves["metric"] == "loss/test"].groupby("block")["step"].apply(sorted)
    assert steps.tolist() == [[0, 4, 8, 12]] * 3


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/mlruns", "readonly"])
def test_a_store_that_cannot_be_written_is_refused_before_training(place: str, tmp_path: Path, rows: Dataset) -> None:
    save(rows, tmp_path)
    (tmp_path / "file").write_text("")
    if place == "readonly":
        (tmp_path / place).mkdir()
        mounting = ["mount", "-t", "tmpfs", "-o", "size=1m,ro", "tmpfs", str(tmp_path / place)]
        if os.geteuid() or subprocess.run(mounting, capture_output=True).returncode:
            pytest.skip("this user may not mount a file system")
    try:
        done = here(tmp_path, *SHORT, "sweep.name=nowhere", f"tracking.folder={place}")
    finally:
        if place == "readonly":
            subprocess.run(["umount", str(tmp_path / place)], check=True)
    assert done.code == 2, done
    assert done.err.startswith(f"error: tracking.folder={place}: ")
    assert done.err.endswith("give a folder you can write\n")
    assert done.err.count("\n") == 1
    assert not (tmp_path / "reports").exists()


def test_a_corrupt_checkpoint_is_passed_over_for_the_one_before_it(tmp_path: Path, rows: Dataset) -> None:
    from harness.tracking.store import open_store

    save(rows, tmp_path)
    words = (*SHORT, "sweep.name=corrupt")
    assert here(tmp_path, *words).code == 0
    (whole,) = trained(tmp_path, "corrupt")
    client = open_store(None, tmp_path / "mlruns")
    run = client.get_run(whole["id"])
    client.set_terminated(whole["id"], "KILLED")
    last = sorted(Path(run.info.artifact_uri).glob("checkpoints/step_*.npz"))[-1]
    assert last.name == "step_000000012.npz"
    last.write_bytes(last.read_bytes()[:-40])
    done = here(tmp_path, *words)
    assert done.code == 0, done
    (again,) = trained(tmp_path, "corrupt")
    assert (again["id"], again["weights.final"]) == (whole["id"], whole["weights.final"])
    assert np.load(last)["step"] == 12


@dataclass
class Damaged:
    """LONG in a process: while it trained, a run and the artifacts of another were deleted, and a sweep run beside."""

    folder: Path
    done: Done
    beside: Done
    artifacts: Path


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory, slots: list[str], rows: Dataset) -> Damaged:
    """See Damaged."""
    from harness.tracking.store import open_store

    folder = tmp_path_factory.mktemp("damaged")
    save(rows, folder)
    process = in_training(
        folder, "reports=reports", "train.steps=15000", "runtime.replicas=2", "train.checkpoint={every:100,at:[]}"
    )
    ids = {run["block"]: run["id"] for run in trained(folder, "long")}
    client = open_store(None, folder / "mlruns")
    client.delete_run(ids["0"])
    artifacts = Path(client.get_run(ids["1"]).info.artifact_uri)
    shutil.rmtree(artifacts, ignore_errors=True)
    beside = here(folder, *SHORT, "sweep.name=beside")
    return Damaged(folder, ended(process), beside, artifacts)


def test_a_run_deleted_while_it_trains_fails_alone(damaged: Damaged) -> None:
    assert damaged.done.code == 1, damaged.done
    assert "FAILED default seed 0: LostRunError: its MLflow run was deleted while it trained" in damaged.done.err
    assert "Traceback" not in damaged.done.err
    assert [(run["block"], run["status"]) for run in trained(damaged.folder, "long")] == [("1", "FINISHED")]


def test_an_artifact_folder_deleted_while_the_run_trains_is_made_again(damaged: Damaged) -> None:
    assert {"model.keras", "predictions.npz"} <= {path.name for path in damaged.artifacts.iterdir()}


def test_two_sweeps_at_once_in_one_folder_do_not_disturb_each_other(damaged: Damaged) -> None:
    assert damaged.beside.code == 0, damaged.beside
    assert [run["status"] for run in trained(damaged.folder, "beside")] == ["FINISHED"]
    for sweep in ("long", "beside"):
        assert (damaged.folder / "reports" / sweep / "index.html").is_file()


def test_a_clock_that_jumps_back_loses_no_point(tmp_path: Path, rows: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    save(rows, tmp_path)
    now, real = [0.0], time.time

    def jumping() -> float:
        now[0] -= 3600
        return real() + now[0]

    monkeypatch.setattr("harness.tracking.runs.time.time", jumping)
    done = here(tmp_path, *SHORT, "sweep.name=clock")
    assert done.code == 0, done
    monkeypatch.undo()
    curves = harness.load("clock", folder=tmp_path / "mlruns").curves
    assert curves[curves["metric"] == "loss/test"]["step"].sort_values().tolist() == [0, 4, 8, 12]
