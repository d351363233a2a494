"""TensorFlow is set up before the first test here takes an operation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from harness.tracking.store import experiment_id, open_store


@pytest.fixture(scope="session", autouse=True)
def _tensorflow(slots: list[str]) -> None:
    """See `slots`."""


@pytest.fixture(scope="session")
def new_store() -> Callable[[Path], MlflowClient]:
    """A new store in a folder."""
    return lambda folder: open_store(None, folder)


@pytest.fixture
def store(tmp_path: Path, new_store: Callable[[Path], MlflowClient]) -> tuple[MlflowClient, str]:
    """A new store, and the experiment `any` in it."""
    client = new_store(tmp_path)
    return client, experiment_id(client, "any", tmp_path / "artifacts")
