"""`python -m harness.describe`: what it prints, and from where it knows the input."""

from __future__ import annotations

import csv
import io

import pytest

from harness import describe
from harness.data import datasets, shapes

pytestmark = pytest.mark.usefixtures("slots")


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert describe.main(arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert describe.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def test_the_table_has_a_line_a_layer_and_a_total(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "arch=lenet5", "data=mnist")
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    by_layer = {row[0]: row[1:] for row in cells}
    assert by_layer["conv2"] == ["Conv2D", "10x10x16", "2,400", "16", "0", "240,000", "6,400"]
    assert by_layer["total"][2:5] == ["61,470", "236", "0"]
    assert "61,706 parameters" in out


def test_csv_has_plain_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(csv.DictReader(io.StringIO(printed(capsys, "--csv", "arch=softmax", "data=mnist"))))
    assert [row["layer"] for row in rows] == ["input", "flatten", "logits"]
    assert rows[2] == {
        "layer": "logits",
        "kind": "Dense",
        "output": "10",
        "kernel": "7840",
        "bias": "10",
        "other": "0",
        "multiply_adds": "7840",
        "activation_bytes": "40",
    }


def test_several_arms_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(csv.DictReader(io.StringIO(printed(capsys, "--csv", "arch=softmax,lenet5"))))
    assert {row["arm"] for row in rows} == {"arch=softmax", "arch=lenet5"}


def test_the_input_can_be_said(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "--csv", "arch=softmax", "input=5", "classes=3")
    assert [line.split(",")[2] for line in out.splitlines()[1:]] == ["5", "5", "3"]
    assert "32x32x3" in printed(capsys, "--csv", "arch=softmax", "input=32x32x3")


def test_other_data_are_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere.npz does not exist" in refused(capsys, "data=npz", "data.path=nowhere.npz")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["arch=vgg16", "data=mnist"],
            "layer pool5 cannot take maps of 1x1 pixels; the smallest",
        ),
        (["arch=softmax", "input=0x3"], "input=0x3: allowed: input=28x28x1"),
        (["arch=softmax", "input=wide"], "input=wide: allowed: input=28x28x1"),
        (["classes=1"], "classes=1: allowed"),
        (["arch=nosuch"], "nosuch"),
        (["arch.activation=rleu"], "rleu"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_built_is_refused_in_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(capsys, *arguments)


def test_the_known_shapes_are_those_of_the_data() -> None:
    data = datasets.digits()
    assert shapes.known({"_target_": "harness.data.datasets.digits"}) == (data.example_shape, data.classes)
    for name, (shape, classes) in shapes.FIXED.items():
        assert len(shape) == 3
        assert classes == {"cifar100": 100, "flowers17": 17}.get(name, 10)


def test_an_image_size_of_the_config_goes_before_the_usual_one() -> None:
    spec = {"_target_": "harness.data.datasets.flowers17", "image_size": 96}
    assert shapes.known(spec) == ((96, 96, 3), 17)


def test_of_other_data_nothing_is_known() -> None:
    assert shapes.known({"_target_": "harness.data.datasets.npz", "path": "x.npz"}) is None
