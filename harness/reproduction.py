"""From the store to an experiment's folder: what is missing, the tables of what was measured, and the figures."""

import os
import platform
import socket
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from harness import experiments
from harness.analysis import paths, plots, published
from harness.analysis.blocks import scores
from harness.analysis.decompositions import stacked_bars
from harness.analysis.study import Study
from harness.bins import EDGES
from harness.experiments import Experiment, planned
from harness.notebook import decompose
from harness.tracking import artifacts
from harness.tracking.frames import Results
from harness.tracking.store import StoreError, open_store

SURFACE_STEPS = 120
SURFACE_START = (-4.0, 2.0)
ENDED = ("finished", "diverged")
HISTOGRAMS = {"pre_activations": "pre_activation", "activations": "activation"}
"""Figure -> what of each layer it shows; the activations end in the predictions."""


def stored(experiment: Experiment, sweep: str, uri: str | None, folder: Path) -> Results | None:
    """The runs of the arms and blocks that the sweep's file means, or None where none has ended in the store."""
    arms = experiment.arms(sweep)
    keys = [each.key for each in arms]
    try:
        results = Results(open_store(uri, folder, create=False), sweep, keys)
    except StoreError:
        return None
    runs, wanted = results.runs, planned(arms)
    if not len(runs):
        return None
    runs = runs[[block in wanted for block in zip(runs["block"], runs["draw"], strict=True)]]
    if not runs["outcome"].isin(ENDED).any():
        return None
    return Results(results.client, sweep, keys, runs["run_key"].tolist())


def unfinished(experiment: Experiment, uri: str | None, folder: Path) -> list[str]:
    """The sweeps of which runs are missing in the store."""
    left = []
    for sweep in experiment.sweeps:
        results, arms = stored(experiment, sweep, uri, folder), experiment.arms(sweep)
        there = set()
        if results is not None:
            ended = results.runs[results.runs["outcome"].isin(ENDED)]
            there = set(zip(ended["arm_key"], ended["block"], ended["draw"], strict=True))
        if any((arm.key, *block) not in there for arm in arms for block in planned(arms)):
            left.append(sweep)
    return left


def measure(experiment: Experiment, uri: str | None, folder: Path) -> bool:
    """Write results.csv, claims.csv, shapes.csv and the figure; what the store has nothing of stays as it is.

    Returns:
        Whether anything was written.
    """
    if experiment.tables:
        built_tables(experiment).to_csv(experiment.folder / "shapes.csv", index=False)
    found = {
        sweep: results for sweep in experiment.sweeps if (results := stored(experiment, sweep, uri, folder)) is not None
    }
    if experiment.figure == "surface":
        _surface(experiment)
    if not found:
        return bool(experiment.tables)
    if experiment.figure == "parts":
        (results,) = found.values()
        table = decompose(results)
        table.to_csv(experiment.folder / "results.csv", index=False, float_format="%.6g")
        _save(experiment, "parts", stacked_bars(table, list(table["arm"])))
        return True
    from harness.report import study

    rows, claims, spreads = [], [], []
    for sweep, results in found.items():
        arms = experiment.arms(sweep)
        names = {each.name: each.key for each in arms}
        curves = (
            results.curves if any(published.of_curve(each) != each for each in experiment.metrics) else pd.DataFrame()
        )
        table = published.measured(results.runs, curves, names, len(planned(arms)), experiment.metrics)
        table.insert(0, "sweep", sweep)
        subject = None if results.declaration is None else study(results, results.declaration)
        shown = list(names)
        if subject is not None:
            shown = subject.compared
        table["chosen"] = table["arm"].isin(shown)
        rows.append(table.assign(machine=machine(results.runs)))
        claims += [(sweep, sentence) for sentence in _claims(subject)]
        if experiment.figure == "histograms":
            spreads.append(layers(results, shown))
        for name, figure in _figures(experiment, results, shown).items():
            _save(experiment, name if len(experiment.sweeps) == 1 else f"{sweep}_{name}", figure)
    pd.concat(rows).to_csv(experiment.folder / "results.csv", index=False, float_format="%.6g")
    if spreads:
        pd.concat(spreads).to_csv(experiment.folder / "layers.csv", index=False, float_format="%.4g")
    pd.DataFrame(claims, columns=["sweep", "sentence"]).to_csv(experiment.folder / "claims.csv", index=False)
    return True


def _claims(subject: Study | None) -> list[str]:
    if subject is None:
        return []
    chosen = [] if not len(subject.tuning) else [f"Validation chose {', '.join(subject.compared)}."]
    return chosen + [each.sentence for each in subject.claims if each.kind != "too few blocks to say"]


def layers(results: Results, arms: Sequence[str]) -> pd.DataFrame:
    """Of each arm's layers at the first and the last probe: sd of the pre-activations, and their reach.

    reach: the smallest bound of a bin with 99.9 % of the values between minus and plus it. Both are means over runs, of
    shares for the reach.
    """
    bounds = np.abs(np.concatenate([[-np.inf], EDGES, [np.inf]]))
    outer = np.maximum(bounds[:-1], bounds[1:])
    order = np.argsort(outer, kind="stable")
    moments = results.layers
    moments = moments[(moments["array"] == "pre_activation") & (moments["moment"] == "std")]
    means = {place: (len(part), part.mean()) for place, part in moments.groupby(["arm", "layer", "step"])["value"]}
    rows = []
    for arm in arms:
        steps, names, shares = results.mean_histograms(arm)
        for place, name in enumerate(names):
            layer, _, array = name.rpartition("/")
            if array != "pre_activation":
                continue
            for at in sorted({0, len(steps) - 1}):
                if (arm, layer, steps[at]) in means:
                    inside = np.cumsum(shares[at, place][order])
                    reach = outer[order][np.searchsorted(inside, 0.999)]
                    rows.append((arm, layer, int(steps[at]), *means[arm, layer, steps[at]], reach))
    return pd.DataFrame(rows, columns=["arm", "layer", "step", "n", "sd", "reach"])


def _figures(experiment: Experiment, results: Results, arms: Sequence[str]) -> dict[str, Figure]:
    ended = results.runs[results.runs["outcome"].isin(ENDED)]
    there = [arm for arm in arms if (ended["arm"] == arm).any()]
    match experiment.figure:
        case "curves":
            return {"curves": plots.learning_curves(results.curves, there)}
        case "histograms":
            by_arm = {arm: results.mean_histograms(arm) for arm in there}
            return {name: plots.histograms(by_arm, (array,)) for name, array in HISTOGRAMS.items()}
        case "regions":
            return {"regions": _regions(results, there)}
        case "surface":
            return {}
        case _:
            values = scores(results.runs, there, "accuracy/test")
            return {experiment.figure: plots.raw_points(values, there, "test accuracy (%)")}


def _regions(results: Results, arms: Sequence[str]) -> Figure:
    """Decision regions of each arm's first finished run, also logged on the arm as figures/regions.png."""
    from harness.data.spiral import engineered, spiral
    from harness.predict import load_model

    half, side = 6.0, 120
    line = np.linspace(-half, half, side)
    grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    data = spiral()
    points, labels = np.asarray(data.x_test)[::2], np.asarray(data.y_test)[::2]
    maps: dict[str, npt.NDArray[np.floating]] = {}
    for arm in arms:
        done = results.runs[(results.runs["arm"] == arm) & (results.runs["outcome"] == "finished")]
        content = results.artifact(done["run_id"].iloc[0], "model.keras") if len(done) else None
        if content is None:
            continue
        raw = grid if done["data.features"].iloc[0] == "raw" else engineered(grid)
        logits = load_model(content).predict(raw.astype(np.float32), verbose=0)
        maps[arm] = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1])).reshape(side, side)
        alone = plots.png(paths.regions({arm: maps[arm]}, points, labels, half))
        query = f"tags.kind = 'arm' and tags.arm_key = '{done['arm_key'].iloc[0]}'"
        for parent in results.client.search_runs([results.experiment_id], query):
            artifacts.write(results.client, parent, {"figures/regions.png": alone})
    return paths.regions(maps, points, labels, half)


def _surface(experiment: Experiment) -> None:
    """Paths of the experiment's optimizers over the ravine: surface.csv and surface.svg."""
    from harness.composition import compose
    from harness.quiet import import_tensorflow

    import_tensorflow()
    from harness.models.descent import path

    walked = {}
    for words in experiment.surface:
        (arm,) = compose(words.split()).arms
        rate = arm.config.learning_rate.value
        name = f"{arm.choices['optimizer']}, rate {rate:g}"
        walked[name] = path(arm.config.optimizer, rate, paths.ravine, SURFACE_START, SURFACE_STEPS)
    rows = [
        {
            "optimizer": name,
            "steps": SURFACE_STEPS,
            "height at the end": f"{paths.ravine(*way[-1]):.3g}",
            "distance to the minimum": f"{np.hypot(*way[-1]):.3g}",
            "farthest beyond it, in x": f"{paths.overshoot(way):.3g}",
        }
        for name, way in walked.items()
    ]
    pd.DataFrame(rows).to_csv(experiment.folder / "surface.csv", index=False)
    _save(experiment, "surface", paths.surface(walked))


def built_tables(experiment: Experiment) -> pd.DataFrame:
    """The layers of the experiment's nets, one row a layer, the name of the net first."""
    from harness.composition import compose
    from harness.describe import table

    rows = []
    for each in experiment.tables:
        (arm,) = compose(list(each["config"])).arms
        words = {"input": str(each["input"]), "classes": str(each.get("classes", 10))}
        for row in table(arm.config, words):
            rows.append({"net": each["name"], **vars(row), "output": "x".join(map(str, row.output))})
    return pd.DataFrame(rows)


def machine(runs: pd.DataFrame) -> str:
    """What the runs were on: this machine's cores and processor, where it was this one."""
    if set(runs["host"]) - {""} != {socket.gethostname()}:
        return "other machines"
    model = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass
    devices = sorted({"GPU" if "GPU" in each else "CPU" for each in runs["device"]})
    return f"{os.cpu_count()} cores, {model}, on the {' and '.join(devices)}"


def _save(experiment: Experiment, name: str, figure: Figure) -> None:
    experiments.write(experiment.folder / f"{name}.svg", plots.svg(figure))
