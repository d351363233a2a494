"""A tracking server as people run it: PostgreSQL, proxied artifacts, basic auth; credentials from the environment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from servers import DATABASE_SECRET, SECRET, Server
from test_cli import ENVIRONMENT, Done, ended, here, save

from harness.data.datasets import Dataset

WORDS = (
    *("sweep.name=served", "data=npz", "data.path=rows.npz", "arch=mlp", "arch.widths=[12]", "optimizer=sgd,adam"),
    *("seeds=2", "train.steps=12", "train.batch_size=10", "train.evaluate={at:[0],every:4}", "train.probe.at=[0,5]"),
    "train.checkpoint={every:3,at:[],keep:2}",
)
ON_SERVER = ("tracking=server",)


def start(folder: Path, environment: dict[str, str], *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "harness", *words],
        cwd=folder,
        env=ENVIRONMENT | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def client(server: Server, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """A client of the server, for the test's own looks."""
    for name, value in server.user.items():
        monkeypatch.setenv(name, value)
    return MlflowClient(server.uri, server.uri)


def weights(client: MlflowClient, sweep: str) -> dict[tuple[str, str], str]:
    """(arm, block) -> digest of the final weights; each run is there once."""
    experiment = client.get_experiment_by_name(sweep)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.kind = 'run'")
    assert {run.info.status for run in runs} == {"FINISHED"}
    found = {(run.data.tags["arm"], run.data.tags["block"]): run.data.tags["weights.final"] for run in runs}
    assert len(found) == len(runs)
    return found


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, slots: list[str], rows: Dataset) -> dict[tuple[str, str], str]:
    """What the sweep ends in on a store of its own."""
    from harness.tracking.store import open_store

    folder = tmp_path_factory.mktemp("local")
    save(rows, folder)
    done = here(folder, *WORDS)
    assert done.code == 0, done
    return weights(open_store(None, folder / "mlruns"), "served")


@pytest.fixture(scope="module")
def served(server: Server, tmp_path_factory: pytest.TempPathFactory, rows: Dataset) -> tuple[Path, list[Done]]:
    """The sweep started by three processes together, each in a folder of its own, as on three machines."""
    folder = tmp_path_factory.mktemp("machines")
    started = []
    for number in range(3):
        (folder / str(number)).mkdir()
        save(rows, folder / str(number))
        started.append(start(folder / str(number), server.user, *WORDS, *ON_SERVER))
    return folder, [ended(process) for process in started]


def test_three_machines_that_start_a_sweep_together_train_each_run_once_to_the_same_weights(
    served: tuple[Path, list[Done]], client: MlflowClient, local: dict[tuple[str, str], str]
) -> None:
    _, everyone = served
    assert [done.code for done in everyone] == [0, 0, 0], everyone
    assert weights(client, "served") == local
    assert sum(done.out.count("test accuracy 0.") + done.out.count("test accuracy 1.") for done in everyone) == 4
    assert [model.name for model in client.search_registered_models()] == []


def test_mlflow_writes_nothing_between_the_lines_of_the_sweep(served: tuple[Path, list[Done]]) -> None:
    assert not [line for done in served[1] for line in done.out.splitlines() if "View " in line]


def test_artifacts_go_through_the_server(served: tuple[Path, list[Done]], server: Server, client: MlflowClient) -> None:
    folder, _ = served
    assert list(server.artifacts.rglob("model.keras"))
    assert not list(folder.rglob("model.keras"))
    experiment = client.get_experiment_by_name("served")
    assert experiment is not None
    for run in client.search_runs([experiment.experiment_id], "tags.kind = 'run'"):
        assert len(client.list_artifacts(run.info.run_id, "checkpoints")) <= 2


def everything(folder: Path) -> Iterator[bytes]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield path.read_bytes()


def test_credentials_are_in_no_config_log_tag_artifact_or_report(
    served: tuple[Path, list[Done]], server: Server, client: MlflowClient
) -> None:
    folder, everyone = served
    experiment = client.get_experiment_by_name("served")
    assert experiment is not None
    written = [run.data.tags | run.data.params for run in client.search_runs([experiment.experiment_id])]
    assert written
    contents = [*everything(folder), *everything(server.artifacts), server.log.read_bytes(), repr(written).encode()]
    contents += [(done.out + done.err).encode() for done in everyone]
    assert len(contents) > 50
    for secret in (SECRET, DATABASE_SECRET):
        assert not any(secret.encode() in content for content in contents)


@pytest.mark.parametrize("password", [None, "wrong"])
def test_without_the_right_credentials_one_line_says_where_to_put_them(
    password: str | None, server: Server, tmp_path: Path
) -> None:
    given = {"MLFLOW_TRACKING_URI": server.uri}
    if password is not None:
        given |= {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": password}
    done = ended(start(tmp_path, given, "+debug=smoke", "arch=softmax", *ON_SERVER))
    assert done.code == 2
    assert done.err.startswith(f"error: tracking.uri={server.uri}: does not let this user in (401)")
    assert "MLFLOW_TRACKING_USERNAME" in done.err
    assert done.err.count("\n") == 1
    assert password is None or password not in done.err


def test_a_run_of_a_killed_process_goes_on_from_its_checkpoint_on_the_server(
    server: Server, client: MlflowClient, tmp_path: Path, rows: Dataset
) -> None:
    words = (
        *("data=npz", "data.path=rows.npz", "arch=softmax", "seeds=1", "train.steps=6000", "train.batch_size=10"),
        *("train.evaluate={at:[0],every:3000}", "train.probe.at=[0]", "train.checkpoint={every:500,at:[]}"),
        "sweep.name=killed",
    )
    save(rows, tmp_path)
    process = start(tmp_path, server.user, *words, *ON_SERVER)
    patience = time.monotonic() + 100
    while not list(server.artifacts.rglob("step_*.npz")) or not client.get_experiment_by_name("killed"):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < patience
        time.sleep(0.02)
    experiment = client.get_experiment_by_name("killed")
    assert experiment is not None
    while not list((server.artifacts / experiment.experiment_id).rglob("step_*.npz")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (before,) = client.search_runs([experiment.experiment_id], "tags.kind = 'run'")
    assert before.info.status == "RUNNING"
    done = ended(start(tmp_path, server.user, *words, *ON_SERVER))
    assert done.code == 0, done
    whole = here(tmp_path, *words)
    assert whole.code == 0, whole
    from harness.tracking.store import open_store

    assert weights(client, "killed") == weights(open_store(None, tmp_path / "mlruns"), "killed")
    (after,) = client.search_runs([experiment.experiment_id], "tags.kind = 'run'")
    assert after.info.run_id == before.info.run_id
    assert os.listdir(tmp_path / "mlruns")
