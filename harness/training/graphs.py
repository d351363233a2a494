"""Compiled functions that replicas share: traced and optimized once, then called by the others with their variables.

Tracing is Python and holds the interpreter's lock, so that replicas would trace one after another.
"""

import copy
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import tensorflow as tf

Concrete = Any  # tf.types.experimental.ConcreteFunction
Place = tuple[str, int | None]
Signature = Sequence[tuple[tf.TensorSpec, int]]
"""Each argument's, and how many rows the smallest call has of it, where their number is open."""
Owner = TypeVar("Owner")

_tracer = ThreadPoolExecutor(1, "tracing")
_optimizers = ThreadPoolExecutor(2, "optimizing")


@dataclass(frozen=True)
class Traced(Generic[Owner]):
    """A function as a graph on a device, and whose variables it has."""

    function: Concrete
    owner: Owner
    device: str
    _smallest: Signature

    def optimized(self) -> "Traced[Owner]":
        """Itself, after the smallest call, on zeros.

        With its first call TensorFlow optimizes a function: once for each of several threads that call it at once.
        """
        with tf.device(self.device):
            shapes = ([rows if length is None else length for length in spec.shape] for spec, rows in self._smallest)
            self.function(
                *(tf.zeros(shape, spec.dtype) for shape, (spec, _) in zip(shapes, self._smallest, strict=True))
            )
        return self


class Shared(Generic[Owner]):
    """The graphs of replicas that are alike: the first to want one has it made, in threads that all of them share."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[Place, Future[Traced[Owner]]] = {}

    def get(self, place: Place, make: Callable[[], Traced[Owner]]) -> Future[Traced[Owner]]:
        """What was made at this place; made, after all that was asked for before, when nothing was, or it failed.

        One graph is optimized while the next is traced.
        """
        with self._lock:
            found = self._found.get(place)
            if found is None or (found.done() and found.exception() is not None):
                traced = _tracer.submit(make)
                found = self._found[place] = _optimizers.submit(lambda: traced.result().optimized())
        return found


def trace(function: Callable[..., Any], signature: Signature, owner: Owner, device: str) -> Traced[Owner]:
    """The function as a graph on the device."""
    specs = [spec for spec, _ in signature]
    with tf.device(device):
        traced = tf.function(function, input_signature=specs, autograph=False).get_concrete_function()
    return Traced(traced, owner, device, signature)


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
