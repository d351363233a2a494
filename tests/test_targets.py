"""Objects named in a config."""

from __future__ import annotations

import datetime
import subprocess
import sys

import pytest

from harness.targets import TargetError, build, check_arguments, first_line, locate


def scaled(x: float, factor: float = 2.0, seed: int | None = None) -> tuple[float, int | None]:
    if factor < 0:
        raise ValueError(f"factor must be >= 0, got {factor}\nand more")
    return x * factor, seed


HERE = f"{__name__}.scaled"


def test_what_a_spec_names_is_called_with_its_arguments() -> None:
    assert build({"_target_": "datetime.date", "year": 2024, "month": 2, "day": 29}) == datetime.date(2024, 2, 29)


def test_what_stands_on_tensorflow_is_found_without_its_lines_on_the_screen() -> None:
    script = "from harness.targets import locate; print(locate('harness.data.augment.PadAndCrop').__name__)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("PadAndCrop\n", "")


def test_nested_specs_are_built_first_in_mappings_and_lists() -> None:
    spec = {"a": [{"_target_": HERE, "x": 3}], "b": {"c": {"_target_": HERE, "x": 4, "factor": 1}}}
    assert build(spec) == {"a": [(6.0, None)], "b": {"c": (4, None)}}


def test_plain_values_are_returned_as_they_are() -> None:
    assert build([1, "two", None]) == [1, "two", None]


def test_more_arguments_go_to_those_who_take_them() -> None:
    assert build({"_target_": HERE, "x": 1}, seed=5, colour="red") == (2.0, 5)
    assert build({"_target_": "fractions.Fraction", "numerator": 1}, colour="red") == 1


def test_more_arguments_go_before_the_spec() -> None:
    assert build({"_target_": HERE, "x": 1, "seed": 3}, seed=5) == (2.0, 5)


def test_no_such_module_is_said() -> None:
    with pytest.raises(TargetError, match=r"_target_=no_such\.thing: no module 'no_such'"):
        locate("no_such.thing")


def test_no_such_name_is_said_with_the_nearest() -> None:
    with pytest.raises(TargetError, match="datetime has no 'dateime'; did you mean datetime"):
        locate("datetime.dateime")


@pytest.mark.parametrize("path", ["", "datetime", ".", "datetime.MINYEAR"])
def test_what_cannot_be_called_is_refused(path: str) -> None:
    with pytest.raises(TargetError, match="_target_="):
        locate(path)


def test_an_unknown_argument_is_refused_with_the_nearest_and_all() -> None:
    with pytest.raises(TargetError, match=r"here.facto: scaled takes no such argument; did you mean factor\?") as error:
        check_arguments({"_target_": HERE, "facto": 1}, "here")
    assert "(it takes x, factor, seed)" in str(error.value)


def test_an_error_in_the_target_is_one_line_with_what_was_given() -> None:
    with pytest.raises(TargetError) as error:
        build({"_target_": HERE, "x": 1, "factor": -1}, seed=5)
    assert str(error.value) == f"{HERE}({{'x': 1, 'factor': -1}}): factor must be >= 0, got -1"


def test_a_missing_argument_is_said() -> None:
    with pytest.raises(TargetError, match="missing 1 required positional argument: 'x'"):
        build({"_target_": HERE})


def test_an_error_of_the_harness_is_left_as_it_is() -> None:
    from harness.data.datasets import DataError

    with pytest.raises(DataError, match=r"^data\.path=nowhere\.npz: "):
        build({"_target_": "harness.data.datasets.npz", "path": "nowhere.npz"})


def test_the_first_line_of_a_message_or_the_type() -> None:
    assert first_line(ValueError("  one\ntwo")) == "one"
    assert first_line(ValueError()) == "ValueError"


def test_a_graphs_error_is_told_by_what_is_wrong(slots: list[str]) -> None:
    import tensorflow as tf

    @tf.function
    def graph(x: tf.Tensor) -> tf.Tensor:
        return tf.gather(x, [7])

    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        graph(tf.ones(3))
    assert first_line(error.value) == "indices[0] = 7 is not in [0, 3)"
