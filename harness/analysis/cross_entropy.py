"""Bias and variance of the cross-entropy around the softmax of the runs' mean logits.

METHODS B2 (Heskes 1998; Yang et al. 2020; Gupta et al. 2022). Everything is a difference of log-sum-exps
(LSE), so no probability is ever stored or logged. LSE of a mean over n runs is biased by about 1/n, which
the jackknife removes.
"""

from dataclasses import dataclass, field
from math import nan

import numpy as np
from numpy.typing import NDArray

from harness.analysis.jackknife import Design, Estimate, FloatArray, estimates, without

_TRIM = 10


@dataclass(frozen=True)
class CrossEntropyParts:
    """loss = bias + v_between + v_within, in nats; the bias contains the label noise.

    `variance` is their total, `v_between` lies between draws (all of the variance with a single seed),
    `v_within` between the seeds of a draw. A few saturated examples can dominate these means: `v_median` and
    `v_trimmed` (a tenth cut from either end) are taken over the examples' total variances. `check` is bias +
    variance - loss, the loss taken directly from the logits.
    """

    loss: Estimate
    bias: Estimate
    v_between: Estimate
    v_within: Estimate
    variance: Estimate
    v_median: float
    v_trimmed: float
    check: float


def log_sum_exp(z: FloatArray) -> FloatArray:
    """Log of the summed exponentials over the last axis."""
    top = z.max(axis=-1)
    total: FloatArray = top + np.log(np.exp(z - top[..., None]).sum(axis=-1))
    return total


def _terms(lse: float, draw_centre: float, centre: float, at_label: float, design: Design) -> FloatArray:
    """[loss, bias, v_between, v_within, variance] from mean LSEs: of runs, draws' centres, the centre."""
    within = lse - draw_centre if design in ("crossed", "nested", "seeds only") else nan
    between = draw_centre - centre if design in ("crossed", "nested", "draws only") else nan
    variance = nan if design == "single run" else lse - centre
    return np.array([lse - at_label, centre - at_label, between, within, variance], dtype=np.float64)


@dataclass
class CrossEntropySums:
    """Sums over examples that `parts` needs, filled chunk by chunk."""

    design: Design
    sums: dict[str, FloatArray] = field(default_factory=dict)
    variances: list[FloatArray] = field(default_factory=list)
    examples: int = 0

    def update(self, z: FloatArray, lse: FloatArray, labels: NDArray[np.intp]) -> None:
        """Add a chunk: logits z[K, S, n, C], their LSE [K, S, n] and labels [n]."""
        draws, seeds = lse.shape[:2]
        at_label = np.take_along_axis(z, labels[None, None, :, None], axis=-1)[..., 0]
        terms = {
            "lse": lse,
            "at_label": at_label,
            "loss": np.logaddexp.reduce(z - at_label[..., None], axis=-1),
        }
        of_draw = z.mean(axis=1)
        draw_centre = log_sum_exp(of_draw)
        if seeds > 1:
            terms["draw_less_seed"] = log_sum_exp((seeds * of_draw[:, None] - z) / (seeds - 1))
            draw_centre = seeds * draw_centre - (seeds - 1) * terms["draw_less_seed"].mean(axis=1)
        centre = draw_centre[0]
        if draws > 1:
            of_all = of_draw.mean(axis=0)
            terms["less_draw"] = log_sum_exp((draws * of_all - of_draw) / (draws - 1))
            centre = draws * log_sum_exp(of_all) - (draws - 1) * terms["less_draw"].mean(axis=0)
        if self.design == "crossed":
            of_seed = z.mean(axis=0)
            terms["less_seed"] = log_sum_exp((seeds * of_all - of_seed) / (seeds - 1))
            less_both = draws * (seeds * of_all - of_seed)[None] - (seeds * of_draw[:, None] - z)
            both = log_sum_exp(less_both / ((draws - 1) * (seeds - 1))).mean(axis=(0, 1))
            centre_less_seed = draws * terms["less_seed"].mean(axis=0) - (draws - 1) * both
            centre = seeds * centre - (seeds - 1) * centre_less_seed
        terms |= {"draw_centre": draw_centre, "centre": centre}
        for name, per_example in terms.items():
            self.sums[name] = per_example.sum(axis=-1) + self.sums.get(name, 0.0)
        self.variances.append(lse.mean(axis=(0, 1)) - centre)
        self.examples += len(labels)

    def parts(self) -> CrossEntropyParts:
        """Decompose what was added so far, with jackknife standard errors."""
        m = {name: total / self.examples for name, total in self.sums.items()}
        draws, seeds = m["lse"].shape

        def mean_without(name: str, index: int, axis: int) -> float:
            return float(without(m[name], index, axis).mean())

        by_draw = [
            _terms(
                mean_without("lse", k, 0),
                mean_without("draw_centre", k, 0),
                float(m["less_draw"][k]),
                mean_without("at_label", k, 0),
                self.design,
            )
            for k in range(draws if draws > 1 else 0)
        ]
        centre_less_seed = m["less_seed"] if self.design == "crossed" else m.get("draw_less_seed", m["lse"])[0]
        by_seed = [
            _terms(
                mean_without("lse", s, 1),
                float(m["draw_less_seed"][:, s].mean()),
                float(centre_less_seed[s]),
                mean_without("at_label", s, 1),
                self.design,
            )
            for s in range(seeds if seeds > 1 else 0)
        ]
        values = _terms(
            float(m["lse"].mean()),
            float(m["draw_centre"].mean()),
            float(m["centre"]),
            float(m["at_label"].mean()),
            self.design,
        )
        variances = np.sort(np.concatenate(self.variances))
        cut = self.examples // _TRIM
        known = self.design != "single run"
        loss, bias, v_between, v_within, variance = estimates(values, by_draw, by_seed, self.design)
        return CrossEntropyParts(
            loss=loss,
            bias=bias,
            v_between=v_between,
            v_within=v_within,
            variance=variance,
            v_median=float(np.median(variances)) if known else nan,
            v_trimmed=float(variances[cut : self.examples - cut].mean()) if known else nan,
            check=float(values[1] + values[4] - m["loss"].mean()),
        )
