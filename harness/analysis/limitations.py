"""What the data of a study cannot say, in sentences written from the data."""

from collections.abc import Iterator
from math import sqrt

import numpy as np
import pandas as pd

from harness.analysis import pairs, sources
from harness.analysis.blocks import is_crossed
from harness.analysis.study import METRIC, Study

CONFIRM = "Confirm it on fresh blocks before it becomes the result."
SKEWED = 1.5
TIED = 0.2


def limitations(study: Study) -> list[str]:
    """Sentences, the weightier first."""
    return [*_missing(study), *_blocks(study), *_choosing(study), *_assumptions(study), *_scope(study)]


def _missing(study: Study) -> Iterator[str]:
    for _, row in study.summary.iterrows():
        if row["diverged"]:
            rest = f"its scores are over the {row['n']} that did not" if row["n"] else "it has no score"
            yield f"{row['arm']}: {row['diverged']} runs diverged; {rest}."
        if row["failed"] or row["missing"]:
            yield f"{row['arm']}: of {study.planned} runs, {row['failed']} failed and {row['missing']} are missing."
    if int(study.summary["missing"].sum()):
        yield f"The sweep is not finished. The same command goes on where it stopped: {study.command}"
    if METRIC not in study.runs:
        yield "No run has a test accuracy."


def _blocks(study: Study) -> Iterator[str]:
    sizes = [c.n for c in study.comparisons if c.n] or [int(n) for n in study.summary["n"] if n]
    fewest = 0 if is_crossed(study.runs) else min(sizes, default=0)
    if fewest and fewest < 4:
        yield f"{fewest} blocks: too few to say more than what is seen; 10 are usual, 29 for a headline claim."
    elif fewest and fewest < 8:
        yield (
            f"{fewest} blocks are a screening: the exact sign-flip test cannot go below p = {2.0 ** (1 - fewest):.3g}, "
            "so the paired t decides, which takes the differences to be roughly normal. Confirm on 10 or more."
        )
    if is_crossed(study.runs):
        yield (
            "Data draws are crossed with seeds: the intervals are for new draws and new seeds, and as wide as the "
            "fewer of the two make them."
        )
    for c in study.unpaired:
        yield (
            f"{c.arm} and {c.reference} share no block: compared by Welch's t, unpaired; what the blocks do to the "
            "scores does not cancel."
        )


def _choosing(study: Study) -> Iterator[str]:
    if len(study.compared) > 2 and not study.by_data:
        yield (
            f"{len(study.compared)} arms were scored on one test set; the best of them looks better than it is "
            "(see Selection). " + ("What it scores on fresh blocks stands there." if study.confirmed else CONFIRM)
        )
    if not study.tune and len(study.arms) > 1:
        yield "No parameter was tuned for each arm: another learning rate, say, could change the order."
    elif len(study.tuning) and study.tuning["trials"].nunique() > 1:
        counts = ", ".join(f"{row['arm']} {row['trials']}" for _, row in study.tuning.iterrows())
        yield f"Arms had different numbers of trials: {counts}."
    if not study.planned and len(study.arms) > 1:
        yield "Runs of several sweeps: which arms to compare was not declared before training."
    elif study.baseline is None and len(study.arms) > 1:
        yield "No baseline was declared before training."


def _assumptions(study: Study) -> Iterator[str]:
    paired = [c for c in study.comparisons if c not in study.unpaired]
    found = pairs.differences(study.scores, [(c.arm, c.reference) for c in paired])
    for (arm, reference), d in found.items():
        if len(d) >= 5 and np.ptp(d) > 0 and abs(skew := float(pd.DataFrame(d).skew().iloc[0])) > SKEWED:
            yield f"{arm} − {reference}: skewed differences (skewness {skew:+.1f}), so their t interval is rough."
    tied = [c for c in paired if c.n and c.ties / c.n > TIED]
    if tied:
        arms = ", ".join(c.arm for c in tied)
        yield f"Ties on more than {TIED:.0%} of the blocks: {arms}. A larger test set would tell more."


def _scope(study: Study) -> Iterator[str]:
    runs = study.runs
    fixed = [name for name, state in sources.randomised(runs).items() if state == "fixed"]
    if fixed:
        yield f"Fixed in all runs, so not part of the uncertainty: {', '.join(fixed)}."
    if study.examples is not None:
        n = len(study.examples.labels)
        accuracy = float(np.nanmedian(study.summary[METRIC])) if study.summary[METRIC].notna().any() else 0.5
        error = 100 * sqrt(max(accuracy * (1 - accuracy), 0.0) / n)
        yield (
            f"The test set has {n} examples: an accuracy of {100 * accuracy:.1f} % has a standard error of {error:.2f} "
            "points from them alone, however many seeds."
        )
    digests = sorted(set(runs["data.digest"])) if "data.digest" in runs else []
    if len(digests) > 1:
        seen = ", ".join(digest[:8] for digest in digests)
        why = "each arm is compared on its own" if study.by_data else "their scores were put together on request"
        yield f"The runs saw {len(digests)} different data sets ({seen}); {why}."
    yield from _code(runs)
    if len(digests) < 2:
        yield "One data set: nothing here says how others behave."


def _code(runs: pd.DataFrame) -> Iterator[str]:
    if "git.sha" in runs and len(shas := sorted({str(sha)[:8] for sha in runs["git.sha"] if sha})) > 1:
        yield f"The runs come from {len(shas)} commits: {', '.join(shas)}."
    if "git.dirty" in runs and (runs["git.dirty"] == "true").any():
        yield "Some runs come from code with changes that were not committed."
