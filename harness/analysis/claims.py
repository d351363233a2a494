"""The claims of a sweep: one sentence a comparison, in fixed words, with the numbers behind them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from harness.analysis.blocks import Scale
from harness.analysis.comparison import Comparison
from harness.analysis.crossed import METHOD

KINDS = ("better", "worse", "not distinguishable", "equivalent", "too few blocks to say")


@dataclass(frozen=True)
class Claim:
    """A sentence: `arm` is `verdict` than or from `reference`, and `detail` says how much and how sure."""

    arm: str
    verdict: str
    reference: str
    detail: str

    @property
    def kind(self) -> str:
        """Which of the fixed words, without its number."""
        return next(kind for kind in KINDS if self.verdict.startswith(kind))

    @property
    def sentence(self) -> str:
        """The claim as one line of plain text."""
        return f"{self.arm} against {self.reference}: {self.verdict}. {self.detail}"


def claims(
    comparisons: Sequence[Comparison],
    metric: str,
    diverged: Mapping[str, tuple[int, int]] | None = None,
    unit: str = "blocks",
) -> list[Claim]:
    """One claim a comparison.

    Args:
        comparisons: in the metric's shown units.
        metric: what was compared.
        diverged: arm -> (diverged runs, ended runs), for arms where there are any.
        unit: the blocks of crossed draws and seeds, in words.
    """
    scale = Scale.of(metric)
    found = []
    for c in comparisons:
        said = [f"{signed(c.difference)} {scale.unit}{_interval(c)}"] if isfinite(c.difference) else []
        if c.n:
            said.append(f"P(better) {c.p_better:.2f} [{c.p_better_low:.2f}, {c.p_better_high:.2f}]")
        if isfinite(c.p_max_t):
            said.append(f"max-T p {p_value(c.p_max_t)}")
        elif isfinite(c.p_holm):
            said.append(f"Holm p {p_value(c.p_holm)} ({c.p_method})")
        if isfinite(c.mde) and not c.verdict.startswith("not"):
            said.append(f"smallest detectable difference {c.mde:.2g}")
        counted = "scores an arm" if c.p_method.startswith("Welch") else "blocks"
        said.append(f"{c.n} {unit if c.p_method in (METHOD, 'none') else counted}")
        text = "; ".join(said) + "."
        for arm in (c.arm, c.reference):
            k, n = (diverged or {}).get(arm, (0, 0))
            if k:
                text += f" {arm}: {k} of {n} runs diverged" + (", this is about the others." if k < n else ".")
        found.append(Claim(c.arm, c.verdict, c.reference, text))
    return found


def signed(value: float, digits: int = 2) -> str:
    """+1.23 or −1.23."""
    return f"{value:+.{digits}f}".replace("-", "−")


def p_value(p: float) -> str:
    """Three decimals, or < .001."""
    return "–" if not isfinite(p) else "< .001" if p < 0.001 else f"{p:.3f}".lstrip("0") if p < 1 else "1"


def _interval(c: Comparison) -> str:
    if not isfinite(c.ci_low):
        return ""
    return f" [95 % CI {signed(c.ci_low)}, {signed(c.ci_high)}]"
