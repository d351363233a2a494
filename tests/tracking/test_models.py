"""Nets as MLflow models: of which runs, and that MLflow loads and serves them where there is no harness."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from scipy.special import softmax

from harness.__main__ import main
from harness.data.datasets import Dataset
from harness.tracking import models
from harness.tracking.frames import Results
from harness.tracking.store import open_store

SWEEP = (
    "arch=mlp",
    "arch.widths=[8]",
    "data=npz",
    "data.path=rows.npz",
    "seeds=2",
    "reports=null",
    "learning_rate.value=0.01,0.1",
    "train.steps=6",
    "train.batch_size=10",
    "train.val_share=0.2",
    "train.probe.at=[]",
    "sweep.name=tiny",
)


def command(folder: Path, *arguments: str) -> tuple[int, str]:
    err = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()), redirect_stderr(err):
        patch.chdir(folder)
        return main(arguments), err.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, rows: Dataset) -> Path:
    """Two arms of two seeds, the best of each logged as an MLflow model."""
    folder = tmp_path_factory.mktemp("models")
    np.savez(folder / "rows.npz", x_train=rows.x_train, y_train=rows.y_train, x_test=rows.x_test, y_test=rows.y_test)
    code, err = command(folder, *SWEEP, "tracking.log_model=best")
    assert code == 0, err
    return folder


@pytest.fixture(scope="module")
def client(folder: Path) -> MlflowClient:
    return open_store(None, folder / "mlruns", create=False)


@pytest.fixture(scope="module")
def logged(client: MlflowClient) -> list[Run]:
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.kind = 'run'")
    return [run for run in runs if (Path(run.info.artifact_uri) / "model" / "MLmodel").exists()]


def test_the_best_run_of_each_arm_by_validation_is_logged(
    folder: Path, client: MlflowClient, logged: list[Run]
) -> None:
    runs = Results(client, "tiny").runs
    assert len(runs) == 4
    best = runs.loc[runs.sort_values("block").groupby("arm")["accuracy/val"].idxmax(), "run_id"]
    assert sorted(run.info.run_id for run in logged) == sorted(best)
    for run in logged:
        assert run.data.tags["mlflow_model"] == f"runs:/{run.info.run_id}/model"


def test_all_means_every_finished_run_and_none_is_logged_twice(client: MlflowClient, logged: list[Run]) -> None:
    results = Results(client, "tiny")
    before = {run.info.run_id for run in logged}
    assert models.log(client, results, "none") == []
    assert set(models.log(client, results, "all")) == set(results.runs["run_id"]) - before
    assert models.log(client, results, "all") == []


def expected(run: Run, rows: Dataset) -> np.ndarray:
    with np.load(Path(run.info.artifact_uri) / "predictions.npz") as file:
        return softmax(file["test_logits"].astype(float), axis=1)


def test_mlflow_loads_it_by_its_run(
    folder: Path, logged: list[Run], rows: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    path = sys.path.copy()
    monkeypatch.setattr("sys.path", path)
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlruns' / 'mlflow.db'}")
    try:
        model = mlflow.pyfunc.load_model(logged[0].data.tags["mlflow_model"])
    finally:
        mlflow.set_tracking_uri(None)
    found = model.predict(rows.x_test)
    assert isinstance(found, pd.DataFrame)
    assert list(found) == ["0", "1", "2"]
    np.testing.assert_allclose(found, expected(logged[0], rows), atol=1e-5)
    np.testing.assert_allclose(model.predict(rows.x_test[..., 0]), found)
    with pytest.raises(ValueError, match=r"inputs: got shape \(2, 3, 3\); the net takes \(n, 8, 8, 1\)"):
        model.predict(np.zeros((2, 3, 3)))


@pytest.mark.slow
def test_mlflow_serves_it_where_there_is_no_harness(logged: list[Run], rows: Dataset, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    model = Path(logged[0].info.artifact_uri) / "model"
    serve = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(model), "--env-manager", "local"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    beside = str(Path(sys.executable).parent)  # MLflow calls `uvicorn`, which an environment not activated has off PATH
    environment["PATH"] = os.pathsep.join([beside, environment["PATH"]])
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [*serve, "-h", "127.0.0.1", "-p", str(port)],
            cwd=tmp_path,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        patience = time.monotonic() + 90
        while not answers(f"http://127.0.0.1:{port}/ping"):
            assert server.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < patience, (tmp_path / "log").read_text()
            time.sleep(0.1)
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            json.dumps({"inputs": rows.x_test[:3].tolist()}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            found = pd.DataFrame(json.load(answer)["predictions"])
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)
    np.testing.assert_allclose(found[["0", "1", "2"]], expected(logged[0], rows)[:3], atol=1e-5)


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
    return True


def test_best_without_validation_examples_is_refused(tmp_path: Path) -> None:
    code, err = command(tmp_path, "tracking.log_model=best", "train.val_share=0")
    assert code == 2
    assert "tracking.log_model: got 'best'; allowed: all, none, as there are no validation examples" in err
    code, err = command(tmp_path, "tracking.log_model=yes")
    assert code == 2
    assert "allowed: best, all, none" in err
