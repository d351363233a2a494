"""Data sets from folders of class folders: decoded once, in parallel, into a cache file that is then mapped."""

import hashlib
import json
import math
import os
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.data import draws
from harness.data.datasets import DataError, Dataset, from_arrays
from harness.data.pictures import Album, PictureError, album, decode

PARTS = ("train", "test")
_VERSION = 1  # of what `decode` makes of a picture: part of a cache file's name
_FLOWERS = (
    *("daffodil", "snowdrop", "lily of the valley", "bluebell", "crocus", "iris", "tiger lily", "tulip"),
    *("fritillary", "sunflower", "daisy", "coltsfoot", "dandelion", "cowslip", "buttercup", "windflower", "pansy"),
)


def image_folder(
    path: str | Path, image_size: int = 64, channels: int = 3, test_share: float = 0.2, split_seed: int = 0
) -> Dataset:
    """A folder (or zip archive) of class folders of JPEG and PNG files, each `image_size` pixels square.

    Where it holds the folders `train` and `test`, these are the parts; else a stratified test set is split off.

    Args:
        path: of the folder or archive.
        image_size: pixels a side; the shorter side is scaled to it, the longer one cropped around its middle.
        channels: 3 (RGB) or 1 (luminance).
        test_share: of each class alike, above 0 and at most 0.99; not looked at where there are `train` and `test`.
        split_seed: which examples are tested, from 0 up.

    Raises:
        DataError: no such folder, an argument out of range, or a picture that cannot be decoded, by its name.
    """
    folder = Path(path).expanduser()
    return _load(folder.stem, folder, image_size, channels, test_share, split_seed)


def flowers17(
    path: str | Path | None = None, image_size: int = 224, test_share: float = 0.25, split_seed: int = 0
) -> Dataset:
    """Oxford 17 Flowers (Nilsback and Zisserman 2006), 80 photographs a class; 1,020 train and 340 test by default.

    From `path`, or flowers17/ or flowers17.zip in the folder HARNESS_DATA: see `scripts/fetch_data.py`.
    """
    source = beside("flowers17", path)
    if source is None:
        unset = f"HARNESS_DATA={os.environ.get('HARNESS_DATA') or '(unset)'}"
        where = unset if path is None else f"data.path={path}"
        raise DataError(
            f"flowers17: no flowers17/ or flowers17.zip in {where}; `python scripts/fetch_data.py flowers17` gets it"
        )
    return _load("flowers17", source, image_size, 3, test_share, split_seed, _FLOWERS)


def beside(name: str, path: str | Path | None) -> Path | None:
    """Where the pictures of a known data set lie: at `path`, else in the folder HARNESS_DATA; None if nowhere.

    As NAME/ or NAME.zip, NAME_jpeg/ or NAME_jpeg.zip; `path` may be that folder or archive itself.
    """
    given = path if path is not None else os.environ.get("HARNESS_DATA")
    if not given:
        return None
    place = Path(given).expanduser()
    for known in (f"{name}{form}{suffix}" for form in ("", "_jpeg") for suffix in ("", ".zip")):
        if (found := place / known).exists():
            return found
    holds_classes = place.is_dir() and any(child.is_dir() for child in place.iterdir())
    return place if path is not None and (place.suffix.lower() == ".zip" or holds_classes) else None


def parts(name: str, source: Path, image_size: int, class_names: Sequence[str]) -> Dataset:
    """A known data set of colour pictures in train/<class>/ and test/<class>/, its classes in this order."""
    return _load(name, source, image_size, 3, 0.2, 0, tuple(class_names), folders=class_names)


def cache_folder() -> Path:
    """Where decoded pictures are kept: HARNESS_CACHE, else harness/ in the user's cache folder. May be emptied."""
    given = os.environ.get("HARNESS_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(given or f"{home}/harness").expanduser()


def _load(
    name: str,
    source: Path,
    image_size: int,
    channels: int,
    test_share: float,
    split_seed: int,
    class_names: tuple[str, ...] = (),
    folders: Sequence[str] | None = None,
) -> Dataset:
    for key, value, ok, allowed in (
        ("image_size", image_size, 1 <= image_size <= 4096, "1 to 4096"),
        ("channels", channels, channels in (1, 3), "1, 3"),
        ("test_share", test_share, 0 < test_share <= 0.99, "above 0, at most 0.99"),
        ("split_seed", split_seed, split_seed >= 0, "0 up"),
    ):
        if not ok:
            raise DataError(f"data.{key}: got {value}; allowed: {allowed}")
    try:
        pictures = album(source)
    except PictureError as error:
        raise DataError(f"data.path={source}: {error}") from None
    classes, labels, test = _sorted_out(pictures, folders, test_share, split_seed)
    order = np.concatenate([np.flatnonzero(~test), np.flatnonzero(test)])
    images = _decoded(name, pictures, order, image_size, channels)
    count = int((~test).sum())
    arrays = {
        "x_train": images[:count],
        "y_train": labels[order[:count]],
        "x_test": images[count:],
        "y_test": labels[order[count:]],
    }
    names = class_names if len(class_names) == len(classes) else classes
    return from_arrays(name, arrays, str(source), classes=len(classes), class_names=names)


def _sorted_out(
    pictures: Album, folders: Sequence[str] | None, test_share: float, split_seed: int
) -> tuple[tuple[str, ...], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """The class names, and of each picture its class and whether it is for testing."""
    split = [name.split("/") for name in pictures.names]
    where = f"data.path={pictures.source}"
    if not split:
        raise DataError(f"{where}: no .jpg, .jpeg or .png file below it; give a folder of class folders")
    parted = {path[0] for path in split} == set(PARTS) and all(len(path) == 3 for path in split)
    depth = 3 if parted else 2
    for path in split:
        if len(path) != depth:
            raise DataError(
                f"{where}: {'/'.join(path)} is in no class folder; pictures must lie in CLASS/FILE, or all of them "
                "in train/CLASS/FILE and test/CLASS/FILE"
            )
    classes = tuple(folders or sorted({path[-2] for path in split}))
    if unknown := sorted({path[-2] for path in split} - set(classes)):
        raise DataError(f"{where}: {unknown[0]} is none of its classes: {', '.join(classes)}")
    if len(classes) < 2:
        raise DataError(f"{where}: only the class {classes[0]}; a data set needs two or more class folders")
    labels = np.array([classes.index(path[-2]) for path in split])
    if parted:
        return classes, labels, np.array([path[0] == "test" for path in split])
    most = len(labels) - len(set(labels.tolist()))  # each class keeps one to train on
    if most == 0:
        raise DataError(f"{where}: one picture a class; give each two or more, as some are for testing")
    count = min(math.ceil(test_share * len(labels)), most)
    chosen = draws.stratified(labels, count, np.random.default_rng(split_seed), keep=1)
    test = np.zeros(len(labels), bool)
    test[chosen] = True
    return classes, labels, test


def _decoded(
    name: str, pictures: Album, order: npt.NDArray[np.int64], image_size: int, channels: int
) -> npt.NDArray[np.uint8]:
    """The pictures in this order, (N, image_size, image_size, channels), mapped from the cache file."""
    listed = [(pictures.names[i], pictures.stamps[i]) for i in order]
    what = json.dumps([_VERSION, image_size, channels, listed])
    key = hashlib.sha256(what.encode()).hexdigest()[:16]
    file = cache_folder() / f"{name}_{image_size}x{image_size}x{channels}_{key}.npy"
    shape = (len(order), image_size, image_size, channels)
    try:
        if (there := _mapped(file, shape)) is not None:
            return there
        print(f"decoding {len(order)} pictures of {pictures.source} into {file}", file=sys.stderr)
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=file.parent, suffix=".part")
        os.close(handle)
        try:
            _write(Path(part), pictures, [each for each, _ in listed], shape)
            os.replace(part, file)
        finally:
            Path(part).unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"{file}: {error.strerror or error}; set HARNESS_CACHE to a folder that can be written and has room"
        ) from None
    made = _mapped(file, shape)
    assert made is not None
    return made


def _mapped(file: Path, shape: tuple[int, ...]) -> npt.NDArray[np.uint8] | None:
    """The whole cache file, or None where there is none or a damaged one."""
    try:
        found = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if (found.shape, found.dtype) == (shape, np.uint8) else None


def _write(file: Path, pictures: Album, names: Sequence[str], shape: tuple[int, ...]) -> None:
    images: Any = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)

    def one(row: int) -> None:
        try:
            images[row] = decode(pictures.read(names[row]), *shape[1:])
        except PictureError as error:
            raise DataError(f"{pictures.source}: {names[row]}: {error}; repair or remove it") from None

    # Pillow decodes without the interpreter's lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [pool.submit(one, row) for row in range(len(names))]
        try:
            for job in jobs:
                job.result()
        finally:
            pool.shutdown(cancel_futures=True)
    images.flush()
