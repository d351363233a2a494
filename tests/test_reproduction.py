"""An experiment's folder, written from a store; and its state where the store has nothing."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from synthetic import make_store

import harness
from harness import composition, experiment_pages, experiments, reproduction
from harness.analysis import published
from harness.config import ConfigError

pytestmark = pytest.mark.usefixtures("slots")

ROOT = Path(__file__).parent.parent
SWEEP = """# @package _global_
# Does it matter?
sweep:
  name: tiny
  question: Does it matter?
  baseline: first
  arms: [{first: [optimizer=sgd]}, {second: [optimizer=adam]}]
seeds: 3
"""
DECLARED = """
row: NONE 1
question: Does it matter?
setting: Made up.
minutes: 1
sweeps: [tiny]
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "experiments" / "tiny"
    (folder / "sweep").mkdir(parents=True)
    (folder / "sweep" / "tiny.yaml").write_text(SWEEP)
    (folder / "experiment.yaml").write_text(DECLARED)
    (folder / "published.csv").write_text("arm,metric,value,note\nfirst,accuracy/test,0.9,\n")
    return tmp_path / "experiments"


def fill(store: Path, root: Path, seeds: int, missing: int = 0) -> None:
    """A store whose runs are of the arms that the sweep's file means."""
    arms = experiments.read(root / "tiny").arms("tiny")
    left_out = {"second": range(seeds - missing, seeds)}
    make_store(
        store,
        "tiny",
        ["first", "second"],
        range(seeds),
        baseline="first",
        missing=left_out,
        score=lambda arm, draw, seed: 0.8 + 0.1 * seed,
        keys={arm.name: arm.key for arm in arms},
    )


def write(root: Path, store: Path) -> experiments.Experiment:
    reproduction.measure(experiments.read(root / "tiny"), None, store)
    found = experiments.read(root / "tiny")
    experiments.write(root / "tiny" / "README.md", experiment_pages.readme(found))
    experiments.write(root / "README.md", experiment_pages.index([found]))
    return found


def test_a_finished_sweep_is_written_with_its_published_number(root: Path, tmp_path: Path) -> None:
    fill(tmp_path / "store", root, 3)
    found = write(root, tmp_path / "store")
    assert found.state == "done"
    table = pd.read_csv(root / "tiny" / "results.csv").set_index(["arm", "metric"])
    row = table.loc[("first", "accuracy/test")]
    # 0.8, 0.9, 1.0: mean 0.9, sd 0.1, half width 4.3027 * 0.1 / sqrt 3
    assert row["mean"] == pytest.approx(0.9)
    assert row["ci_high"] - row["mean"] == pytest.approx(0.24841, rel=1e-4)
    readme = (root / "tiny" / "README.md").read_text()
    assert "| first | accuracy/test | 90.00 % | 90.00 % ± 24.84 % | 80.00 % to 100.00 % | 3 | 0 | yes |" in readme
    assert "python -m harness --config-dir experiments/tiny +sweep=tiny" in readme
    assert "![points](points.svg)" in readme
    assert (root / "tiny" / "points.svg").read_text().startswith("<svg")
    assert "| done | 1 of 1 inside the spread |" in (root / "README.md").read_text()


def test_an_empty_store_leaves_not_run_and_the_command(root: Path, tmp_path: Path) -> None:
    found = write(root, tmp_path / "nowhere")
    assert found.state == "not run"
    readme = (root / "tiny" / "README.md").read_text()
    assert "State: **not run**" in readme
    assert "+sweep=tiny" in readme
    assert "| first | accuracy/test | 90.00 % | – | – | 0 | 0 | – |" in readme
    assert not (root / "tiny" / "results.csv").exists()


def test_what_was_written_stays_when_another_store_has_nothing(root: Path, tmp_path: Path) -> None:
    fill(tmp_path / "store", root, 3)
    write(root, tmp_path / "store")
    before = {path.name: path.read_bytes() for path in (root / "tiny").glob("*.*")}
    write(root, tmp_path / "nowhere")
    assert {path.name: path.read_bytes() for path in (root / "tiny").glob("*.*")} == before


def test_missing_runs_are_counted_and_left_to_train(root: Path, tmp_path: Path) -> None:
    fill(tmp_path / "store", root, 3, missing=2)
    found = write(root, tmp_path / "store")
    assert found.state == "partly: 4 of 6 runs"
    assert reproduction.unfinished(found, None, tmp_path / "store") == ["tiny"]
    assert "1 of 3" in (root / "tiny" / "README.md").read_text()


def test_more_blocks_of_one_arm_do_not_stand_for_those_missing_of_another(root: Path, tmp_path: Path) -> None:
    fill(tmp_path / "store", root, 5, missing=3)
    assert reproduction.unfinished(experiments.read(root / "tiny"), None, tmp_path / "store") == ["tiny"]


def test_nothing_is_left_to_train_when_all_is_finished(root: Path, tmp_path: Path) -> None:
    fill(tmp_path / "store", root, 3)
    assert reproduction.unfinished(experiments.read(root / "tiny"), None, tmp_path / "store") == []


def test_the_spread_of_the_layers_is_of_the_first_and_the_last_probe(tmp_path: Path) -> None:
    make_store(tmp_path, "tiny", ["first"], range(2), baseline=None, layers=True)
    results = harness.load("tiny", folder=tmp_path)
    table = reproduction.layers(results, ["first"]).set_index(["layer", "step"])
    assert sorted(table.index) == [(layer, step) for layer in ("dense1", "dense2", "logits") for step in (0, 60)]
    assert (table["n"] == 2).all()
    assert table["sd"].between(0.9, 1.1).all()  # 500 values of N(0, 1) a run
    reach = table.loc[("dense1", 60), "reach"]
    bins = results.histograms.query("layer == 'dense1' and step == 60 and array == 'pre_activation'")

    def share(bound: float) -> float:
        return bins.loc[(bins["low"] >= -bound) & (bins["high"] <= bound), "count"].sum() / bins["count"].sum()

    assert share(reach) >= 0.999 > share(reach / 10**0.1 * 1.0001)


def test_all_trains_what_is_missing_writes_it_and_trains_nothing_twice(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    nets = "defaults: [override /arch: softmax, override /data: spiral]\nsweep:"
    small = SWEEP.replace("sweep:", nets, 1).replace("seeds: 3", "seeds: 2\ntrain: {steps: 4, batch_size: 20}")
    (root / "tiny" / "sweep" / "tiny.yaml").write_text(small)
    (root / "tiny" / "experiment.yaml").write_text(DECLARED + "figure: regions\n")
    script = runpy.run_path(str(ROOT / "scripts" / "reproduce.py"))
    command = ["reproduce.py", "--all", "--experiments", str(root), "--folder", str(tmp_path / "store")]
    monkeypatch.chdir(tmp_path)  # where the sweep's own report goes
    monkeypatch.setattr(sys, "argv", command)
    assert script["main"]() == 0
    assert "tiny: python -m harness --config-dir experiments/tiny +sweep=tiny" in capfd.readouterr().out
    table = pd.read_csv(root / "tiny" / "results.csv")
    assert (table["n"] == 2).all()
    assert "<svg" in (root / "tiny" / "regions.svg").read_text()
    assert len([*(tmp_path / "store").rglob("figures/regions.png")]) == 2, "on each arm in MLflow"
    written = (root / "tiny" / "README.md").read_text()
    assert "State: **done**" in written
    assert script["main"]() == 0
    assert capfd.readouterr().out == "tiny: done\n"
    assert (root / "tiny" / "README.md").read_text() == written


def test_an_unknown_key_is_refused_with_those_there_are(root: Path) -> None:
    (root / "tiny" / "experiment.yaml").write_text(DECLARED + "sweps: [tiny]\n")
    with pytest.raises(ConfigError, match="unknown key sweps; allowed: row, question"):
        experiments.read(root / "tiny")


def test_an_unknown_experiment_is_one_line_and_2() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "reproduce.py"), "nothing"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr.startswith("error: nothing: no such experiment; there are: ltfn01, ")
    assert done.stderr.count("\n") == 1


def test_every_row_of_the_sources_has_an_experiment() -> None:
    ids = [each.id for each in experiments.every(ROOT / "experiments")]
    rows = "ltfn01 ltfn03 ltfn03b ltfn04 ltfn05_06 ltfn07 ltfn08 ltfn09 ltfn11 ltfn12 "
    rows += "bcnn2_3 bcnn2_5 bcnn2_6 bcnn2_7 bcnn2_8 bcnn3_1 bcnn3_2 bcnn3_3 cnt1 cnt2 cnt3"
    assert ids == [*rows.split(), "bias_variance_width"]


@pytest.mark.parametrize("experiment", experiments.every(ROOT / "experiments"), ids=lambda each: each.id)
def test_every_experiment_composes_and_its_folder_is_as_the_script_writes_it(
    experiment: experiments.Experiment,
) -> None:
    arms = {sweep: experiment.arms(sweep) for sweep in experiment.sweeps}
    assert [each[0].config.sweep.name for each in arms.values()] == list(arms)
    names = {sweep: [arm.name for arm in each] for sweep, each in arms.items()}
    theirs = experiment.read("published.csv")
    for _, row in () if theirs is None else theirs.iterrows():
        assert row["arm"] in names[row.get("sweep", experiment.sweeps[0])]
    for each in experiment.tables:
        assert composition.compose(list(each["config"])).arms
    if (built := experiment.read("shapes.csv")) is not None:
        published_shapes = experiment.read("published_shapes.csv")
        assert published_shapes is not None
        assert (published.shapes_beside(built, published_shapes)["equal"] == "yes").all()
    for _, _, test in experiment.shown:
        assert (ROOT / test).exists()
    assert (experiment.folder / "README.md").read_text() == experiment_pages.readme(experiment)


def test_the_table_of_all_experiments_is_as_the_script_writes_it() -> None:
    every = experiments.every(ROOT / "experiments")
    assert (ROOT / "experiments" / "README.md").read_text() == experiment_pages.index(every)
