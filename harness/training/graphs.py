"""Compiled functions that replicas share: traced and optimized once, then called by the others with their variables.

Tracing is Python and holds the interpreter's lock, so that replicas would trace one after another.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

Concrete = Any  # tf.types.experimental.ConcreteFunction


def trace(function: Callable[..., Any], signature: Sequence[tf.TensorSpec]) -> Concrete:
    """The function as a graph."""
    return tf.function(function, input_signature=list(signature), autograph=False).get_concrete_function()


def take_over(traced: Concrete, variables: Sequence[tf.Variable], others: Sequence[tf.Variable]) -> Concrete:
    """The same graph with other variables.

    Args:
        traced: from `trace`.
        variables: those that it may touch.
        others: what stands for each of them, on the same device.
    """
    instead = {id(mine.handle): other.handle for mine, other in zip(variables, others, strict=True)}
    mine = copy.copy(traced)
    mine.set_external_captures([instead.get(id(captured), captured) for captured in traced.captured_inputs])
    return mine
