"""Anything that a person may hand to the harness, drawn by hypothesis: configs, arrays, folders of pictures.

Each `try_…` takes one such thing, and raises AssertionError where it ends neither in a result nor in one clear line.
`tests/test_any_input.py` tries a few hundred, `scripts/soak.py input` thousands.
"""

from __future__ import annotations

import dataclasses
import io
import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from harness import composition, sweep
from harness.checks import ConfigError
from harness.config import Arm, resolve
from harness.data.datasets import DataError, Dataset, from_arrays, npz
from harness.data.image_folder import image_folder
from harness.streams import Block
from harness.targets import TargetError

BASE = ("arch=mlp", "arch.widths=[4]", "train.steps=4", "train.batch_size=2", "train.checkpoint.seconds=null")
CLEAR = (ConfigError, DataError, TargetError)


def refused(attempt: Callable[[], object]) -> str | None:
    """The one line with which it is refused, or None: it works. Any other error goes through."""
    try:
        attempt()
    except CLEAR as error:
        line = str(error)
        assert line.strip() and "\n" not in line and len(line) < 2000, repr(line)
        return line
    return None


# Configs

NUMBERS = (0, 1, 2, 3, 10, 1000, -1, 2**31, 2**63, 10**30, -(2**63))
FLOATS = (0.5, -0.5, 1.0, 1e-30, 1e30, math.nan, math.inf, -math.inf)
WORDS = (
    "",
    " ",
    "abc",
    "null",
    "../../x",
    "<script>",
    "a'b\"c",
    "1 epoch",
    "5 %",
    "-1 %",
    "1-2-5",
    "os.system",
    "ä",
    "x" * 300,
)
plain = st.one_of(st.sampled_from(NUMBERS), st.sampled_from(FLOATS), st.sampled_from(WORDS), st.booleans(), st.none())
values = st.one_of(
    plain,
    st.lists(plain, max_size=3),
    st.dictionaries(st.sampled_from(["_target_", "a", "at", "every"]), plain, max_size=2),
    st.text(max_size=12),
)


@cache
def composed() -> DictConfig:
    """A small arm as Hydra composes it; from here on a change of a value takes milliseconds."""
    with composition.loaded([composition.as_hydra(each) for each in BASE], None) as (loader, master):
        return loader.load_sweep_config(master, [composition.as_hydra(each) for each in BASE])


@cache
def keys() -> tuple[str, ...]:
    """Every key that a value can be given to, sections included, and some that do not exist."""
    config = composed().copy()
    OmegaConf.set_struct(config, False)
    config.pop("hydra", None)
    found: list[str] = []

    def walk(node: Any, prefix: str) -> None:
        for name, child in node.items():
            found.append(f"{prefix}{name}")
            if isinstance(child, Mapping):
                walk(child, f"{prefix}{name}.")

    walk(OmegaConf.to_container(config), "")
    more = ("epocs", "arch.widht", "optimizer.clipnorm", "learning_rate.schedule._target_", "initializer.bias.value")
    return (*found, *more)


@cache
def small() -> Dataset:
    """12 training and 6 test images, 4x4x1, of 3 classes."""
    x = np.arange(18 * 16, dtype=np.uint8).reshape(18, 4, 4)
    y = np.arange(18) % 3
    return from_arrays("small", {"x_train": x[:12], "y_train": y[:12], "x_test": x[12:], "y_test": y[12:]}, "small")


changes = st.deferred(lambda: st.lists(st.tuples(st.sampled_from(keys()), values), min_size=1, max_size=3))


def try_changes(changes: Sequence[tuple[str, Any]]) -> str | None:
    """A config with some of its values replaced: checked, planned, and made ready to train."""
    config = composed().copy()
    OmegaConf.set_struct(config, False)
    for key, value in changes:
        try:
            OmegaConf.update(config, key, value)
        except Exception:  # not even OmegaConf lets it in: Hydra says so, which `try_words` looks at
            return "not a config"
    return refused(lambda: ready(Arm("any", resolve(config))))


words = st.deferred(
    lambda: st.lists(
        st.one_of(
            st.builds(
                lambda key, value: f"{key}={value}", st.sampled_from(keys()), st.one_of(plain, st.text(max_size=8))
            ),
            st.builds(lambda sign, key: f"{sign}{key}", st.sampled_from(["+", "~", "++", ""]), st.text(max_size=8)),
        ),
        min_size=1,
        max_size=2,
    )
)


def try_words(words: Sequence[str]) -> str | None:
    """The words of a command line."""

    def attempt() -> None:
        for arm in sweep.Plan(composition.compose([*BASE, *words]).arms).arms[:1]:
            ready(arm)

    return refused(attempt)


def ready(arm: Arm) -> None:
    """All that is checked before training, on data of 12 examples."""
    from harness.prepared import Draws, Prepared
    from harness.runner import config_yaml, params

    (arm,) = sweep.Plan((arm,)).arms
    prepared = Prepared(arm, small(), Draws())
    prepared.check(prepared.check_net())
    assert prepared.recipe.steps >= 1
    assert arm.run_key(Block.of(0), small().digest)
    assert params(arm)
    assert dataclasses.asdict(resolve_again(config_yaml(arm.config))) == dataclasses.asdict(arm.config)


def resolve_again(text: bytes) -> Any:
    """The config that a run stores, as `resume_from` reads it."""
    from harness.config import stored

    return stored(text.decode())


# Arrays

DTYPES = ("u1", "i1", "i8", "f2", "f4", "f8", "?", "c8", "U3", "O", "M8[s]")


counts = st.sampled_from([12, 6, 9, 3, 1, 0])
rarely = st.integers(0, 11).map(lambda number: number == 11)


@st.composite
def arrays(draw: st.DrawFn) -> dict[str, npt.NDArray[Any]]:
    """The four arrays, mostly of the right form, with one thing or another wrong."""
    side, classes = draw(st.sampled_from([4, 3, 2, 1, 0])), draw(st.sampled_from([3, 2, 2, 3, 1]))
    shape = draw(st.sampled_from([(side, side), (side, side, 1), (side, side, 3), (side,), (), (2, 2, 2, 2)]))
    dtype = draw(st.sampled_from(("u1", "f4") * 9 + DTYPES))
    made: dict[str, npt.NDArray[Any]] = {}
    for part, count in (("train", draw(counts)), ("test", draw(counts))):
        rng = np.random.default_rng(draw(st.integers(0, 3)))
        x = rng.integers(0, draw(st.sampled_from([256, 2, 1])), (count, *shape))
        made[f"x_{part}"] = x.astype(dtype, copy=False) if dtype != "M8[s]" else x.astype("i8").astype("M8[s]")
        if dtype.startswith("f") and x.size and draw(rarely):
            made[f"x_{part}"].flat[0] = draw(st.sampled_from([math.nan, math.inf, -1e30 if dtype != "f2" else -6e4]))
        y = np.arange(max(0, count + draw(st.sampled_from([0] * 9 + [-1, 1])))) % classes
        y = (y + draw(st.sampled_from([0] * 6 + [1, -1, 1000]))).astype(
            draw(st.sampled_from(["i8"] * 6 + list(DTYPES[:9])))
        )
        made[f"y_{part}"] = (
            y if draw(st.integers(0, 9)) else np.eye(max(classes, 1))[np.abs(np.arange(len(y)) % classes)]
        )
    if draw(st.integers(0, 9)) == 0:
        made.pop(draw(st.sampled_from(sorted(made))))
    return made


def try_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> str | None:
    """An .npz file of these arrays, read, drawn from and preprocessed."""

    def attempt() -> None:
        with tempfile.TemporaryDirectory() as folder:
            np.savez(Path(folder) / "any.npz", **arrays)  # type: ignore[arg-type]
            data = npz(Path(folder) / "any.npz")
        whole(data)

    return refused(attempt)


def whole(data: Dataset) -> None:
    """What a data set promises, and a training on it made ready as far as the net."""
    from harness.prepared import Draws, Prepared

    assert len(data.x_train) == len(data.y_train) > 0
    assert np.isfinite(data.x_train).all()
    assert 0 <= data.y_test.min() <= data.y_test.max() < data.classes
    prepared = Prepared(Arm("any", resolve(composed().copy())), data, Draws())
    prepared.check()


# Pictures

KINDS = ("png", "jpeg", "gray", "cmyk", "one", "sixteen", "text", "empty", "cut", "loop", "folder", "hidden", "bomb")


@st.composite
def folders(draw: st.DrawFn) -> list[tuple[str, str]]:
    """(path, kind) of files below a folder: mostly pictures in class folders."""
    one = st.tuples(
        st.sampled_from(["a", "a", "b", "b", "c", "train/a", "test/a", "", "a/deep", "ä <b>"]),
        st.sampled_from(["1.png", "2.jpg", "3.JPEG", "4.png", "5.jpg", ".6.png", "notes.txt", "..png"]),
        st.sampled_from(("png", "jpeg") * 6 + KINDS),
    )
    return [(f"{folder}/{name}".lstrip("/"), kind) for folder, name, kind in draw(st.lists(one, max_size=8))]


def try_folder(files: Sequence[tuple[str, str]]) -> str | None:
    """A folder of these files, as `data=image_folder` reads it."""

    def attempt() -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "pictures"
            folder.mkdir()
            for path, kind in files:
                make(folder / path, kind)
            os.environ["HARNESS_CACHE"] = str(Path(name) / "cache")
            data = image_folder(folder, image_size=3)
            assert data.x_train.shape[1:] == (3, 3, 3)
            assert len(data.class_names) == data.classes >= 2

    return refused(attempt)


def make(path: Path, kind: str) -> None:
    """One file of this kind; what stands in the way of another stays."""
    if path.exists() or path.is_symlink() or any(parent.is_file() for parent in path.parents):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    buffer = io.BytesIO()
    match kind:
        case "loop":
            path.symlink_to(path.parent if path.name != "1.png" else path)
            return
        case "folder":
            path.mkdir()
            return
        case "text" | "empty":
            content = b"no picture" if kind == "text" else b""
        case "cmyk":
            picture.convert("CMYK").save(buffer, "JPEG")
            content = buffer.getvalue()
        case "sixteen":
            Image.fromarray(pixels[..., 0].astype(np.uint16) * 256).save(buffer, "PNG")
            content = buffer.getvalue()
        case "bomb":  # a header that promises 10^9 pixels
            picture.save(buffer, "PNG")
            content = buffer.getvalue()[:16] + (40000).to_bytes(4, "big") * 2 + buffer.getvalue()[24:]
        case _:
            picture = picture.resize((1, 1)) if kind == "one" else picture.convert("L") if kind == "gray" else picture
            picture.save(buffer, "JPEG" if kind == "jpeg" else "PNG")
            content = buffer.getvalue()[: 60 if kind == "cut" else None]
    path.write_bytes(content)


ALL: dict[str, tuple[Any, Callable[[Any], str | None]]] = {
    "changes": (changes, try_changes),
    "words": (words, try_words),
    "arrays": (arrays(), try_arrays),
    "folders": (folders(), try_folder),
}
