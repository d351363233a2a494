"""TensorFlow is set up before the first test here takes an operation; new stores are copies of one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from harness.tracking.store import open_store


@pytest.fixture(scope="session", autouse=True)
def _tensorflow(slots: list[str]) -> None:
    """See `slots`."""


@pytest.fixture(scope="session")
def _template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store: MLflow takes seconds to make one."""
    folder = tmp_path_factory.mktemp("template")
    open_store(None, folder)
    return folder / "mlflow.db"


@pytest.fixture(scope="session")
def new_store(_template: Path) -> Callable[[Path], MlflowClient]:
    """A new store in a folder."""

    def make(folder: Path) -> MlflowClient:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_template, folder / "mlflow.db")
        return open_store(None, folder)

    return make
