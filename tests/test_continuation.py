"""A finished run that goes on for longer: the same bits, a link, and what is refused."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from mlflow.entities import Run

from harness.__main__ import main
from harness.data.datasets import Dataset
from harness.streams import STREAMS

SHORT = (
    "arch=mlp",
    "arch.widths=[12]",
    "arch.dropout=0.3",
    "augment=shift",
    "data=npz",
    "data.path=rows.npz",
    "seeds=2",
    "reports=null",
    "train.steps=12",
    "train.batch_size=10",
    "train.evaluate={at:[0],every:4}",
    "train.probe={at:[0,5],examples:16}",
    "sweep.name=short",
)


def save(data: Dataset, path: Path) -> None:
    np.savez(path, x_train=data.x_train, y_train=data.y_train, x_test=data.x_test, y_test=data.y_test)


def command(folder: Path, arguments: Sequence[str]) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(folder)
        code = main(arguments)
    return code, out.getvalue(), err.getvalue()


def runs(folder: Path, sweep: str, kind: str = "run") -> list[Run]:
    """Runs of a sweep, by block, the older first."""
    from harness.tracking.store import open_store

    client = open_store(None, folder / "mlruns", create=False)
    experiment = client.get_experiment_by_name(sweep)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], f"tags.kind = '{kind}'", order_by=["start_time ASC"])
    return sorted(found, key=lambda run: run.data.tags.get("block", ""))


def curve(folder: Path, run: Run, metric: str) -> dict[int, float]:
    from harness.tracking.store import open_store

    client = open_store(None, folder / "mlruns", create=False)
    return {point.step: point.value for point in client.get_metric_history(run.info.run_id, metric)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, slots: list[str], rows: Dataset) -> Path:
    """Where `short` trained 12 steps and `long` 24, both on seeds 0 and 1."""
    folder = tmp_path_factory.mktemp("continued")
    save(rows, folder / "rows.npz")
    for more in ((), ("train.steps=24", "sweep.name=long")):
        code, _, err = command(folder, [*SHORT, *more])
        assert code == 0, err
    return folder


@pytest.fixture(scope="module")
def seed_1(folder: Path) -> Run:
    return runs(folder, "short")[1]


@pytest.fixture(scope="module")
def longer(folder: Path, seed_1: Run) -> Run:
    """Seed 1 of `short`, gone on to 24 steps."""
    arguments = [*SHORT, f"+resume_from={seed_1.info.run_id}", "train.steps=24", "sweep.name=longer"]
    code, out, err = command(folder, [*arguments, "dry_run=true"])
    assert (code, err) == (0, "")
    assert "1 of 1 runs would train, on seed 1." in out
    code, _, err = command(folder, arguments)
    assert (code, err) == (0, "")
    (run,) = runs(folder, "longer")
    return run


def test_it_ends_in_the_bits_of_a_run_that_was_that_long_from_the_start(folder: Path, longer: Run) -> None:
    scratch = runs(folder, "long")[1]
    for tag in ("weights.initial", "weights.final", "arm_key", "run_key", "outcome.step"):
        assert longer.data.tags[tag] == scratch.data.tags[tag], tag
    for metric in ("loss/test", "accuracy/val", "loss/batch"):
        assert longer.data.metrics[metric] == scratch.data.metrics[metric], metric
        ends = [curve(folder, run, metric) for run in (longer, scratch)]
        assert {step: value for step, value in ends[0].items() if step > 12} == {
            step: value for step, value in ends[1].items() if step > 12
        }


def test_it_is_a_new_run_with_the_whole_story_linked_to_the_old_one(folder: Path, longer: Run, seed_1: Run) -> None:
    assert longer.data.tags["resumed_from"] == seed_1.info.run_id != longer.info.run_id
    assert longer.data.params["train.steps"] == "24"
    losses = curve(folder, longer, "loss/test")
    assert sorted(losses) == [0, 4, 8, 12, 16, 20, 24]
    assert {step: losses[step] for step in (0, 4, 8, 12)} == curve(folder, seed_1, "loss/test")
    from harness.tracking import histograms

    content = (Path(longer.info.artifact_uri) / "histograms.npz").read_bytes()
    assert sorted(histograms.unpack(content)) == [0, 5]
    assert runs(folder, "short")[1].info.end_time == seed_1.info.end_time, "the old run is left as it was"


def test_given_again_it_is_done_already(folder: Path, longer: Run, seed_1: Run) -> None:
    again = [*SHORT, f"+resume_from={seed_1.info.run_id}", "train.steps=24", "sweep.name=longer"]
    code, out, _ = command(folder, again)
    assert code == 0
    assert "1 runs are finished" in out
    assert [run.info.run_id for run in runs(folder, "longer")] == [longer.info.run_id]


def test_what_is_not_said_is_as_the_run_had_it(folder: Path, longer: Run, seed_1: Run) -> None:
    bare = [f"+resume_from={seed_1.info.run_id}", "train.steps=24", "sweep.name=bare"]
    code, out, err = command(folder, bare)
    assert (code, err) == (0, "")
    assert "default seed 1: test accuracy" in out
    (run,) = runs(folder, "bare")
    for tag in ("weights.final", "arm_key", "run_key", "arm"):
        assert run.data.tags[tag] == longer.data.tags[tag], tag
    assert run.data.params == longer.data.params


def planned_key(folder: Path, arguments: Sequence[str]) -> str:
    code, out, err = command(folder, [*arguments, "dry_run=true"])
    assert (code, err) == (0, "")
    (key,) = re.findall(r"[0-9a-f]{16}", out)
    return str(key)


@pytest.mark.parametrize("said", [["train.steps=24"], ["train={steps: 24}"], [*SHORT, "train.steps=24"]], ids=str)
def test_however_it_is_said_it_is_the_arm_that_is_longer_from_the_start(
    said: list[str], folder: Path, seed_1: Run
) -> None:
    scratch = planned_key(folder, [*SHORT, "train.steps=24"])
    assert planned_key(folder, [f"+resume_from={seed_1.info.run_id}", *said]) == scratch


def test_a_run_of_epochs_goes_on_by_steps_and_the_other_way_round(folder: Path) -> None:
    epochs = [word for word in SHORT if not word.startswith("train.steps")]
    epochs = [*epochs, "train.epochs=2", "sweep.name=epochs", "arch.widths=[4]", "seeds=1"]
    assert command(folder, epochs)[0] == 0
    (run,) = runs(folder, "epochs")
    by_steps = [word for word in epochs if not word.startswith("train.epochs")] + ["train.steps=24"]
    on = f"+resume_from={run.info.run_id}"
    assert planned_key(folder, [on, "train.steps=24"]) == planned_key(folder, by_steps)
    assert planned_key(folder, [on, "train.epochs=4"]) == planned_key(folder, [*epochs, "train.epochs=4"])


def test_all_runs_of_an_arm_go_on_together(folder: Path) -> None:
    (arm,) = runs(folder, "short", "arm")
    code, _, err = command(folder, [f"resume_from={arm.info.run_id}", "train.steps=24", "sweep.name=all_longer"])
    assert (code, err) == (0, "")
    ends = [[run.data.tags["weights.final"] for run in runs(folder, sweep)] for sweep in ("all_longer", "long")]
    assert ends[0] == ends[1]


def test_a_run_that_varies_one_stream_goes_on(folder: Path) -> None:
    varied = [*SHORT, "vary=[init]", "sweep.name=varied"]
    assert command(folder, varied)[0] == 0
    origin = runs(folder, "varied")[1]
    more = [f"+resume_from={origin.info.run_id}", "train.steps=24", "sweep.name=varied_on"]
    code, _, err = command(folder, [*varied, *more])
    assert (code, err) == (0, "")
    (gone_on,) = runs(folder, "varied_on")
    assert gone_on.data.tags["resumed_from"] == origin.info.run_id
    assert {gone_on.data.tags[f"seed.{stream}"] == origin.data.tags[f"seed.{stream}"] for stream in STREAMS} == {True}
    assert gone_on.data.tags["weights.initial"] == origin.data.tags["weights.initial"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["train.steps=12"], "train.steps: got 12, but run RUN has taken 12 already; give more"),
        (["arch.widths=[13]"], "arch.widths: got [13], but run RUN had [12]"),
        (["optimizer=sgd"], "optimizer._target_: got keras.optimizers.SGD, but run RUN had keras.optimizers.Adam"),
        (["train.batch_size=9"], "train.batch_size: got 9, but run RUN had 10"),
        (["runtime.precision=mixed_bfloat16"], "runtime.precision: got mixed_bfloat16, but run RUN had float32"),
        (["learning_rate.value=0.1"], "learning_rate: its first 12 steps are not those of run RUN"),
        (["learning_rate=cosine"], "learning_rate: its first 12 steps are not those of run RUN"),
        (["data.path=other.npz"], "data: run RUN saw data of digest "),
        (["root_seed=1"], "root_seed: run RUN had other seeds"),
        (["seeds=[0]"], "seeds: run RUN is seed 1, draw all, which is none of these blocks"),
        (["optimizer=sgd,adam"], "resume_from: got 2 arms"),
        (["learning_rate=step", "learning_rate.schedule.decay_rate=0.5"], "learning_rate: its first 12 steps are not"),
        (["+resume_from=nothing"], "run nothing: "),
        (["tracking.folder=nowhere"], "tracking.folder=nowhere: no mlflow.db there"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_match_is_refused_in_one_line(overrides: list[str], said: str, folder: Path, seed_1: Run) -> None:
    with np.load(folder / "rows.npz") as arrays:
        np.savez(folder / "other.npz", **{**arrays, "x_test": arrays["x_test"][::-1]})
    arguments = [*SHORT, f"+resume_from={seed_1.info.run_id}", "train.steps=24", "sweep.name=refused", *overrides]
    code, out, err = command(folder, arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err.replace(seed_1.info.run_id, "RUN")


def test_what_deletes_a_group_is_refused(folder: Path, seed_1: Run) -> None:
    code, _, err = command(folder, [f"+resume_from={seed_1.info.run_id}", "train.steps=24", "~augment"])
    assert (code, err.count("\n")) == (2, 1)
    assert "over which ~augment cannot be laid; leave it out" in err


def test_a_run_without_its_last_checkpoint_is_refused(folder: Path) -> None:
    (seed_0, _) = runs(folder, "long")
    (file,) = (Path(seed_0.info.artifact_uri) / "checkpoints").iterdir()
    file.unlink()
    arguments = [*SHORT, f"+resume_from={seed_0.info.run_id}", "train.steps=30", "sweep.name=refused"]
    code, _, err = command(folder, arguments)
    assert code == 2
    assert "cannot go on from checkpoints/step_000000024.npz (it is not there)" in err


def test_a_run_that_has_not_finished_is_refused(folder: Path) -> None:
    (arm,) = runs(folder, "long", "arm")
    (report,) = runs(folder, "long", "report")
    from harness.tracking.store import open_store

    client = open_store(None, folder / "mlruns", create=False)
    diverged = client.create_run(arm.info.experiment_id, tags={"kind": "run", "outcome": "diverged", "block": "0"})
    for run, said in ((diverged, "is diverged; only finished runs go on"), (report, "no training run and no arm")):
        if run is diverged:
            for name, value in runs(folder, "long")[0].data.tags.items():
                if name.startswith(("seed.", "draw")):
                    client.set_tag(run.info.run_id, name, value)
        code, _, err = command(
            folder, [*SHORT, f"+resume_from={run.info.run_id}", "train.steps=30", "sweep.name=refused"]
        )
        assert code == 2
        assert said in err, err
