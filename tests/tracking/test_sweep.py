"""What MLflow and the frames hold after a small real sweep: one arm that learns, one that diverges."""

from __future__ import annotations

import io
import json
import sqlite3
import warnings
from collections.abc import Callable
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from scipy.stats import t as student

from harness import __version__
from harness.__main__ import main
from harness.bins import EDGES
from harness.data.datasets import Dataset
from harness.streams import Block
from harness.tracking.frames import Results, load
from harness.tracking.store import StoreError, experiment_id, open_store
from harness.tracking.tracker import earlier_runs

WELL, ILL = "learning_rate.value=0.1", "learning_rate.value=1e+30"
SEEDS = [0, 1, 7]


@dataclass
class Done:
    """A finished command."""

    code: int
    out: str
    err: str


def command(folder: Path, *arguments: str) -> Done:
    """Run the command line in this process, in a folder."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(folder)
        code = main(arguments)
    return Done(code, out.getvalue(), err.getvalue())


def save(data: Dataset, path: Path) -> None:
    np.savez(path, x_train=data.x_train, y_train=data.y_train, x_test=data.x_test, y_test=data.y_test)


SWEEP = (
    "sweep.name=tiny",
    "sweep.question=Does a rate of 1e30 learn?",
    f"sweep.baseline={WELL}",
    "learning_rate.value=0.1,1e30",
    "optimizer=sgd",
    "arch=mlp",
    "arch.widths=[8]",
    "data=npz",
    "data.path=rows.npz",
    f"seeds={SEEDS}".replace(" ", ""),
    "train.steps=12",
    "train.batch_size=10",
    "train.val_share=0.2",
    "train.evaluate={at:[0],every:4}",
    "train.probe={at:[0,1,5],examples:16}",
    "train.checkpoint={every:3,at:[],keep:2}",
)


@dataclass
class Swept:
    """A folder in which SWEEP has run, and its store."""

    folder: Path
    done: Done
    client: MlflowClient
    experiment: str

    def runs(self, where: str) -> list[Run]:
        return list(self.client.search_runs([self.experiment], where, order_by=["attributes.start_time ASC"]))

    def run(self, arm: str, block: int) -> Run:
        (found,) = self.runs(f"tags.kind = 'run' and tags.arm = '{arm}' and tags.block = '{block}'")
        return found

    def artifacts(self, run: Run, folder: str | None = None) -> set[str]:
        listed = self.client.list_artifacts(run.info.run_id, folder)
        return {file.path for file in listed if not file.is_dir} | {
            path for file in listed if file.is_dir for path in self.artifacts(run, file.path)
        }

    def content(self, run: Run, name: str) -> bytes:
        return (Path(run.info.artifact_uri) / name).read_bytes()

    def curve(self, run: Run, metric: str) -> dict[int, float]:
        return {point.step: point.value for point in self.client.get_metric_history(run.info.run_id, metric)}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, rows: Dataset) -> Swept:
    folder = tmp_path_factory.mktemp("swept")
    save(rows, folder / "rows.npz")
    done = command(folder, *SWEEP)
    assert done.code == 0, done
    client = open_store(None, folder / "mlruns", create=False)
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    return Swept(folder, done, client, experiment.experiment_id)


@pytest.fixture(scope="module")
def results(swept: Swept) -> Results:
    return load("tiny", folder=swept.folder / "mlruns")


# Runs


def test_an_experiment_is_a_sweep_with_its_question(swept: Swept) -> None:
    experiment = swept.client.get_experiment(swept.experiment)
    assert experiment.tags["mlflow.note.content"] == "Does a rate of 1e30 learn?"
    assert experiment.artifact_location == str(swept.folder / "mlruns" / "artifacts" / "tiny")


def test_there_is_a_parent_an_arm_a_child_a_block_and_one_run_for_the_report(swept: Swept) -> None:
    parents = {run.info.run_id: run.data.tags["arm"] for run in swept.runs("tags.kind = 'arm'")}
    assert sorted(parents.values()) == [WELL, ILL]
    children = swept.runs("tags.kind = 'run'")
    assert sorted((run.data.tags["arm"], int(run.data.tags["block"])) for run in children) == [
        (arm, seed) for arm in (WELL, ILL) for seed in SEEDS
    ]
    assert all(parents[run.data.tags["mlflow.parentRunId"]] == run.data.tags["arm"] for run in children)
    assert len(swept.runs("tags.kind = 'report'")) == 1


def test_every_run_has_ended(swept: Swept) -> None:
    assert {run.info.status for run in swept.runs("")} == {"FINISHED"}


def test_tags_make_a_run_searchable_and_say_where_it_comes_from(swept: Swept, rows: Dataset) -> None:
    tags = swept.run(WELL, 7).data.tags
    assert {name: tags[name] for name in ("sweep", "arm", "block", "draw", "outcome", "outcome.step", "device")} == {
        "sweep": "tiny",
        "arm": WELL,
        "block": "7",
        "draw": "all",
        "outcome": "finished",
        "outcome.step": "12",
        "device": "/CPU:0",
    }
    assert tags["mlflow.runName"] == f"{WELL} seed 7"
    assert {stream: tags[f"seed.{stream}"] for stream in Block.of(7).seeds} == {
        stream: str(value) for stream, value in Block.of(7).seeds.items()
    }
    assert tags["data.digest"] == rows.digest
    for name in ("arm_key", "run_key", "weights.initial", "weights.final"):
        assert len(tags[name]) == 16, name
    assert {"host", "pid", "process_started", "command"} <= tags.keys()


def test_blocks_start_differently_and_arms_of_a_block_alike(swept: Swept) -> None:
    starts = {(arm, seed): swept.run(arm, seed).data.tags["weights.initial"] for arm in (WELL, ILL) for seed in SEEDS}
    assert len(set(starts.values())) == 3
    assert all(starts[WELL, seed] == starts[ILL, seed] for seed in SEEDS)


def test_params_are_the_config_of_what_was_trained(swept: Swept) -> None:
    params = swept.run(WELL, 0).data.params
    assert params["learning_rate.value"] == "0.1"
    assert params["arch"] == "mlp"
    assert params["arch.widths"] == "[8]"
    assert params["train.steps"] == "12"
    assert params["runtime.precision"] == "float32"
    assert not [name for name in params if name.startswith(("tracking", "seeds", "reports", "runtime.replicas"))]


def test_curves_are_step_metrics(swept: Swept) -> None:
    run = swept.run(WELL, 0)
    for metric in ("loss/train", "loss/val", "loss/test", "accuracy/test", "gap/accuracy"):
        assert list(swept.curve(run, metric)) == [0, 4, 8, 12], metric
    for metric in ("loss/batch", "learning_rate", "examples_per_second"):
        assert list(swept.curve(run, metric)) == [4, 8, 12], metric
    gaps = swept.curve(run, "gap/loss")
    assert gaps[12] == pytest.approx(swept.curve(run, "loss/train")[12] - swept.curve(run, "loss/test")[12])


def test_moments_of_layers_are_step_metrics(swept: Swept) -> None:
    run = swept.run(WELL, 0)
    assert list(swept.curve(run, "dense1/activation.mean")) == [0, 1, 5]
    assert list(swept.curve(run, "dense1/update.ratio")) == [1, 5]
    assert {"dense1/activation.dead", "logits/pre_activation.std", "logits/gradient.std"} <= run.data.metrics.keys()


def test_a_finished_run_keeps_its_files(swept: Swept) -> None:
    run = swept.run(WELL, 0)
    assert swept.artifacts(run) == {
        "config.yaml",
        "provenance.json",
        "histograms.npz",
        "predictions.npz",
        "model.keras",
        "checkpoints/step_000000009.npz",
        "checkpoints/step_000000012.npz",
    }
    config = yaml.safe_load(swept.content(run, "config.yaml"))
    assert config["learning_rate"] == {"value": 0.1, "warmup": 0, "schedule": None}
    provenance = json.loads(swept.content(run, "provenance.json"))
    assert provenance["versions"]["harness"] in (__version__, "not installed")
    assert provenance["seeds"] == Block.of(0).seeds
    assert provenance["run_key"] == run.data.tags["run_key"]


def test_the_histograms_of_a_run_add_up(swept: Swept) -> None:
    with np.load(io.BytesIO(swept.content(swept.run(WELL, 0), "histograms.npz"))) as file:
        data = {name: file[name] for name in file.files}
    assert data["steps"].tolist() == [0, 1, 5]
    place = data["arrays"].tolist().index("dense1/activation")
    assert data["counts"][:, place].sum(axis=1).tolist() == [16 * 8] * 3
    np.testing.assert_array_equal(data["edges"], EDGES)


def test_the_predictions_of_a_run_give_its_accuracy(swept: Swept, rows: Dataset) -> None:
    run = swept.run(WELL, 0)
    with np.load(io.BytesIO(swept.content(run, "predictions.npz"))) as file:
        accuracy = (file["test_logits"].argmax(axis=1) == rows.y_test).mean()
    assert accuracy == run.data.metrics["accuracy/test"]


def test_a_diverged_run_is_recorded_with_its_step_and_ends_finished(swept: Swept) -> None:
    run = swept.run(ILL, 0)
    assert run.info.status == "FINISHED"
    assert run.data.tags["outcome"] == "diverged"
    assert 0 < int(run.data.tags["outcome.step"]) < 12
    assert "not finite" in run.data.tags["outcome.reason"]
    assert "weights.final" not in run.data.tags
    assert not {"model.keras", "predictions.npz"} & swept.artifacts(run)
    assert all(np.isfinite(value) for value in run.data.metrics.values())


# Arms


def test_an_arm_carries_the_mean_and_the_t_interval_over_its_seeds(swept: Swept) -> None:
    (parent,) = swept.runs(f"tags.kind = 'arm' and tags.arm = '{WELL}'")
    for metric in ("accuracy/test", "loss/train", "gap/loss"):
        histories = [swept.curve(swept.run(WELL, seed), metric) for seed in SEEDS]
        for step in (0, 4, 8, 12):
            values = np.array([history[step] for history in histories])
            half = student.ppf(0.975, 2) * values.std(ddof=1) / np.sqrt(3)
            assert swept.curve(parent, f"{metric}.mean")[step] == pytest.approx(values.mean())
            assert swept.curve(parent, f"{metric}.ci_low")[step] == pytest.approx(values.mean() - half)
            assert swept.curve(parent, f"{metric}.ci_high")[step] == pytest.approx(values.mean() + half)


def test_an_arm_carries_its_counts_and_figures(swept: Swept) -> None:
    (well,) = swept.runs(f"tags.kind = 'arm' and tags.arm = '{WELL}'")
    assert (well.data.tags["runs.finished"], well.data.tags["runs.diverged"]) == ("3", "0")
    names = {f"figures/{name}.png" for name in ("learning_curves", "activation_histograms", "confusion_matrix")}
    assert names | {"figures/worst_mistakes.png"} <= swept.artifacts(well)
    assert swept.content(well, "figures/learning_curves.png").startswith(b"\x89PNG")


def test_an_arm_of_diverged_runs_has_no_aggregates(swept: Swept) -> None:
    (ill,) = swept.runs(f"tags.kind = 'arm' and tags.arm = '{ILL}'")
    assert (ill.data.tags["runs.finished"], ill.data.tags["runs.diverged"]) == ("0", "3")
    assert not ill.data.metrics
    assert ill.info.status == "FINISHED"


# The end of a sweep


def test_the_sweep_ends_with_its_table_its_report_and_where_to_look(swept: Swept) -> None:
    assert "Does a rate of 1e30 learn?" in swept.done.out
    assert f"{WELL}" in swept.done.out
    assert "reports/tiny" in swept.done.out
    assert (swept.folder / "reports" / "tiny" / "index.html").is_file()
    assert "mlflow server" in swept.done.out
    assert swept.done.err == ""


def test_finished_and_diverged_runs_are_not_run_again(swept: Swept) -> None:
    before = {run.info.run_id for run in swept.runs("")}
    done = command(swept.folder, *SWEEP)
    assert done.code == 0, done
    assert "6 runs are finished" in done.out
    assert {run.info.run_id for run in swept.runs("")} == before
    assert {run.info.status for run in swept.runs("")} == {"FINISHED"}


def test_a_plan_says_what_is_done_and_changes_nothing(swept: Swept, tmp_path: Path) -> None:
    done = command(swept.folder, *SWEEP, "dry_run=true")
    assert done.code == 0
    assert "0 of 6 runs would train, on seed 0, seed 1, seed 7" in done.out
    more = [word for word in SWEEP if not word.startswith("seeds=")]
    assert "2 of 4 runs would train" in command(swept.folder, *more, "seeds=[7,9]", "dry_run=true").out
    assert "6 of 6 runs would train" in command(swept.folder, *SWEEP, "rerun=true", "dry_run=true").out
    save_to = tmp_path / "rows.npz"
    save_to.write_bytes((swept.folder / "rows.npz").read_bytes())
    fresh = command(tmp_path, *SWEEP, "dry_run=true")
    assert fresh.code == 0
    assert "6 of 6 runs would train" in fresh.out
    assert [path.name for path in tmp_path.iterdir()] == ["rows.npz"]


# Frames


def test_a_run_bears_the_name_that_its_arm_has_now(tmp_path: Path, rows: Dataset, slots: list[str]) -> None:
    save(rows, tmp_path / "rows.npz")
    words = ("sweep.name=grows", *SWEEP[5:-5], "seeds=1", "train.steps=2", "train.batch_size=10", "train.probe.at=[]")
    for optimizer in ("sgd", "adam,sgd"):
        done = command(tmp_path, *words, f"optimizer={optimizer}")
        assert (done.code, done.out.count("seed 0: test accuracy")) == (0, 1), done
    assert load("grows", folder=tmp_path / "mlruns").runs["arm"].tolist() == ["optimizer=adam", "optimizer=sgd"]
    assert "missing" not in done.out


def test_a_plan_on_a_server_that_is_not_there_is_refused(tmp_path: Path, slots: list[str]) -> None:
    done = command(tmp_path, "arch=softmax", "tracking.uri=http://127.0.0.1:9", "dry_run=true")
    assert done.code == 2
    assert done.err.startswith("error: tracking.uri=http://127.0.0.1:9: no MLflow server answers")


def test_runs_are_one_row_each(results: Results) -> None:
    runs = results.runs
    assert len(runs) == 6
    assert runs["run_id"].is_unique
    assert set(runs["arm"]) == {WELL, ILL}
    assert sorted(runs.loc[runs["arm"] == WELL, "block"]) == SEEDS
    assert (runs.loc[runs["arm"] == ILL, "outcome"] == "diverged").all()
    assert runs.loc[runs["arm"] == ILL, "accuracy/test"].isna().all()
    assert runs.loc[runs["arm"] == WELL, "accuracy/test"].notna().all()


def test_curves_are_tidy_and_end_where_the_runs_end(results: Results) -> None:
    curves = results.curves
    assert not curves.duplicated(["run_id", "step", "metric"]).any()
    last = curves[(curves["metric"] == "loss/test") & (curves["step"] == 12)].set_index("run_id")["value"]
    runs = results.runs.set_index("run_id")
    finished = runs[runs["outcome"] == "finished"]
    assert last.sort_index().to_dict() == finished["loss/test"].sort_index().to_dict()
    assert not curves["metric"].str.contains(".", regex=False).any()


def test_layers_hold_the_moments_that_are_step_metrics_too(results: Results, swept: Swept) -> None:
    run = swept.run(WELL, 1)
    layers = results.layers
    mine = layers[
        (layers["run_id"] == run.info.run_id)
        & (layers["layer"] == "dense1")
        & (layers["array"] == "activation")
        & (layers["moment"] == "mean")
    ]
    assert mine.set_index("step")["value"].to_dict() == pytest.approx(swept.curve(run, "dense1/activation.mean"))


def test_histograms_hold_the_bins_that_are_not_empty(results: Results, swept: Swept) -> None:
    frame = results.histograms
    mine = frame[
        (frame["run_id"] == swept.run(WELL, 0).info.run_id)
        & (frame["layer"] == "dense1")
        & (frame["array"] == "weight")
        & (frame["step"] == 0)
    ]
    assert mine["count"].sum() == 64 * 8
    assert (mine["count"] > 0).all()
    assert (mine["low"] < mine["high"]).all()


def test_mean_histograms_are_shares_over_the_seeds(results: Results) -> None:
    steps, names, shares = results.mean_histograms(WELL)
    assert steps.tolist() == [0, 1, 5]
    np.testing.assert_allclose(shares[:, names.index("dense1/activation")].sum(axis=-1), 1)


def test_the_harness_loads_a_sweep_by_name(swept: Swept) -> None:
    import harness

    assert len(harness.load("tiny", folder=swept.folder / "mlruns").runs) == 6


def test_a_sweep_that_is_not_there_is_refused_with_those_that_are(swept: Swept) -> None:
    with pytest.raises(StoreError, match="sweep 'tinny': not in this store; there are: tiny"):
        load("tinny", folder=swept.folder / "mlruns")


# Trouble


def test_a_database_that_fails_in_the_middle_ends_the_sweep_with_its_cause(
    tmp_path: Path, rows: Dataset, new_store: Callable[[Path], MlflowClient]
) -> None:
    save(rows, tmp_path / "rows.npz")
    new_store(tmp_path / "mlruns")
    with closing(sqlite3.connect(tmp_path / "mlruns" / "mlflow.db")) as connection:
        connection.execute(
            "CREATE TRIGGER full BEFORE INSERT ON metrics WHEN NEW.step >= 8 "
            "BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error", pytest.PytestUnhandledThreadExceptionWarning)
        done = command(tmp_path, *SWEEP)
    assert done.code == 2
    kept = "what could not be is kept here, and written when the sweep is started again"
    assert done.err == f"error: MLflow could not be written: the disk is full; {kept}\n"
    with closing(sqlite3.connect(tmp_path / "mlruns" / "mlflow.db")) as connection:
        connection.execute("DROP TRIGGER full")
    assert command(tmp_path, *SWEEP).code == 0
    assert not list((tmp_path / "mlruns" / "unwritten").iterdir())
    curves = load("tiny", folder=tmp_path / "mlruns").curves
    steps = curves[(curves["arm"] == WELL) & (curves["metric"] == "loss/test")].groupby("block")["step"].apply(list)
    assert steps.tolist() == [[0, 4, 8, 12]] * 3


def started(client: MlflowClient, experiment: str, key: str, process: dict[str, str], status: str = "RUNNING") -> str:
    tags = {"kind": "run", "arm_key": "a", "run_key": key, **process}
    run = client.create_run(experiment, tags=tags)
    if status == "FINISHED":
        client.set_tag(run.info.run_id, "outcome", "finished")
    if status != "RUNNING":
        client.set_terminated(run.info.run_id, status)
    return str(run.info.run_id)


@pytest.fixture
def empty(tmp_path: Path, new_store: Callable[[Path], MlflowClient]) -> tuple[MlflowClient, str]:
    client = new_store(tmp_path)
    return client, experiment_id(client, "any", tmp_path / "artifacts")


def test_runs_of_dead_processes_are_closed_and_those_of_living_ones_left(
    empty: tuple[MlflowClient, str],
) -> None:
    from harness.tracking.provenance import process

    client, experiment = empty
    alive = started(client, experiment, "alive", process())
    dead = started(client, experiment, "dead", process() | {"process_started": "1.00"})
    elsewhere = started(client, experiment, "elsewhere", process() | {"host": "another"})
    found = earlier_runs(client, experiment, ["a"], reconcile=True)
    assert {key: (earlier.finished, earlier.alive) for key, earlier in found.items()} == {
        "alive": (False, True),
        "dead": (False, False),
        "elsewhere": (False, True),
    }
    statuses = {run: client.get_run(run).info.status for run in (alive, dead, elsewhere)}
    assert statuses == {alive: "RUNNING", dead: "KILLED", elsewhere: "RUNNING"}


def test_a_finished_run_goes_before_an_interrupted_one(empty: tuple[MlflowClient, str]) -> None:
    client, experiment = empty
    finished = started(client, experiment, "k", {}, "FINISHED")
    started(client, experiment, "k", {}, "KILLED")
    assert earlier_runs(client, experiment, ["a"])["k"].run_id == finished


def test_a_finished_run_without_an_outcome_is_not_finished(empty: tuple[MlflowClient, str]) -> None:
    client, experiment = empty
    started(client, experiment, "k", {}, "KILLED")
    run = client.create_run(experiment, tags={"kind": "run", "arm_key": "a", "run_key": "l"})
    client.set_terminated(run.info.run_id, "FINISHED")
    assert not earlier_runs(client, experiment, ["a"])["l"].finished


def test_passwords_are_stored_nowhere(monkeypatch: pytest.MonkeyPatch, config_of: Callable[..., object]) -> None:
    from harness.runner import config_yaml
    from harness.tracking.provenance import command_line

    uri = "tracking.uri=http://user:s3cret@127.0.0.1:5000"
    monkeypatch.setattr("sys.argv", ["harness", uri])
    assert command_line() == "harness tracking.uri=http://127.0.0.1:5000"
    assert b"s3cret" not in config_yaml(config_of(uri))  # type: ignore[arg-type]
