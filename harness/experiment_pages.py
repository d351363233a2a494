"""What a reader sees of the experiments: README.md of each and of all, from the tables that lie in their folders."""

from collections.abc import Sequence

import pandas as pd

from harness.analysis import published
from harness.bins import EDGES
from harness.experiments import Experiment

MOST_ARMS = 16
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


def readme(experiment: Experiment) -> str:
    """README.md of one, from experiment.yaml and the folder's tables."""
    results, theirs = experiment.read("results.csv"), experiment.read("published.csv")
    text = [f"# {experiment.question}", f"{experiment.row} of the sources. {experiment.setting}"]
    if experiment.sweeps:
        commands = [experiment.command(sweep) for sweep in experiment.sweeps]
        commands.append(f"python scripts/reproduce.py {experiment.id}   # trains what is missing, writes this folder")
        text += ["```\n" + "\n".join(commands) + "\n```"]
        text += [_data_hint(experiment)] if _data_hint(experiment) else []
        number, measured = experiment.minutes_on_2_cores
        time = "About a minute" if round(number) <= 1 else f"About {number:.0f} minutes"
        how = "measured: the fastest run of each arm, times their number, two at a time" if measured else "estimated"
        text += [f"{time} on 2 cores ({how}). State: **{experiment.state}**."]
    else:
        text += [f"```\npython scripts/reproduce.py {experiment.id}\n```"]
    if results is not None and "planned" not in results:
        text += [_parts(results)]
    elif results is not None or theirs is not None:
        text += _beside(experiment, results, theirs)
    if (table := experiment.read("surface.csv")) is not None:
        text += ["## Paths over the surface", published.plain(table)]
    if (table := experiment.read("layers.csv")) is not None:
        text += ["## Pre-activations of each layer", *_layers(experiment, table)]
    text += [f"![{path.stem}]({path.name})" for path in sorted(experiment.folder.glob("*.svg"))]
    if (shapes := experiment.read("shapes.csv")) is not None:
        text += _shapes(experiment, shapes)
    if experiment.shown:
        rows = pd.DataFrame(experiment.shown, columns=["what", "command", "test"])
        rows["command"] = "`" + rows["command"] + "`"
        text += [published.plain(rows.assign(test=[f"[{name}](../../{name})" for name in rows["test"]]))]
    if experiment.conclusion and experiment.state == "done":
        text += ["## What we conclude", experiment.conclusion.strip()]
    text += ["Written by `scripts/reproduce.py`; do not edit."]
    return "\n\n".join(text) + "\n"


def _layers(experiment: Experiment, table: pd.DataFrame) -> list[str]:
    """The spread of each layer's pre-activations at the start and at the end, beside the published reach."""
    theirs = experiment.read("published_layers.csv")
    if theirs is not None:
        table = table.merge(theirs.assign(step=0), on=["arm", "layer", "step"], how="left")
    for name in ("sd", "reach", "published reach"):
        if name in table:
            table[name] = [_magnitude(value) for value in table[name]]
    return [
        "Means over the runs; sd: standard deviation of the values, reach: 99.9 % of them lie within ± so much (upper "
        "end of a bin, 10 bins a decade).",
        published.plain(table),
    ]


def _magnitude(value: float) -> str:
    if pd.isna(value):
        return "–"
    if value > EDGES[-1]:
        return f"{value:.1e}" if value < float("inf") else f"> {EDGES[-1]:,.0f}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


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
    number = len(table[["sweep", "arm"]].drop_duplicates())
    crowded = number > MOST_ARMS
    chosen = table["chosen"].eq(True) if "chosen" in table else False
    shown = table[table["published"].notna() | (table["note"] != "") | chosen] if crowded else table
    text += [published.markdown(shown)] if len(shown) else []
    if crowded:
        text += [f"All {number} arms are in results.csv; here those that validation chose."]
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


def index(every: Sequence[Experiment]) -> str:
    """README.md of all: one table, with the state of each."""
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
                "minutes on 2 cores": minutes(each) if each.sweeps else "–",
                "state": each.state,
                "published numbers": ", ".join(inside) or "–",
            }
        )
    text = [
        "# Experiments",
        "Every row of the sources: its question, the state of its runs, and how many published numbers lie inside "
        "the spread (min to max) of single runs. "
        f"All together train for about {sum(each.minutes_on_2_cores[0] for each in every) / 60:.1f} hours on 2 cores "
        "(the fastest run of each arm, times their number, two at a time; with ~ estimated). "
        "Written by `scripts/reproduce.py`; do not edit.",
        published.plain(pd.DataFrame(rows)),
    ]
    return "\n\n".join(text) + "\n"


def minutes(experiment: Experiment) -> str:
    """How many it takes on 2 cores, with ~ where that is estimated."""
    number, measured = experiment.minutes_on_2_cores
    return f"{'' if measured else '~'}{max(1, round(number))}"
