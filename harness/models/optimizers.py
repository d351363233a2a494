"""Optimizers and learning rates: Keras classes; the rate of every step is computed beforehand."""

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from harness.targets import TARGET, TargetError, build, first_line


class _Fused(keras.optimizers.Adam):  # type: ignore[misc]
    """Adam's step (Kingma and Ba 2015, algorithm 1) in one pass over the arrays, where Keras makes twelve."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """See Keras. 1 - beta is a difference of float32 here: with the default betas, up to 5e-5 of a step."""
        kind, place = variable.dtype, self._get_variable_index(variable)
        beta1, beta2 = tf.cast(self.beta_1, kind), tf.cast(self.beta_2, kind)
        step = tf.cast(self.iterations + 1, kind)
        tf.raw_ops.ResourceApplyAdam(
            var=getattr(variable, "_value", variable).handle,
            m=self._momentums[place].value.handle,
            v=self._velocities[place].value.handle,
            beta1_power=beta1**step,
            beta2_power=beta2**step,
            lr=tf.cast(learning_rate, kind),
            beta1=beta1,
            beta2=beta2,
            epsilon=tf.cast(self.epsilon, kind),
            grad=tf.cast(gradient, kind),
        )


class _FusedW(_Fused, keras.optimizers.AdamW):  # type: ignore[misc]
    """Keras decays the weights before the step."""


_FUSED = {keras.optimizers.Adam: _Fused, keras.optimizers.AdamW: _FusedW}


def optimizer(spec: Mapping[str, Any], precision: str) -> keras.optimizers.Optimizer:
    """The optimizer; its learning rate is set step by step from outside, its loss is scaled under mixed_float16."""
    built = build({**spec, "learning_rate": 0.0})
    if type(built) in _FUSED and not built.amsgrad:
        built = _FUSED[type(built)].from_config(built.get_config())
    return keras.optimizers.LossScaleOptimizer(built) if precision == "mixed_float16" else built


def try_optimizer(spec: Mapping[str, Any], precision: str) -> None:
    """Take one step on two numbers: Keras checks most arguments only then. Equal specs are tried once a process.

    Raises:
        TargetError: the step fails.
    """
    _try_optimizer(json.dumps(spec, sort_keys=True), precision)


@cache
def _try_optimizer(written: str, precision: str) -> None:
    spec = json.loads(written)
    built = optimizer(spec, precision)
    try:
        with tf.device("/CPU:0"):
            variable = keras.Variable(np.ones((1, 2), np.float32))
            built.build([variable])
            built.apply([tf.ones((1, 2))], [variable])
    except Exception as error:  # Keras and TensorFlow have many kinds
        given = ", ".join(f"{name}={value}" for name, value in spec.items() if name != TARGET)
        what = re.sub(r"\{\{.*?\}\} *| *\[Op:.*", "", first_line(error))  # TensorFlow's own names for the place
        raise TargetError(f"optimizer: {spec[TARGET]}({given}) cannot take a step: {what}") from None


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
