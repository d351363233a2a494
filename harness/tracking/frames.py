"""MLflow -> tidy pandas: one row a run, a metric point, a layer's moment, a histogram bin."""

import io
import zipfile
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from harness.bins import EDGES
from harness.tracking import artifacts
from harness.tracking.store import StoreError, open_store
from harness.tracking.sweeps import Confirmation, Declaration, declared, declared_confirmation

MOST_POINTS = 25_000  # of one metric of one run
TAGS = (
    *("sweep", "confirm", "data.digest", "weights.initial", "git.sha", "git.dirty", "device", "host", "command"),
    *("stopped.step", "best.step"),  # of runs that stop early on validation
)


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
    def confirmation(self) -> Confirmation | None:
        """What of this sweep was set out to be confirmed on fresh blocks; None where its arms are others by now."""
        found, own = declared_confirmation(self.client, self.experiment_id), self.declaration
        if found is None or own is None or any(own.arms.get(arm) != key for arm, key in found.chosen.items()):
            return None
        return found

    @cached_property
    def confirmed(self) -> pd.DataFrame:
        """The runs on fresh blocks, as `runs`, which never holds them, under the names of the arms they confirm."""
        found = self.confirmation
        if found is None:
            return pd.DataFrame()
        runs = Results(self.client, self.sweep, found.arms.values(), found.run_keys).runs
        names = {key: arm for arm, key in found.arms.items()}
        return runs.assign(arm=runs["arm_key"].map(names)) if len(runs) else runs

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
    def _by_id(self) -> dict[str, Run]:
        return {run.info.run_id: run for run in self._found}

    @cached_property
    def _declared_names(self) -> dict[str, str]:
        return {} if self.declaration is None else {key: arm for arm, key in self.declaration.arms.items()}

    def _name(self, run: Run) -> str:
        """The name of its arm when the sweep was last started, which may have changed other things before."""
        return self._declared_names.get(run.data.tags["arm_key"], str(run.data.tags["arm"]))

    @cached_property
    def runs(self) -> pd.DataFrame:
        """One row a run: run_id, arm, arm_key, draw, block, status, outcome, outcome.step, seconds, metrics, config.

        Also where it comes from: sweep, confirm ("true" for runs on fresh blocks, after the sweep), data.digest,
        weights.initial, git.sha, git.dirty, device, host, command, and `seed.<stream>`, the seed of each random
        stream as text. Config columns are strings, as MLflow keeps them. Metrics of runs that did not finish are
        missing, so that no mean is taken over them by accident.
        """
        rows = []
        for run in self._found:
            tags, info = run.data.tags, run.info
            finished = tags.get("outcome") == "finished" and info.status == "FINISHED"
            rows.append(
                {
                    "run_id": info.run_id,
                    "arm": self._name(run),
                    "arm_key": tags["arm_key"],
                    "run_key": tags["run_key"],
                    "draw": tags.get("draw", "all"),
                    "block": int(tags["block"]),
                    "status": info.status,
                    "outcome": tags.get("outcome", "none"),
                    "outcome.step": int(tags.get("outcome.step", -1)),
                    "outcome.reason": tags.get("outcome.reason", ""),
                    "seconds": ((info.end_time or info.start_time) - info.start_time) / 1000,
                    **{name: tags.get(name, "") for name in TAGS},
                    **{name: value for name, value in tags.items() if name.startswith("seed.")},
                    **{k: v if finished else np.nan for k, v in run.data.metrics.items() if is_curve(k)},
                    **run.data.params,  # after the metrics: `learning_rate` is the config's, its course is in `curves`
                }
            )
        frame = pd.DataFrame(rows)
        return frame.sort_values(["arm", "draw", "block"], ignore_index=True) if rows else frame

    @cached_property
    def _labels(self) -> pd.DataFrame:
        columns = ["run_id", "arm", "draw", "block"]
        return self.runs[columns] if len(self.runs) else pd.DataFrame(columns=columns, dtype=object)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """Every point of every curve: run_id, arm, draw, block, step, metric, value; diverged runs up to their end."""
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
        return frame.merge(self._labels, on="run_id")[["run_id", "arm", "draw", "block", "step", "metric", "value"]]

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
        return artifacts.read(self.client, self._by_id[run_id], name)

    def arm_artifact(self, arm: str, name: str) -> bytes | None:
        """The content of an artifact of an arm's own run, or None where there is none."""
        mine = [run for run in self._found if self._name(run) == arm]
        experiments = sorted({run.info.experiment_id for run in mine})
        for key in dict.fromkeys(run.data.tags["arm_key"] for run in mine):
            for parent in self.client.search_runs(experiments, f"tags.kind = 'arm' and tags.arm_key = '{key}'"):
                if (content := artifacts.read(self.client, parent, name)) is not None:
                    return content
        return None

    def arrays(
        self, name: str, keys: Container[str] | None = None, arm: str | None = None
    ) -> Iterator[tuple[str, dict[str, npt.NDArray[Any]]]]:
        """Run id and arrays of the runs' npz artifact, run by run, where there is one.

        Args:
            name: of the artifact.
            keys: which of its arrays; None: all.
            arm: whose runs; None: all.
        """
        runs = self.runs if arm is None or not len(self.runs) else self.runs[self.runs["arm"] == arm]
        for run_id in runs.get("run_id", ()):
            if (content := self.artifact(run_id, name)) is not None:
                with np.load(io.BytesIO(content), allow_pickle=False) as file:
                    yield run_id, {key: file[key] for key in file.files if keys is None or key in keys}

    def nets(self) -> dict[str, bytes]:
        """Arm -> `config.json` of its net, from a finished run of the arm, or of one that has the same net."""
        found: dict[str, bytes] = {}
        if not len(self.runs):
            return found
        columns = [name for name in map(str, self.runs) if name == "arch" or name.startswith("arch.")]
        same_net = self.runs[[*columns, "data.digest"]].fillna("").astype(str).agg("|".join, axis=1)
        for _, group in self.runs.groupby(same_net):
            content = None
            for run_id in group.loc[group["outcome"] == "finished", "run_id"]:
                if (model := self.artifact(run_id, "model.keras")) is not None:
                    with zipfile.ZipFile(io.BytesIO(model)) as file:
                        content = file.read("config.json")
                    break
            if content is not None:
                found |= dict.fromkeys(group["arm"], content)
        return found

    @cached_property
    def predictions(self) -> dict[str, dict[str, npt.NDArray[Any]]]:
        """Run id -> test_logits (n_test, classes), test_labels (n_test,), of finished runs."""
        return dict(self.arrays("predictions.npz", ("test_logits", "test_labels")))

    @cached_property
    def layers(self) -> pd.DataFrame:
        """Exact moments: run_id, arm, draw, block, step, layer, array, moment, value."""
        return self.moments()

    def moments(self, steps: Container[int] | None = None) -> pd.DataFrame:
        """The moments at some steps (None: at all), as in `layers`."""
        parts = []
        for run_id, data in self.arrays("histograms.npz", ("steps", "arrays", "moments", "values")):
            kept = [t for t, step in enumerate(data["steps"].tolist()) if steps is None or step in steps]
            t, a, m = np.nonzero(~np.isnan(data["values"][kept]))
            columns = {"step": data["steps"][kept][t], "name": data["arrays"][a], "moment": data["moments"][m]}
            parts.append(pd.DataFrame({"run_id": run_id, **columns, "value": data["values"][kept][t, a, m]}))
        return self._tidy(parts, ("moment", "value"))

    @cached_property
    def histograms(self) -> pd.DataFrame:
        """Non-empty bins, the same edges everywhere: run_id, arm, draw, block, step, layer, array, low, high, count."""
        parts = []
        for run_id, data in self.arrays("histograms.npz"):
            t, a, b = np.nonzero(data["counts"] > 0)
            bounds = np.concatenate([[-np.inf], data["edges"], [np.inf]])
            columns = {"step": data["steps"][t], "name": data["arrays"][a], "low": bounds[b], "high": bounds[b + 1]}
            parts.append(pd.DataFrame({"run_id": run_id, **columns, "count": data["counts"][t, a, b]}))
        return self._tidy(parts, ("low", "high", "count"))

    def _tidy(self, parts: list[pd.DataFrame], values: Sequence[str]) -> pd.DataFrame:
        """Frames with run_id, step, name and these values as one, with the runs' columns and the name in its parts."""
        columns = ["run_id", "arm", "draw", "block", "step", "layer", "array", *values]
        if not parts:
            return pd.DataFrame(columns=columns)
        frame = pd.concat(parts, ignore_index=True)
        names = {name: name.rpartition("/") for name in frame["name"].unique()}
        frame["layer"] = frame["name"].map({name: layer for name, (layer, _, _) in names.items()})
        frame["array"] = frame["name"].map({name: array for name, (_, _, array) in names.items()})
        return frame.merge(self._labels, on="run_id")[columns]

    def mean_histograms(self, arm: str) -> tuple[npt.NDArray[Any], list[str], npt.NDArray[Any]]:
        """An arm's histograms averaged over its runs, as shares of the sampled values.

        Returns:
            steps (T,), names (A) of `<layer>/<array>`, shares (T, A, 245); NaN where no run has counts.
        """
        steps, columns = np.zeros(0), dict[str, int]()
        total, number = np.zeros((0, 0, len(EDGES) + 1)), np.zeros((0, 0))
        for _, data in self.arrays("histograms.npz", ("steps", "arrays", "counts"), arm):
            counts = data["counts"].astype(float)
            there = counts[..., 0] >= 0
            share = np.where(there[..., None], counts, 0) / np.maximum(counts.sum(-1, keepdims=True), 1)
            # Runs that diverged have the others' first steps, and may lack arrays.
            steps = data["steps"] if len(data["steps"]) > len(steps) else steps
            places = [columns.setdefault(name, len(columns)) for name in data["arrays"].tolist()]
            more = ((0, len(steps) - len(total)), (0, len(columns) - total.shape[1]))
            total, number = np.pad(total, (*more, (0, 0))), np.pad(number, more)
            total[: len(share), places] += share
            number[: len(share), places] += there
        with np.errstate(invalid="ignore"):
            return steps, list(columns), np.where(number[..., None] > 0, total / number[..., None], np.nan)


class Combined(Results):
    """Runs of several sweeps, as if of one.

    Arms with one arm key are one arm, whatever their sweeps call it; different arms of one name get the sweep's name
    in front.

    Args:
        parts: the results to take together.
        sweep: what to call them.

    Raises:
        StoreError: there is no run.
    """

    def __init__(self, parts: Sequence[Results], sweep: str) -> None:
        self.client, self.sweep, self.experiment_id = parts[0].client, sweep, parts[0].experiment_id
        found: dict[str, Run] = {}
        for part in parts:
            for run in part._found:
                key = run.data.tags["run_key"]
                if key not in found or found[key].info.status != "FINISHED":
                    found[key] = run
        if not found:
            raise StoreError("there is no run to compare")
        self._found = list(found.values())
        self._names: dict[str, str] = {}
        firsts: dict[str, str] = {}
        for run in self._found:
            tags = run.data.tags
            if tags["arm_key"] not in self._names:
                taken = firsts.setdefault(tags["arm"], tags["arm_key"]) != tags["arm_key"]
                self._names[tags["arm_key"]] = f"{tags['sweep']}: {tags['arm']}" if taken else tags["arm"]
        baselines = [part.declaration.baseline for part in parts if part.declaration and part.declaration.baseline]
        arms = {name: key for key, name in self._names.items()}
        questions = [part.declaration.question for part in parts if part.declaration]
        baseline = next((name for name in baselines if name in arms), None)
        self._declaration = Declaration(sweep, next(iter(questions), ""), baseline, arms)

    def _name(self, run: Run) -> str:
        return self._names[run.data.tags["arm_key"]]

    @property
    def confirmation(self) -> None:
        """Sweeps taken together chose nothing together."""

    @property
    def declaration(self) -> Declaration:
        """The first sweep's baseline and question, the arms of all."""
        return self._declaration


def of_runs(client: MlflowClient, run_ids: Sequence[str]) -> Results:
    """These runs, of one sweep or of several.

    Raises:
        StoreError: an id that is no run of the harness.
    """
    by_experiment: dict[str, list[Run]] = {}
    for run_id in run_ids:
        try:
            run = client.get_run(run_id)
        except MlflowException:
            raise StoreError(f"run {run_id!r}: not in this store") from None
        if run.data.tags.get("kind") != "run":
            raise StoreError(f"run {run_id!r}: not one training of the harness; give the ids of runs below an arm")
        by_experiment.setdefault(run.info.experiment_id, []).append(run)
    parts = []
    for experiment, runs in by_experiment.items():
        part = Results(client, client.get_experiment(experiment).name)
        part._found = runs  # these alone, out of thousands maybe
        parts.append(part)
    return Combined(parts, "runs_" + "_".join(run_id[:6] for run_id in run_ids[:4]))


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
