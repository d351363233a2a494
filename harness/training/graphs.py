"""Compiled functions that replicas share: traced and optimized once, then called by the others with their variables.

Tracing is Python and holds the interpreter's lock, so that replicas would trace one after another.
"""

import copy
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import tensorflow as tf

Concrete = Any  # tf.types.experimental.ConcreteFunction
Place = tuple[str, int | None]
Signature = Sequence[tuple[tf.TensorSpec, int]]
"""Each argument's, and how many rows the smallest call has of it, where their number is open."""
Owner = TypeVar("Owner")

_tracer = ThreadPoolExecutor(1, "tracing")


@dataclass
class Traced(Generic[Owner]):
    """A function as a graph, and whose variables it has."""

    function: Concrete
    owner: Owner
    _smallest: Signature
    _called: bool = False
    _calling: threading.Lock = field(default_factory=threading.Lock)

    def call_once(self) -> None:
        """Make the smallest call, on zeros, unless it was made.

        With its first call TensorFlow optimizes a function: once for each of several threads that call it at once.
        """
        with self._calling:
            if not self._called:
                shapes = (
                    [rows if length is None else length for length in spec.shape] for spec, rows in self._smallest
                )
                self.function(
                    *(tf.zeros(shape, spec.dtype) for shape, (spec, _) in zip(shapes, self._smallest, strict=True))
                )
                self._called = True


class Shared(Generic[Owner]):
    """The graphs of replicas that are alike: the first to want one has it traced, in a thread for all of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[Place, Future[Traced[Owner]]] = {}

    def get(self, place: Place, make: Callable[[], Traced[Owner]]) -> Future[Traced[Owner]]:
        """What was made at this place; made, after all that was asked for before, when nothing was, or it failed."""
        with self._lock:
            found = self._found.get(place)
            if found is None or (found.done() and found.exception() is not None):
                found = self._found[place] = _tracer.submit(make)
        return found


def trace(function: Callable[..., Any], signature: Signature, owner: Owner) -> Traced[Owner]:
    """The function as a graph."""
    specs = [spec for spec, _ in signature]
    traced = tf.function(function, input_signature=specs, autograph=False).get_concrete_function()
    return Traced(traced, owner, signature)


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
