"""The command line, as a person meets it: what it prints, what it leaves behind, how it ends."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import harness
from harness.__main__ import main
from harness.data.datasets import Dataset

ROOT = Path(harness.__file__).resolve().parent.parent
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


@dataclass
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "harness", *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> Done:
    out, err = process.communicate(timeout=120)
    return Done(process.returncode, out, err)


def here(folder: Path, *arguments: str, program: Callable[[Sequence[str]], int] = main) -> Done:
    """The same command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(folder)
        code = program(arguments)
    return Done(code, out.getvalue(), err.getvalue())


def runs(folder: Path, sweep: str) -> list[dict[str, str]]:
    """Status and tags of every run of a sweep, arms and report included, oldest first."""
    from harness.tracking.store import open_store

    client = open_store(None, folder / "mlruns", create=False)
    experiment = client.get_experiment_by_name(sweep)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    return [{"id": run.info.run_id, "status": run.info.status, **run.data.tags} for run in found]


def trained(folder: Path, sweep: str) -> list[dict[str, str]]:
    return [run for run in runs(folder, sweep) if run["kind"] == "run"]


# Help and refusals


def test_help_names_the_groups_and_their_files(tmp_path: Path) -> None:
    done = ended(start(tmp_path, "--help"))
    assert done.code == 0
    assert done.err == ""
    for line in (
        "arch: alexnet, cnt, cnt_regularized, convnet, lenet5, lenet5_relu, mlp, resnet20, softmax, vgg16, vgg19,",
        "optimizer: adagrad, adam, adamw, momentum, nesterov, rmsprop, sgd",
        "sweep: ",
    ):
        assert line in done.out
    assert list(tmp_path.iterdir()) == []


def test_a_config_error_is_one_line_and_leaves_nothing_behind(tmp_path: Path) -> None:
    done = ended(start(tmp_path, "+train.epocs=3"))
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("error: train.epocs: unknown key; did you mean train.epochs")
    assert done.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("slots")
@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["optimizer.lr=1"], "optimizer.lr: Adam takes no such argument"),
        (["optimizer.clipnorm=1", "optimizer.clipvalue=1"], "Only one of"),
        (["optimizer._target_=keras.optimizers.Admm"], "did you mean Adam"),
        (["initializer.default._target_=keras.initializers.HeNorml"], "did you mean HeNormal"),
        (["initializer.default.stddev=1"], "initializer.default.stddev: HeNormal takes no such argument"),
        (["arch._target_=harness.models.architectures.mpl"], "has no 'mpl'"),
        (["arch=mlp", "arch.widths=[0]"], "arch=mlp on digits (8x8x1): "),
        (["arch=mlp", "arch.activation=rleu"], "rleu"),
        (["arch.padding=valid"], "layer conv3 cannot take maps of 2x2 pixels; the smallest input that works is 16x16"),
        (["arch.pooling=min"], "pooling: got 'min'; allowed: max, average"),
        (["preprocess.per=row"], "per must be one of channel, pixel, all, got 'row'"),
        (["learning_rate.schedule._target_=keras.optimizers.schedules.CosineDecay"], "decay_steps"),
        (["augment.layers=[3]"], "augment.layers: entry 0 is 3"),
        (["augment.layers=[{_target_:keras.layers.RandomFlip,mod:x}]"], "did you mean mode"),
        (["augment.layers=[{_target_:keras.layers.RandomCrop,height:4,width:4}]"], "keeps their shape"),
        (["augment=crop", "augment.layers.crop.padding=0"], "padding must be >= 1, got 0"),
        (["train.batch_size=1294"], "train.batch_size: got 1294, but digits leaves 1293 training examples"),
        (["train.val_share=0.999", "train.batch_size=1"], "val_share=0.999"),
        (["data.test_share=2"], "test_share must be above 0 and at most 0.99, got 2"),
        (["data=npz", "data.path=nowhere.npz"], "data.path=nowhere.npz: "),
        (["data=mnist", "data.path=nowhere.npz"], "data.path=nowhere.npz: "),
        (
            ["optimizer.beta_1=abc"],
            "optimizer: keras.optimizers.Adam(beta_1=abc, learning_rate=0.001) cannot take a step",
        ),
        (["optimizer.clipnorm=abc"], "optimizer: keras.optimizers.Adam(clipnorm=abc, "),
        (["initializer.default._target_=keras.initializers.Identity"], "cannot make conv1/kernel (3, 3, 1, 64): "),
        (
            ["initializer=normal", "initializer.default.stddev=abc"],
            "initializer.default: keras.initializers.RandomNormal",
        ),
        (["train.epochs=1e9"], "train.epochs=1e+09: 12,000,000,000 steps of 100 examples; allowed: up to 100,000,000"),
        (["train.steps=20000000", "train.probe.every=1"], "train.probe.every: got 1, 20,000,000 times in a training"),
        (["runtime=gpu"], "runtime.device=gpu: TensorFlow sees no GPU"),
        (["runtime.threads=3"], "runtime.threads=3: TensorFlow already runs in this process"),
        (["reports=/dev/null/reports"], "reports=/dev/null/reports: /dev/null is no folder that can be written"),
        (["reports=/proc/nope"], "reports=/proc/nope: /proc is no folder that can be written"),
        (["tracking.uri=http://127.0.0.1:9"], "no MLflow server answers"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_trained_is_refused_in_one_line_before_any_training(
    overrides: list[str], said: str, tmp_path: Path
) -> None:
    done = here(tmp_path, *overrides)
    assert done.code == 2
    assert done.out == ""
    assert said in done.err
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


# A whole sweep


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    folder = tmp_path_factory.mktemp("smoke")
    return folder, ended(start(folder, "+debug=smoke", "arch=lenet5", "sweep.name=smoke"))


def test_a_smoke_test_takes_the_whole_path(smoke: tuple[Path, Done]) -> None:
    folder, done = smoke
    assert done.code == 0, done
    assert done.err == ""
    lines = done.out.splitlines()
    assert [line.partition(":")[0] for line in lines[:2]] == ["[1/2] default seed 0", "[2/2] default seed 1"] or [
        line.partition(":")[0] for line in lines[:2]
    ] == ["[1/2] default seed 1", "[2/2] default seed 0"]
    assert "test accuracy" in done.out
    (report,) = [line.partition("report")[2].strip() for line in lines if line.startswith("report")]
    assert (folder / report).is_file()
    assert sorted(path.name for path in folder.iterdir()) == ["mlruns", "reports"]
    assert {run["status"] for run in runs(folder, "smoke")} == {"FINISHED"}


@pytest.mark.usefixtures("slots")
def test_the_same_command_trains_nothing_again_unless_told_to(smoke: tuple[Path, Done]) -> None:
    folder, _ = smoke
    same = ("+debug=smoke", "arch=lenet5", "sweep.name=smoke", "reports=null")
    before = trained(folder, "smoke")
    again = here(folder, *same)
    assert again.code == 0
    assert "2 runs are finished" in again.out
    assert trained(folder, "smoke") == before
    forced = here(folder, *same, "rerun=true")
    assert forced.code == 0
    after = trained(folder, "smoke")
    assert len(after) == 4
    assert sorted(run["weights.final"] for run in after[:2]) == sorted(run["weights.final"] for run in after[2:])


@pytest.mark.usefixtures("slots")
def test_a_report_can_be_left_to_its_command(smoke: tuple[Path, Done]) -> None:
    folder, _ = smoke
    (folder / "reports").rename(folder / "before")
    done = here(folder, "+debug=smoke", "arch=lenet5", "sweep.name=smoke", "reports=null")
    assert done.code == 0, done
    assert "report   none; `python -m harness.report smoke` writes it" in done.out
    assert not (folder / "reports").exists()
    assert {run["status"] for run in runs(folder, "smoke")} == {"FINISHED"}
    (folder / "before").rename(folder / "reports")


@pytest.mark.usefixtures("slots")
def test_files_of_data_are_arms_of_their_own(tmp_path: Path, rows: Dataset) -> None:
    save(rows, tmp_path)
    arrays = dict(np.load(tmp_path / "rows.npz"))
    np.savez(tmp_path / "dark.npz", **(arrays | {"x_train": arrays["x_train"] // 2}))
    words = ("sweep.name=two", "data=npz", "data.path=rows.npz,dark.npz", "arch=softmax", "train.steps=2", "seeds=1")
    done = here(tmp_path, *words, "train.batch_size=10", "reports=null")
    assert done.code == 0, done
    arms = {run["arm"]: run["data.digest"] for run in trained(tmp_path, "two")}
    assert set(arms) == {"data.path=rows.npz", "data.path=dark.npz"}
    assert len(set(arms.values())) == 2


# Interruptions


LONG = (
    "sweep.name=long",
    "reports=null",
    "arch=mlp",
    "arch.widths=[32]",
    "arch.dropout=0.1",
    "data=npz",
    "data.path=rows.npz",
    "seeds=2",
    "train.steps=9000",
    "train.batch_size=10",
    "train.evaluate={at:[0],every:3000}",
    "train.probe.at=[0,3000,6000]",
    "train.checkpoint={every:600,at:[]}",
)
MOMENTS = [0, 3000, 6000, 9000]


def save(data: Dataset, folder: Path) -> None:
    np.savez(folder / "rows.npz", x_train=data.x_train, y_train=data.y_train, x_test=data.x_test, y_test=data.y_test)


def checkpoints(folder: Path) -> list[Path]:
    return list(folder.glob("mlruns/artifacts/long/*/artifacts/checkpoints/step_*.npz"))


def in_training(folder: Path, *changes: str) -> subprocess.Popen[str]:
    """LONG with these changes, both of whose runs have saved something."""
    process = start(folder, *LONG, *changes)
    patience = time.monotonic() + 100
    while len({path.parent for path in checkpoints(folder)}) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < patience
        time.sleep(0.01)
    return process


def interrupted(folder: Path, by: signal.Signals) -> Done:
    """LONG, stopped by a signal as soon as both its runs have saved something."""
    process = in_training(folder)
    process.send_signal(by)
    return ended(process)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, slots: list[str], rows: Dataset) -> dict[str, str]:
    """Block -> digest of the final weights of LONG, never interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    save(rows, folder)
    done = here(folder, *LONG)
    assert done.code == 0, done
    return {run["block"]: run["weights.final"] for run in trained(folder, "long")}


def goes_on(folder: Path, whole: dict[str, str]) -> None:
    """The same command ends in the runs, weights and curves of one that was never interrupted."""
    before = {run["id"] for run in trained(folder, "long")}
    done = here(folder, *LONG)
    assert done.code == 0, done
    after = trained(folder, "long")
    assert {run["id"] for run in after} == before
    assert {run["block"]: run["weights.final"] for run in after} == whole
    assert {run["status"] for run in runs(folder, "long")} == {"FINISHED"}
    results = harness.load("long", folder=folder / "mlruns")
    curves = results.curves[results.curves["metric"] == "loss/test"]
    assert curves.groupby("block")["step"].apply(sorted).tolist() == [MOMENTS, MOMENTS]
    assert sorted(results.layers["step"].unique()) == MOMENTS[:3]


def test_a_killed_sweep_goes_on_from_its_checkpoints_to_the_same_weights(
    tmp_path: Path, rows: Dataset, whole: dict[str, str]
) -> None:
    save(rows, tmp_path)
    done = interrupted(tmp_path, signal.SIGKILL)
    assert done.code == -signal.SIGKILL
    assert {run["status"] for run in trained(tmp_path, "long")} == {"RUNNING"}
    goes_on(tmp_path, whole)


def test_ctrl_c_saves_everything_says_so_and_the_same_command_goes_on(
    tmp_path: Path, rows: Dataset, whole: dict[str, str]
) -> None:
    save(rows, tmp_path)
    done = interrupted(tmp_path, signal.SIGINT)
    assert done.code == 130
    assert "2 runs are missing; the same command goes on where this one stopped." in done.err
    assert "Traceback" not in done.err
    assert {run["status"] for run in trained(tmp_path, "long")} == {"KILLED"}
    assert "RUNNING" not in {run["status"] for run in runs(tmp_path, "long")}
    goes_on(tmp_path, whole)


# Others


@pytest.mark.usefixtures("slots")
def test_verify_finds_the_same_weights_whatever_runs_around(tmp_path: Path) -> None:
    from harness import verify

    done = here(tmp_path, "+debug=smoke", "arch=mlp", "arch.dropout=0.5", program=verify.main)
    assert done.code == 0, done
    assert "the same weights to the bit" in done.out
    assert len({line.partition(" ")[0] for line in done.out.splitlines()[:-1]}) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("slots")
def test_verify_refuses_like_the_harness(tmp_path: Path) -> None:
    from harness import verify

    for override in ("train.epocs=3", "arch._target_=harness.models.architectures.mpl", "optimizer.lr=1"):
        done = here(tmp_path, override, program=verify.main)
        assert (done.code, done.err.count("\n")) == (2, 1), done


def test_an_installed_wheel_works_from_another_folder(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    built = subprocess.run(build, capture_output=True, text=True)
    if built.returncode and "hatchling" in built.stderr:
        pytest.skip("pip cannot get hatchling, which builds the wheel")
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", str(site), str(wheel)], check=True)
    (tmp_path / "elsewhere").mkdir()
    code = "from harness.composition import *; print(config_folder(), len(compose(['+sweep=init_schemes']).arms))"
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / "elsewhere",
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split() == [str(site / "harness" / "conf"), "8"]
