"""Classifying with a stored net, without the code that built it."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness import predict
from harness.__main__ import main

SMALL = (
    "arch=mlp",
    "arch.widths=[8]",
    "seeds=1",
    "reports=null",
    "train.steps=40",
    "train.batch_size=8",
    "learning_rate.value=0.02",
    "train.evaluate={at:[],every:null}",
    "train.probe.at=[]",
    "sweep.name=small",
)


def quietly(folder: Path, program: object, arguments: Sequence[str]) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(folder)
        code = program(arguments)  # type: ignore[operator]
    return code, out.getvalue(), err.getvalue()


def train(folder: Path, *overrides: str) -> str:
    """Train one run; its id."""
    from harness.tracking.store import open_store

    code, _, err = quietly(folder, main, [*SMALL, *overrides])
    assert code == 0, err
    client = open_store(None, folder / "mlruns", create=False)
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.kind = 'run'", order_by=["start_time DESC"])
    return str(runs[0].info.run_id)


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory, slots: list[str]) -> tuple[Path, str]:
    """A folder with red cats and blue dogs in pictures of any size, and a run that has learned to tell them apart."""
    folder = tmp_path_factory.mktemp("pets")
    rng = np.random.default_rng(0)
    for name, colour in (("cat", (220, 30, 30)), ("dog", (30, 30, 220))):
        (folder / "pets" / name).mkdir(parents=True)
        for number in range(12):
            pixels = np.clip(rng.normal(colour, 20, (6 + number, 9, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "pets" / name / f"{number}.jpg")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_CACHE", str(folder / "cache"))
        run = train(folder, "data=image_folder", "data.path=pets", "data.image_size=6")
    return folder, run


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory, slots: list[str]) -> tuple[Path, str]:
    """A run on the spiral, in a folder of its own."""
    folder = tmp_path_factory.mktemp("points")
    return folder, train(folder, "data=spiral", "data.examples=100")


def refusal(folder: Path, *arguments: str) -> str:
    code, out, err = quietly(folder, predict.main, arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def test_pictures_of_any_size_get_classes_by_name_in_order_of_probability(pets: tuple[Path, str]) -> None:
    folder, run = pets
    Image.new("RGB", (300, 40), (200, 0, 0)).save(folder / "red.png")
    Image.new("RGB", (5, 70), (0, 0, 200)).save(folder / "blue.jpg")
    code, out, err = quietly(folder, predict.main, [run, "red.png", "blue.jpg"])
    assert (code, err) == (0, "")
    red, blue = (line.split("  ") for line in out.splitlines())
    assert (red[0], red[1].split()[0]) == ("red.png", "cat")
    assert (blue[0], blue[1].split()[0]) == ("blue.jpg", "dog")
    for line in (red, blue):
        first, second = (float(cell.split()[1]) for cell in line[1:])
        assert first > 0.9
        assert first + second == pytest.approx(1, abs=2e-4)


def test_the_raw_arrays_of_a_file_give_the_stored_predictions(pets: tuple[Path, str], points: tuple[Path, str]) -> None:
    from harness.data.spiral import spiral

    folder, run = points
    np.savez(folder / "test.npz", x=spiral(examples=100).x_test)
    code, out, _ = quietly(folder, predict.main, [run, "--npz", "test.npz", "--top", "1"])
    assert code == 0
    (stored,) = folder.glob(f"mlruns/artifacts/small/{run}/artifacts/predictions.npz")
    with np.load(stored) as file:
        logits = file["test_logits"]
    for number, (line, row) in enumerate(zip(out.splitlines(), logits, strict=True)):
        name, best = line.split("  ")
        assert name == f"test.npz[{number}]"
        assert int(best.split()[0]) == row.argmax()
        assert float(best.split()[1]) == pytest.approx(1 / (1 + np.exp(-abs(row[0] - row[1]))), abs=1e-3)


def test_the_code_that_built_the_net_is_never_imported(pets: tuple[Path, str]) -> None:
    folder, run = pets
    code = (
        "import sys; from harness import predict\n"
        f"code = predict.main([{run!r}, 'pets/cat/0.jpg', '--top', '1'])\n"
        "built = [name for name in sys.modules if name.startswith(('harness.models', 'harness.training', 'hydra'))]\n"
        "print(code, built)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    first, last = done.stdout.splitlines()
    assert first.startswith("pets/cat/0.jpg  cat ")
    assert last == "0 []"


def test_digits_read_pictures_in_their_own_range(pets: tuple[Path, str]) -> None:
    folder, run = pets
    classifier = predict.load(run, folder=folder / "mlruns")
    Image.new("RGB", (6, 6), (255, 0, 51)).save(folder / "colour.png")
    assert classifier.picture(folder / "colour.png")[0, 0].tolist() == [255, 0, 51]
    sixteen = predict.Classifier(classifier.model, classifier.class_names, (0, 16))
    np.testing.assert_allclose(sixteen.picture(folder / "colour.png")[0, 0], [16, 0, 3.2], rtol=1e-6)


def test_what_cannot_be_classified_is_one_line(pets: tuple[Path, str], points: tuple[Path, str]) -> None:
    folder, run = pets
    (folder / "text.png").write_text("hello")
    np.savez(folder / "other.npz", x=np.zeros((3, 5, 5, 3)))
    np.savez(folder / "two.npz", a=np.zeros(3), b=np.zeros(3))
    np.savez(folder / "nan.npz", x=np.full((1, 6, 6, 3), np.nan))
    np.save(folder / "one.npy", np.zeros(3))
    assert "text.png: no JPEG or PNG image" in refusal(folder, run, "pets/cat/0.jpg", "text.png")
    assert "nowhere.png: No such file" in refusal(folder, run, "nowhere.png")
    assert "x has shape (3, 5, 5, 3); the net takes (N, 6, 6, 3)" in refusal(folder, run, "--npz", "other.npz")
    assert "two.npz: no array x (found a, b)" in refusal(folder, run, "--npz", "two.npz")
    assert "nan.npz: x holds values that are not finite" in refusal(folder, run, "--npz", "nan.npz")
    assert "one.npy: no .npz file" in refusal(folder, run, "--npz", "one.npy")
    assert "text.png: no .npz file" in refusal(folder, run, "--npz", "text.png")
    assert "nothing to classify" in refusal(folder, run)
    assert "--top: got 0" in refusal(folder, run, "x.png", "--top", "0")
    assert "takes 2 numbers, not pictures; give --npz" in refusal(points[0], points[1], str(folder / "text.png"))


def test_a_run_that_is_not_there_or_has_no_net_is_one_line(pets: tuple[Path, str], tmp_path: Path) -> None:
    folder, run = pets
    assert "run 0123: " in refusal(folder, "0123", "pets/cat/0.jpg")
    from harness.tracking.store import find_run, open_store

    client = open_store(None, folder / "mlruns", create=False)
    parent = find_run(client, run).data.tags["mlflow.parentRunId"]
    assert f"run {parent} has no model.keras (arm, " in refusal(folder, parent, "pets/cat/0.jpg")
    assert "no mlflow.db there" in refusal(tmp_path, run, "x.png")
