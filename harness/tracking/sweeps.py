"""A sweep's own run in MLflow (`kind=report`): what was declared before training, and the report after it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run

from harness.tracking import artifacts
from harness.tracking.store import StoreError

PLAN = "plan.json"
CONFIRMATION = "confirmation.json"


@dataclass(frozen=True)
class Declaration:
    """What a sweep set out to do, written down before any training.

    `arms` maps names to arm keys, in order; `blocks` are the names of the blocks; `margin` is in units of the accuracy.
    """

    sweep: str
    question: str = ""
    baseline: str | None = None
    arms: Mapping[str, str] = field(default_factory=dict)
    blocks: Sequence[str] = ()
    family: str = "baseline"
    margin: float | None = None
    correction: str = "holm"
    tune: Sequence[str] = ()
    search: str = "grid"


@dataclass(frozen=True)
class Confirmation:
    """What was run once more on fresh blocks: written down before these are trained.

    `arms` maps the names of the sweep's arms to the keys of the arms that confirm them, `chosen` to their keys in the
    sweep; `baseline` is one of the names; `blocks` are the fresh blocks' names, `chosen_on` the sweep's.
    """

    arms: Mapping[str, str]
    chosen: Mapping[str, str]
    baseline: str
    blocks: Sequence[str]
    chosen_on: Sequence[str]
    run_keys: Sequence[str]


def declare(client: MlflowClient, experiment_id: str, declaration: Declaration, tags: Mapping[str, str]) -> None:
    """Keep the declaration in the sweep's report run, which is made when it is not there."""
    run = _report_run(client, experiment_id)
    if run is None:
        name = {"mlflow.runName": "report", "kind": "report", "sweep": declaration.sweep}
        run = client.create_run(experiment_id, tags={**tags, **name})
    if declaration.question:
        client.set_experiment_tag(experiment_id, "mlflow.note.content", declaration.question)
    artifacts.write(client, run, {PLAN: json.dumps(asdict(declaration), indent=2).encode()})


def declared(client: MlflowClient, experiment_id: str) -> Declaration | None:
    """The declaration of the sweep's last start, or None where there was none."""
    run = _report_run(client, experiment_id)
    content = run and artifacts.read(client, run, PLAN)
    if not content:
        return None
    try:
        return Declaration(**json.loads(content))
    except (TypeError, ValueError) as error:
        raise StoreError(f"{PLAN} of experiment {experiment_id}: written by another version ({error})") from None


def declare_confirmation(client: MlflowClient, experiment_id: str, confirmation: Confirmation) -> None:
    """Keep it beside the sweep's declaration, in place of an earlier one."""
    run = _report_run(client, experiment_id)
    assert run is not None
    artifacts.write(client, run, {CONFIRMATION: json.dumps(asdict(confirmation), indent=2).encode()})


def declared_confirmation(client: MlflowClient, experiment_id: str) -> Confirmation | None:
    """The last confirmation that was set out to, or None."""
    run = _report_run(client, experiment_id)
    content = run and artifacts.read(client, run, CONFIRMATION)
    return Confirmation(**json.loads(content)) if content else None


def log_report(client: MlflowClient, experiment_id: str, folder: Path | None) -> None:
    """End the sweep's report run, with the files of its report in it where there is one."""
    run = _report_run(client, experiment_id)
    if run is not None:
        if folder is not None:
            found = [path for path in folder.rglob("*") if path.is_file()]
            files = {f"report/{path.relative_to(folder)}": path.read_bytes() for path in found}
            artifacts.write(client, run, files)
        client.set_terminated(run.info.run_id)


def _report_run(client: MlflowClient, experiment_id: str) -> Run | None:
    found = client.search_runs([experiment_id], "tags.kind = 'report'", max_results=1)
    return found[0] if found else None
