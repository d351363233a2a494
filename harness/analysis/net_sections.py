"""The report's sections about the nets: bias and variance, training, signal at step 0, single examples, limits."""

import numpy as np
import pandas as pd

from harness.analysis import across, decompositions, plots, propagation, sources
from harness.analysis.figure import svg
from harness.analysis.limitations import limitations
from harness.analysis.render import Block, Drawing, Lines, Missing, Picture, Section, Table, Text
from harness.analysis.study import Study

MOST_PANELS = 16
MOST_PICTURES = 8


def bias_variance(study: Study) -> Section:
    """Bias and variance of every arm."""
    title = "Bias and variance"
    table = study.decomposition
    if not len(table):
        return Section(
            title, [_needs_predictions(study, "Bias and variance need the stored predictions of two runs an arm")]
        )
    single = bool((table["draws"] == 1).all())
    blocks: list[Block] = []
    if single:
        blocks.append(
            Text(
                "Conditional on this training set: one data draw an arm, so what another draw would change is part of "
                "the bias, and the variance is that of the seeds alone."
            )
        )
        if sources.randomised(study.runs).get("draw") == "varied":
            blocks.append(
                Text(
                    "Here each seed also holds out validation examples of its own, so its part contains a little of "
                    "the data's."
                )
            )
        blocks.append(Missing("To cross data draws with seeds:", study.again("draws=5", "seeds=3")))
    else:
        schemes = ", ".join(sorted(set(study.runs["draw.scheme"].dropna()))) if "draw.scheme" in study.runs else ""
        text = "Over data draws and seeds, crossed: unbiased two-way analysis of variance of the stored logits."
        blocks.append(Text(text + (f" Draws: {schemes}." if schemes else "")))
    caption = (
        "Value ± jackknife standard error. Bias² contains the label noise; 0-1 after Kohavi and Wolpert; a part near "
        "zero may come out negative. Gap = test − train error, which some texts call variance. Vote: the majority of "
        "all runs. Ensembles: the mean over the seeds of one draw."
    )
    errors, losses = decompositions.texts(table)
    blocks.append(Table(errors, caption, marked=study.baseline))
    caption = "The Brier score sums over the classes; cross-entropy (CE, nats) around the softmax of the mean logits."
    blocks.append(Table(losses, caption, marked=study.baseline))
    drawn = decompositions.stacked_bars(table, study.arms)
    blocks.append(
        Drawing(
            "bias_variance", svg(drawn), "Bias² and the parts of the variance, for the 0-1 loss and the Brier score."
        )
    )
    if (line := decompositions.against_value(table, study.arms)) is not None:
        caption = "Parts of the Brier score against what is swept; bands are one jackknife standard error."
        blocks.append(Drawing("bias_variance_curve", svg(line), caption))
    if (table["left_out"] > 0).any():
        left = ", ".join(f"{r['arm']} {r['left_out']}" for _, r in table.iterrows() if r["left_out"])
        blocks.append(Text(f"Finished runs left out, as their draw or seed lacks others: {left}."))
    return Section(title, blocks)


def _needs_predictions(study: Study, what: str) -> Missing:
    return Missing(f"{what}, with their labels. To train the runs again:", study.again("rerun=true"))


def learning_curves(study: Study) -> Section:
    """Loss and accuracy while training."""
    if not len(study.curves):
        return Section(
            "Learning curves",
            [Missing("No curve was logged. To evaluate while training:", study.again("train.evaluate.every=20 %"))],
        )
    caption = (
        "Mean over runs with its 95 % t band, every run faint. In inference mode without augmentation, train on a "
        "fixed part of the training examples."
    )
    return Section(
        "Learning curves", [Drawing("learning_curves", svg(plots.learning_curves(study.curves, study.arms)), caption)]
    )


def activations(study: Study) -> Section:
    """What the layers compute while training."""
    title = "Activation histograms"
    found = {arm: histogram for arm, histogram in study.read_histograms().items() if len(histogram[0])}
    if not found:
        return Section(title, [Missing("No layer was probed. To probe:", study.again("train.probe.at=[0,10,100]"))])
    shown = dict(list(found.items())[:MOST_PANELS])
    caption = (
        "Values of each layer on a fixed batch, mean over runs, the same logarithmic bins everywhere; steps run "
        "downward within a layer."
    )
    blocks: list[Block] = []
    for array, words in (("pre_activation", "Pre-activations"), ("activation", "Activations")):
        if any(name.endswith(f"/{array}") for _, names, _ in shown.values() for name in names):
            figure = svg(plots.histograms(shown, (array,)))
            blocks.append(Drawing(f"{array}_histograms", figure, f"{words}. {caption}"))
    if len(found) > len(shown):
        blocks.append(Text(f"The first {len(shown)} of {len(found)} arms."))
    return Section(title, blocks)


def step_zero(study: Study) -> Section:
    """The signal before training against theory."""
    title = "Signal at step 0"
    layers = study.layers
    if not len(layers) or not (layers["step"] == 0).any():
        return Section(
            title, [Missing("No layer was probed at step 0. To probe:", study.again("train.probe.at=[0,10,100]"))]
        )
    table = propagation.step_zero(layers, study.runs, study.arms, study.read_nets())
    if not len(table):
        return Section(title, [Text("No layer shows its pre-activations.")])
    figure = svg(propagation.signal_figure(table, study.arms))
    caption = (
        "Left: root mean square of the pre-activations by layer. Right: their mean square over what the initializer "
        "makes expect, given the layer's measured input; bars are the standard error over runs, at most "
        "√(2/width) a run."
    )
    named = [
        f"{row['arm']}, {row['layer']}: {row['verdict']}"
        + (f" (ratio {row['ratio']:.2f})" if row["verdict"].startswith("off") else "")
        for _, row in table.iterrows()
        if row["verdict"]
    ]
    text = [
        f"Layers to look at: {'; '.join(named)}." if named else "No layer is off its expectation, dead or saturated."
    ]
    if table["expected"].isna().any():
        without = ", ".join(dict.fromkeys(table.loc[table["expected"].isna(), "layer"]))
        text.append(f"No expectation for {without}: what it reads is not stored, or its initializer is not known here.")
    shown = pd.DataFrame(
        {
            "arm": table["arm"],
            "layer": table["layer"],
            "mean square": [f"{x:.3g}" for x in table["measured"]],
            "expected": ["–" if np.isnan(x) else f"{x:.3g}" for x in table["expected"]],
            "ratio": ["–" if np.isnan(x) else f"{x:.2f}" for x in table["ratio"]],
            "± (standard error)": [
                "–" if np.isnan(s) else f"{s / np.sqrt(n):.2f}"
                for s, n in zip(table["scatter"], table["runs"], strict=True)
            ],
            "dead units %": ["–" if np.isnan(x) else f"{100 * x:.1f}" for x in table["dead"]],
            "saturated %": ["–" if np.isnan(x) else f"{100 * x:.1f}" for x in table["saturated"]],
            "rms dL/dz": [_root(x) for x in table["error"]],
            "handed back / expected": [
                "–" if np.isnan(r) else f"{r:.2f} ± {s / np.sqrt(n):.2f}"
                for r, s, n in zip(table["back"], table["back_scatter"], table["runs"], strict=True)
            ],
            "verdict": table["verdict"]
            .replace("", "as expected")
            .where(table["ratio"].notna() | (table["verdict"] != ""), "–"),
        }
    )
    shown = shown[[name for name in shown if (shown[name] != "–").any()]]
    blocks: list[Block] = [Drawing("step_zero", figure, caption)]
    if table["error"].notna().any():
        caption = (
            "The same on the way back. Left: root mean square of dL/dz, the gradient of one example's loss at the "
            "pre-activations. Right: the mean square of what each layer hands back to its input, over what the "
            "initializer makes expect given the gradient it got; bars as above, at most √(2/inputs) a run. The first "
            "layer hands nothing back."
        )
        blocks.append(Drawing("step_zero_gradients", svg(propagation.gradient_figure(table, study.arms)), caption))
    blocks += [Lines(text), Table(shown, "All layers", folded=True)]
    classes = _classes(study)
    first = propagation.first_losses(layers, study.curves, study.arms, classes) if classes else pd.DataFrame()
    if len(first):
        rows = pd.DataFrame(
            {
                "arm": first["arm"],
                "mean square of the logits": [f"{x:.3g}" for x in first["q"]],
                "loss at step 0": [f"{x:.4g}" for x in first["measured"]],
                "expected": [f"{x:.4g}" for x in first["expected"]],
            }
        )
        caption = (
            f"Train cross-entropy (nats) before training; expected of {classes} logits drawn from N(0, q), which is "
            f"ln {classes} at q = 0."
        )
        blocks.append(Table(rows, caption, marked=study.baseline))
    return Section(title, blocks)


def _root(square: float) -> str:
    return "–" if np.isnan(square) else f"{np.sqrt(square):.3g}"


def _classes(study: Study) -> int:
    for arrays in study.predictions.values():
        return int(arrays["test_logits"].shape[1])
    return 0


def across_data(study: Study) -> Section:
    """Methods over several data sets."""
    title = "Across data sets"
    if not study.by_data:
        words = "One data set. To see what holds on others, sweep them, three at least with five seeds:"
        # Arms are then named by their data too, so that the baseline's name is another.
        more = ("data=digits,mnist,fashion_mnist", "seeds=5", "sweep.baseline=null", "sweep.family=all_pairs")
        return Section(title, [Missing(words, study.again(*more))])
    table = study.across_table
    if not len(table):
        text = (
            f"{len(study.by_data)} data sets: a summary needs {across.FEWEST_DATA_SETS} or more, {across.FEWEST_RUNS} "
            "ended runs of each method on every one of them, and stored predictions."
        )
        return Section(title, [Text(text)])
    baseline = across.method(study.reference) if study.reference is not None else None

    def interval(row: pd.Series, name: str) -> str:
        return "–" if np.isnan(row[name]) else f"{row[name]:.3f} [{row[f'{name}_low']:.3f}, {row[f'{name}_high']:.3f}]"

    shown = pd.DataFrame(
        {
            "method": table["method"],
            "data sets": table["data sets"].astype(str),
            "runs": table["runs"].astype(str),
            "IQM [95 % CI]": [interval(row, "iqm") for _, row in table.iterrows()],
            f"P(beats {baseline}) [95 % CI]": [interval(row, "improvement") for _, row in table.iterrows()],
        }
    )
    caption = (
        "Scores are (accuracy − chance) / (1 − chance), a diverged run scoring 0. IQM: mean over all runs of all data "
        "sets less the lowest and highest quarter. P: a run beats one of the baseline's method on the same data, ties "
        "half, mean over the data sets. Intervals: percentile bootstrap of the runs within each data set, somewhat too "
        "narrow for few runs, and for these data sets alone (Agarwal et al. 2021)."
    )
    profile = "Share of the runs above a score, mean over the data sets, with 95 % bootstrap bands: higher is better."
    drawing = Drawing("performance_profile", svg(across.profiles(study.across_data)), profile)
    return Section(title, [Table(shown, caption, marked=baseline), drawing])


def single_examples(study: Study) -> Section:
    """Classes and examples."""
    title = "Classes and examples"
    examples = study.examples
    if examples is None and study.by_data:
        words = "The arms were scored on different test sets: their examples cannot be laid side by side."
        return Section(title, [Text(words), *worst_mistakes(study)])
    if examples is None:
        return Section(title, [_needs_predictions(study, "These tables need stored predictions")])
    classes = examples.per_class()
    text = classes.astype(object)
    for arm in examples.runs:
        text[arm] = [f"{x:.1f}" for x in classes[arm]]
    blocks: list[Block] = [Table(text, "Test accuracy (%) in each class, mean over runs.")]
    hardest = examples.hardest()
    if len(hardest):
        blocks.append(
            Table(
                _rounded(hardest),
                "The test examples that the fewest runs get right, over all arms (index in the test set).",
            )
        )
    blocks += worst_mistakes(study)
    if study.reference is not None and study.reference in examples.runs:
        moved = [
            examples.moved(arm, study.reference)
            for arm in study.compared
            if arm in examples.runs and arm != study.reference
        ]
        if moved and len(table := pd.concat(moved)):
            caption = (
                f"Examples on which an arm differs most from the baseline. Picked out of {len(examples.labels)}: some "
                "would look like this by chance."
            )
            blocks.append(Table(_rounded(table), caption, folded=True))
    return Section(title, blocks)


def worst_mistakes(study: Study) -> list[Block]:
    """The test images that each compared arm is most wrong about, as its runs left them in the store."""
    order = [arm for arm in study.compared if arm == study.reference]
    order += [arm for arm in study.compared if arm != study.reference]
    return [
        Picture(
            f"worst_mistakes_{number}",
            png,
            f"{arm}: the test images with the largest mean cross-entropy over its runs, with their class and what most "
            "runs call them.",
            folded=number > 0,
        )
        for number, (arm, png) in enumerate(study.read_mistakes(order[:MOST_PICTURES]).items())
    ]


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    text = table.astype(object)
    for name in table.select_dtypes("float"):
        text[name] = [f"{x:.0f}".replace("-", "−") for x in table[name]]
    return text


def limits(study: Study) -> Section:
    """What these data cannot say."""
    return Section("Limitations", [Lines(limitations(study))])
