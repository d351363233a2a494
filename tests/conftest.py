"""What the tests share: TensorFlow set up once a process, an empty store, small data, and arms made ready to train."""

from __future__ import annotations

import copy
import functools
import gc
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # several processes share the cores, and waiting threads spin
os.environ.pop("HARNESS_DATA", None)
os.environ.pop("MLFLOW_TRACKING_URI", None)

import numpy as np
import pytest

from harness.quiet import set_levels

set_levels()
gc.set_threshold(50_000, 20, 50)  # as a sweep has it: looking through what TensorFlow imports, again and again, is slow

if TYPE_CHECKING:
    from harness.config import Arm, Config
    from harness.data.datasets import Dataset
    from harness.prepared import Prepared
    from harness.training.replica import Replica


@pytest.fixture(scope="session")
def slots() -> list[str]:
    """TensorFlow as a sweep sets it up on a CPU with two replicas; must come before its first operation."""
    from harness.quiet import import_tensorflow

    import_tensorflow()
    from harness.training import devices

    return devices.slots("cpu", 2, 1, 1, False)


@pytest.fixture(scope="session", autouse=True)
def _one_empty_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """New stores of this process are copies of the first one: MLflow takes a second to make one."""
    from harness.tracking import schema, store

    empty = tmp_path_factory.mktemp("empty") / "mlflow.db"

    def make(database: Path) -> None:
        if not empty.exists():
            schema.make(empty)
        shutil.copyfile(empty, database)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "make", make)
        yield


def images(
    train: int = 60, test: int = 20, side: int = 8, classes: int = 3, channels: int = 1, seed: int = 0
) -> Dataset:
    """Noise with one bright row, which tells the class: easy to learn, different in every pixel."""
    from harness.data.datasets import from_arrays

    rng = np.random.default_rng(seed)
    arrays = {}
    for part, count in (("train", train), ("test", test)):
        labels = np.arange(count) % classes
        x = rng.integers(0, 128, (count, side, side, channels), dtype=np.uint8)
        x[np.arange(count), labels] += 120
        arrays |= {f"x_{part}": x, f"y_{part}": labels}
    return from_arrays("rows", arrays, "rows")


@pytest.fixture(scope="session")
def rows() -> Dataset:
    """60 training and 20 test images, 8x8x1, of 3 classes."""
    return images()


@pytest.fixture(scope="session")
def compose() -> Callable[..., tuple[Arm, ...]]:
    """The arms of a command line."""
    from harness import composition

    @functools.cache
    def once(overrides: tuple[str, ...], config_dir: str | None) -> tuple[Arm, ...]:
        return composition.compose(overrides, config_dir).arms

    return lambda *overrides, config_dir=None: copy.deepcopy(once(overrides, config_dir))


@pytest.fixture(scope="session")
def config_of(compose: Callable[..., tuple[Arm, ...]]) -> Callable[..., Config]:
    """The config of a command line with one arm."""

    def only(*overrides: str) -> Config:
        (arm,) = compose(*overrides)
        return arm.config

    return only


SMALL = (
    "arch=mlp",
    "arch.widths=[12]",
    "train.steps=12",
    "train.batch_size=10",
    "train.val_share=0.2",
    "train.evaluate={at:[0],every:4}",
    "train.probe={at:[0,1,2,5],examples:16}",
    "train.checkpoint={at:[6],seconds:null}",
)


@pytest.fixture(scope="session")
def prepare(slots: list[str], rows: Dataset, compose: Callable[..., tuple[Arm, ...]]) -> Callable[..., Prepared]:
    """A small arm, ready to train: `prepare("optimizer=sgd", data=rows)`."""
    from harness.prepared import Draws, Prepared

    def make(*overrides: str, data: Dataset = rows) -> Prepared:
        (arm,) = compose(*SMALL, *overrides)
        return Prepared(arm, data, Draws())

    return make


@pytest.fixture(scope="session")
def replica_of(slots: list[str]) -> Callable[..., Replica]:
    """A replica for a prepared arm; arms that compile the same thing share one."""
    from harness.training.replica import DeviceData, Replica

    made: dict[tuple[str, str], Replica] = {}

    def replica(prepared: Prepared, fresh: bool = False) -> Replica:
        key = (prepared.spec.key, prepared.data.digest)
        if fresh:
            return Replica(prepared.spec, DeviceData(prepared.data, slots[0]))
        if key not in made:
            made[key] = Replica(prepared.spec, DeviceData(prepared.data, slots[0]))
        return made[key]

    return replica


def lines(text: str) -> Sequence[str]:
    """The lines of a text that hold anything."""
    return [line for line in text.splitlines() if line.strip()]
