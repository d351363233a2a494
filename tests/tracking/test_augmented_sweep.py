"""What a sweep over augmentations leaves whose runs stop early: contact sheets, and when they stopped."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import matplotlib.image
import pytest

import harness
from harness.__main__ import main
from harness.tracking.frames import Results

ARMS = ("augment=none", "augment=[flip,crop]")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, slots: list[str]) -> Iterator[tuple[str, Results, Path]]:
    """What was printed, and the results; nothing is learned, so that each run stops at its first evaluation."""
    folder, out = tmp_path_factory.mktemp("augmented"), io.StringIO()
    words = [
        *("sweep.name=small", "seeds=2", "augment=none,[flip,crop]", "reports=null"),
        *("arch=mlp", "arch.widths=[4]", "optimizer=sgd", "learning_rate.value=0"),
        *("regularizer=early_stopping", "regularizer.patience=1"),
        *("train.steps=8", "train.evaluate={at:[0],every:2}", "train.probe.at=[]"),
    ]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out):
        patch.chdir(folder)
        assert main(words) == 0
        yield out.getvalue(), harness.load("small", folder=folder / "mlruns"), folder


def test_the_table_and_the_runs_say_when_they_stopped(swept: tuple[str, Results, Path]) -> None:
    printed, results, _ = swept
    for arm in ARMS:
        (line,) = [line for line in printed.splitlines() if line.startswith(f"│ {arm} ")]
        assert "2 (2 of 2 runs)" in line
    assert results.runs["outcome"].tolist() == ["finished"] * 4
    assert results.runs["outcome.step"].tolist() == [2] * 4
    assert results.runs["stopped.step"].tolist() == ["2"] * 4
    assert results.runs["best.step"].tolist() == ["0"] * 4


def test_one_run_of_an_augmented_arm_has_a_contact_sheet(swept: tuple[str, Results, Path]) -> None:
    _, results, folder = swept
    sheets = list((folder / "mlruns").glob("artifacts/small/*/artifacts/augmented.png"))
    (sheet,) = sheets
    assert sheet.parent.parent.name in results.runs.loc[results.runs["arm"] == ARMS[1], "run_id"].tolist()
    height, width, _ = matplotlib.image.imread(sheet).shape
    assert min(height, width) > 300
