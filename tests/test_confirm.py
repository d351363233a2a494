"""`confirm=true`, from the command line to the report: a small real sweep, then what it chose on fresh blocks."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness import confirm
from harness.__main__ import main
from harness.config import ConfigError
from harness.data.datasets import Dataset
from harness.streams import Block
from harness.tracking.frames import Results, load

pytestmark = pytest.mark.usefixtures("slots")

RATES = ("0.001", "0.3", "0.1", "0.0001")
ARMS = [f"learning_rate.value={rate}" for rate in RATES]
BASELINE = ARMS[0]
SWEEP = (
    *("arch=mlp", "arch.widths=[12]", "train.batch_size=10", "train.val_share=0.2", "train.evaluate={at:[0],every:10}"),
    *("train.probe={at:[0],examples:16}", "train.checkpoint={at:[],seconds:null}"),
    *("sweep.name=rates", f"sweep.baseline={BASELINE}", f"learning_rate.value={','.join(RATES)}"),
    *("optimizer=sgd", "data=npz", "data.path=rows.npz", "seeds=4", "train.steps=30"),
)


@dataclass
class Ran:
    """A folder, and what the commands in it printed."""

    folder: Path
    printed: list[str]

    def __call__(self, *arguments: str) -> int:
        out = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(out):
            patch.chdir(self.folder)
            code = main(arguments)
        self.printed.append(out.getvalue())
        return code

    @property
    def results(self) -> Results:
        return load("rates", folder=self.folder / "mlruns")

    def page(self) -> str:
        return (self.folder / "reports" / "rates" / "index.html").read_text()


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, rows: Dataset) -> Ran:
    """A sweep that was finished without confirmation, then told to confirm."""
    folder = tmp_path_factory.mktemp("confirmed")
    np.savez(folder / "rows.npz", x_train=rows.x_train, y_train=rows.y_train, x_test=rows.x_test, y_test=rows.y_test)
    ran = Ran(folder, [])
    assert ran(*SWEEP) == 0, ran.printed
    assert ran(*SWEEP, "confirm=true") == 0, ran.printed
    return ran


def test_only_what_validation_chose_and_the_baseline_train_again_on_fresh_blocks(ran: Ran) -> None:
    validation = ran.results.runs.groupby("arm")["accuracy/val"].mean().sort_values(ascending=False)
    fresh = ran.results.confirmed
    assert set(fresh["arm"]) == {*validation.index[:2], BASELINE}
    assert "16 runs are finished" in ran.printed[1]
    for _, runs in fresh.groupby("arm"):
        assert runs["block"].tolist() == [4, 5, 6, 7]
        assert runs["seed.init"].tolist() == [str(Block.of(i).init) for i in (4, 5, 6, 7)]


def test_they_are_kept_apart_from_the_sweeps_own_runs(ran: Ran) -> None:
    results = ran.results
    assert results.runs["block"].max() == 3
    assert set(results.runs["confirm"]) == {""}
    everything = load("rates", folder=ran.folder / "mlruns", everything=True).runs
    assert (everything["confirm"] == "true").sum() == len(results.confirmed) == 12
    assert set(everything.loc[everything["confirm"] == "true", "arm"].str[-10:]) == {" (confirm)"}
    tables = ran.folder / "reports" / "rates" / "tables"
    assert pd.read_csv(tables / "summary.csv")["n"].tolist() == [4] * 4
    assert pd.read_csv(tables / "comparisons.csv")["n"].tolist() == [4] * 3


def test_the_report_compares_them_with_the_baseline_in_its_selection_panel(ran: Ran) -> None:
    runs = ran.results.confirmed
    scores = runs.pivot(index="block", columns="arm", values="accuracy/test") * 100
    panel = ran.page().split("<h2>Selection</h2>")[1].split("<h2>")[0]
    assert "Confirmed on 4 fresh blocks (seed 4, seed 5, seed 6, seed 7)" in panel
    table = pd.read_csv(ran.folder / "reports" / "rates" / "tables" / "confirmed_comparisons.csv")
    assert set(table["arm"]) == {*scores.columns} - {BASELINE}
    for _, row in table.iterrows():
        d = scores[row["arm"]] - scores[BASELINE]
        assert row["difference"] == pytest.approx(d.mean())
        half = 3.182446305284263 * d.std(ddof=1) / 2
        assert row["ci_high"] == pytest.approx(d.mean() + half)
        assert re.search(rf"<li>{re.escape(row['arm'])} against {BASELINE}: {re.escape(row['verdict'])}\.", panel)
    assert "To confirm" not in panel


def test_the_same_command_trains_nothing_again(ran: Ran) -> None:
    before = ran.page()
    assert ran(*SWEEP, "confirm=true") == 0
    assert ran.printed[-1].count("runs are finished") == 2
    assert ran.page() == before
    assert ran(*SWEEP) == 0  # without the word, what was confirmed stays in the report
    assert "Confirmed on 4 fresh blocks" in ran.page()


def test_fresh_blocks_go_on_from_the_largest_ever_used(ran: Ran, compose) -> None:
    arms = compose(*(word for word in SWEEP if not word.startswith("seeds")), "seeds=[1,3]")
    (one, two) = confirm.fresh_arms(arms, [ARMS[1], BASELINE], BASELINE, used=[0, 9])
    assert one.config.seeds == two.config.seeds == [10, 11]
    assert one.config.sweep.baseline == one.name == f"{BASELINE} (confirm)"
    assert one.key != arms[0].key


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("sweep.baseline=null",), "name one with sweep.baseline=ARM"),
        (("learning_rate.value=0.001",), "there is one arm"),
        (("train.val_share=0",), "hold examples out"),
        (("draws=2",), "leave no fresh ones"),
        (("draw.scheme=subsample",), "leave no fresh ones"),
        (("vary=[init]",), "leave vary out"),
    ],
)
def test_what_cannot_be_confirmed_is_refused_in_one_line_before_any_training(
    changed: tuple[str, ...], said: str, compose
) -> None:
    config = compose(*SWEEP, *changed)
    with pytest.raises(ConfigError, match=said) as refused:
        confirm.check([arm.config for arm in config], relaunched=False)
    assert "\n" not in str(refused.value)


def test_the_terminal_says_what_the_report_claims(ran: Ran) -> None:
    said = [
        line.replace("&#39;", "'")
        for line in re.findall(r"<li>(learning_rate\.value=\S+ against .*?)</li>", ran.page())
    ]
    printed = ran.printed[1].splitlines()
    fresh = printed[printed.index("On fresh blocks:") + 1 :][:2]
    assert fresh == said
    claims = re.findall(r'<b>(.*?)</b> against (.*?): <b>(.*?)</b> <span class="detail">(.*?)</span>', ran.page())
    assert [f"{arm} against {other}: {verdict}. {detail}" for arm, other, verdict, detail in claims] == [
        line for line in printed if " against " in line and line not in fresh
    ]


def test_the_images_that_an_arm_is_most_wrong_about_are_in_the_report(ran: Ran) -> None:
    stored = ran.results.arm_artifact(BASELINE, "figures/worst_mistakes.png")
    assert stored is not None
    assert (ran.folder / "reports" / "rates" / "figures" / "worst_mistakes_0.png").read_bytes() == stored
    assert ran.page().count('<img src="data:image/png;base64,') == 4
