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


@dataclass(frozen=True)
class Part:
    """Which of several disjoint parts: number `index` of `count`, of the partition that `seed` makes."""

    index: int
    count: int
    seed: int


def draw(
    labels: npt.NDArray[Any],
    scheme: str,
    examples: int | None,
    part: Part,
    seed: int,
    val_share: float,
    eval_examples: int,
) -> Split:
    """Choose the training examples of a block, and split them.

    Args:
        labels: (N,) integers.
        scheme: all; disjoint: one part of a partition stratified by class (draws are independent given the data);
            subsample: without replacement (draws overlap); bootstrap: N training examples with replacement.
        examples: of a part or subsample; None: N / number of parts. `all` and `bootstrap` do not look at it.
        part: the part of a disjoint partition; its count is also what `examples=None` divides by.
        seed: of the block's draw stream.
        val_share: of the chosen examples, held out for validation; never resampled.
        eval_examples: as in `split`.

    Raises:
        ValueError: more examples asked for than there are, an unknown scheme, or what `split` refuses.
    """
    if scheme in ("all", "bootstrap"):
        found = split(labels, seed, val_share, eval_examples)
        if scheme == "all":
            return found
        rng = np.random.default_rng([seed, 1])
        train = np.sort(rng.choice(found.train, len(found.train), replace=True)).astype(np.int32)
        return Split(train=train, val=found.val, train_eval=train[_evenly(len(train), eval_examples)])
    count = examples if examples is not None else len(labels) // part.count
    if scheme == "disjoint":
        if count * part.count > len(labels):
            raise ValueError(
                f"{part.count} disjoint draws of {count} need more than the {len(labels)} examples there are"
            )
        first = part.index * (len(labels) // part.count)
        chosen = _stratified_order(labels, part.seed)[first : first + count]
    elif scheme == "subsample":
        chosen = stratified(labels, count, np.random.default_rng([seed, 1]))
    else:
        raise ValueError(f"scheme must be all, disjoint, subsample or bootstrap, got {scheme!r}")
    chosen = np.sort(chosen)
    found = split(labels[chosen], seed, val_share, eval_examples)
    return Split(train=chosen[found.train], val=chosen[found.val], train_eval=chosen[found.train_eval])


def _stratified_order(labels: npt.NDArray[Any], seed: int) -> Indices:
    """All indices in an order of which every long enough stretch holds the classes in proportion.

    Each class is shuffled, and its members are spread evenly over [0, 1).
    """
    rng = np.random.default_rng(seed)
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        place[members] = (np.arange(len(members)) + rng.random()) / len(members)
    return np.argsort(place, kind="stable").astype(np.int32)


def _evenly(size: int, count: int) -> npt.NDArray[np.int64]:
    return np.linspace(0, size - 1, min(size, count)).astype(np.int64)


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

    Raises:
        ValueError: `count` is more than all classes can give.
    """
    _, codes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if count > (most := int(np.maximum(sizes - keep, 0).sum())):
        raise ValueError(
            f"got {count} of {len(labels)} examples to take, but only {most} can be, as {keep} a class stay"
        )
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
