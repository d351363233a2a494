"""Which training examples a run sees, and in which order: index arrays that depend on seeds alone."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int32]

_MAX_SEED = 2**63 - 1


@dataclass(frozen=True, eq=False)
class Split:
    """Sorted indices into `x_train`: `train` and `val` are disjoint, `train_eval` is a part of `train`."""

    train: Indices
    val: Indices
    train_eval: Indices


def split(labels: npt.NDArray[Any], seed: int, val_share: float, eval_examples: int) -> Split:
    """Hold out `round(N * val_share)` of N examples for validation, and choose those that measure the fit.

    Args:
        labels: (N,) integers.
        seed: 0 to 2**63 - 1; the only source of chance.
        val_share: in [0, 1), of each class alike as far as whole numbers go; each keeps a training example.
        eval_examples: at least 1; how many training examples `train_eval` holds, stratified, if there are.

    Raises:
        ValueError: an argument out of range, or a `val_share` that would empty a class.
    """
    _check_seed(seed)
    if labels.ndim != 1 or len(labels) == 0:
        raise ValueError(f"labels must be (N,) with N >= 1, got shape {labels.shape}")
    if not 0 <= val_share < 1:
        raise ValueError(f"val_share must be in [0, 1), got {val_share}")
    if eval_examples < 1:
        raise ValueError(f"eval_examples must be >= 1, got {eval_examples}")
    sizes = np.unique(labels, return_counts=True)[1]
    held_out = round(len(labels) * val_share)
    if held_out > (most := len(labels) - len(sizes)):
        raise ValueError(
            f"val_share={val_share} holds out {held_out} of {len(labels)} examples, but each of {len(sizes)} "
            f"classes must keep one for training: hold out at most {most}"
        )
    rng = np.random.default_rng(seed)
    val = stratified(labels, held_out, rng, keep=1)
    train = np.setdiff1d(np.arange(len(labels), dtype=np.int32), val, assume_unique=True)
    chosen = stratified(labels[train], min(len(train), eval_examples), rng)
    return Split(train=train, val=val, train_eval=train[chosen])


def order(seed: int, train: Indices, batch_size: int, steps: int, start: int = 0) -> Indices:
    """The batches of steps `start` to `start + steps - 1` of an endless stream, int32 (steps, batch_size).

    Epoch e is the permutation of `train` that `[seed, e]` draws, cut into `len(train) // batch_size` full
    batches; the rest of it is left out. So a step's batch depends on seed and step alone, as resuming needs.

    Raises:
        ValueError: a seed, `steps` or `start` out of range, or no full batch in `train`.
    """
    _check_seed(seed)
    if not 1 <= batch_size <= len(train):
        raise ValueError(
            f"batch_size must be between 1 and the {len(train)} training examples, got {batch_size}: "
            "take a smaller batch or more examples"
        )
    if steps < 0 or start < 0:
        raise ValueError(f"steps and start must be >= 0, got steps={steps}, start={start}")
    per_epoch = len(train) // batch_size
    batches = np.empty((steps, batch_size), np.int32)
    done = 0
    while done < steps:
        epoch, first = divmod(start + done, per_epoch)
        count = min(per_epoch - first, steps - done)
        shuffled = np.random.default_rng([seed, epoch]).permutation(train)
        batches[done : done + count] = shuffled[first * batch_size : (first + count) * batch_size].reshape(count, -1)
        done += count
    return batches


def stratified(labels: npt.NDArray[Any], count: int, rng: np.random.Generator, keep: int = 0) -> Indices:
    """`count` indices into `labels`, sorted: of each class in proportion to its size, but `keep` of it stay.

    A class no larger than `keep` gives none; the others make up for it, so that the total is exact.
    """
    _, codes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    takes = _apportion(count, sizes, np.maximum(sizes - keep, 0))
    members = np.split(np.argsort(codes, kind="stable"), np.cumsum(sizes)[:-1])
    parts = [rng.permutation(member)[:take] for member, take in zip(members, takes, strict=True)]
    return np.sort(np.concatenate(parts)).astype(np.int32)


def _apportion(count: int, sizes: npt.NDArray[np.int64], limits: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How many each class gives, none above its limit, `count` in all: largest remainder, ties to the first.

    In whole numbers, so that equal remainders are equal: a share is `weight * count / total`.
    """
    weights = np.where(limits > 0, sizes, 0)
    total = max(int(weights.sum()), 1)
    seats: npt.NDArray[np.int64] = np.minimum(weights * count // total, limits)
    while (left := count - int(seats.sum())) > 0:
        free = np.flatnonzero(seats < limits)
        owed = weights[free] * count - seats[free] * total
        seats[free[np.argsort(-owed, kind="stable")[:left]]] += 1
    return seats


def _check_seed(seed: int) -> None:
    if not 0 <= seed <= _MAX_SEED:
        raise ValueError(f"seed must be between 0 and 2**63 - 1, got {seed}")
