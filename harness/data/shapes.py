"""What an example of the well-known data sets is like: known without the data being there."""

from collections.abc import Mapping
from typing import Any

from harness.targets import TARGET

Shape = tuple[int, ...]

FIXED: dict[str, tuple[Shape, int]] = {
    "digits": ((8, 8, 1), 10),
    "mnist": ((28, 28, 1), 10),
    "fashion_mnist": ((28, 28, 1), 10),
    "cifar10": ((32, 32, 3), 10),
    "cifar100": ((32, 32, 3), 100),
    "flowers17": ((224, 224, 3), 17),
}
"""Name of the function that loads it -> (height, width, channels), classes."""


def known(spec: Mapping[str, Any]) -> tuple[Shape, int] | None:
    """Shape of an example and number of classes of the data set that a config names; None where the data must tell.

    `image_size`, where the config has it, is the side to which images are brought.
    """
    found = FIXED.get(str(spec[TARGET]).rpartition(".")[2])
    if found is None or not isinstance(side := spec.get("image_size"), int):
        return found
    (*_, channels), classes = found
    return (side, side, channels), classes
