"""The report's sections about scores: where they come from, what they are, and how they compare."""

import numpy as np
import pandas as pd

from harness.analysis import across, budget, choice, held, pairs, sources, strips, summary
from harness.analysis.blocks import is_crossed
from harness.analysis.claims import p_value, signed
from harness.analysis.figure import svg
from harness.analysis.render import Block, Drawing, Lines, Missing, Section, Table, Text
from harness.analysis.stats import Interval
from harness.analysis.study import METRIC, Study

NO_BASELINE = "No comparison was declared. Name a baseline, or compare all pairs:"


def provenance(study: Study) -> Section:
    """Where the numbers come from."""
    runs = study.runs
    outcomes = runs["outcome"].value_counts()
    ended = ", ".join(f"{count} {kind}" for kind, count in outcomes.items())
    streams = sources.randomised(runs)
    facts = {
        **study.facts,
        "planned": f"{len(study.arms)} arms × {study.planned} runs" if study.planned else "",
        "runs": f"{len(runs)}: {ended}",
        "blocks": f"{len(study.units)}: {_some(study.units)}",
        "varied by block": ", ".join(name for name, state in streams.items() if state == "varied") or "nothing",
        "the same in all blocks": ", ".join(name for name, state in streams.items() if state == "fixed") or "nothing",
        "not used": ", ".join(name for name, state in streams.items() if state == "not used") or "nothing",
        "training time": f"{runs['seconds'].sum() / 60:.1f} min in all runs together",
    }
    if "weights.initial" in runs and runs["weights.initial"].nunique():
        facts["initial weights"] = f"{runs['weights.initial'].nunique()} different in {len(runs)} runs"
    rows = [(name, text) for name, text in facts.items() if text]
    return Section("Provenance", [Table(pd.DataFrame(rows, columns=["", ""]))])


def _some(names: list[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def overview(study: Study) -> Section:
    """One row an arm, and the runs that diverged."""
    over = "for new data draws and new seeds" if is_crossed(study.runs) else "over blocks"
    caption = (
        f"Mean ± half width of the 95 % Student t interval {over}; sd, min and max over runs. "
        "Gap: train accuracy − test accuracy, both in inference mode."
    )
    if study.examples is not None:
        caption += " Floor sd: the sd that independent errors on this test set would give by themselves (Jordan 2024)."
    text = summary.full(study.summary, study.baseline)
    blocks: list[Block] = [Table(text, caption, marked=f"{study.baseline} (baseline)")]
    failed = pairs.failures(study.runs, study.arms, study.baseline)
    if len(failed):
        rows = pd.DataFrame(
            {
                "arm": failed["arm"],
                "diverged": [f"{k} of {n}" for k, n in zip(failed["diverged"], failed["runs"], strict=True)],
                "share % [95 % CI]": [
                    f"{100 * r['share']:.0f} [{100 * r['low']:.0f}, {100 * r['high']:.0f}]"
                    for _, r in failed.iterrows()
                ],
                "p against the baseline": [p_value(p) for p in failed["p"]],
            }
        )
        caption = (
            "Runs that diverged: share with its Clopper-Pearson interval, Barnard's exact p. Scores of such an arm "
            "are conditional on convergence."
        )
        blocks.append(Table(rows, caption))
    return Section("Scores", blocks)


def points(study: Study) -> Section:
    """Every run."""
    notes = {arm: f"{k} of {n} runs diverged" for arm, (k, n) in study.diverged.items()}
    blocks: list[Block] = []
    label = "test accuracy (%)"
    low, high = f"{METRIC}.ci_low", f"{METRIC}.ci_high"
    drawn = {
        str(row["arm"]): Interval(100 * row[METRIC], 100 * row[low], 100 * row[high], int(row["n"]))
        for _, row in study.summary.iterrows()
    }
    figure = strips.raw_points(study.scores, study.arms, label, notes, intervals=drawn)
    blocks.append(
        Drawing(
            "raw_points",
            svg(figure),
            "Test accuracy of every run; grey lines join a block, bars are the mean and its 95 % t interval.",
        )
    )
    if len(close := strips.crowded(study.scores, study.arms)) >= 2:
        figure = strips.raw_points(study.scores, study.arms, label, notes, only=close, intervals=drawn)
        caption = f"The same for the {len(close)} arms that lie close together."
        blocks.append(Drawing("raw_points_close", svg(figure), caption))
    return Section("Every run", blocks)


def differences(study: Study) -> Section:
    """Each block's difference against the baseline."""
    if not study.comparisons:
        return Section("Paired differences", [_no_family(study)])
    paired = [c for c in study.comparisons if c not in study.unpaired]
    found = pairs.differences(study.scores, [(c.arm, c.reference) for c in paired])
    label = "difference of the test accuracy (points)"
    figure = strips.paired_differences(study.comparisons, found, study.arms, label)
    caption = (
        "Difference on each block (points), mean and 95 % t interval (bar). Right of zero: the first arm is better."
    )
    return Section("Paired differences", [Drawing("paired_differences", svg(figure), caption)])


def _no_family(study: Study) -> Block:
    if len(study.compared) < 2:
        return Missing("There is one arm: nothing to compare. Sweep something:", study.again("initializer=he,glorot"))
    return Missing(NO_BASELINE, study.again(f"sweep.baseline='{study.arms[0]}'"))


def pairwise(study: Study) -> Section:
    """The table behind the claims."""
    if not study.comparisons:
        return Section("Comparisons", [_no_family(study)])
    table = pairs.table(study.comparisons, METRIC, study.examples)
    estimates, tests, alone = [], [], table["reference"].nunique() == 1
    for _, c in table.iterrows():
        pair = {"arm": c["arm"], **({} if alone else {"against": c["reference"]}), "n": c["n"]}
        estimates.append(
            {
                **pair,
                "verdict": c["verdict"].partition(" (")[0],
                "difference": _number(c["difference"], signed=True),
                "95 % CI, this test set": _bounds(c["ci_low"], c["ci_high"]),
                "95 % CI, test distribution": _bounds(c["distribution_low"], c["distribution_high"]),
                "error ratio [95 % CI]": _with(c, "error_ratio"),
                "d_z": _number(c["d_z"]),
                "wins/ties/losses": f"{c['wins']}/{c['ties']}/{c['losses']}",
                "P(better) [95 % CI]": _with(c, "p_better") if c["n"] else "–",
                "smallest detectable": _number(c["mde"]),
            }
        )
        tests.append(
            {
                **pair,
                "test": c["p_method"],
                "p": p_value(c["p"]),
                "Holm p": p_value(c["p_holm"]),
                "max-T p": p_value(c["p_max_t"]),
                "paired t p": p_value(c["p_t"]),
                "sign-flip p": p_value(c["p_sign_flip"]),
                "least possible": _least(c["n"]) if np.isfinite(c["p_sign_flip"]) else "–",
                "equivalence p": p_value(c["tost_p_holm"]),
                "block correlation": _number(c["rho"]),
                "P(better) is": c["meaning"],
            }
        )
    caption = (
        "Test accuracy, differences in points. This test set: new blocks, the same test examples. Test distribution: "
        "new blocks and new test examples; of few blocks it can be the narrower one, as the examples add degrees of "
        "freedom. Family: "
        f"{_family(study)}, {len(table)} "
        f"comparisons, corrected by {'Holm' if study.rules.correction == 'holm' else 'max-T sign-flip'}. "
    )
    how = (
        "Test: paired t below 8 blocks, exact sign-flip from 8 on, Welch's t where no block is shared; none below 4. "
        "Draws × seeds: a t whose error is that of new draws and new seeds, none below 3 of either. "
        "Least possible: what the sign-flip p cannot go below. Block correlation: what pairing by block gains from."
    )
    blocks: list[Block] = [Table(_filled(estimates), caption), Table(_filled(tests), how)]
    if study.examples is None:
        blocks.append(_no_labels(study, "The interval for the test distribution"))
    return Section("Comparisons", blocks)


def _family(study: Study) -> str:
    if study.rules.family != "baseline":
        return "all pairs" + (" on one data set" if study.by_data else "")
    first = across.method(str(study.reference))
    return f"each arm against {first} on its own data" if study.by_data else f"each arm against {study.reference}"


def _filled(rows: list[dict[str, object]]) -> pd.DataFrame:
    """The table without columns that hold nothing but dashes."""
    frame = pd.DataFrame(rows)
    return frame[[name for name in frame if (frame[name] != "–").any()]]


def _no_labels(study: Study, what: str) -> Block:
    if study.by_data:
        return Text(f"{what} is left out: the arms were scored on different test sets.")
    return Missing(
        f"{what} needs stored predictions with their labels, which these runs do not have. To train them again:",
        study.again("rerun=true"),
    )


def _least(n: int) -> str:
    return p_value(float(2.0 ** (1 - n))) if n <= 20 else p_value(1 / 20_000)


def _number(value: float, signed: bool = False, digits: int = 2) -> str:
    if np.isnan(value):
        return "–"
    return f"{value:{'+' if signed else ''}.{digits}f}".replace("-", "−")


def _bounds(low: float, high: float) -> str:
    return "–" if np.isnan(low) else f"[{signed(low)}, {signed(high)}]"


def _with(row: pd.Series, name: str) -> str:
    value, low, high = (row[name + end] for end in ("", "_low", "_high"))
    return "–" if np.isnan(value) else f"{value:.2f} [{low:.2f}, {high:.2f}]"


def forest(study: Study) -> Section:
    """How often an arm is better."""
    if not study.comparisons:
        return Section("P(better)", [_no_family(study)])
    figure = strips.better_share(study.comparisons, study.arms)
    caption = (
        "Share of the blocks on which the first arm is better (ties count half), with its 95 % interval: "
        "Clopper-Pearson below 8 blocks, Wilson from 8 on. At least .75 is called meaningful (Bouthillier et al. 2021)."
    )
    return Section("P(better)", [Drawing("p_better", svg(figure), caption)])


def selection(study: Study) -> Section:
    """What choosing costs."""
    if study.by_data:
        none = "The arms were scored on different data sets: there is no best among them to be chosen."
        return Section("Selection", [Text(none)])
    blocks: list[Block] = []
    if len(study.tuning):
        text = study.tuning.assign(**{"val accuracy": [_number(100 * v / 100) for v in study.tuning["val accuracy"]]})
        caption = f"Chosen by mean validation accuracy (%) among the trials of each arm: {', '.join(study.tune)}."
        blocks.append(Table(text, caption))
    chosen = choice.choose(study.runs, study.compared)
    if chosen is None or chosen.chosen is None:
        needs = "Choosing needs two arms with validation scores on every block."
        blocks.append(Missing(needs, study.again("train.val_share=0.1")))
        return Section("Selection", blocks)
    luck = chosen.luck
    lines = [
        f"Validation chooses {chosen.chosen}: test accuracy {chosen.apparent:.2f} % as it stands, "
        f"{chosen.corrected:.2f} % corrected for having been chosen (bootstrap over blocks, Tsamardinos 2018).",
        f"On the test set the best of the {luck.arms} arms without diverged or missing runs lies {luck.observed:.2f} "
        f"points above their mean; equal arms would give {luck.expected:.2f} by luck.",
        "Best on a block, share of the blocks: "
        + ", ".join(f"{arm} {100 * share:.0f} %" for arm, share in chosen.wins.items() if share > 0)
        + ".",
    ]
    return Section("Selection", [*blocks, Lines(lines), *confirmation(study), *search_budget(study)])


def search_budget(study: Study) -> list[Block]:
    """Expected validation performance against the number of trials, where that means something."""
    if not len(study.tuning):
        return []
    if study.search != "random":
        line = "The trials are a grid, no independent draws: no curve of what fewer of them would have found."
        return [Missing(f"{line} Where their values were drawn at random:", study.again("sweep.search=random"))]
    if budget.is_grid(study.arms, study.tune):
        return [Text("Declared as random search, but the trials are all combinations of some values, which is a grid.")]
    table = budget.expected_validation(study.runs, study.arms, study.tune)
    if not len(table):
        return [
            Text(
                f"No arm has {budget.FEWEST_TRIALS} trials that were all run: too few to say what fewer of them would "
                "have found."
            )
        ]
    caption = (
        "Expected validation accuracy of the best of so many trials of random search (Dodge et al. 2019, V), up to "
        "half of those run. A diverged run counts 0 %."
    )
    unbiased = table[table["budget"].isin((1, 2, 4, 8, 16, 32, 64)) | (table["budget"] == table["trials"])]
    text = pd.DataFrame(
        {
            "arm": unbiased["group"],
            "trials": unbiased["budget"].astype(str),
            "expected best val %": [f"{x:.2f}" for x in unbiased["u"]],
            "training minutes": [f"{x:.1f}" for x in unbiased["minutes"]],
        }
    )
    curve = svg(budget.budget_curves(table, list(dict.fromkeys(table["group"]))))
    return [
        Drawing("search_budget", curve, caption),
        Table(text, "The same, unbiased (Tang et al. 2020, U), with the training it takes."),
    ]


def confirmation(study: Study) -> list[Block]:
    """What became of the choice on blocks that had no part in it."""
    found = study.confirmed
    if found is None:
        command = study.again("confirm=true")
        if is_crossed(study.runs):
            command = study.again("root_seed=1", f"sweep.name={study.name}_confirm")
        return [Missing("To confirm what was chosen on fresh blocks:", command)]
    named = f"{len(found.blocks)} fresh blocks ({_some(list(found.blocks), 4)})"
    chosen = [arm for arm in found.arms if arm != found.baseline]
    words = f", among the best by validation on {len(found.chosen_on)} blocks, against" if chosen else "nothing but"
    lines = [f"Confirmed on {named}: {', '.join(chosen)}{words} the baseline {found.baseline}."]
    lines += [claim.sentence for claim in found.claims]
    if again := sorted(set(found.blocks) & set(study.units)):
        lines.append(f"{', '.join(again)} became part of the sweep since: confirm=true takes fresh ones.")
    if found.missing:
        lines.append(f"Unfinished: {found.missing} of its {len(found.arms) * len(found.blocks)} runs are missing.")
    caption = (
        "Mean ± half width of the 95 % t interval. The fresh blocks had no part in the choice, so their scores are not "
        "raised by it; they are in no other table or figure."
    )
    return [Lines(lines), Table(found.table(study.summary), caption, marked=f"{found.baseline} (baseline)")]


def spread(study: Study) -> Section:
    """Where the spread comes from."""
    table = sources.sources(study.runs, study.arms, study.examples)
    if not len(table):
        return Section(
            "Variance by source", [Missing("One run an arm has no spread. More seeds:", study.again("seeds=5"))]
        )
    alone = held.one_at_a_time(study.runs, study.arms, study.examples)
    if len(alone):
        return Section("Variance by source", one_source_an_arm(study, alone))
    blocks: list[Block] = []
    figure = sources.source_bars(table, study.arms)
    caption = "Standard deviation of the test accuracy over runs (points), by source."
    blocks.append(Drawing("variance_by_source", svg(figure), caption))
    if not is_crossed(study.runs):
        together = [name for name, state in sources.randomised(study.runs).items() if state == "varied"]
        text = f"A block varies {', '.join(together) or 'all streams'} together. To tell the data from the seeds:"
        blocks.append(Missing(text, study.again("draws=5", "seeds=3")))
        if len(together) > 1:
            one_by_one = ",".join(f"[{stream}]" for stream in together)
            text = "Or one stream at a time, the others held:"
            blocks.append(Missing(text, study.again(f"vary={one_by_one}", "sweep.baseline=null")))
    if study.examples is None:
        blocks.append(_no_labels(study, "The floor"))
    else:
        blocks.append(
            Text("An sd near its floor says that runs differ by which examples they miss, hardly by how good they are.")
        )
    return Section("Variance by source", blocks)


def one_source_an_arm(study: Study, table: pd.DataFrame) -> list[Block]:
    """The spread that each arm's varied streams leave, the others being held."""
    caption = (
        "Standard deviation of the test accuracy over runs (points) with its 95 % chi-square interval, which takes "
        "scores to be normal. Each arm varies some random streams and holds the others at block 0."
    )
    if table["floor"].notna().any():
        caption += " Thick tick: the floor, what independent errors on this test set would give by themselves."
    text = pd.DataFrame(
        {
            "arm": table["arm"],
            "varies": table["varied"],
            "n": table["n"].astype(str),
            "mean %": [f"{x:.2f}" for x in table["mean"]],
            "sd (points)": [f"{x:.2f}" for x in table["sd"]],
            "95 % CI": [f"[{low:.2f}, {high:.2f}]" for low, high in zip(table["low"], table["high"], strict=True)],
            "floor sd": [_number(x) for x in table["floor"]],
        }
    )
    blocks: list[Block] = [
        Drawing("sources_one_by_one", svg(held.source_sds(table, study.arms)), caption),
        Table(text, "A mean belongs to what is held: another block 0 would move it."),
    ]
    single = table[~table["varied"].str.contains(" ") & (table["varied"] != "nothing")]
    whole = table[table["varied"].str.count(r" \+ ") + 1 == single["varied"].nunique()]
    if len(single) > 1 and len(whole) == 1 and single["varied"].is_unique:
        blocks.append(
            Text(
                f"If the sources added up, all together would have an sd of {np.sqrt((single['sd'] ** 2).sum()):.2f} "
                f"points; measured: {whole['sd'].iloc[0]:.2f}."
            )
        )
    return blocks
