"""Optimizers and learning rates: Keras classes; the rate of every step is computed beforehand."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from harness.targets import build


def optimizer(spec: Mapping[str, Any], precision: str) -> keras.optimizers.Optimizer:
    """The optimizer; its learning rate is set step by step from outside, its loss is scaled under mixed_float16."""
    built = build({**spec, "learning_rate": 0.0})
    return keras.optimizers.LossScaleOptimizer(built) if precision == "mixed_float16" else built


def learning_rates(
    value: float, warmup: int, schedule: Mapping[str, Any] | None, steps: int
) -> npt.NDArray[np.float32]:
    """The rate of steps 0 to steps-1.

    Args:
        value: the base rate.
        warmup: steps over which the rate climbs linearly to `value`; the schedule starts after them.
        schedule: spec of a Keras LearningRateSchedule without its initial rate, durations in steps; None: constant.
        steps: length of the training.
    """
    after = np.full(steps, value, np.float32)
    if schedule is not None:
        decay = build(schedule, initial_learning_rate=value)
        # In a graph, one step at a time: most schedules take scalars only.
        after = tf.function(lambda: tf.map_fn(decay, tf.range(steps, dtype=tf.float32)))().numpy()
    climb = value * (np.arange(min(warmup, steps), dtype=np.float32) + 1) / max(warmup, 1)
    return np.concatenate([climb, after])[:steps].astype(np.float32)
