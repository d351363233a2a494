"""Nets as MLflow models, for `mlflow.pyfunc.load_model` and `mlflow models serve`."""

import importlib.util
import json
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from harness.targets import first_line
from harness.tracking import artifacts
from harness.tracking.frames import Results
from harness.tracking.store import StoreError

FOLDER = "model"
REQUIREMENTS = ("tensorflow", "keras", "numpy", "pandas", "mlflow")
"""Named with their versions: MLflow would take seconds to find them out."""
CODE = ("harness.served", "harness.layers")
"""Copied into a model, where they are there: what loads it, and the layers that Keras does not have."""


def log(client: MlflowClient, results: Results, which: str) -> list[str]:
    """Log MLflow models of an arm's finished runs, as `model/` among their artifacts.

    Args:
        client: of the store.
        results: the arm's runs.
        which: all; best: that of the highest validation accuracy, the first of equals; none.

    Returns:
        The ids of the runs that have got one now.

    Raises:
        StoreError: MLflow could not do it.
    """
    runs = results.runs
    if which == "none" or not len(runs):
        return []
    finished = runs[runs["outcome"] == "finished"]
    if which == "best":
        finished = finished.sort_values("accuracy/val", ascending=False, kind="stable")[:1]
    try:
        return [run_id for run_id in finished["run_id"] if log_one(client, run_id)]
    except (MlflowException, OSError) as error:
        raise StoreError(f"tracking.log_model={which}: a model cannot be logged: {first_line(error)}") from None


def log_one(client: MlflowClient, run_id: str) -> bool:
    """Log the MLflow model of one run, unless it has one or lacks a net; whether it was logged."""
    run = client.get_run(run_id)
    net = artifacts.read(client, run, "model.keras")
    if net is None or artifacts.read(client, run, f"{FOLDER}/MLmodel") is not None:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow 3.17 warns of its own type hints
        import mlflow.pyfunc  # takes a second, and most sweeps log no model
        from mlflow.models import Model

    about = json.loads(artifacts.read(client, run, "provenance.json") or b"{}").get("data", {})
    with tempfile.TemporaryDirectory() as name:
        data, target = Path(name) / "data", Path(name) / FOLDER
        data.mkdir()
        (data / "model.keras").write_bytes(net)
        (data / "classes.json").write_text(json.dumps(about["class_names"]))
        found = [importlib.util.find_spec(module) for module in CODE]
        mlflow.pyfunc.save_model(
            target,
            loader_module="served",
            data_path=str(data),
            code_paths=[spec.origin for spec in found if spec is not None and spec.origin],
            pip_requirements=[f"{package}=={version(package)}" for package in REQUIREMENTS],
            mlflow_model=Model(artifact_path=FOLDER, run_id=run_id),
        )
        files = {
            f"{FOLDER}/{path.relative_to(target)}": path.read_bytes() for path in target.rglob("*") if path.is_file()
        }
    artifacts.write(client, run, files)
    client.set_tag(run_id, "mlflow_model", f"runs:/{run_id}/{FOLDER}")
    return True
