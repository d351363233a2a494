"""The path of an optimizer over a surface of two dimensions: the same Keras classes as for the nets (LTFN 7)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from harness.models.optimizers import optimizer


def path(
    spec: Mapping[str, Any],
    rate: float,
    surface: Callable[[Any, Any], Any],
    start: Sequence[float],
    steps: int,
) -> npt.NDArray[np.float32]:
    """Where the optimizer stands before the first and after each step: (steps + 1, 2).

    Args:
        spec: of the optimizer, as in conf/optimizer.
        rate: its learning rate, constant.
        surface: height at (x, y); of tensors.
        start: (x, y).
        steps: to take.
    """
    with tf.device("/CPU:0"):
        place = keras.Variable(np.asarray(start, np.float32))
        built = optimizer(spec, "float32")
        built.build([place])
        built.learning_rate = rate
        stands = [np.array(place)]
        for _ in range(steps):
            with tf.GradientTape() as tape:
                height = tf.convert_to_tensor(surface(place[0], place[1]))
            built.apply([tape.gradient(height, place.value)], [place])
            stands.append(np.array(place))
    return np.stack(stands)
