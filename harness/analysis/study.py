"""All that a report is written from: what a sweep declared, its runs, and what follows from them."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd

from harness.analysis import across, choice, pairs
from harness.analysis.activations import Histogram
from harness.analysis.blocks import blocks_of, is_crossed, scores, units
from harness.analysis.claims import Claim, claims
from harness.analysis.comparison import Comparison
from harness.analysis.confirmed import Confirmed
from harness.analysis.decompositions import decompose_arms
from harness.analysis.examples import Arrays, Examples
from harness.analysis.layout import WeightedLayer
from harness.analysis.summary import summary_table

METRIC = "accuracy/test"


@dataclass(frozen=True, eq=False)
class Study:
    """One report's subject. What is costly to read is asked for when a section needs it.

    Attributes:
        name: of the sweep.
        question: it asks.
        arms: in declared order.
        baseline: an arm, or None.
        planned: runs an arm.
        rules: family, correction, margin.
        tune: parameters chosen for each arm by validation.
        search: how their values were chosen, "grid" or "random".
        runs: one row a run.
        curves: one row a point of a curve.
        command: that trained it.
        facts: provenance, as name -> text.
        confirmed: what became of the chosen arms on fresh blocks, if they were run.
        read_layers: per-layer moments at step 0: run_id, arm, step, layer, array, moment, value.
        read_histograms: arm -> mean histograms.
        read_nets: arm -> weighted layers.
        read_predictions: run id -> arrays.
        read_mistakes: arms -> a PNG of the worst mistakes of each, where it was stored.
    """

    name: str
    question: str
    arms: Sequence[str]
    baseline: str | None
    planned: int
    rules: pairs.Rules
    tune: Sequence[str]
    runs: pd.DataFrame
    curves: pd.DataFrame
    command: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    confirmed: Confirmed | None = None
    search: str = "grid"
    read_layers: Callable[[], pd.DataFrame] = pd.DataFrame
    read_histograms: Callable[[], Mapping[str, Histogram]] = dict
    read_nets: Callable[[], Mapping[str, Sequence[WeightedLayer]]] = dict
    read_predictions: Callable[[], Mapping[str, Arrays]] = dict
    read_mistakes: Callable[[Sequence[str]], Mapping[str, bytes]] = lambda arms: {}

    def again(self, *overrides: str) -> str:
        """The command with these overrides, in place of its own of the same keys and of what goes against them."""
        keys = {override.partition("=")[0] for override in overrides}
        if keys & {"draws", "vary", "data"}:
            keys |= {"confirm", "draws", "vary"}
        kept = [word for word in shlex.split(self.command) if word.partition("=")[0] not in keys]
        return shlex.join([*kept, *overrides])

    @cached_property
    def layers(self) -> pd.DataFrame:
        """Per-layer moments."""
        return self.read_layers()

    @cached_property
    def predictions(self) -> Mapping[str, Arrays]:
        """Stored logits and labels."""
        return self.read_predictions()

    @cached_property
    def examples(self) -> Examples | None:
        """Correctness example by example, where predictions hold labels."""
        return Examples.of(self.runs, self.arms, self.predictions)

    @cached_property
    def decomposition(self) -> pd.DataFrame:
        """Bias and variance, one row an arm; empty without predictions and their labels."""
        return decompose_arms(self.runs, self.arms, self.predictions)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row an arm."""
        return summary_table(self.runs, self.arms, self.planned, self.examples)

    @cached_property
    def tuning(self) -> pd.DataFrame:
        """Which trial validation chose in each group of arms; empty where nothing is tuned."""
        return choice.tuned(self.runs, self.arms, self.tune) if self.tune else pd.DataFrame()

    @cached_property
    def compared(self) -> list[str]:
        """The arms whose test scores are compared: all, or where parameters are tuned the chosen ones."""
        return [arm for arm in self.tuning["chosen"] if arm] if len(self.tuning) else list(self.arms)

    @cached_property
    def reference(self) -> str | None:
        """The baseline among the compared arms: of its group, the chosen one."""
        if self.baseline is None or self.baseline in self.compared:
            return self.baseline
        for group, members in choice.groups(self.arms, self.tune).items():
            if self.baseline in members and len(self.tuning):
                chosen = self.tuning.set_index("arm")["chosen"].get(group)
                return str(chosen) if chosen else None
        return None

    @cached_property
    def finalists(self) -> list[str]:
        """What `confirm=true` runs again, in declared order: what validation chose, and what it is compared with.

        Chosen are each group's best trial where parameters are tuned, the two best arms where not. Empty without a
        baseline, or where validation can choose nothing.
        """
        chosen = self.compared if len(self.tuning) else choice.best(self.runs, self.arms, 2)
        if self.reference is None or not chosen or self.by_data:
            return []
        return [arm for arm in self.arms if arm in chosen or arm == self.reference]

    @cached_property
    def by_data(self) -> dict[str, list[str]]:
        """First arm -> the compared arms on the same data, for sweeps of several data sets; empty for others.

        First is the arm of the baseline's method (without a baseline: of the first arm's), and every data set has one.
        """
        groups, start = across.by_data(self.runs, self.compared), self.reference or next(iter(self.compared), "")
        firsts = [next((a for a in arms if across.method(a) == across.method(start)), None) for arms in groups.values()]
        if len(groups) < 2 or None in firsts:
            return {}
        return {str(first): arms for first, arms in zip(firsts, groups.values(), strict=True)}

    @cached_property
    def across_data(self) -> dict[str, across.Strata]:
        """Method -> its scores over chance on each data set; empty where they are too few, or classes not known."""
        if not self.by_data:
            return {}
        classes = {
            str(arm): int(self.predictions[run_id]["test_logits"].shape[1])
            for run_id, arm in zip(self.runs["run_id"], self.runs["arm"], strict=True)
            if run_id in self.predictions
        }
        return across.strata(self.runs, self.compared, classes)

    @cached_property
    def across_table(self) -> pd.DataFrame:
        """One row a method over several data sets."""
        baseline = across.method(self.reference) if self.reference is not None else None
        return across.table(self.across_data, baseline)

    @cached_property
    def comparisons(self) -> tuple[Comparison, ...]:
        """The declared family, in points of test accuracy; empty without a baseline or a second arm.

        Where a sweep has several data sets, each arm is compared with the one of the baseline's method on its own data.
        """
        start = self.reference or (self.compared[0] if self.rules.family == "all_pairs" and self.compared else None)
        if start is None or len(self.compared) < 2 or METRIC not in self.runs:
            return ()
        if self.by_data:
            return pairs.compare_groups(self.runs, self.by_data, METRIC, self.rules)
        return pairs.compare_arms(self.runs, self.compared, start, METRIC, self.rules)

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Test accuracy (%) by block and arm."""
        return scores(self.runs, self.arms, METRIC)

    @cached_property
    def diverged(self) -> dict[str, tuple[int, int]]:
        """Arm -> (diverged, ended) runs, for arms with any."""
        table = pairs.failures(self.runs, self.arms, self.baseline)
        return {row["arm"]: (int(row["diverged"]), int(row["runs"])) for _, row in table.iterrows()}

    @cached_property
    def claims(self) -> list[Claim]:
        """One a comparison."""
        unit = "blocks"
        if is_crossed(self.runs):
            unit = f"blocks ({self.runs['draw'].nunique()} data draws × {self.runs['block'].nunique()} seeds)"
        return claims(self.comparisons, METRIC, self.diverged, unit)

    @cached_property
    def units(self) -> list[str]:
        """All blocks."""
        return list(dict.fromkeys(units(self.runs)))

    @cached_property
    def unpaired(self) -> list[Comparison]:
        """Comparisons of arms that share no block."""
        ran = {arm: blocks_of(self.runs, arm) for arm in self.compared}
        return [c for c in self.comparisons if not ran[c.arm] & ran[c.reference]]
