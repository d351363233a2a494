"""What is done is read from the database's own tables as MLflow's search would tell it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from harness.tracking import standing
from harness.tracking.standing import TAGS, standings
from harness.tracking.store import experiment_id

NewStore = Callable[[Path], MlflowClient]


def test_the_tables_say_what_the_search_says(
    tmp_path: Path, new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = new_store(tmp_path)
    mine, other = (experiment_id(client, name, tmp_path) for name in ("mine", "other"))
    for number, (arm, status) in enumerate(
        [("a", "FINISHED"), ("a", "FAILED"), ("b", "RUNNING"), ("c", "KILLED"), ("a", "KILLED")]
    ):
        tags = {"kind": "run", "arm_key": arm, "run_key": f"{arm}{number}", "more": "not asked for", "host": "h"}
        run = client.create_run(mine, tags=tags, start_time=1 + number)
        client.set_terminated(run.info.run_id, status)
    client.delete_run(run.info.run_id)
    client.create_run(mine, tags={"kind": "arm", "arm_key": "a"})
    client.create_run(mine)
    client.create_run(other, tags={"kind": "run", "arm_key": "a", "run_key": "a0"})

    def found() -> list[tuple[str, str, dict[str, str]]]:
        listed = standings(client, mine, ["a", "b"])
        return [(run.run_id, run.status, {k: v for k, v in run.tags.items() if k in TAGS}) for run in listed]

    def alone() -> list[str]:
        return [run.status for run in standings(client, mine, [], run_key="a1")]

    by_tables = found()
    assert alone() == ["FAILED"]
    assert [tags["run_key"] for _, _, tags in by_tables] == ["b2", "a1", "a0"]
    assert isinstance(client._tracking_client.store, SqlAlchemyStore)
    monkeypatch.setattr(standing, "SqlAlchemyStore", ())
    assert sorted(found(), key=str) == sorted(by_tables, key=str)
    assert alone() == ["FAILED"]
