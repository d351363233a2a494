"""What the stored predictions say example by example and class by class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.analysis import stats
from harness.analysis.crossed import complete, crossed_mean

Arrays = Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class Examples:
    """Correctness on one test set, of the arms that have predictions.

    Attributes:
        labels: (n,) true classes.
        runs: arm -> (runs, n) whether each run is right.
        cells: arm -> draw and seed of each of these runs.
        votes: arm -> (n, classes) share of the runs that call the example so.
    """

    labels: npt.NDArray[np.intp]
    runs: Mapping[str, npt.NDArray[np.bool_]]
    cells: Mapping[str, Sequence[tuple[str, str]]]
    votes: Mapping[str, npt.NDArray[np.float64]]

    @classmethod
    def of(cls, runs: pd.DataFrame, arms: Sequence[str], predictions: Mapping[str, Arrays]) -> "Examples | None":
        """From run id -> test_logits, test_labels; None where labels are missing or differ between the runs."""
        labels: npt.NDArray[np.intp] | None = None
        right, names, votes = {}, {}, {}
        finished = runs[runs["outcome"] == "finished"]
        for arm in arms:
            mine = finished[(finished["arm"] == arm) & finished["run_id"].isin(list(predictions))]
            called = []
            for run_id in mine["run_id"]:
                arrays = predictions[run_id]
                if "test_labels" not in arrays:
                    return None
                truth = arrays["test_labels"].astype(np.intp)
                if labels is not None and not np.array_equal(labels, truth):
                    return None
                labels = truth
                called.append(arrays["test_logits"].argmax(axis=1))
            if called and labels is not None:
                classes = predictions[mine["run_id"].iloc[0]]["test_logits"].shape[1]
                stacked = np.stack(called)
                right[arm] = stacked == labels
                root = mine["root_seed"].astype(str) if "root_seed" in mine else ""
                draws = root + " " + mine["draw"].astype(str)
                names[arm] = list(zip(draws, root + " " + mine["block"].astype(str), strict=True))
                votes[arm] = np.stack([(stacked == c).mean(axis=0) for c in range(classes)], axis=1)
        return None if labels is None else cls(labels, right, names, votes)

    def difference(self, arm: str, reference: str) -> stats.Interval:
        """Difference of the accuracies (shares) with an interval for new blocks *and* new test examples (F15).

        Where draws are crossed with seeds, for new draws, new seeds and new examples.
        """
        if arm not in self.runs or reference not in self.runs:
            return stats.Interval(np.nan, np.nan, np.nan, 0)
        there = {cell: row for row, cell in enumerate(self.cells[reference])}
        shared = [(row, there[cell]) for row, cell in enumerate(self.cells[arm]) if cell in there]
        cells = [cell for cell in self.cells[arm] if cell in there]
        ours, theirs = [row for row, _ in shared], [row for _, row in shared]
        d = self.runs[arm][ours].astype(float) - self.runs[reference][theirs]
        draws, seeds = (sorted({cell[place] for cell in cells}) for place in (0, 1))
        if len(draws) < 2 or len(seeds) < 2:
            return stats.two_way_ci(d)
        grid = np.full((len(draws), len(seeds)), np.nan)
        for (draw, seed), score in zip(cells, d.mean(axis=1), strict=True):
            grid[draws.index(draw), seeds.index(seed)] = score
        mean = crossed_mean(complete(grid))
        runs, count = d.shape
        of_examples = runs * float(d.mean(axis=0).var(ddof=1))
        rest = float(((d - d.mean(axis=0) - d.mean(axis=1)[:, None] + d.mean()) ** 2).sum()) / (
            (runs - 1) * (count - 1)
        )
        se = np.sqrt(mean.se**2 + max(0.0, of_examples - rest) / (runs * count))
        half = (mean.test.high - mean.test.value) / mean.se * se if mean.se > 0 else np.nan
        return stats.Interval(mean.test.value, mean.test.value - half, mean.test.value + half, runs)

    def spread(self, arm: str) -> stats.SeedSpread:
        """Standard deviation of the accuracy (share) over runs, and its floor (F16)."""
        if arm not in self.runs:
            return stats.SeedSpread(np.nan, np.nan, np.nan)
        return stats.seed_spread(self.runs[arm])

    def per_class(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """Accuracy (%) of each arm (column) in each class (row), mean over runs; `examples` of the class."""
        classes = np.unique(self.labels)
        frame = pd.DataFrame({"class": [names[c] if names else str(c) for c in classes]})
        frame["examples"] = [int((self.labels == c).sum()) for c in classes]
        for arm, right in self.runs.items():
            share = right.mean(axis=0)
            frame[arm] = [100 * float(share[self.labels == c].mean()) for c in classes]
        return frame

    def hardest(self, count: int = 12) -> pd.DataFrame:
        """The test examples that fewest runs of all arms get right: index, true class, share right (%), called."""
        share = np.mean([right.mean(axis=0) for right in self.runs.values()], axis=0)
        votes = np.mean(list(self.votes.values()), axis=0)
        wrong = votes.copy()
        wrong[np.arange(len(self.labels)), self.labels] = -1
        worst = [int(i) for i in np.argsort(share, kind="stable")[:count] if share[i] < 1]
        return pd.DataFrame(
            [(i, int(self.labels[i]), 100 * share[i], int(wrong[i].argmax()), 100 * wrong[i].max()) for i in worst],
            columns=["test example", "class", "right %", "called instead", "so often %"],
        )

    def moved(self, arm: str, reference: str, count: int = 3) -> pd.DataFrame:
        """The examples whose share of right runs differs most between two arms (%): index, class, both shares."""
        a, b = self.runs[arm].mean(axis=0), self.runs[reference].mean(axis=0)
        order = [int(i) for i in np.argsort(-np.abs(a - b), kind="stable")[:count] if a[i] != b[i]]
        return pd.DataFrame(
            [(arm, i, int(self.labels[i]), 100 * a[i], 100 * b[i], 100 * (a[i] - b[i])) for i in order],
            columns=["arm", "test example", "class", "right %", "baseline right %", "difference"],
        )
