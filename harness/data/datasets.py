"""Data sets: files turned into a checked, read-only `Dataset`, or refused in a line that says why."""

import hashlib
import http.client
import importlib
import math
import os
import socket
import tempfile
import threading
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.data import draws

Array = npt.NDArray[Any]

KEYS = ("x_train", "y_train", "x_test", "y_test")
_ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")  # of an archive with and without files
_GRAY, _COLOR = (28, 28, 1), (32, 32, 3)
_CLOTHES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_TEN = "airplane automobile bird cat deer dog frog horse ship truck"
_HUNDRED = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
    camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile
    cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp
    lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
    oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
    possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake
    spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor
    train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""


class DataError(ValueError):
    """Data that cannot be used; the message is one line."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Examples as uint8 or float32, images (N, H, W, C) or vectors (N, d), and int32 labels (N,).

    `value_range` holds the two raw values that map to 0 and 1; the training values lie between them.
    """

    name: str
    x_train: Array = field(repr=False)
    y_train: Array = field(repr=False)
    x_test: Array = field(repr=False)
    y_test: Array = field(repr=False)
    classes: int
    value_range: tuple[float, float]
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Call the classes '0', '1', ... where they have no names."""
        names = tuple(self.class_names) or tuple(map(str, range(self.classes)))
        if len(names) != self.classes:
            raise DataError(f"{self.name}: {len(names)} class_names for {self.classes} classes; give one for each")
        object.__setattr__(self, "class_names", names)

    @property
    def example_shape(self) -> tuple[int, ...]:
        """(H, W, C) of an image, (d,) of a vector."""
        return self.x_train.shape[1:]

    @property
    def is_image(self) -> bool:
        """Whether an example has height, width and channels."""
        return len(self.example_shape) == 3

    @cached_property
    def digest(self) -> str:
        """36 hex characters, the most that MLflow keeps, of a hash of the four arrays and nothing else."""
        sha = hashlib.sha256()
        for key in KEYS:
            array = np.ascontiguousarray(getattr(self, key))
            sha.update(f"{key} {array.dtype.str} {array.shape} ".encode())
            sha.update(array.data.cast("B"))
        return sha.hexdigest()[:36]


def digits(test_share: float = 0.2, split_seed: int = 0) -> Dataset:
    """scikit-learn's 1,797 handwritten digits, (8, 8, 1) of values 0 to 16; a fixed stratified test set."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x = images.reshape(-1, 8, 8, 1).astype(np.uint8)
    if not 0 < test_share <= 0.99:
        raise DataError(f"digits: test_share must be above 0 and at most 0.99, got {test_share}")
    if split_seed < 0:
        raise DataError(f"digits: split_seed must be >= 0, got {split_seed}")
    test = draws.stratified(labels, math.ceil(test_share * len(x)), np.random.default_rng(split_seed), keep=1)
    train = np.setdiff1d(np.arange(len(x)), test)
    arrays = dict(zip(KEYS, (x[train], labels[train], x[test], labels[test]), strict=True))
    return from_arrays("digits", arrays, "digits", classes=10, value_range=(0, 16))


def mnist(path: str | Path | None = None) -> Dataset:
    """70,000 handwritten digits, (28, 28, 1), from mnist.npz or Keras; see `_load` for `path`."""
    return _load("mnist", path, _GRAY, tuple("0123456789"))


def fashion_mnist(path: str | Path | None = None) -> Dataset:
    """70,000 pictures of clothes, (28, 28, 1), from fashion_mnist.npz or Keras; see `_load` for `path`."""
    return _load("fashion_mnist", path, _GRAY, _CLOTHES)


def cifar10(path: str | Path | None = None) -> Dataset:
    """60,000 photographs, (32, 32, 3), of 10 things, from cifar10.npz or Keras; see `_load` for `path`.

    Or from pictures: train/<class>/ and test/<class>/ in cifar10/, cifar10_jpeg/ or an archive of that name.
    """
    from harness.data import image_folder

    names = tuple(_TEN.split())
    given = path if path is not None else os.environ.get("HARNESS_DATA")
    if not (given and (Path(given).expanduser() / "cifar10.npz").is_file()) and (
        source := image_folder.beside("cifar10", path)
    ):
        return image_folder.parts("cifar10", source, _COLOR[0], names)
    return _load("cifar10", path, _COLOR, names)


def cifar100(path: str | Path | None = None) -> Dataset:
    """60,000 photographs, (32, 32, 3), of 100 things, from cifar100.npz or Keras; see `_load` for `path`."""
    return _load("cifar100", path, _COLOR, tuple(_HUNDRED.split()))


def npz(path: str | Path, value_range: Sequence[float] | None = None, classes: int | None = None) -> Dataset:
    """Anybody's own arrays: an .npz file with x_train, y_train, x_test and y_test, as in `from_arrays`."""
    file = Path(path).expanduser()
    if not file.is_file():
        state = "is a folder" if file.is_dir() else "does not exist"
        raise DataError(f"data.path={path}: {file.absolute()} {state}; give an .npz file with {', '.join(KEYS)}")
    return from_arrays(file.stem, _read(file), str(file), classes=classes, value_range=value_range)


def from_arrays(
    name: str,
    arrays: Mapping[str, Array],
    source: str,
    *,
    classes: int | None = None,
    value_range: Sequence[float] | None = None,
    class_names: tuple[str, ...] = (),
) -> Dataset:
    """Check the four arrays of `KEYS` and bring them into the form that `Dataset` promises.

    Args:
        name: what the data set is called.
        arrays: examples (N, H, W), (N, H, W, C) or (N, d), of which uint8 stays and all else becomes float32;
            labels (N,) or (N, 1), class indices.
        source: where the arrays are from, for messages.
        classes: how many there are; without it, each index up to the largest must have a training example.
        value_range: what maps to 0 and 1; without it (0, 255) for uint8, else (0, 1) where the training
            values lie in it, else their least and largest.
        class_names: one for each class, or none.

    Raises:
        DataError: names the file and key, what was seen, what is allowed and what to do.
    """
    _require(source, list(arrays))
    x_train = _examples(f"{source}: x_train", arrays["x_train"])
    x_test = _examples(f"{source}: x_test", arrays["x_test"])
    if (x_test.shape[1:], x_test.dtype) != (x_train.shape[1:], x_train.dtype):
        raise DataError(
            f"{source}: x_test has examples of shape {x_test.shape[1:]} and dtype {x_test.dtype}, x_train of "
            f"{x_train.shape[1:]} and {x_train.dtype}; they must be alike: prepare both by the same code"
        )
    if classes is not None and (not isinstance(classes, int) or classes < 2):
        raise DataError(f"data.classes must be a whole number >= 2, got {classes!r}")
    y_train = _labels(f"{source}: y_train", arrays["y_train"], len(x_train), classes)
    y_test = _labels(f"{source}: y_test", arrays["y_test"], len(x_test), classes)
    seen = np.unique(y_train)
    if len(seen) < 2:
        raise DataError(f"{source}: y_train holds only class {seen[0]}; a training set needs two classes or more")
    if classes is None and len(seen) <= seen[-1]:
        gap = int(np.argmax(seen != np.arange(len(seen))))
        raise DataError(
            f"{source}: y_train goes up to {seen[-1]} but has no example of class {gap}; number the classes "
            f"0 to {len(seen) - 1}, or give data.classes={seen[-1] + 1} to allow classes without examples"
        )
    if len(unseen := np.setdiff1d(y_test, seen)):
        raise DataError(
            f"{source}: y_test holds classes {unseen[:5].tolist()}, of which y_train has no example; "
            "leave them out of the test set, or add training examples"
        )
    limits = _range(f"{source}: x_train", x_train, value_range)
    for array in (x_train, y_train, x_test, y_test):
        array.flags.writeable = False
    return Dataset(name, x_train, y_train, x_test, y_test, classes or len(seen), limits, class_names)


def _require(source: str, found: Sequence[str]) -> None:
    if missing := [key for key in KEYS if key not in found]:
        names = _line(", ".join(found[:8]) or "nothing") + ", ..." * (len(found) > 8)
        raise DataError(f"{source}: no {', '.join(missing)} (found {names}); save the arrays under these names")


def _examples(where: str, x: Array) -> Array:
    """A view or copy, (N, H, W, C) or (N, d), of uint8 or finite float32."""
    if x.dtype.kind not in "buif":
        raise DataError(f"{where} has dtype {x.dtype}; only integers and floats are allowed: convert it")
    if x.ndim not in (2, 3, 4):
        raise DataError(f"{where} has shape {x.shape}; allowed are (N, H, W), (N, H, W, C), (N, d): reshape it")
    if x.size == 0:
        raise DataError(f"{where} is empty, of shape {x.shape}; it needs an example or more: check how it was saved")
    if x.dtype != np.uint8:
        with np.errstate(over="ignore"):
            x = x.astype(np.float32, copy=False)
        if (bad := ~np.isfinite(x)).any():
            first = tuple(map(int, np.unravel_index(bad.argmax(), x.shape)))
            raise DataError(
                f"{where} holds {np.count_nonzero(bad)} values that are NaN or infinite in float32, first at "
                f"{first}; all must be finite: replace them or leave these examples out"
            )
    x = np.ascontiguousarray(x)
    return x[..., None] if x.ndim == 3 else x.view()


def _labels(where: str, y: Array, count: int, classes: int | None) -> npt.NDArray[np.int32]:
    """(N,) class indices, a copy."""
    rule = "give class indices of shape (N,), whole numbers from 0"
    if y.dtype.kind not in "buif":
        raise DataError(f"{where} has dtype {y.dtype}; {rule}")
    if y.ndim == 2 and y.shape[1] > 1:
        raise DataError(f"{where} has shape {y.shape}, as if one-hot; {rule}: argmax(axis=1) makes them")
    if y.ndim not in (1, 2):
        raise DataError(f"{where} has shape {y.shape}; {rule}")
    if y.size != count:
        raise DataError(f"{where} has {y.size} labels for {count} examples; there must be one for each: align them")
    y = y.reshape(-1)
    most = (2**31 if classes is None else classes) - 1
    with np.errstate(invalid="ignore", over="ignore"):  # half floats cannot hold `most`
        bad = ~((y >= 0) & (y <= most) & (y % 1 == 0))
    if bad.any():
        raise DataError(
            f"{where} holds {np.count_nonzero(bad)} labels that are no class index, first {y[bad.argmax()]} "
            f"at ({bad.argmax()},); allowed are whole numbers from 0 to {most}: renumber them"
            + (" or raise data.classes" if classes else "")
        )
    return y.astype(np.int32)


def _range(where: str, x: Array, given: Sequence[float] | None) -> tuple[float, float]:
    least, largest = float(x.min()), float(x.max())
    if least == largest:
        raise DataError(f"{where} is {least:g} everywhere; a constant teaches nothing: check how it was saved")
    if given is None:
        if x.dtype == np.uint8:
            return 0.0, 255.0
        return (0.0, 1.0) if least >= 0 and largest <= 1 else (least, largest)
    try:
        low, high = map(float, given)
    except (TypeError, ValueError):
        low = high = math.nan
    if not -math.inf < low < high < math.inf:
        raise DataError(f"data.value_range must be two numbers, the lower first, got {given}")
    if least < low or largest > high:
        raise DataError(
            f"{where} goes from {least:g} to {largest:g}, beyond data.value_range=[{low:g}, {high:g}]; "
            "widen the range or leave it out"
        )
    return low, high


def _read(file: Path) -> dict[str, Array]:
    """The arrays of `KEYS` in an .npz file."""
    arrays: dict[str, Array] = {}
    key = "it"
    try:
        # opened here: numpy leaves a file open if it cannot read the list of arrays
        with file.open("rb") as stream:
            start = stream.read(4)
            whole = start in _ZIP_STARTS and zipfile.is_zipfile(stream)
            stream.seek(0)
            archive: Mapping[str, Any] = np.load(stream, allow_pickle=False) if whole else {}
            found = list(archive)
            for key in (key for key in KEYS if key in found):
                arrays[key] = np.asarray(archive[key])
    except (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error):
            raise DataError(f"{file}: {key} has dtype object; only numbers are allowed: convert it") from error
        raise DataError(f"{file}: {key} cannot be read ({_line(error)}); copy or save the file again") from error
    if not whole and start in _ZIP_STARTS:
        raise DataError(f"{file} is an .npz file without its end; copy or download it again")
    if not whole:
        raise DataError(f"{file} is no .npz file; save {', '.join(KEYS)} with numpy.savez")
    _require(str(file), found)
    return arrays


def _load(name: str, path: str | Path | None, shape: tuple[int, ...], class_names: tuple[str, ...]) -> Dataset:
    """NAME.npz at `path` (the file or its folder), else in the folder HARNESS_DATA, else from Keras."""
    file, folder = None, os.environ.get("HARNESS_DATA")
    if path is not None:
        file = Path(path).expanduser()
        file = file / f"{name}.npz" if file.is_dir() else file
        if not file.is_file():
            raise DataError(
                f"data.path={path}: there is no {file.absolute()}; give an .npz file or a folder that holds "
                f"{name}.npz, or leave data.path out"
            )
    elif folder:
        if not Path(folder).is_dir():
            raise DataError(f"HARNESS_DATA={folder} is no folder; give the one that holds {name}.npz, or unset it")
        file = Path(folder) / f"{name}.npz"
        file = file if file.is_file() else None
    source = str(file or f"keras.datasets.{name}")
    arrays = _read(file) if file else _fetch(name)
    data = from_arrays(name, arrays, source, classes=len(class_names), class_names=class_names)
    if data.example_shape != shape:
        raise DataError(
            f"{source}: x_train has examples of shape {data.example_shape}, {name} has {shape}; "
            "for other arrays use data=npz"
        )
    return data


# name: where Keras gets a data set, and what lies in its cache afterwards
_ORIGINS = {
    "mnist": ("https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz", "mnist.npz"),
    "fashion_mnist": (
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/t10k-images-idx3-ubyte.gz",
        "fashion-mnist/t10k-images-idx3-ubyte.gz",
    ),
    "cifar10": ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", "cifar-10-*"),
    "cifar100": ("https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz", "cifar-100-*"),
}
_REACH_SECONDS = 4.0  # to reach a server at all
_STALL_SECONDS = 30.0  # without a byte, in a download that began


def _fetch(name: str) -> dict[str, Array]:
    """From Keras' cache or the internet; with neither, refused within seconds, before Keras is imported."""
    url, files = _ORIGINS[name]
    cache = _keras_cache()
    cached = any(cache.glob(files))
    reason = None if cached else unreachable(url)
    if reason is None:
        patience = socket.getdefaulttimeout()
        try:
            keras_module = importlib.import_module(f"keras.datasets.{name}")
            socket.setdefaulttimeout(_STALL_SECONDS)
            (x_train, y_train), (x_test, y_test) = keras_module.load_data()
            return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
        except Exception as error:  # Keras raises nothing narrower
            reason = _line(error)
        finally:
            socket.setdefaulttimeout(patience)
    folder = os.environ.get("HARNESS_DATA") or "(unset)"
    keras = f"cannot use {cache / files}" if cached else f"no {cache / files}, and {url} cannot be had"
    raise DataError(
        f"{name}: no data.path, no {name}.npz in HARNESS_DATA={folder}, {keras} ({reason}); put {name}.npz "
        f"with {', '.join(KEYS)} into a folder and set HARNESS_DATA or data.path to it"
    )


def _keras_cache() -> Path:
    """The folder of `keras.utils.get_file`, found without importing Keras."""
    home = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    if not os.access(home if home.exists() else home.parent, os.W_OK):
        home = Path("/tmp" if os.path.isdir("/tmp") else tempfile.gettempdir()) / ".keras"
    return home / "datasets"


def unreachable(url: str) -> str | None:
    """Why `url` gives no answer within seconds; None if it gives one, be it an error page."""
    reason: list[str | None] = [f"no answer in {_REACH_SECONDS:g} s"]

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_REACH_SECONDS).close()
            reason[0] = None
        except urllib.error.HTTPError as error:
            error.close()
            reason[0] = None
        except (OSError, http.client.HTTPException) as error:
            reason[0] = _line(getattr(error, "reason", error))

    # in a thread, as the look-up of a host name heeds no timeout
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_REACH_SECONDS)
    return reason[0]


def _line(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__
