"""What became of the chosen arms on fresh blocks: scores that no choice has touched."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from harness.analysis import pairs
from harness.analysis.claims import Claim, claims
from harness.analysis.comparison import Comparison
from harness.analysis.summary import plus_minus, summary_table

METRIC = "accuracy/test"


@dataclass(frozen=True, eq=False)
class Confirmed:
    """The chosen arms and the baseline, run once more.

    Attributes:
        runs: one row a run on a fresh block, under the names of the sweep's arms.
        arms: which were chosen, and the baseline.
        baseline: among them.
        blocks: names of the fresh blocks.
        chosen_on: names of the blocks on which they were chosen.
        rules: correction and margin, as declared; the family is each arm against the baseline.
    """

    runs: pd.DataFrame
    arms: Sequence[str]
    baseline: str
    blocks: Sequence[str]
    chosen_on: Sequence[str]
    rules: pairs.Rules

    @cached_property
    def comparisons(self) -> tuple[Comparison, ...]:
        """Each chosen arm against the baseline, paired by fresh block; empty where nothing else was chosen."""
        if len(self.arms) < 2 or METRIC not in self.runs:
            return ()
        rules = pairs.Rules("baseline", self.rules.correction, self.rules.margin, self.rules.alpha)
        return pairs.compare_arms(self.runs, self.arms, self.baseline, METRIC, rules)

    @cached_property
    def claims(self) -> list[Claim]:
        """One a comparison, in the same fixed words as those of the sweep."""
        failed = pairs.failures(self.runs, self.arms, self.baseline)
        diverged = {row["arm"]: (int(row["diverged"]), int(row["runs"])) for _, row in failed.iterrows()}
        return claims(self.comparisons, METRIC, diverged, "fresh blocks")

    @cached_property
    def missing(self) -> int:
        """Runs that were set out to and have no score and did not diverge."""
        ended = self.runs["outcome"].isin(["finished", "diverged"]).sum() if len(self.runs) else 0
        return len(self.arms) * len(self.blocks) - int(ended)

    def table(self, sweep: pd.DataFrame) -> pd.DataFrame:
        """One row an arm, as text: its test accuracy on the blocks of the sweep (a summary) and on the fresh ones."""
        fresh, before = (
            {str(row["arm"]): row for _, row in each.iterrows()}
            for each in (summary_table(self.runs, self.arms, len(self.blocks)), sweep)
        )
        return pd.DataFrame(
            {
                "arm": [f"{arm} (baseline)" if arm == self.baseline else arm for arm in self.arms],
                "test accuracy %, sweep": [plus_minus(before[arm], METRIC) for arm in self.arms],
                "fresh blocks": [str(fresh[arm]["n"]) for arm in self.arms],
                "test accuracy %, fresh": [plus_minus(fresh[arm], METRIC) for arm in self.arms],
                "diverged": [str(fresh[arm]["diverged"]) for arm in self.arms],
            }
        )
