"""Get data sets where there is a network, checked: `python scripts/fetch_data.py mnist cifar10 flowers17 --to data`.

Writes mnist.npz, cifar10.npz and flowers17/class_CC/image_NNNN.jpg into the folder; HARNESS_DATA=FOLDER, or
data.path=FOLDER, has the harness find them. What is there already is left alone.
"""

import argparse
import os
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np

from harness.data import datasets
from harness.data.datasets import KEYS, DataError

FLOWERS = "https://www.robots.ox.ac.uk/~vgg/data/flowers/17/17flowers.tgz"
FLOWERS_MD5 = "b59a65d8d1a99cd66944d474e1289eab"
A_CLASS = 80  # pictures, in order


def arrays(name: str, folder: Path) -> Path:
    """NAME.npz, from keras.datasets, which checks its sha256."""
    file = folder / f"{name}.npz"
    if not file.exists():
        data = getattr(datasets, name)()
        with tempfile.TemporaryDirectory(dir=folder) as part:
            np.savez_compressed(Path(part) / file.name, **{key: getattr(data, key) for key in KEYS})
            os.replace(Path(part) / file.name, file)
    return file


def flowers(folder: Path) -> Path:
    """flowers17/, from the Visual Geometry Group's archive, which has no class folders."""
    target = folder / "flowers17"
    if not target.exists():
        if (reason := datasets.unreachable(FLOWERS)) is not None:
            raise DataError(f"flowers17: {FLOWERS} cannot be had ({reason}); copy a flowers17/ into {folder}")
        from harness.quiet import import_tensorflow

        import_tensorflow()
        import keras

        with tempfile.TemporaryDirectory(dir=folder) as part:
            try:
                archive = keras.utils.get_file("17flowers.tgz", FLOWERS, file_hash=FLOWERS_MD5, cache_dir=part)
            except Exception as error:  # Keras raises nothing narrower
                raise DataError(f"flowers17: {' '.join(str(error).split())}") from None
            into_classes(Path(archive), Path(part) / "flowers17")
            os.replace(Path(part) / "flowers17", target)
    return target


def into_classes(archive: Path, target: Path) -> None:
    """jpg/image_0001.jpg … of an archive as class_00/image_0001.jpg …, 80 a class."""
    with tarfile.open(archive) as opened:
        for member in opened:
            name = Path(member.name).name
            if name.startswith("image_") and (content := opened.extractfile(member)) is not None:
                file = target / f"class_{(int(name[6:10]) - 1) // A_CLASS:02d}" / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content.read())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="mnist, fashion_mnist, cifar10, cifar100, flowers17 (default: all)")
    parser.add_argument("--to", type=Path, default=Path(os.environ.get("HARNESS_DATA") or "data"))
    given = parser.parse_args(arguments)
    known = ("mnist", "fashion_mnist", "cifar10", "cifar100", "flowers17")
    try:
        if unknown := [name for name in given.names if name not in known]:
            raise DataError(f"{unknown[0]}: no data set of this script; allowed: {', '.join(known)}")
        given.to.mkdir(parents=True, exist_ok=True)
        os.environ.pop("HARNESS_DATA", None)  # the original is wanted
        for name in given.names or known:
            print(flowers(given.to) if name == "flowers17" else arrays(name, given.to))
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"export HARNESS_DATA={given.to.resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
