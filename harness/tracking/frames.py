"""MLflow -> tidy pandas: one row a run, a metric point, a layer's moment, a histogram bin."""

import io
import tempfile
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from harness.tracking.store import StoreError, open_store
from harness.tracking.sweeps import Declaration, declared

MOST_POINTS = 25_000  # of one metric of one run


def is_curve(metric: str) -> bool:
    """Whether a metric is a curve of the run (`loss/test`), not a layer's moment (`conv1/activation.std`)."""
    return "." not in metric


class Results:
    """The runs of one sweep, and what they logged. Everything is read when it is first asked for, then kept.

    Args:
        client: of an open store.
        sweep: the sweep's name, which is its MLflow experiment's.
        arm_keys: only these arms; None: all.
        run_keys: only these runs; None: all.

    Raises:
        StoreError: no such experiment.
    """

    def __init__(
        self,
        client: MlflowClient,
        sweep: str,
        arm_keys: Iterable[str] | None = None,
        run_keys: Iterable[str] | None = None,
    ) -> None:
        experiment = client.get_experiment_by_name(sweep)
        if experiment is None:
            names = sorted(each.name for each in client.search_experiments() if each.name != "Default")
            raise StoreError(f"sweep {sweep!r}: not in this store; there are: {', '.join(names) or 'none'}")
        self.client, self.sweep, self.experiment_id = client, sweep, experiment.experiment_id
        self._arm_keys = None if arm_keys is None else list(arm_keys)
        self._run_keys = None if run_keys is None else set(run_keys)

    @cached_property
    def declaration(self) -> Declaration | None:
        """What the sweep set out to do when it was last started."""
        return declared(self.client, self.experiment_id)

    @cached_property
    def _found(self) -> list[Run]:
        """One run a run key: a finished one before others, the latest of those."""
        filters = ["tags.kind = 'run'"]
        if self._arm_keys is not None:
            filters = [f"tags.kind = 'run' and tags.arm_key = '{key}'" for key in self._arm_keys]
        best: dict[str, Run] = {}
        for each in filters:
            token = None
            while True:
                page = self.client.search_runs(
                    [self.experiment_id],
                    each,
                    max_results=1000,
                    page_token=token,
                    order_by=["start_time ASC"],
                )
                for run in page:
                    key = run.data.tags["run_key"]
                    if self._run_keys is not None and key not in self._run_keys:
                        continue
                    if key not in best or run.info.status == "FINISHED" or best[key].info.status != "FINISHED":
                        best[key] = run
                token = page.token
                if not token:
                    break
        return list(best.values())

    @cached_property
    def runs(self) -> pd.DataFrame:
        """One row a run: run_id, arm, arm_key, block, status, outcome, outcome.step, seconds, config, final metrics.

        Config columns are strings, as MLflow keeps them. Metrics of runs that did not finish are missing, so that no
        mean is taken over them by accident.
        """
        rows = []
        for run in self._found:
            tags, info = run.data.tags, run.info
            finished = tags.get("outcome") == "finished" and info.status == "FINISHED"
            rows.append(
                {
                    "run_id": info.run_id,
                    "arm": tags["arm"],
                    "arm_key": tags["arm_key"],
                    "run_key": tags["run_key"],
                    "block": int(tags["block"]),
                    "status": info.status,
                    "outcome": tags.get("outcome", "none"),
                    "outcome.step": int(tags.get("outcome.step", -1)),
                    "outcome.reason": tags.get("outcome.reason", ""),
                    "data.digest": tags.get("data.digest", ""),
                    "seconds": ((info.end_time or info.start_time) - info.start_time) / 1000,
                    **run.data.params,
                    **{k: v if finished else np.nan for k, v in run.data.metrics.items() if is_curve(k)},
                }
            )
        frame = pd.DataFrame(rows)
        return frame.sort_values(["arm", "block"], ignore_index=True) if rows else frame

    @cached_property
    def _labels(self) -> pd.DataFrame:
        return self.runs[["run_id", "arm", "block"]]

    @cached_property
    def curves(self) -> pd.DataFrame:
        """Every point of every curve: run_id, arm, block, step, metric, value; diverged runs up to their end."""
        metrics = sorted({name for run in self._found for name in run.data.metrics if is_curve(name)})
        frame = pd.DataFrame(
            [
                (run_id, point.step, name, point.value)
                for name in metrics
                for run_id, points in self._histories(name).items()
                for point in points
            ],
            columns=["run_id", "step", "metric", "value"],
        )
        # A resumed run logs again what it had logged after its checkpoint: the same numbers.
        frame = frame.drop_duplicates(["run_id", "metric", "step"], keep="last")
        return frame.merge(self._labels, on="run_id")[["run_id", "arm", "block", "step", "metric", "value"]]

    def _histories(self, metric: str) -> Mapping[str, list[Any]]:
        ids = [run.info.run_id for run in self._found if metric in run.data.metrics]
        store = self.client._tracking_client.store
        found: dict[str, list[Any]] = {run_id: [] for run_id in ids}
        if hasattr(store, "get_metric_history_bulk"):  # a database: one query for all runs
            for first in range(0, len(ids), 100):
                some = ids[first : first + 100]
                for point in store.get_metric_history_bulk(some, metric, MOST_POINTS * len(some)):
                    found[point.run_id].append(point)
            return found
        return {run_id: list(self.client.get_metric_history(run_id, metric)) for run_id in ids}

    def artifact(self, run_id: str, name: str) -> bytes | None:
        """The content of a run's artifact, or None where there is none."""
        with tempfile.TemporaryDirectory() as folder:
            try:
                return Path(self.client.download_artifacts(run_id, name, folder)).read_bytes()
            except (MlflowException, OSError):
                return None

    def arrays(self, name: str) -> dict[str, dict[str, npt.NDArray[Any]]]:
        """Run id -> the arrays of its npz artifact, for the runs that have it."""
        found = {}
        for run_id in self.runs["run_id"]:
            if (content := self.artifact(run_id, name)) is not None:
                with np.load(io.BytesIO(content), allow_pickle=False) as file:
                    found[run_id] = {key: file[key] for key in file.files}
        return found

    @cached_property
    def _histograms(self) -> dict[str, dict[str, npt.NDArray[Any]]]:
        return self.arrays("histograms.npz")

    @cached_property
    def predictions(self) -> dict[str, dict[str, npt.NDArray[Any]]]:
        """Run id -> test_logits (n_test, classes), train_logits (n, classes), train_indices (n,) of finished runs."""
        return self.arrays("predictions.npz")

    @cached_property
    def layers(self) -> pd.DataFrame:
        """Exact moments: run_id, arm, block, step, layer, array, moment, value."""
        parts = []
        for run_id, data in self._histograms.items():
            index = pd.MultiIndex.from_product(
                [data["steps"], data["arrays"], data["moments"]], names=["step", "name", "moment"]
            )
            part = pd.Series(data["values"].ravel(), index, name="value").dropna().reset_index()
            parts.append(part.assign(run_id=run_id))
        columns = ["run_id", "arm", "block", "step", "layer", "array", "moment", "value"]
        if not parts:
            return pd.DataFrame(columns=columns)
        frame = pd.concat(parts, ignore_index=True)
        frame[["layer", "array"]] = frame["name"].str.rsplit("/", n=1, expand=True)
        return frame.merge(self._labels, on="run_id")[columns]

    @cached_property
    def histograms(self) -> pd.DataFrame:
        """Non-empty bins: run_id, arm, block, step, layer, array, low, high, count; edges are the same everywhere."""
        parts = []
        for run_id, data in self._histograms.items():
            t, a, b = np.nonzero(data["counts"] > 0)
            bounds = np.concatenate([[-np.inf], data["edges"], [np.inf]])
            parts.append(
                pd.DataFrame(
                    {
                        "run_id": run_id,
                        "step": data["steps"][t],
                        "name": data["arrays"][a],
                        "low": bounds[b],
                        "high": bounds[b + 1],
                        "count": data["counts"][t, a, b],
                    }
                )
            )
        columns = ["run_id", "arm", "block", "step", "layer", "array", "low", "high", "count"]
        if not parts:
            return pd.DataFrame(columns=columns)
        frame = pd.concat(parts, ignore_index=True)
        frame[["layer", "array"]] = frame["name"].str.rsplit("/", n=1, expand=True)
        return frame.merge(self._labels, on="run_id")[columns]

    def mean_histograms(self, arm: str) -> tuple[npt.NDArray[Any], list[str], npt.NDArray[Any]]:
        """An arm's histograms averaged over its runs, as shares of the sampled values.

        Returns:
            steps (T,), names (A) of `<layer>/<array>`, shares (T, A, 245); NaN where no run has counts.
        """
        ids = self.runs.loc[self.runs["arm"] == arm, "run_id"]
        found = [self._histograms[run_id] for run_id in ids if run_id in self._histograms]
        if not found:
            return np.zeros(0), [], np.zeros((0, 0, 0))
        longest = max(found, key=lambda data: len(data["steps"]))
        names = longest["arrays"].tolist()
        total = np.zeros(longest["counts"].shape)
        number = np.zeros(longest["counts"].shape[:2])
        for data in found:
            counts = data["counts"].astype(float)
            there = counts[..., 0] >= 0
            steps = len(data["steps"])
            share = np.where(there[..., None], counts, 0) / np.maximum(counts.sum(-1, keepdims=True), 1)
            total[:steps] += share
            number[:steps] += there
        return (
            longest["steps"],
            names,
            np.where(number[..., None] > 0, total / np.maximum(number, 1)[..., None], np.nan),
        )


def load(sweep: str, uri: str | None = None, folder: str | Path = "mlruns", everything: bool = False) -> Results:
    """The results of a sweep, by name, from the MLflow store at `uri` or below `folder`.

    Args:
        sweep: its name.
        uri: an MLflow tracking URI; None: sqlite below `folder`.
        folder: of the local store.
        everything: also the arms of earlier starts of the sweep (other data, say), whose names may be the same.

    Raises:
        StoreError: no store there, or no such sweep in it.
    """
    results = Results(open_store(uri, Path(folder), create=False), sweep)
    if everything or results.declaration is None:
        return results
    return Results(results.client, sweep, results.declaration.arms.values())
