"""What the files of runs will take on the disk: said in the plan, before any of them is written."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from harness.models.optimizers import optimizer
from harness.prepared import Prepared

_UNITS = ("B", "kB", "MB", "GB", "TB")
ALL = 10**9  # more checkpoints than any run makes


def kept(keep: int | str) -> int:
    """How many of the newest checkpoints stay under a policy: a number | all | best | none.

    With `best`, the newest is there to go on from, and the best beside it.
    """
    return keep if isinstance(keep, int) else {"all": ALL, "best": 1, "none": 0}[keep]


def sizes(prepared: Prepared) -> tuple[int, int]:
    """Bytes of one checkpoint (weights and optimizer slots) and of the saved net, without their small headers."""
    model = prepared.spec.build(prepared.data.example_shape, prepared.data.classes)
    made = optimizer(prepared.spec.optimizer, prepared.spec.precision)
    made.build(model.trainable_variables)

    def size(variables: Iterable[Any]) -> int:
        return sum(math.prod(variable.shape) * np.dtype(variable.dtype).itemsize for variable in variables)

    net = size(model.weights)
    return net + size(made.variables), net


def forecast(to_train: Iterable[tuple[Prepared, int]]) -> str:
    """One line on the files that so many runs of each arm will leave."""
    known: dict[tuple[str, str], tuple[int, int]] = {}
    states = nets = runs = 0
    more = False
    policies: dict[str, None] = {}
    for prepared, count in to_train:
        place = (prepared.spec.key, prepared.data.digest)
        state, net = known.setdefault(place, known.get(place) or sizes(prepared))
        checkpoint = prepared.arm.config.train.checkpoint
        scheduled = len([step for step in prepared.recipe.checkpoint if step > 0])
        more |= checkpoint.seconds is not None and kept(checkpoint.keep) > scheduled
        best = state if checkpoint.keep == "best" else 0  # in a file of its own, and carried along by the last one
        watched = 0 if prepared.recipe.patience is None else net  # the best weights so far
        bytes_a_run = min(kept(checkpoint.keep), scheduled) * (state + best + watched) + best
        states, nets, runs = states + count * bytes_a_run, nets + count * net, runs + count
        policies[f"last {checkpoint.keep}" if isinstance(checkpoint.keep, int) else str(checkpoint.keep)] = None
    late = " (more where train.checkpoint.seconds adds some)" if more else ""
    return (
        f"Disk for {runs} runs: checkpoints ({', '.join(policies)} kept) {_bytes(states)}{late}, nets {_bytes(nets)}."
    )


def _bytes(count: int) -> str:
    power = min(len(_UNITS) - 1, int(math.log(max(count, 1), 1000)))
    return f"{count / 1000**power:.3g} {_UNITS[power]}"
