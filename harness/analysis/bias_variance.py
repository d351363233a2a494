"""Bias and variance of a configuration from the stored test logits of its K draws x S seeds."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.analysis.cross_entropy import CrossEntropyParts, CrossEntropySums, log_sum_exp
from harness.analysis.jackknife import Design, Estimate, FloatArray, design_of, mean_estimate
from harness.analysis.squared_error import SquaredParts, squared_parts

CHUNK_VALUES = 2_000_000


@dataclass(frozen=True)
class DomingosParts:
    """error = bias + v_unbiased - v_biased around the majority vote of all runs (METHODS B4; Domingos 2000).

    `bias` is the error of the vote; `v_unbiased` and `v_biased` are the parts of the mean error that dissent
    adds where the vote is right and removes where it is wrong. Ties go to the lowest class. Not corrected
    for the number of runs: read it from 10 runs on.
    """

    error: float
    bias: float
    v_unbiased: float
    v_biased: float


@dataclass(frozen=True)
class Decomposition:
    """The decompositions of one configuration: one row of METHODS' table 2.6.

    `scope` is "conditional on this training set" with a single draw, whose bias then contains the data
    variance. `ensemble_logit_error` and `ensemble_prob_error` average the seeds of one draw; errors are
    shares of the examples.
    """

    design: Design
    scope: str
    draws: int
    seeds: int
    examples: int
    classes: int
    error: Estimate
    ensemble_logit_error: Estimate
    ensemble_prob_error: Estimate
    zero_one: SquaredParts
    brier: SquaredParts
    cross_entropy: CrossEntropyParts
    domingos: DomingosParts

    def row(self) -> dict[str, float | int | str]:
        """Flatten to keys such as "brier.v_data" and, for its standard error, "brier.v_data.se"."""
        return _flat(self, "")


def _flat(part: Any, prefix: str) -> dict[str, float | int | str]:
    row: dict[str, float | int | str] = {}
    for item in fields(part):
        name, value = f"{prefix}{item.name}", getattr(part, item.name)
        if isinstance(value, Estimate):
            row |= {name: value.value, f"{name}.se": value.se}
        elif isinstance(value, str | int | float):
            row[name] = value
        else:
            row |= _flat(value, f"{name}.")
    return row


class _SquaredSums:
    """Inner products between runs, and with the label, summed over chunks of examples."""

    def __init__(self, draws: int, seeds: int) -> None:
        self.gram = np.zeros((draws * seeds, draws * seeds))
        self.on_label = np.zeros((draws, seeds))

    def update(self, f: FloatArray, labels: NDArray[np.intp]) -> None:
        """Add predictions f[K, S, n, C]."""
        flat = f.reshape(len(self.gram), -1)
        self.gram += flat @ flat.T
        self.on_label += np.take_along_axis(f, labels[None, None, :, None], axis=-1).sum(axis=(-2, -1))

    def parts(self, examples: int, loss: float, design: Design, scale: float = 1.0) -> SquaredParts:
        """Decompose `loss`, which is `scale` times the mean squared error."""
        gram = self.gram.reshape(self.on_label.shape * 2)
        return squared_parts(gram / examples, self.on_label / examples, loss, design, scale)


def _checked(logits: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.floating[Any]], NDArray[np.intp]]:
    z, y = np.asarray(logits), np.asarray(labels)
    if z.ndim != 4 or y.shape != z.shape[2:3] or not z.size:
        raise ValueError(
            f"logits must have shape [draws, seeds, examples, classes] and labels [examples], none empty, "
            f"got {z.shape} and {y.shape}"
        )
    if not np.issubdtype(y.dtype, np.integer) or y.min() < 0 or y.max() >= z.shape[-1]:
        raise ValueError(f"labels must be integers in 0..{z.shape[-1] - 1}, got {y.dtype} {y.min()}..{y.max()}")
    return z, y.astype(np.intp)


def decompose(logits: ArrayLike, labels: ArrayLike, *, nested: bool = False) -> Decomposition:
    """Decompose the 0-1 loss, Brier score and cross-entropy of logits[K, S, N, C] for labels[N].

    The Brier score sums over classes.

    Draws and seeds are crossed, one run a cell: seed s is the same in every draw unless `nested`. K=1 gives
    the seeds-only variant, conditional on its training set. Works through the test set in chunks of about 16
    MB an array. Raises ValueError on logits that are not finite, naming the runs: leave out their draws or
    their seeds first.
    """
    z_all, labels_all = _checked(logits, labels)
    draws, seeds, examples, classes = z_all.shape
    design = design_of(draws, seeds, nested)
    brier, zero_one = _SquaredSums(draws, seeds), _SquaredSums(draws, seeds)
    cross_entropy = CrossEntropySums(design)
    targets = np.eye(classes)
    brier_loss = 0.0
    run_errors = np.zeros((draws, seeds))
    ensemble_errors = np.zeros((2, draws, 1))
    vote_wrong = dissent_right = dissent_wrong = 0.0
    step = max(1, CHUNK_VALUES // (draws * seeds * classes))
    for start in range(0, examples, step):
        z = z_all[:, :, start : start + step].astype(np.float64)
        y = labels_all[start : start + step]
        if not np.isfinite(z).all():
            bad = np.argwhere(~np.isfinite(z_all).all(axis=(2, 3))).tolist()
            raise ValueError(
                f"logits must be finite, and those of [draw, seed] {bad} are not: leave out their draws or their seeds"
            )
        lse = log_sum_exp(z)
        cross_entropy.update(z, lse, y)
        hard = z.argmax(axis=-1)
        one_hot = (hard[..., None] == np.arange(classes)).astype(np.float64)
        right = hard == y
        run_errors += (~right).sum(axis=-1)
        votes = one_hot.sum(axis=(0, 1)) / (draws * seeds)
        vote = votes.argmax(axis=-1)
        wrong = vote != y
        vote_wrong += float(wrong.sum())
        dissent_right += float((1 - votes.max(axis=-1))[~wrong].sum())
        dissent_wrong += float(right.mean(axis=(0, 1))[wrong].sum())
        zero_one.update(one_hot, y)
        ensemble_errors[0, :, 0] += (z.mean(axis=1).argmax(axis=-1) != y).sum(axis=-1)
        z -= lse[..., None]
        p = np.exp(z, out=z)
        ensemble_errors[1, :, 0] += (p.mean(axis=1).argmax(axis=-1) != y).sum(axis=-1)
        brier.update(p, y)
        p -= targets[y]
        brier_loss += float(np.einsum("ksnc,ksnc->", p, p)) / (draws * seeds)

    error = float(run_errors.mean()) / examples
    by_draw: Design = "draws only" if draws > 1 else "single run"
    return Decomposition(
        design=design,
        scope="conditional on this training set" if draws == 1 else "over training sets",
        draws=draws,
        seeds=seeds,
        examples=examples,
        classes=classes,
        error=mean_estimate(run_errors / examples, design),
        ensemble_logit_error=mean_estimate(ensemble_errors[0] / examples, by_draw),
        ensemble_prob_error=mean_estimate(ensemble_errors[1] / examples, by_draw),
        zero_one=zero_one.parts(examples, error, design, scale=0.5),
        brier=brier.parts(examples, brier_loss / examples, design),
        cross_entropy=cross_entropy.parts(),
        domingos=DomingosParts(
            error=error,
            bias=vote_wrong / examples,
            v_unbiased=dissent_right / examples,
            v_biased=dissent_wrong / examples,
        ),
    )
