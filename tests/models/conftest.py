"""TensorFlow is set up before the first test here takes an operation."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def _tensorflow(slots: list[str]) -> None:
    """See `slots`."""
