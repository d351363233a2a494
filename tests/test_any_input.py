"""Whatever is handed to the harness ends in a result or in one clear line; `scripts/soak.py input` tries more."""

from __future__ import annotations

import math
from pathlib import Path

import anything
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from test_cli import here

pytestmark = pytest.mark.usefixtures("slots", "_cache")


@pytest.fixture(scope="module")
def _cache() -> None:
    """What is composed once takes longer than a case."""
    anything.composed()


def few(count: int) -> settings:
    """The same cases every time."""
    return settings(
        max_examples=count, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )


@few(80)
@given(anything.changes)
def test_any_values_of_any_keys(changes: list[tuple[str, object]]) -> None:
    anything.try_changes(changes)


@few(30)
@given(anything.words)
def test_any_words_of_a_command_line(words: list[str]) -> None:
    anything.try_words(words)


@few(80)
@given(anything.arrays())
def test_any_arrays(arrays: dict[str, np.ndarray]) -> None:
    anything.try_arrays(arrays)


@few(40)
@given(anything.folders())
def test_any_folder_of_pictures(files: list[tuple[str, str]]) -> None:
    anything.try_folder(files)


def test_what_is_drawn_is_sometimes_right_and_mostly_wrong() -> None:
    seen: dict[str, list[bool]] = {"arrays": [], "folders": []}

    @few(150)
    @given(anything.arrays(), anything.folders())
    def both(arrays: dict[str, np.ndarray], files: list[tuple[str, str]]) -> None:
        seen["arrays"].append(anything.try_arrays(arrays) is None)
        seen["folders"].append(anything.try_folder(files) is None)

    both()
    for taken in seen.values():
        assert 0 < sum(taken) < len(taken)


@pytest.mark.parametrize("wrong", ["empty", "nan", "one class", "labels", "object", "pictures"])
def test_what_is_refused_leaves_nothing_behind(wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = np.random.default_rng(0).random((12, 4, 4)).astype(np.float32), np.arange(12) % 3
    given_files = {"x_train": x, "y_train": y, "x_test": x, "y_test": y}
    change: dict[str, dict[str, np.ndarray]] = {
        "empty": {"x_train": x[:0], "y_train": y[:0]},
        "nan": {"x_train": np.full_like(x, math.nan)},
        "one class": {"y_train": y * 0, "y_test": y * 0},
        "labels": {"y_test": y + 7},
        "object": {"x_test": np.array([object()] * 12)},
    }
    np.savez(tmp_path / "any.npz", **(given_files | change.get(wrong, {})))  # type: ignore[arg-type]
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    for path, kind in (("p/a/1.png", "png"), ("p/b/2.jpg", "text")):
        anything.make(tmp_path / path, kind)
    data = ("data=image_folder", "data.path=p") if wrong == "pictures" else ("data=npz", "data.path=any.npz")
    done = here(tmp_path, *data, "arch=softmax", "train.batch_size=2", "train.steps=2")
    assert done.code == 2, done
    assert done.err.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.err
    assert {path.name for path in tmp_path.iterdir()} <= {"any.npz", "p", "cache"}
