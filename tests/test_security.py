"""Nothing executes what comes with data, and no name leaves its folder or its place in a page."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from synthetic import make_store
from test_cli import here

from harness import composition, predict, report, sweep

pytestmark = pytest.mark.usefixtures("slots")

EVIL = 'initializer=<script>alert(1)</script>"../../../x'


def refusal(*overrides: str) -> str:
    with pytest.raises(ValueError) as error:
        sweep.Plan(composition.compose(overrides).arms)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "target",
    [
        *("os.system", "subprocess.Popen", "builtins.eval", "builtins.exec", "shutil.rmtree", "pickle.loads"),
        *("hydra.utils.get_method", "keras_hub.x", "harnessed.x", "", "keras", "harness", "keras.", "harness."),
    ],
)
def test_code_from_elsewhere_cannot_be_named(target: str) -> None:
    assert "_target_: got " in refusal(f"optimizer._target_='{target}'")


@pytest.mark.parametrize(
    "target",
    [
        *("keras.utils.get_file", "keras.saving.load_model", "keras.models.load_model", "keras.config.set_floatx"),
        *("keras.src.utils.python_utils.func_load", "keras.layers.deserialize", "keras.layers.__builtins__"),
        *("harness.targets.locate", "harness.predict.load_model", "harness.tracking.child.start"),
        *("harness.data.datasets.Path", "harness.data.image_folder.ThreadPoolExecutor"),
    ],
)
def test_what_loads_code_or_writes_files_in_keras_and_the_harness_cannot_be_named(target: str) -> None:
    assert "which makes no part of a net" in refusal(f"augment.layers=[{{_target_:{target}}}]")


def test_who_trusts_a_module_gets_it() -> None:
    composition.compose(["augment.layers=[{_target_:keras.utils.get_file}]", "trust=[keras.utils]"])


class Pickled:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("executed"),)  # type: ignore[return-value]


def test_a_pickle_in_arrays_is_refused_and_never_run(
    slots: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    x, y = np.zeros((4, 2, 2)), np.array([0, 1, 0, 1])
    np.savez("any.npz", x_train=np.array([Pickled()] * 4), y_train=y, x_test=x, y_test=y)
    done = here(tmp_path, "data=npz", "data.path=any.npz")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "x_train has dtype object; only numbers are allowed" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["any.npz"]


def test_a_stored_net_that_brings_code_is_refused_and_never_run(slots: list[str], tmp_path: Path) -> None:
    import keras

    inputs = keras.Input((2,))
    net = keras.Model(inputs, keras.layers.Lambda(lambda x: x + 1)(inputs))
    net.save(tmp_path / "lambda.keras")
    with pytest.raises(predict.PredictError, match=r"^model\.keras cannot be loaded: .*"):
        predict.load_model((tmp_path / "lambda.keras").read_bytes())


def test_a_stored_net_that_names_another_module_is_refused(slots: list[str], tmp_path: Path) -> None:
    import keras

    keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]).save(tmp_path / "net.keras")
    buffer = io.BytesIO()
    with zipfile.ZipFile(tmp_path / "net.keras") as net, zipfile.ZipFile(buffer, "w") as changed:
        for name in net.namelist():
            content = net.read(name)
            if name == "config.json":
                document = json.loads(content)
                document["config"]["layers"][1] |= {"module": "os", "class_name": "system", "registered_name": None}
                content = json.dumps(document).encode()
            changed.writestr(name, content)
    with pytest.raises(predict.PredictError):
        predict.load_model(buffer.getvalue())


def test_names_with_markup_are_escaped_and_leave_no_folder(tmp_path: Path) -> None:
    make_store(tmp_path / "mlruns", "plain", (EVIL, "b"), baseline="b", question="<img src=x onerror=alert(1)>")
    assert report.main(["plain", "--folder", str(tmp_path / "mlruns"), "--reports", str(tmp_path / "reports")]) == 0
    page = (tmp_path / "reports" / "plain" / "index.html").read_text()
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;alert" in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlruns", "reports"]
    assert [path.name for path in (tmp_path / "reports").iterdir()] == ["plain"]


@pytest.mark.parametrize("name", ["../x", "a/b", "..", "/x", ".x", "a\\b", "<b>", "a'b", "a\nb"])
def test_the_name_of_a_sweep_is_no_path_and_no_markup(name: str) -> None:
    from harness.checks import _is_plain_name

    assert not _is_plain_name(name)
