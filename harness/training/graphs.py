"""Compiled functions that replicas share: traced once, then taken over by the others with variables of their own.

Tracing is Python and holds the interpreter's lock, so that replicas would trace one after another; taking a graph
over is several times faster, and gives the same bits.
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

Concrete = Any  # tf.types.experimental.ConcreteFunction


def trace(function: Callable[..., Any], signature: Sequence[tf.TensorSpec]) -> Concrete:
    """The function as a graph."""
    return tf.function(function, input_signature=list(signature), autograph=False).get_concrete_function()


def take_over(
    traced: Concrete,
    signature: Sequence[tf.TensorSpec],
    variables: Sequence[tf.Variable],
    others: Sequence[tf.Variable],
) -> Concrete:
    """The same graph with other variables.

    Args:
        traced: from `trace`; its outputs are a tensor or a tuple of tensors.
        signature: of its arguments.
        variables: those that it may touch.
        others: what stands for each of them, on the same device.
    """
    graph = traced.graph
    definition = graph.as_graph_def()
    instead = {id(mine.handle): other.handle for mine, other in zip(variables, others, strict=True)}
    captured = list(zip(traced.captured_inputs, graph.internal_captures, strict=True))
    inner = {id(placeholder) for _, placeholder in captured}
    arguments = [placeholder for placeholder in graph.inputs if id(placeholder) not in inner]
    outputs = tf.nest.flatten(traced.structured_outputs)
    # Whatever the graph does to its variables must happen before it gives its outputs.
    effects = [operation.name for operation in graph.control_outputs]

    def function(*given: tf.Tensor) -> Any:
        here = tf.compat.v1.get_default_graph()
        inputs = {placeholder.name: here.capture(instead.get(id(outer), outer)) for outer, placeholder in captured}
        inputs |= {placeholder.name: value for placeholder, value in zip(arguments, given, strict=True)}
        found = tf.graph_util.import_graph_def(
            definition, input_map=inputs, return_elements=[tensor.name for tensor in outputs] + effects, name=""
        )
        with tf.control_dependencies(found[len(outputs) :]):
            results = [tf.identity(tensor) for tensor in found[: len(outputs)]]
        return tf.nest.pack_sequence_as(traced.structured_outputs, results)

    return trace(function, signature)
