"""Many facts about one run in as few calls as MLflow's limits allow."""

from collections.abc import Mapping, Sequence

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

MOST_METRICS, MOST_PARAMS, MOST_TAGS = 800, 100, 100  # in one call, which takes 1,000 of all
LONGEST_PARAM = 6000


def log(
    client: MlflowClient,
    run_id: str,
    metrics: Sequence[Metric] = (),
    params: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Log metrics, params (cut to what MLflow takes) and tags (those that say something)."""
    points = list(metrics)
    facts = [Param(name, value[:LONGEST_PARAM]) for name, value in (params or {}).items()]
    marks = [RunTag(name, value) for name, value in (tags or {}).items() if value]
    while points or facts or marks:
        batch = points[:MOST_METRICS], facts[:MOST_PARAMS], marks[:MOST_TAGS]
        client.log_batch(run_id, *batch, synchronous=True)
        points, facts, marks = points[MOST_METRICS:], facts[MOST_PARAMS:], marks[MOST_TAGS:]
