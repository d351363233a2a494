"""What counts as a data set, where the known ones are found, and how anything else is refused."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import socket
import subprocess
import sys
import time
import tracemalloc
import urllib.request
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from harness.data import datasets
from harness.data.datasets import DataError, Dataset, from_arrays

Array = npt.NDArray[Any]

ROOT = Path(__file__).parents[2]
REAL_DATA = Path(os.environ.get("HARNESS_DATA") or ROOT.parent / "shared" / "data")


def small(shape: tuple[int, ...] = (4, 4), classes: int = 3) -> dict[str, Array]:
    """Twelve training and six test examples, uint8, all classes in both."""
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(5, 250, (12, *shape)).astype(np.uint8),
        "y_train": np.arange(12) % classes,
        "x_test": rng.integers(5, 250, (6, *shape)).astype(np.uint8),
        "y_test": np.arange(6) % classes,
    }


def save(folder: Path, changes: Mapping[str, Any] = MappingProxyType({}), name: str = "own") -> Path:
    """The small arrays as NAME.npz in `folder`, some replaced, those set to None left out."""
    arrays = {key: array for key, array in {**small(), **changes}.items() if array is not None}
    np.savez(folder / f"{name}.npz", **arrays)
    return folder / f"{name}.npz"


def refusal(file: Path, **kwargs: object) -> str:
    with pytest.raises(DataError) as caught:
        datasets.npz(file, **kwargs)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No HARNESS_DATA, an empty Keras cache, and a proxy that refuses every connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        refuses = f"http://127.0.0.1:{server.getsockname()[1]}"
    for variable in ("HARNESS_DATA", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("https_proxy", refuses)
    monkeypatch.setattr(urllib.request, "_opener", None)  # it remembers the proxies of its first use
    (tmp_path / "keras").mkdir()
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))


def test_images_without_channels_get_one(tmp_path: Path) -> None:
    data = datasets.npz(save(tmp_path))
    assert data.x_train.shape == (12, 4, 4, 1)
    assert data.example_shape == (4, 4, 1)
    assert data.is_image
    assert data.name == "own"


def test_images_may_have_any_number_of_channels(tmp_path: Path) -> None:
    assert datasets.npz(save(tmp_path, small((4, 4, 5)))).example_shape == (4, 4, 5)


def test_vectors_stay_vectors(tmp_path: Path) -> None:
    data = datasets.npz(save(tmp_path, small((7,))))
    assert data.example_shape == (7,)
    assert not data.is_image


def test_bytes_stay_bytes_and_range_to_255(tmp_path: Path) -> None:
    data = datasets.npz(save(tmp_path))
    assert data.x_train.dtype == data.x_test.dtype == np.uint8
    assert data.value_range == (0, 255)
    assert np.array_equal(data.x_train[..., 0], small()["x_train"])


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64, ">f8"])
def test_other_numbers_become_float32(tmp_path: Path, dtype: npt.DTypeLike) -> None:
    x = {key: small()[key].astype(dtype) for key in ("x_train", "x_test")}
    data = datasets.npz(save(tmp_path, x))
    assert data.x_train.dtype == data.x_test.dtype == np.float32
    assert np.array_equal(data.x_train[..., 0], small()["x_train"])


def test_floats_within_0_and_1_range_from_0_to_1() -> None:
    arrays = small() | {
        "x_train": np.linspace(0.2, 0.9, 192).reshape(12, 4, 4),
        "x_test": np.full((6, 4, 4), 3.0),
    }
    assert from_arrays("own", arrays, "here").value_range == (0, 1)


def test_other_floats_range_over_the_training_values() -> None:
    arrays = small() | {
        "x_train": np.linspace(-2, 6, 192).reshape(12, 4, 4),
        "x_test": np.full((6, 4, 4), 9.0),
    }
    assert from_arrays("own", arrays, "here").value_range == (-2, 6)


def test_a_given_range_is_kept(tmp_path: Path) -> None:
    assert datasets.npz(save(tmp_path), value_range=[-1, 300]).value_range == (-1, 300)


def test_labels_become_int32_class_indices(tmp_path: Path) -> None:
    for labels in (
        np.arange(12) % 3,
        (np.arange(12) % 3).reshape(12, 1).astype(np.uint8),
        np.arange(12) % 3.0,
    ):
        data = datasets.npz(save(tmp_path, {"y_train": labels}))
        assert data.y_train.dtype == np.int32
        assert data.y_train.tolist() == [0, 1, 2] * 4
        assert data.classes == 3


def test_given_classes_may_lack_training_examples(tmp_path: Path) -> None:
    data = datasets.npz(save(tmp_path), classes=5)
    assert data.classes == 5
    assert data.class_names == ("0", "1", "2", "3", "4")


def test_arrays_are_read_only(tmp_path: Path) -> None:
    data = datasets.npz(save(tmp_path))
    for array in (data.x_train, data.y_train, data.x_test, data.y_test):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_the_callers_own_arrays_stay_writeable() -> None:
    arrays = small((4, 4, 1))
    from_arrays("own", arrays, "here")
    arrays["x_train"][0] = 0


def test_class_names_must_be_as_many_as_classes() -> None:
    with pytest.raises(DataError, match="own: 2 class_names for 3 classes"):
        from_arrays("own", small(), "here", class_names=("a", "b"))


def test_digest_is_36_hex_characters_and_ignores_the_name() -> None:
    first, second = from_arrays("a", small(), "here"), from_arrays("b", small(), "there")
    assert len(first.digest) == 36
    assert set(first.digest) <= set("0123456789abcdef")
    assert first.digest == second.digest


@pytest.mark.parametrize("key", datasets.KEYS)
@pytest.mark.parametrize("position", [0, -1])
def test_digest_changes_with_one_value_of_any_array(key: str, position: int) -> None:
    arrays = small()
    arrays[key].flat[position] = (arrays[key].flat[position] + 1) % 3
    assert from_arrays("a", arrays, "here").digest != from_arrays("a", small(), "here").digest


def test_digest_tells_shapes_and_dtypes_apart() -> None:
    arrays = small((4, 4))
    flat = arrays | {key: arrays[key].reshape(-1, 16) for key in ("x_train", "x_test")}
    floats = arrays | {key: arrays[key].astype(np.float32) for key in ("x_train", "x_test")}
    assert len({from_arrays("a", each, "here").digest for each in (arrays, flat, floats)}) == 3


def test_digest_does_not_copy_the_arrays() -> None:
    arrays = small((512, 512)) | {"x_train": np.asfortranarray(small((512, 512))["x_train"])}
    data = from_arrays("a", arrays, "here")
    tracemalloc.start()
    assert data.digest
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e5


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"y_test": None, "labels": np.arange(6)}, ["no y_test (found x_train, y_train, x_test, labels)"]),
        ({"x_train": np.zeros(12)}, ["x_train has shape (12,)", "(N, H, W, C)"]),
        ({"x_train": np.zeros((12, 1, 4, 4, 1))}, ["x_train has shape (12, 1, 4, 4, 1)"]),
        ({"x_test": np.zeros((6, 4, 5), np.uint8)}, ["x_test", "(4, 5, 1)", "x_train of (4, 4, 1)"]),
        ({"x_test": np.zeros((6, 4, 4))}, ["x_test", "float32", "uint8"]),
        ({"y_train": np.arange(11) % 3}, ["y_train has 11 labels for 12 examples"]),
        ({"y_test": np.arange(7) % 3}, ["y_test has 7 labels for 6 examples"]),
        (
            {"x_test": np.zeros((0, 4, 4), np.uint8), "y_test": np.zeros(0, int)},
            ["x_test is empty", "(0, 4, 4)"],
        ),
        ({"x_train": np.full((12, 4, 4), None)}, ["x_train has dtype object"]),
        ({"y_train": np.array([{}] * 12)}, ["y_train has dtype object"]),
        ({"x_train": np.zeros((12, 4, 4), complex)}, ["x_train has dtype complex128"]),
        ({"x_train": np.full((12, 4, 4), "a")}, ["x_train has dtype <U1"]),
        ({"x_train": np.full((12, 4, 4), 9, np.uint8)}, ["x_train is 9 everywhere"]),
        ({"y_train": np.array(["cat", "dog"] * 6)}, ["y_train has dtype <U3", "class indices"]),
        ({"y_train": np.array([0, 1, 2, -1] * 3)}, ["3 labels that are no class index", "-1 at (3,)"]),
        ({"y_train": np.array([0, 1, 2, 0.5] * 3)}, ["3 labels", "0.5 at (3,)"]),
        ({"y_test": np.array([0, 1, 2, np.nan, np.inf, 0])}, ["y_test", "2 labels", "nan at (3,)"]),
        (
            {"y_train": np.eye(3)[np.arange(12) % 3]},
            ["y_train has shape (12, 3)", "one-hot", "class indices"],
        ),
        ({"y_train": np.zeros((12, 1, 1), int)}, ["y_train has shape (12, 1, 1)"]),
        ({"y_train": np.ones(12, int)}, ["y_train holds only class 1"]),
        ({"y_train": np.array([0, 1, 3] * 4)}, ["up to 3", "no example of class 2", "data.classes=4"]),
        ({"y_train": np.array([1, 2, 3] * 4)}, ["no example of class 0"]),
        ({"y_test": np.array([0, 1, 2, 3, 4, 0])}, ["y_test holds classes [3, 4]"]),
    ],
)
def test_arrays_are_refused_with_file_key_value_and_rule(
    tmp_path: Path, changes: dict[str, Any], parts: list[str]
) -> None:
    file = save(tmp_path, changes)
    message = refusal(file)
    for part in [str(file), *parts]:
        assert part in message


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_values_that_are_not_finite_are_counted_and_the_first_is_named(tmp_path: Path, bad: float) -> None:
    x = small()["x_train"].astype(np.float64)
    x[2, 3, 1] = x[7, 0, 0] = bad
    message = refusal(save(tmp_path, {"x_train": x, "x_test": np.zeros((6, 4, 4))}))
    assert "x_train holds 2 values that are NaN or infinite in float32, first at (2, 3, 1)" in message


def test_labels_beyond_the_given_classes_are_refused(tmp_path: Path) -> None:
    message = refusal(save(tmp_path), classes=2)
    assert "4 labels that are no class index, first 2 at (2,); allowed are whole numbers from 0 to 1" in message


@pytest.mark.parametrize("classes", [1, 0, -3, 2.5])
def test_classes_must_be_two_or_more(tmp_path: Path, classes: object) -> None:
    assert f"data.classes must be a whole number >= 2, got {classes}" in refusal(save(tmp_path), classes=classes)


@pytest.mark.parametrize("given", [(1, 0), (0, 0), (0,), (0, 1, 2), (0, float("nan")), 255, ("a", "b")])
def test_a_range_must_be_two_ascending_numbers(tmp_path: Path, given: object) -> None:
    assert "data.value_range must be two numbers" in refusal(save(tmp_path), value_range=given)


def test_a_range_that_training_values_leave_is_refused(tmp_path: Path) -> None:
    message = refusal(save(tmp_path), value_range=(0, 1))
    assert "beyond data.value_range=[0, 1]" in message


def test_a_path_to_nothing_or_to_a_folder_is_refused(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "nothing.npz")
    assert "is a folder" in refusal(tmp_path)


def test_a_file_that_is_no_npz_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.arange(3))
    for name, content in [
        ("text.npz", b"hello"),
        ("empty.npz", b""),
        ("pickle.npz", pickle.dumps({"x_train": 1})),
    ]:
        (tmp_path / name).write_bytes(content)
    for name in ("one.npy", "text.npz", "empty.npz", "pickle.npz"):
        assert f"{tmp_path / name} is no .npz file" in refusal(tmp_path / name)


def test_a_zip_of_other_things_is_refused_by_what_it_holds(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for number in range(20):
            archive.writestr(f"cat/{number}.jpg", "jpeg")
    assert "found cat/0.jpg, cat/1.jpg" in refusal(tmp_path / "photos.zip")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    file = save(tmp_path)
    file.write_bytes(file.read_bytes()[:-100])
    assert f"{file} is an .npz file without its end; copy or download it again" in refusal(file)


def test_an_archive_without_arrays_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bare.npz", "w"):
        pass
    assert "found nothing" in refusal(tmp_path / "bare.npz")


def test_an_array_cut_short_inside_a_whole_zip_is_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.save(stream, small()["x_train"])
    with zipfile.ZipFile(tmp_path / "short.npz", "w") as archive:
        archive.writestr("x_train.npy", stream.getvalue()[:-10])
    assert "x_train cannot be read" in refusal(tmp_path / "short.npz")


def test_a_damaged_byte_is_refused_or_harmless(tmp_path: Path) -> None:
    file = save(tmp_path)
    whole, digest = file.read_bytes(), datasets.npz(file).digest
    for position in range(0, len(whole), 3):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        try:
            assert datasets.npz(file).digest == digest
        except DataError as error:
            assert "\n" not in str(error)


def test_digits_are_real_images_of_0_to_16_split_with_every_class_alike() -> None:
    from sklearn.datasets import load_digits

    data = datasets.digits()
    assert data.x_train.shape == (1437, 8, 8, 1)
    assert data.x_test.shape == (360, 8, 8, 1)
    assert data.x_train.dtype == np.uint8
    assert data.value_range == (0, 16)
    assert data.classes == 10
    assert set(np.bincount(data.y_test)) <= {35, 36, 37}
    both = np.concatenate([data.x_train, data.x_test]).astype(int).sum(axis=0)
    assert np.array_equal(both[..., 0], load_digits().images.sum(axis=0))


def test_digits_are_split_by_the_seed_alone() -> None:
    assert datasets.digits().digest == datasets.digits(split_seed=0).digest
    assert datasets.digits().digest != datasets.digits(split_seed=1).digest
    assert len(datasets.digits(test_share=0.5).x_test) == 899


@pytest.mark.parametrize("kwargs", [{"test_share": 0.0}, {"test_share": 1.0}, {"split_seed": -1}])
def test_digits_refuse_a_share_or_seed_out_of_range(kwargs: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=f"digits: {next(iter(kwargs))} must be"):
        datasets.digits(**kwargs)


def test_a_known_data_set_is_found_by_file_by_folder_and_by_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = save(tmp_path, small((28, 28)), "mnist")
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    assert datasets.mnist(file).digest == datasets.mnist(str(tmp_path)).digest == datasets.mnist().digest
    assert datasets.mnist().classes == 10


def test_a_path_goes_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "other"))
    save(tmp_path / "other", small((28, 28), classes=2), "mnist")
    assert datasets.mnist(save(tmp_path, small((28, 28)), "mnist")).y_train.max() == 2


def test_a_path_to_nothing_never_falls_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, small((28, 28)), "mnist")
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    for path in (tmp_path / "keras", tmp_path / "mnits.npz"):
        with pytest.raises(DataError, match=f"data.path={path}: there is no .*npz; give an .npz file or a folder"):
            datasets.mnist(path)


def test_an_environment_folder_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_DATA", "nowhere")
    with pytest.raises(DataError, match="HARNESS_DATA=nowhere is no folder"):
        datasets.mnist()


def test_a_file_of_another_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"examples of shape \(4, 4, 1\), cifar10 has \(32, 32, 3\)"):
        datasets.cifar10(save(tmp_path, name="cifar10"))


@pytest.mark.parametrize(
    ("load", "shape", "classes", "seventh"),
    [
        (datasets.fashion_mnist, (28, 28), 10, "Shirt"),
        (datasets.cifar10, (32, 32, 3), 10, "frog"),
        (datasets.cifar100, (32, 32, 3), 100, "bee"),
    ],
)
def test_known_data_sets_name_their_classes(
    tmp_path: Path, load: Any, shape: tuple[int, ...], classes: int, seventh: str
) -> None:
    data: Dataset = load(save(tmp_path, small(shape)))
    assert data.name == load.__name__
    assert len(set(data.class_names)) == data.classes == classes
    assert data.class_names[6] == seventh


@pytest.fixture
def real_mnist() -> Path:
    file = REAL_DATA / "mnist.npz"
    if not file.is_file():
        pytest.skip(f"no {file}: set HARNESS_DATA to a folder with mnist.npz")
    return file


def test_mnist_is_the_original(real_mnist: Path) -> None:
    data = datasets.mnist(real_mnist)
    assert (data.x_train.shape, data.x_test.shape) == ((60000, 28, 28, 1), (10000, 28, 28, 1))
    assert np.bincount(data.y_train).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert data.x_train.mean() / 255 == pytest.approx(0.1307, abs=5e-5)


@pytest.mark.parametrize("load", [datasets.mnist, datasets.fashion_mnist, datasets.cifar10, datasets.cifar100])
def test_without_network_it_ends_at_once_and_says_what_to_put_where(load: Any, tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(DataError) as caught:
        load()
    assert time.monotonic() - began < 3
    message = str(caught.value)
    assert "\n" not in message
    for part in (f"{load.__name__}.npz", str(tmp_path / "keras"), "HARNESS_DATA", "https://", "refused"):
        assert part in message


def test_a_network_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "_REACH_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(DataError, match=r"no answer in 0\.2 s|timed out"):
            datasets.mnist()
        assert time.monotonic() - began < 2


def test_a_name_look_up_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "_REACH_SECONDS", 0.2)

    def look_up(*_: object, **__: object) -> None:
        time.sleep(1)
        raise socket.gaierror("too late")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    began = time.monotonic()
    with pytest.raises(DataError, match=r"no answer in 0\.2 s"):
        datasets.mnist()
    assert time.monotonic() - began < 0.9


def test_a_download_that_stalls_meets_a_timeout_which_is_then_restored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = []

    def load_data() -> None:
        seen.append(socket.getdefaulttimeout())
        raise RuntimeError("cut\noff")

    stand_in = SimpleNamespace(load_data=load_data)
    monkeypatch.setitem(sys.modules, "keras.datasets.mnist", stand_in)
    (tmp_path / "keras" / "datasets").mkdir()
    (tmp_path / "keras" / "datasets" / "mnist.npz").touch()
    with pytest.raises(DataError, match=r"cannot use .*mnist.npz \(cut off\)"):
        datasets.mnist()
    assert seen == [datasets._STALL_SECONDS]
    assert socket.getdefaulttimeout() is None


def run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_importing_the_data_layer_imports_neither_tensorflow_nor_keras_nor_sklearn() -> None:
    run(
        "import sys, harness.data.datasets, harness.data.draws, harness.data.preprocess\n"
        "assert not {'tensorflow', 'keras', 'sklearn'} & set(sys.modules)"
    )


@pytest.mark.slow
def test_what_keras_has_downloaded_before_is_used_without_network(tmp_path: Path) -> None:
    folder = tmp_path / "keras" / "datasets" / "fashion-mnist"
    folder.mkdir(parents=True)
    arrays = small((28, 28))
    for part, letter in (("train", "train"), ("test", "t10k")):
        labels, images = arrays[f"y_{part}"].astype(np.uint8), arrays[f"x_{part}"]
        (folder / f"{letter}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes(8) + labels.tobytes()))
        (folder / f"{letter}-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(16) + images.tobytes()))
    run(
        "from harness.data import datasets\n"
        "data = datasets.fashion_mnist()\n"
        f"assert data.x_train.shape == (12, 28, 28, 1) and data.x_train.sum() == {arrays['x_train'].sum()}"
    )
