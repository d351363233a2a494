"""Write an experiment's folder: results.csv and figures from the store, README.md from the folder's own files."""

import os
import platform
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from harness.analysis import paths, plots, published
from harness.analysis.decompositions import stacked_bars
from harness.experiments import Experiment, planned
from harness.notebook import decompose
from harness.tracking import artifacts
from harness.tracking.frames import Results
from harness.tracking.store import StoreError, open_store

SURFACE_STEPS = 120
SURFACE_START = (-4.0, 2.0)
MOST_ARMS = 16
ENDED = ("finished", "diverged")
PARTS = {
    "error": "test error",
    "error.train": "train error",
    "brier.bias2": "Brier bias²",
    "brier.v_data": "V data",
    "brier.v_init": "V seed",
    "brier.v_interaction": "V data × seed",
    "zero_one.bias2": "0-1 bias²",
    "zero_one.variance": "0-1 V",
}


def stored(experiment: Experiment, sweep: str, uri: str | None, folder: Path) -> Results | None:
    """The runs of the arms that the sweep's file means, or None where the store has none."""
    try:
        results = Results(open_store(uri, folder, create=False), sweep, [each.key for each in experiment.arms(sweep)])
    except StoreError:
        return None
    ended = len(results.runs) and results.runs["outcome"].isin(ENDED).any()
    return results if ended else None


def unfinished(experiment: Experiment, uri: str | None, folder: Path) -> list[str]:
    """The sweeps of which runs are missing in the store."""
    left = []
    for sweep in experiment.sweeps:
        results, arms = stored(experiment, sweep, uri, folder), experiment.arms(sweep)
        ended = 0 if results is None else int(results.runs["outcome"].isin(ENDED).sum())
        if ended < len(arms) * planned(arms):
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
    rows, claims = [], []
    for sweep, results in found.items():
        arms = experiment.arms(sweep)
        names = {each.name: each.key for each in arms}
        curves = (
            results.curves if any(each.startswith(published.BEST) for each in experiment.metrics) else pd.DataFrame()
        )
        table = published.measured(results.runs, curves, names, planned(arms), experiment.metrics)
        table.insert(0, "sweep", sweep)
        rows.append(table.assign(machine=machine(results.runs)))
        claims += [(sweep, sentence) for sentence in _claims(results)]
        if experiment.figure != "surface":
            figure = _figure(experiment, results, list(names))
            _save(experiment, experiment.figure if len(experiment.sweeps) == 1 else sweep, figure)
    pd.concat(rows).to_csv(experiment.folder / "results.csv", index=False, float_format="%.6g")
    pd.DataFrame(claims, columns=["sweep", "sentence"]).to_csv(experiment.folder / "claims.csv", index=False)
    return True


def _claims(results: Results) -> list[str]:
    from harness.report import study

    if results.declaration is None:
        return []
    subject = study(results, results.declaration)
    chosen = [] if not len(subject.tuning) else [f"Validation chose {', '.join(subject.compared)}."]
    return chosen + [each.sentence for each in subject.claims if each.kind != "too few blocks to say"]


def _figure(experiment: Experiment, results: Results, arms: Sequence[str]) -> Figure:
    ended = results.runs[results.runs["outcome"].isin(ENDED)]
    there = [arm for arm in arms if (ended["arm"] == arm).any()]
    if experiment.figure == "curves":
        return plots.learning_curves(results.curves, there)
    if experiment.figure == "histograms":
        return plots.histograms({arm: results.mean_histograms(arm) for arm in there}, ("pre_activation",))
    if experiment.figure == "regions":
        return _regions(results, there)
    from harness.analysis.blocks import scores

    return plots.raw_points(scores(results.runs, there, "accuracy/test"), there, "test accuracy (%)")


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


def write_readme(experiment: Experiment) -> None:
    """README.md from experiment.yaml and the folder's tables."""
    results, theirs = experiment.read("results.csv"), experiment.read("published.csv")
    text = [f"# {experiment.question}", f"{experiment.row} of the sources. {experiment.setting}"]
    if experiment.sweeps:
        commands = [experiment.command(sweep) for sweep in experiment.sweeps]
        commands.append(f"python scripts/reproduce.py {experiment.id}   # trains what is missing, writes this folder")
        text += ["```\n" + "\n".join(commands) + "\n```"]
        text += [_data_hint(experiment)] if _data_hint(experiment) else []
        time = "About a minute" if experiment.minutes == 1 else f"About {experiment.minutes:g} minutes"
        text += [f"{time} on 2 cores (estimated). State: **{experiment.state}**."]
    else:
        text += [f"```\npython scripts/reproduce.py {experiment.id}\n```"]
    if results is not None and "planned" not in results:
        text += [_parts(results)]
    elif results is not None or theirs is not None:
        text += _beside(experiment, results, theirs)
    for name, title in (("surface", "Paths over the surface"),):
        if (table := experiment.read(f"{name}.csv")) is not None:
            text += [f"## {title}", published.plain(table)]
    text += [f"![{path.stem}]({path.name})" for path in sorted(experiment.folder.glob("*.svg"))]
    if (shapes := experiment.read("shapes.csv")) is not None:
        text += _shapes(experiment, shapes)
    if experiment.shown:
        rows = pd.DataFrame(experiment.shown, columns=["what", "command", "test"])
        rows["command"] = "`" + rows["command"] + "`"
        text += [published.plain(rows.assign(test=[f"[{name}](../../{name})" for name in rows["test"]]))]
    if experiment.conclusion and experiment.state != "not run":
        text += ["## What we conclude", experiment.conclusion.strip()]
    text += ["Written by `scripts/reproduce.py`; do not edit."]
    _write(experiment.folder / "README.md", "\n\n".join(text) + "\n")


def _data_hint(experiment: Experiment) -> str:
    """Where the data come from, if they do not come with the harness."""
    names = {each.choices.get("data", "") for sweep in experiment.sweeps for each in experiment.arms(sweep)[:1]}
    if not names - {"digits", "spiral"}:
        return ""
    return "Data: in a folder named by `HARNESS_DATA`, or given by `data.path=FILE`; else `keras.datasets` is asked."


def _beside(experiment: Experiment, results: pd.DataFrame | None, theirs: pd.DataFrame | None) -> list[str]:
    if theirs is None:
        theirs = pd.DataFrame(columns=["arm", "metric", "value", "note"])
    if "sweep" not in theirs:
        theirs = theirs.assign(sweep=experiment.sweeps[0] if experiment.sweeps else "")
    nothing = pd.DataFrame(columns=["sweep", "arm", "metric", *published.NUMBERS])
    table = published.beside(nothing if results is None else results, theirs)
    claims = experiment.read("claims.csv")
    sentences = [] if claims is None else [str(each) for each in claims["sentence"]]
    text = ["## Published beside measured"]
    if results is not None:
        text += [f"Machine: {', '.join(sorted(set(results['machine'])))}."]
    crowded = table["arm"].nunique() > MOST_ARMS
    shown = table[table["published"].notna() | (table["note"] != "")] if crowded else table
    text += [published.markdown(shown)] if len(shown) else []
    if crowded:
        text += [f"All {table['arm'].nunique()} arms are in results.csv."]
    if results is None:
        text += ["Not run."]
        return text
    listed = [*published.sentences(table), *sentences]
    if listed:
        text += ["## What follows from the numbers", "\n".join(f"- {each}" for each in listed)]
    return text


def _shapes(experiment: Experiment, shapes: pd.DataFrame) -> list[str]:
    theirs = experiment.read("published_shapes.csv")
    text = ["## Shapes and weights"]
    if theirs is not None:
        table = published.shapes_beside(shapes, theirs)
        text += [
            f"{(table['equal'] == 'yes').sum()} of {len(table)} published entries are equal.",
            published.plain(table),
        ]
    columns = ["net", "layer", "kind", "output", "kernel", "bias", "multiply_adds"]
    return [*text, "As built:", published.plain(shapes[columns])]


def _parts(table: pd.DataFrame) -> str:
    """The columns of PARTS, each value with its jackknife standard error where there is one."""

    def cell(row: "pd.Series[float]", name: str) -> str:
        error = row.get(f"{name}.se")
        return f"{row[name]:.3f}" + (f" ± {error:.3f}" if error is not None else "")

    rows = [[row["arm"], *(cell(row, name) for name in PARTS)] for _, row in table.iterrows()]
    return published.plain(pd.DataFrame(rows, columns=["arm", *PARTS.values()]))


def write_index(every: Sequence[Experiment], root: Path) -> None:
    """README.md of all experiments: one table, with the state of each."""
    rows = []
    for each in every:
        results, theirs = each.read("results.csv"), each.read("published.csv")
        shapes, known = each.read("shapes.csv"), each.read("published_shapes.csv")
        inside = []
        if results is not None and theirs is not None and "planned" in results:
            found = published.beside(results, theirs if "sweep" in theirs else theirs.assign(sweep=each.sweeps[0]))
            said = found["inside"][found["inside"] != ""]
            inside += [f"{(said == 'yes').sum()} of {len(said)} inside the spread"] if len(said) else []
        if shapes is not None and known is not None:
            equal = published.shapes_beside(shapes, known)["equal"] == "yes"
            inside += [f"{equal.sum()} of {len(equal)} shapes equal"]
        rows.append(
            {
                "row": each.row,
                "experiment": f"[{each.id}]({each.id}/README.md)",
                "question": each.question,
                "minutes on 2 cores": f"{each.minutes:g}" if each.sweeps else "–",
                "state": each.state,
                "published numbers": ", ".join(inside) or "–",
            }
        )
    text = [
        "# Experiments",
        "Every row of the sources: its question, the state of its runs, and how many published numbers lie inside "
        "the spread (min to max) of single runs. "
        f"All together train for about {sum(each.minutes for each in every) / 60:.1f} hours on 2 cores (estimated). "
        "Written by `scripts/reproduce.py`; do not edit.",
        published.plain(pd.DataFrame(rows)),
    ]
    _write(root / "README.md", "\n\n".join(text) + "\n")


def _save(experiment: Experiment, name: str, figure: Figure) -> None:
    _write(experiment.folder / f"{name}.svg", plots.svg(figure))


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        file.write(text)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)
