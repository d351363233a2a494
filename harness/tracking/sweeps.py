"""A sweep's own run in MLflow (`kind=report`): what was declared before training, and the report after it."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mlflow import MlflowClient

from harness.tracking.tracker import upload

PLAN = "plan.json"


@dataclass(frozen=True)
class Declaration:
    """What a sweep set out to do, written down before any training.

    `arms` maps names to arm keys, in order; `seeds` are the ids of the blocks.
    """

    sweep: str
    question: str = ""
    baseline: str | None = None
    arms: Mapping[str, str] = field(default_factory=dict)
    seeds: Sequence[int] = ()


def declare(client: MlflowClient, experiment_id: str, declaration: Declaration, tags: Mapping[str, str]) -> str:
    """Keep the declaration in the sweep's report run, made when it is not there; returns the run's id."""
    run_id = _report_run(client, experiment_id)
    if run_id is None:
        name = {"mlflow.runName": "report", "kind": "report", "sweep": declaration.sweep}
        run_id = client.create_run(experiment_id, tags={**tags, **name}).info.run_id
    if declaration.question:
        client.set_experiment_tag(experiment_id, "mlflow.note.content", declaration.question)
    upload(client, run_id, {PLAN: json.dumps(asdict(declaration), indent=2).encode()})
    return run_id


def declared(client: MlflowClient, experiment_id: str) -> Declaration | None:
    """The declaration of the sweep's last start, or None where there was none."""
    run_id = _report_run(client, experiment_id)
    if run_id is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        content = Path(client.download_artifacts(run_id, PLAN, folder)).read_text()
    return Declaration(**json.loads(content))


def log_report(client: MlflowClient, experiment_id: str, folder: Path) -> None:
    """Log the report's files in the sweep's report run, and end it."""
    if (run_id := _report_run(client, experiment_id)) is not None:
        client.log_artifacts(run_id, str(folder), "report")
        client.set_terminated(run_id)


def _report_run(client: MlflowClient, experiment_id: str) -> str | None:
    found = client.search_runs([experiment_id], "tags.kind = 'report'", max_results=1)
    return str(found[0].info.run_id) if found else None
