"""Bias and variance of a squared distance to the one-hot label: the Brier score or the 0-1 loss.

Every term is a sum of inner products between runs, so one matrix of mean inner products gram[K, S, K, S] (K
draws, S seeds) holds all components and all their jackknife replicates.
"""

from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import ArrayLike

from harness.analysis.jackknife import Design, Estimate, FloatArray, design_of, estimates, without


@dataclass(frozen=True)
class SquaredParts:
    """loss = bias2 + v_data + v_init + v_interaction (METHODS 2.3); bias2 contains the label noise.

    Unbiased, so a component near zero may come out negative. `variance` is the total. Nested draws, or a
    single one, cannot separate the interaction, which is then part of `v_init`; with a single seed all
    variance is in `v_data`. `check` is bias2 + variance - loss, the loss taken directly from the
    predictions: zero up to rounding.
    """

    loss: Estimate
    bias2: Estimate
    v_data: Estimate
    v_init: Estimate
    v_interaction: Estimate
    variance: Estimate
    check: float


def _components(gram: FloatArray, on_label: FloatArray, design: Design) -> FloatArray:
    """[loss, bias2, v_data, v_init, v_interaction, variance] from gram[K, S, K, S] and on_label[K, S]."""
    draws, seeds = on_label.shape
    n = draws * seeds
    runs = np.einsum("ksks->", gram) / n
    draw_means = np.einsum("kskt->", gram) / (n * seeds)
    seed_means = np.einsum("ksls->", gram) / (n * draws)
    grand = gram.mean()
    loss = runs - 2 * on_label.mean() + 1
    centre_loss = grand - 2 * on_label.mean() + 1
    v_data = v_init = v_interaction = nan
    if design == "crossed" and draws > 1 and seeds > 1:
        v_interaction = (runs - draw_means - seed_means + grand) * n / ((draws - 1) * (seeds - 1))
        v_data = (n * (draw_means - grand) / (draws - 1) - v_interaction) / seeds
        v_init = (n * (seed_means - grand) / (seeds - 1) - v_interaction) / draws
        variance = v_data + v_init + v_interaction
        centre_variance = v_data / draws + v_init / seeds + v_interaction / n
    elif design == "nested" and draws > 1 and seeds > 1:
        v_init = (runs - draw_means) * seeds / (seeds - 1)
        v_data = draws * (draw_means - grand) / (draws - 1) - v_init / seeds
        variance = v_data + v_init
        centre_variance = v_data / draws + v_init / n
    elif design in ("seeds only", "draws only") and n > 1:
        variance = (runs - grand) * n / (n - 1)
        centre_variance = variance / n
        v_data, v_init = (nan, variance) if design == "seeds only" else (variance, nan)
    else:
        variance = centre_variance = nan
    return np.array([loss, centre_loss - centre_variance, v_data, v_init, v_interaction, variance])


def squared_parts(
    gram: FloatArray, on_label: FloatArray, loss: float, design: Design, scale: float = 1.0
) -> SquaredParts:
    """Decompose a mean loss that is `scale` times the squared error.

    gram[K, S, K, S] and on_label[K, S]: mean inner products of the predictions with one another and with the
    label.
    """
    draws, seeds = on_label.shape
    values = scale * _components(gram, on_label, design)
    by_draw = [
        scale * _components(without(without(gram, k, 0), k, 2), without(on_label, k, 0), design)
        for k in range(draws if draws > 1 else 0)
    ]
    by_seed = [
        scale * _components(without(without(gram, s, 1), s, 3), without(on_label, s, 1), design)
        for s in range(seeds if seeds > 1 else 0)
    ]
    total, bias2, v_data, v_init, v_interaction, variance = estimates(values, by_draw, by_seed, design)
    check = float(values[1] + values[5] - loss)
    return SquaredParts(total, bias2, v_data, v_init, v_interaction, variance, check)


def decompose_squared(predictions: ArrayLike, targets: ArrayLike, *, nested: bool = False) -> SquaredParts:
    """Decompose the squared error, summed over C, of predictions[K, S, N, C] for one-hot targets[N, C]."""
    f, y = np.asarray(predictions, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    draws, seeds, examples, _ = f.shape
    flat = f.reshape(draws * seeds, -1)
    gram = (flat @ flat.T).reshape(draws, seeds, draws, seeds) / examples
    on_label = np.einsum("ksnc,nc->ks", f, y) / examples
    loss = float(((f - y) ** 2).sum(axis=-1).mean())
    return squared_parts(gram, on_label, loss, design_of(draws, seeds, nested))
