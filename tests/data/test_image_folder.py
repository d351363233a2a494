"""Folders of pictures: which are read, how they are cut, split and kept, and how a broken one is named."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.data import datasets, image_folder
from harness.data.datasets import DataError
from harness.data.pictures import PictureError, decode

ROOT = Path(__file__).parents[2]
REAL_DATA = Path(os.environ.get("HARNESS_DATA") or ROOT.parent / "shared" / "data")


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def saved(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def plain(value: int, width: int = 6, height: int = 4) -> bytes:
    return saved(Image.new("RGB", (width, height), (value, 0, 255 - value)))


def folder_of(target: Path, classes: tuple[str, ...] = ("cat", "dog"), each: int = 10) -> Path:
    """Pictures of different sizes; each is of one colour, which is its own."""
    for number, name in enumerate(classes):
        (target / name).mkdir(parents=True)
        for i in range(each):
            (target / name / f"{i:02d}.png").write_bytes(plain(100 * number + i, width=4 + i))
    return target


def zipped(folder: Path, file: Path, below: str = "") -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(folder.rglob("*.png")):
            archive.write(path, below + path.relative_to(folder).as_posix())
    return file


def refusal(load: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        load()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Pictures


def test_the_middle_square_is_kept_and_scaled() -> None:
    pixels = np.zeros((2, 6, 3), np.uint8)
    pixels[:, :2], pixels[:, 2:4], pixels[:, 4:] = 10, 100, 200
    found = decode(saved(Image.fromarray(pixels)), 2, 2, 3)
    assert (found == 100).all()
    wide = decode(saved(Image.fromarray(pixels)), 1, 6, 1)
    assert wide.ravel().tolist() == [10, 10, 100, 100, 200, 200], "of a wide shape the middle rows"


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_picture_of_the_right_size_stays_as_it_is(form: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    content = saved(Image.fromarray(pixels), form)
    with Image.open(io.BytesIO(content)) as image:
        np.testing.assert_array_equal(decode(content, 8, 8, 3), np.asarray(image))


def test_any_mode_becomes_rgb_or_luminance() -> None:
    for image in (
        Image.new("L", (3, 3), 128),
        Image.new("RGBA", (3, 3), (128, 128, 128, 7)),
        Image.new("P", (3, 3), 128),
        Image.fromarray(np.full((3, 3), 128 * 256 + 5, np.uint16)),
    ):
        if image.mode == "P":
            image.putpalette([128] * 768)
        for channels in (1, 3):
            found = decode(saved(image), 3, 3, channels)
            assert found.shape == (3, 3, channels)
            assert (found == 128).all(), image.mode


def test_a_cameras_rotation_mark_is_heeded() -> None:
    pixels = np.array([[0, 255]], np.uint8)  # left dark, right light
    exif = Image.Exif()
    exif[0x0112] = 3  # held upside down
    assert decode(saved(Image.fromarray(pixels), exif=exif), 1, 2, 1).ravel().tolist() == [255, 0]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        plain(3)[:40],
        saved(Image.new("RGB", (50, 50)), "JPEG")[:300],
        saved(Image.new("L", (4, 4)), "GIF"),
    ],
)
def test_what_is_no_whole_jpeg_or_png_is_refused(content: bytes) -> None:
    with pytest.raises(PictureError, match=r"^no JPEG or PNG image, or a damaged one: [^\n]+$"):
        decode(content, 4, 4, 3)


# Folders


def test_a_folder_of_class_folders_is_a_data_set(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "pets")
    data = image_folder.image_folder(folder, image_size=5, test_share=0.3)
    assert data.name == "pets"
    assert data.class_names == ("cat", "dog")
    assert (data.x_train.shape, data.x_test.shape) == ((14, 5, 5, 3), (6, 5, 5, 3))
    assert np.bincount(data.y_test).tolist() == [3, 3]
    assert (data.x_train[..., 0] // 100 == data.y_train[:, None, None]).all(), "each picture has its own label"
    reds = np.concatenate([data.x_train, data.x_test])[:, 0, 0, 0]
    assert sorted(reds.tolist()) == [*range(10), *range(100, 110)], "each picture is there once"
    assert data.value_range == (0, 255)


def test_the_split_depends_on_its_seed_alone(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "pets")
    first = image_folder.image_folder(folder, image_size=4)
    assert image_folder.image_folder(folder, image_size=4, split_seed=0).digest == first.digest
    assert image_folder.image_folder(folder, image_size=4, split_seed=1).digest != first.digest


def test_train_and_test_folders_are_the_split(tmp_path: Path) -> None:
    folder_of(tmp_path / "pets" / "train")
    folder_of(tmp_path / "pets" / "test", each=2)
    data = image_folder.image_folder(tmp_path / "pets", image_size=4)
    assert (len(data.x_train), len(data.x_test)) == (20, 4)
    assert data.class_names == ("cat", "dog")


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "pets")
    for name in (".hidden.png", "cat/.trash.png", "cat/notes.txt", ".git/x.png", "dog/Thumbs.db"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"no picture")
    assert len(image_folder.image_folder(folder, image_size=4).x_train) == 16


@pytest.mark.parametrize("below", ["", "pets/", "a/b/"])
def test_an_archive_is_read_like_its_folder(below: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "pets")
    archive = zipped(folder, tmp_path / "pets.zip", below)
    assert (
        image_folder.image_folder(archive, image_size=4).digest
        == image_folder.image_folder(folder, image_size=4).digest
    )


def test_pictures_are_decoded_once(tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(tmp_path / "pets")
    first = image_folder.image_folder(folder, image_size=4)
    assert f"decoding 20 pictures of {folder} into {cache}" in capsys.readouterr().err
    (file,) = cache.iterdir()
    before = file.stat().st_mtime_ns
    assert image_folder.image_folder(folder, image_size=4).digest == first.digest
    assert capsys.readouterr().err == ""
    assert [path.stat().st_mtime_ns for path in cache.iterdir()] == [before]


def test_a_changed_picture_or_size_is_decoded_again(tmp_path: Path, cache: Path) -> None:
    folder = folder_of(tmp_path / "pets")
    first = image_folder.image_folder(folder, image_size=4)
    (folder / "cat" / "00.png").write_bytes(plain(77, 9, 9))
    assert image_folder.image_folder(folder, image_size=4).digest != first.digest
    image_folder.image_folder(folder, image_size=3)
    assert len(list(cache.iterdir())) == 3


def test_a_cut_off_cache_file_is_made_again(tmp_path: Path, cache: Path) -> None:
    folder = folder_of(tmp_path / "pets")
    first = image_folder.image_folder(folder, image_size=4).digest
    (file,) = cache.iterdir()
    file.write_bytes(file.read_bytes()[:-100])
    assert image_folder.image_folder(folder, image_size=4).digest == first


def test_a_broken_picture_is_named_and_nothing_half_made_is_left(tmp_path: Path, cache: Path) -> None:
    folder = folder_of(tmp_path / "pets")
    (folder / "dog" / "03.png").write_bytes(plain(3)[:30])
    said = refusal(lambda: image_folder.image_folder(folder, image_size=4))
    assert said.startswith(f"{folder}: dog/03.png: no JPEG or PNG image, or a damaged one")
    assert said.endswith("repair or remove it")
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "no .jpg, .jpeg or .png file below it"),
        (["a.png", "b.png"], "a.png is in no class folder"),
        (["cat/a.png", "dog/x/b.png"], "dog/x/b.png is in no class folder"),
        (["train/cat/a.png", "val/cat/a.png"], "train/cat/a.png is in no class folder"),
        (["cat/a.png", "cat/b.png"], "only the class cat; a data set needs two or more"),
        (["cat/a.png", "dog/b.png"], "one picture a class; give each two or more, as some are for testing"),
    ],
)
def test_folders_of_another_form_are_refused(files: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    for number, name in enumerate(files):
        (tmp_path / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pets" / name).write_bytes(plain(number))
    assert said in refusal(lambda: image_folder.image_folder(tmp_path / "pets", image_size=4))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_size", 0),
        ("image_size", 5000),
        ("channels", 2),
        ("test_share", 0.0),
        ("test_share", 1.0),
        ("split_seed", -1),
    ],
)
def test_arguments_out_of_range_are_refused(key: str, value: float, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "pets")
    assert f"data.{key}: got {value}; allowed: " in refusal(
        lambda: image_folder.image_folder(folder, **{key: value})  # type: ignore[arg-type]
    )


def test_a_path_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    assert "is no folder and no zip archive" in refusal(lambda: image_folder.image_folder(tmp_path / "nowhere"))


def test_a_cache_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "file"))
    folder = folder_of(tmp_path / "pets")
    assert "set HARNESS_CACHE to a folder that can be written" in refusal(
        lambda: image_folder.image_folder(folder, image_size=4)
    )


# Known sets of pictures


def test_cifar10_is_read_from_pictures_in_the_order_of_its_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    for part in ("train", "test"):
        for number, name in enumerate(names):
            (tmp_path / "own" / part / name).mkdir(parents=True)
            (tmp_path / "own" / part / name / "0.png").write_bytes(plain(number))
    archive = zipped(tmp_path / "own", tmp_path / "cifar10_jpeg.zip", "cifar10_jpeg/")
    found = [datasets.cifar10(tmp_path / "own"), datasets.cifar10(archive), datasets.cifar10(tmp_path)]
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    found.append(datasets.cifar10())
    for data in found:
        assert (data.name, data.class_names, data.example_shape) == ("cifar10", names, (32, 32, 3))
        assert (data.x_train[:, 0, 0, 0] == data.y_train).all()
    (tmp_path / "own" / "train" / "cow").mkdir()
    (tmp_path / "own" / "train" / "cow" / "0.png").write_bytes(plain(1))
    assert "cow is none of its classes: airplane, " in refusal(lambda: datasets.cifar10(tmp_path / "own"))


def test_flowers_are_found_by_path_and_by_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of(tmp_path / "flowers17", tuple(f"class_{i:02d}" for i in range(17)), each=4)
    data = image_folder.flowers17(tmp_path, image_size=4)
    assert (len(data.x_train), len(data.x_test)) == (51, 17)
    assert (data.class_names[0], data.class_names[9], data.class_names[16]) == ("daffodil", "sunflower", "pansy")
    assert image_folder.flowers17(tmp_path / "flowers17", image_size=4).digest == data.digest
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    assert image_folder.flowers17(image_size=4).digest == data.digest


def test_flowers_that_are_nowhere_are_refused_with_what_gets_them(tmp_path: Path) -> None:
    for said in (
        refusal(lambda: image_folder.flowers17()),
        refusal(lambda: image_folder.flowers17(tmp_path)),
    ):
        assert "no flowers17/ or flowers17.zip" in said
        assert "scripts/fetch_data.py flowers17" in said


def test_the_real_flowers_are_80_a_class() -> None:
    if not (REAL_DATA / "flowers17.zip").is_file():
        pytest.skip("no flowers17.zip: set HARNESS_DATA to its folder")
    data = image_folder.flowers17(REAL_DATA, image_size=8)
    assert np.bincount(data.y_train).tolist() == [60] * 17
    assert np.bincount(data.y_test).tolist() == [20] * 17


# The script that gets them


def test_the_archive_of_the_flowers_is_sorted_into_classes(tmp_path: Path, fetch_data: object) -> None:
    with tarfile.open(tmp_path / "17flowers.tgz", "w:gz") as archive:
        for name in ("files.txt", "image_0001.jpg", "image_0080.jpg", "image_0081.jpg", "image_1360.jpg"):
            info = tarfile.TarInfo(f"jpg/{name}")
            info.size = len(name)
            archive.addfile(info, io.BytesIO(name.encode()))
    fetch_data.into_classes(tmp_path / "17flowers.tgz", tmp_path / "flowers17")  # type: ignore[attr-defined]
    found = {path.relative_to(tmp_path / "flowers17").as_posix() for path in (tmp_path / "flowers17").rglob("*.jpg")}
    assert found == {
        "class_00/image_0001.jpg",
        "class_00/image_0080.jpg",
        "class_01/image_0081.jpg",
        "class_16/image_1360.jpg",
    }


@pytest.mark.parametrize("name", ["mnist", "flowers17", "imagenet"])
def test_what_cannot_be_had_is_one_line(
    name: str,
    tmp_path: Path,
    fetch_data: object,
    capsys: pytest.CaptureFixture[str],
    no_network: None,
) -> None:
    assert fetch_data.main([name, "--to", str(tmp_path / "data")]) == 1  # type: ignore[attr-defined]
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"error: {name}: ")
    assert said.err.count("\n") == 1
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.fixture
def fetch_data() -> object:
    import importlib.util

    spec = importlib.util.spec_from_file_location("fetch_data", ROOT / "scripts" / "fetch_data.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty Keras cache, and a proxy that refuses every connection."""
    import socket
    import urllib.request

    with socket.create_server(("127.0.0.1", 0)) as server:
        refuses = f"http://127.0.0.1:{server.getsockname()[1]}"
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("https_proxy", refuses)
    monkeypatch.setattr(urllib.request, "_opener", None)
    (tmp_path / "keras").mkdir()
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
