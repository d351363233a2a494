"""TensorFlow is set up before the first test here takes an operation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from harness.tracking.store import open_store


@pytest.fixture(scope="session", autouse=True)
def _tensorflow(slots: list[str]) -> None:
    """See `slots`."""


@pytest.fixture(scope="session")
def new_store() -> Callable[[Path], MlflowClient]:
    """A new store in a folder."""
    return lambda folder: open_store(None, folder)
