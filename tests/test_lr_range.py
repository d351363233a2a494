"""The learning-rate range test as a person meets it."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest

from harness import lr_range

pytestmark = pytest.mark.usefixtures("slots")
SMALL = ("arch=mlp", "arch.widths=[32]", "optimizer=sgd", "train.batch_size=50", "seeds=1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def command(folder: Path, *arguments: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(folder)
        code = lr_range.main(arguments)
    return code, out.getvalue(), err.getvalue()


def test_it_finds_rates_that_learn_draws_them_and_logs_nothing(folder: Path) -> None:
    code, out, err = command(folder, *SMALL, "--high", "100", "--steps", "120")
    assert (code, err) == (0, "")
    assert "ended    at the rate " in out, "a rate of 100 is far too high"
    assert "plot     reports/lr_range.png" in out
    (line,) = (line for line in out.splitlines() if line.startswith("suggest"))
    assert 1e-3 < float(line.partition("learning_rate.value=")[2].split()[0]) < 1
    assert (folder / "reports" / "lr_range.png").read_bytes().startswith(b"\x89PNG")
    table = np.genfromtxt(folder / "reports" / "lr_range.csv", delimiter=",", names=True)
    assert table["rate"][0] == pytest.approx(1e-6)
    assert 20 < len(table) < 120
    np.testing.assert_allclose(np.diff(np.log(table["rate"])), np.log(1e8) / 119, rtol=1e-5)
    assert sorted(path.name for path in folder.iterdir()) == ["reports"]


def test_the_first_loss_is_that_of_the_initial_weights_and_it_comes_again(folder: Path) -> None:
    first = command(folder, *SMALL, "--high", "1e-5", "--steps", "20", "--plot", "a.svg")
    assert first[0] == 1
    assert first[2] == "no rate from 1e-06 to 1e-05 lowered the loss; try other ends\n"
    assert (folder / "a.svg").read_text().startswith("<svg")
    command(folder, *SMALL, "--high", "1e-5", "--steps", "20", "--plot", "b.svg")
    assert (folder / "a.csv").read_bytes() == (folder / "b.csv").read_bytes()
    losses = np.genfromtxt(folder / "a.csv", delimiter=",", names=True)["loss"]
    assert (losses > 0.5).all()


def test_a_first_rate_that_is_too_high_already_is_said(folder: Path) -> None:
    code, out, err = command(folder, *SMALL, "initializer=normal", "initializer.default.stddev=1e30")
    assert (code, out) == (1, "")
    assert err == "error: --low: the loss is not finite at the rate 1e-06 already; give less\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--low", "0"], "--low: got 0; allowed: a number above 0"),
        (["--low", "nan"], "--low: got nan"),
        (["--low", "1", "--high", "0.1"], "--high: got 0.1; allowed: a number above --low=1"),
        (["--high", "inf"], "--high: got inf"),
        (["--steps", "3"], "--steps: got 3; allowed: 20 up"),
        (["--plot", "x.gif"], "--plot: got x.gif; allowed: a .png or .svg file"),
        (["--plot", "/dev/null/x.png"], "--plot: got /dev/null/x.png; allowed: a file in a folder"),
        (["optimizer=sgd,adam"], "OVERRIDES: got 2 arms; allowed: one arm"),
        (["learning_rate=cosine"], "learning_rate: got a schedule; allowed: constant"),
        (["train.epocs=3"], "train.epocs: unknown key"),
        (["arch=mlp", "arch.activation=rleu"], "rleu"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_makes_no_sense_is_refused_in_one_line(arguments: list[str], said: str, folder: Path) -> None:
    code, out, err = command(folder, *SMALL, *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
    assert [path.name for path in folder.iterdir()] == []
