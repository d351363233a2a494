from __future__ import annotations

import base64
import html
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.text import Text
from synthetic import accuracy, make_store

import harness
from harness import report
from harness.analysis.contents import SECTIONS
from harness.analysis.crossed import crossed_mean
from harness.tracking.frames import load

ARMS = ("initializer=he", "initializer=glorot", "initializer=<i>normal</i>")
TITLES = (
    *("Provenance", "Scores", "Every run", "Paired differences", "Comparisons", "P(better)", "Selection"),
    *("Variance by source", "Bias and variance", "Learning curves", "Activation histograms", "Signal at step 0"),
    *("Across data sets", "Classes and examples", "Limitations"),
)
QUESTION = "Is <script>alert('x')</script> & | safe?"


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """Sweeps: full, bare (nothing but scores), crossed, other (other data), more (full's first arm on more blocks)."""
    folder = tmp_path_factory.mktemp("store") / "mlruns"
    make_store(
        folder,
        "full",
        ARMS,
        range(8),
        question=QUESTION,
        examples=60,
        layers=True,
        diverged={ARMS[2]: [0, 1, 2]},
        mistakes=True,
    )
    make_store(folder, "bare", ARMS[:2], range(3), missing={ARMS[0]: [2]}, params=lambda arm: {"arch.widths": "[3]"})
    make_store(folder, "crossed", ARMS[:2], range(2), draws=4, examples=60)
    make_store(folder, "other", ARMS[:2], range(5), digest="e" * 32)
    make_store(folder, "none", ARMS[:2], range(4), baseline=None)
    make_store(
        folder, "margin", ARMS[:2], range(9), margin=0.5, correction="max_t", score=lambda a, d, s: accuracy(0, a, s)
    )
    tuned = [f"optimizer={name},lr={rate}" for name in ("sgd", "adam") for rate in range(6)]
    make_store(folder, "tuned", tuned, range(2), baseline=tuned[0], tune=["lr"], search="random")
    data = [f"data={name},initializer={scheme}" for name in ("a", "b", "c") for scheme in ("he", "glorot")]
    make_store(folder, "data", data, range(5), baseline=data[1], examples=60)
    return folder


@pytest.fixture(scope="module")
def pages(store, tmp_path_factory) -> Path:
    """The reports of these sweeps."""
    folder = tmp_path_factory.mktemp("reports")
    for sweep in ("full", "bare", "crossed", "none", "margin", "tuned", "data"):
        assert report.main([sweep, "--folder", str(store), "--reports", str(folder)]) == 0
    return folder


def text_of(pages: Path, sweep: str) -> str:
    return (pages / sweep / "index.html").read_text()


def test_a_report_is_a_page_a_text_tables_figures_and_a_parquet_file(pages):
    folder = pages / "full"
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    tables = ("summary", "runs", "curves", "scores", "comparisons", "bias_variance", "diverged")
    figures = ("raw_points", "paired_differences", "p_better", "variance_by_source", "bias_variance", "learning_curves")
    more = ("pre_activation_histograms", "activation_histograms", "step_zero")
    assert names >= {
        "index.html",
        "report.md",
        "results.parquet",
        *(f"tables/{name}.csv" for name in tables),
        *(f"figures/{name}.svg" for name in (*figures, *more)),
    }
    assert len(pd.read_parquet(folder / "results.parquet")) == 24


def test_every_section_is_there_in_order_whatever_the_data(pages):
    assert len(SECTIONS) == len(TITLES)
    for sweep in ("full", "bare", "crossed", "none"):
        found = re.findall(r"<h2>(.*?)</h2>", text_of(pages, sweep))
        assert found == list(TITLES)


def test_a_section_without_data_names_the_command_that_provides_them(pages):
    bare = text_of(pages, "bare")
    assert "python -m harness +sweep=bare rerun=true" in bare
    assert "python -m harness +sweep=bare draws=5 seeds=3" in bare
    assert "train.probe.at=[0,10,100]" in bare
    assert "sweep.baseline=" in text_of(pages, "none")


def test_names_and_questions_are_escaped(pages):
    page, text = text_of(pages, "full"), (pages / "full" / "report.md").read_text()
    assert "<script" not in page
    assert "<i>normal" not in page.split("<svg")[0]
    assert "&lt;script&gt;" in page
    assert "&lt;script&gt;" in text
    assert "<i>" not in text


def test_the_page_asks_nobody_for_anything(pages):
    for sweep in ("full", "bare", "crossed"):
        page = text_of(pages, sweep)
        assert not re.findall(r"<(?:script|link|iframe|object|embed)\b", page)
        assert all(target.startswith(("#", "data:image/")) for target in re.findall(r'(?:href|src)="([^"]*)"', page))
        assert not re.findall(r"url\((?!#)", page)
        assert "@import" not in page
        assert "default-src 'none'" in page


def test_the_page_is_well_formed(pages):
    class Checker(HTMLParser):
        void = frozenset(("meta", "br", "hr", "img", "link", "input"))

        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []

        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag not in self.void:
                self.open.append(tag)

        def handle_startendtag(self, tag: str, attrs: object) -> None:
            pass

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop() == tag

    for sweep in ("full", "bare", "none"):
        checker = Checker()
        checker.feed(text_of(pages, sweep))
        assert not checker.open


def test_claims_use_the_fixed_words_with_their_numbers(pages):
    claims = re.findall(
        r'<li class="(\w+)"><b>(.*?)</b> against (.*?): <b>(.*?)</b> <span class="detail">(.*?)</span>',
        text_of(pages, "full"),
    )
    assert [claim[1] for claim in claims] == ["initializer=he", "initializer=&lt;i&gt;normal&lt;/i&gt;"]
    table = pd.read_csv(pages / "full" / "tables" / "comparisons.csv")
    for (kind, _, _, verdict, detail), (_, row) in zip(claims, table.iterrows(), strict=True):
        assert verdict == row["verdict"]
        assert verdict.startswith(kind)
        assert f"{row['difference']:+.2f}".replace("-", "−") in detail
        assert f"{row['n']} blocks" in detail
    assert "3 of 8 runs diverged" in claims[1][4]


def test_comparisons_are_those_of_hand_computed_paired_differences(pages):
    scores = {arm: np.array([100 * accuracy(a, 0, s) for s in range(8)]) for a, arm in enumerate(ARMS[:2])}
    d = scores[ARMS[0]] - scores[ARMS[1]]
    row = pd.read_csv(pages / "full" / "tables" / "comparisons.csv").iloc[0]
    assert row["difference"] == pytest.approx(d.mean(), abs=1e-9)
    half = 2.364624251592785 * d.std(ddof=1) / np.sqrt(8)
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((d.mean() - half, d.mean() + half), abs=1e-9)
    signs = np.array(np.meshgrid(*[[-1, 1]] * 8)).reshape(8, -1)
    exact = (np.abs(d @ signs) >= abs(d.sum()) - 1e-12).mean()
    assert row["p"] == pytest.approx(exact, abs=1e-12)


def test_crossed_runs_are_compared_for_new_draws_and_new_seeds(pages):
    row = pd.read_csv(pages / "crossed" / "tables" / "comparisons.csv").iloc[0]
    d = np.array([[100 * (accuracy(0, k, s) - accuracy(1, k, s)) for s in range(2)] for k in range(4)])
    expected = crossed_mean(d).test
    assert row["n"] == 8
    assert row["difference"] == pytest.approx(d.mean(), abs=1e-9)
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert "8 blocks (4 data draws × 2 seeds)" in text_of(pages, "crossed")
    table = pd.read_csv(pages / "crossed" / "tables" / "bias_variance.csv")
    assert list(table["scope"]) == ["over training sets"] * 2
    assert table[["draws", "seeds"]].to_numpy().tolist() == [[4, 2]] * 2
    assert np.abs(table.filter(like="check").to_numpy()).max() < 1e-9


def test_a_seed_only_sweep_is_decomposed_and_labelled(pages):
    assert "Conditional on this training set" in text_of(pages, "full")


def test_an_unfinished_sweep_says_what_is_missing(pages):
    page = text_of(pages, "bare")
    assert "Unfinished: of 6 runs 1 are missing" in page
    assert "initializer=he: of 3 runs, 0 failed and 1 are missing" in page
    assert "too few blocks to say" in page


def test_a_dead_layer_is_named(pages):
    assert "initializer=he, dense2: dead" in text_of(pages, "full")


def test_worst_images_come_from_the_store_and_stand_in_the_page(store, pages):
    found = re.findall(r'<img src="data:image/png;base64,(.*?)" alt="(.*?): the test images', text_of(pages, "full"))
    assert [html.unescape(arm) for _, arm in found] == [ARMS[1], ARMS[0], ARMS[2]]  # the baseline's first
    results = load("full", folder=store)
    stored = results.arm_artifact(ARMS[0], "figures/worst_mistakes.png")
    assert base64.b64decode(found[1][0]) == stored == (pages / "full" / "figures" / "worst_mistakes_1.png").read_bytes()
    assert "figures/worst_mistakes_1.png" in (pages / "full" / "report.md").read_text()
    assert "<img" not in text_of(pages, "bare")


def test_a_margin_gives_equivalence_and_max_t_corrects(pages):
    row = pd.read_csv(pages / "margin" / "tables" / "comparisons.csv").iloc[0]
    assert row["margin"] == 50
    assert row["verdict"] == "equivalent within 50"
    assert np.isfinite(row["p_max_t"])


def test_a_sweep_of_data_sets_compares_each_arm_on_its_own_data_and_sums_up(pages):
    table = pd.read_csv(pages / "data" / "tables" / "comparisons.csv")
    assert table[["arm", "reference"]].to_numpy().tolist() == [
        [f"data={name},initializer=he", f"data={name},initializer=glorot"] for name in ("a", "b", "c")
    ]
    assert table["n"].tolist() == [5, 5, 5]
    order = np.argsort(table["p"].to_numpy())
    assert table["p_holm"].to_numpy()[order[0]] == pytest.approx(3 * table["p"].min())  # one family over all data
    panel = text_of(pages, "data").split("<h2>Across data sets</h2>")[1].split("<h2>")[0]
    assert "P(beats initializer=glorot)" in panel
    assert (pages / "data" / "figures" / "performance_profile.svg").exists()
    summary = pd.read_csv(pages / "data" / "tables" / "across_data.csv")
    scores = [[(accuracy(a, 0, s) - 1 / 3) / (2 / 3) for s in range(5)] for a in (0, 2, 4)]
    assert summary["iqm"][0] == pytest.approx(np.mean(np.sort(np.ravel(scores))[3:-3]))
    assert "there is no best among them" in text_of(pages, "data")
    assert "data=digits,mnist,fashion_mnist" in text_of(pages, "full")


def test_random_search_has_its_curve_and_a_grid_none(pages, store, tmp_path):
    panel = text_of(pages, "tuned").split("<h2>Selection</h2>")[1].split("<h2>")[0]
    assert "expected best val %" in panel
    assert (pages / "tuned" / "figures" / "search_budget.svg").exists()
    grid = ("optimizer=sgd,lr=1", "optimizer=sgd,lr=2", "optimizer=adam,lr=1")
    make_store(tmp_path / "mlruns", "grid", grid, range(2), baseline=grid[0], tune=["lr"])
    assert report.main(["grid", "--folder", str(tmp_path / "mlruns"), "--reports", str(tmp_path)]) == 0
    assert "The trials are a grid, no independent draws" in text_of(tmp_path, "grid")
    assert not (tmp_path / "grid" / "figures" / "search_budget.svg").exists()


def test_the_report_is_logged_into_the_sweeps_report_run(store, pages):
    results = load("full", folder=store)
    (run,) = results.client.search_runs([results.experiment_id], "tags.kind = 'report'")
    assert {file.path for file in results.client.list_artifacts(run.info.run_id, "report")} >= {"report/index.html"}


def test_the_same_runs_give_the_same_bytes(store, pages, tmp_path):
    assert report.main(["full", "--folder", str(store), "--reports", str(tmp_path)]) == 0
    assert (tmp_path / "full" / "index.html").read_bytes() == (pages / "full" / "index.html").read_bytes()


def test_sweeps_are_compared_on_the_blocks_they_share(store, tmp_path):
    assert report.main(["--compare", "full", "bare", "--folder", str(store), "--reports", str(tmp_path)]) == 0
    table = pd.read_csv(tmp_path / "full_vs_bare" / "tables" / "comparisons.csv").set_index("arm")
    assert table.loc["bare: initializer=he", "n"] == 2  # of its 3 blocks one is missing
    assert table.loc["bare: initializer=glorot", "n"] == 3
    assert table.loc["bare: initializer=glorot", "difference"] == pytest.approx(0, abs=1e-9)
    assert "not declared before training" in (tmp_path / "full_vs_bare" / "index.html").read_text()


def test_runs_are_compared_by_id(store, tmp_path):
    runs = load("full", folder=store).runs
    some = runs.loc[(runs["arm"] != ARMS[2]) & (runs["block"] < 5), "run_id"].tolist()
    assert report.main(["--runs", *some, "--folder", str(store), "--reports", str(tmp_path)]) == 0
    (folder,) = tmp_path.iterdir()
    assert pd.read_csv(folder / "tables" / "comparisons.csv")["n"].tolist() == [5]


def test_different_data_are_refused_unless_forced(store, tmp_path, capsys):
    arguments = ["--compare", "full", "other", "--folder", str(store), "--reports", str(tmp_path)]
    assert report.main(arguments) == 2
    error = capsys.readouterr().err
    assert "2 different data sets" in error
    assert "--force" in error
    assert error.count("\n") == 1
    assert report.main([*arguments, "--force"]) == 0
    assert "different data sets" in (tmp_path / "full_vs_other" / "index.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nope"], "there are: bare, crossed, data, full"),
        (["--compare", "full", "nope"], "'nope'"),
        (["--runs", "abc"], "run 'abc': not in this store"),
        (["full", "--baseline", "x"], "arms: initializer=he, initializer=glorot"),
    ],
)
def test_a_wrong_name_is_one_line_and_exit_code_2(store, tmp_path, capsys, arguments, said):
    assert report.main([*arguments, "--folder", str(store), "--reports", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert said in error


def test_no_store_is_one_line_and_exit_code_2(tmp_path, capsys):
    assert report.main(["any", "--folder", str(tmp_path / "nothing")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_summary_counts_finished_diverged_failed_and_missing_runs():
    runs = pd.DataFrame(
        {
            "arm": ["a", "a", "a", "b"],
            "draw": "all",
            "block": [0, 1, 2, 0],
            "outcome": ["finished", "finished", "diverged", "failed"],
            "seconds": [1.0, 3.0, 2.0, 1.0],
            "accuracy/test": [0.8, 0.9, np.nan, np.nan],
        }
    )
    table = report.summary_table(runs, ["a", "b", "c"], planned=4).set_index("arm")
    assert table.loc["a", ["n", "diverged", "failed", "missing"]].tolist() == [2, 1, 0, 1]
    assert table.loc["b", ["n", "diverged", "failed", "missing"]].tolist() == [0, 0, 1, 3]
    assert table.loc["c", ["n", "diverged", "failed", "missing"]].tolist() == [0, 0, 0, 4]
    half = 12.706204736174698 * np.std([0.8, 0.9], ddof=1) / np.sqrt(2)
    assert table.loc["a", "accuracy/test"] == pytest.approx(0.85)
    assert table.loc["a", "accuracy/test.ci_high"] == pytest.approx(0.85 + half)
    assert table.loc["a", "seconds"] == pytest.approx(2)
    drawn = report.terminal_table(table.reset_index(), "Why?", "a")
    assert drawn.row_count == 3
    assert "stopped at step" not in [column.header for column in drawn.columns]


def test_the_summary_says_when_runs_stopped_early():
    runs = pd.DataFrame(
        {
            "arm": ["a", "a", "a", "[b,c]"],
            "draw": "all",
            "block": [0, 1, 2, 0],
            "outcome": "finished",
            "stopped.step": ["40", "", "60", ""],
            "seconds": 1.0,
            "accuracy/test": 0.8,
        }
    )
    drawn = report.terminal_table(report.summary_table(runs, ["a", "[b,c]"]), "", None)
    columns = {column.header: list(column.cells) for column in drawn.columns}
    assert columns["stopped at step"] == ["50 (2 of 3 runs)", "–"]
    assert Text.from_markup(columns["arm"][1]).plain == "[b,c]"


def test_a_notebook_loads_compares_and_decomposes(store):
    results = harness.load("full", folder=store)
    table = harness.compare(results)
    assert table["arm"].tolist() == [ARMS[0], ARMS[2]]
    assert np.isfinite(table["distribution_low"]).all()
    one = harness.compare(results.runs, baseline=ARMS[0], metric="loss/test", family="all_pairs")
    assert one["unit"].unique().tolist() == ["nats"]
    assert len(one) == 3
    parts = harness.decompose("full", folder=store)
    assert parts["arm"].tolist() == list(ARMS)
    np.testing.assert_allclose(parts["brier.bias2"] + parts["brier.variance"], parts["brier.loss"], atol=1e-12)
    with pytest.raises(ValueError, match="baseline: none was declared"):
        harness.compare(results.runs)
    with pytest.raises(ValueError, match="accuracy/train"):
        harness.compare(results, metric="accuracy")
    with pytest.raises(ValueError, match="no arm has two finished runs"):
        harness.decompose("bare", folder=store)
    assert harness.plots.learning_curves(results.curves, list(ARMS)).axes


def test_the_example_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch):
    arms = ("initializer=he", "initializer=glorot", "initializer=lecun")
    make_store(tmp_path / "mlruns", "init_schemes", arms, range(5), examples=60, layers=True)
    notebook = json.loads((Path(__file__).parents[1] / "experiments" / "stored_sweep.ipynb").read_text())
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for number, cell in enumerate(cell for cell in notebook["cells"] if cell["cell_type"] == "code"):
        assert cell["outputs"] == []
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    assert set(names["table"]["arm"]) == {"initializer=he", "initializer=lecun"}  # type: ignore[index]


def test_importing_harness_loads_nothing_heavy():
    code = "import sys, harness; print(json.dumps(sorted(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", f"import json; {code}"], capture_output=True, text=True, check=True)
    assert not {"tensorflow", "mlflow", "matplotlib", "pandas", "numpy"} & set(json.loads(loaded.stdout))


CHROMIUM = shutil.which("chromium")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
@pytest.mark.parametrize("width", [400, 1400])
def test_a_browser_shows_the_page_without_overflow_or_complaints(pages, tmp_path, width):
    # Headless chromium makes no window narrower than 500 pixels: the page is shown in a frame of the width asked for.
    page = text_of(pages, "full")
    policy = re.search(r'<meta http-equiv="Content-Security-Policy".*?>', page)
    assert policy is not None
    (tmp_path / "page.html").write_text(page.replace(policy[0], ""))
    measure = """
      const page = frame.contentDocument, root = page.documentElement, wide = [];
      for (const e of page.querySelectorAll('p, li, h1, h2, figure, table.facts, figcaption')) {
        const box = e.getBoundingClientRect();
        if (box.width && box.right > root.clientWidth + 1) wide.push(e.tagName + ' ' + e.textContent.slice(0, 40));
      }
      document.title = JSON.stringify({window: root.clientWidth, content: root.scrollWidth, wide: wide});
    """
    (tmp_path / "frame.html").write_text(
        f"<title>x</title><iframe id=frame src=page.html style='border:0;width:{width}px;height:3000px'></iframe>"
        f"<script>onload = () => {{ {measure} }}</script>"
    )
    flags = (
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update", "--allow-file-access-from-files"),
        *("--enable-logging=stderr", "--hide-scrollbars", f"--user-data-dir={tmp_path / 'profile'}"),
    )

    def opened(page: Path, *more: str) -> subprocess.CompletedProcess[str]:
        command = [str(CHROMIUM), *flags, *more, f"file://{page}"]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)

    ran = opened(tmp_path / "frame.html", "--dump-dom", "--window-size=1600,3000")
    measured = json.loads(re.search(r"<title>(\{.*?\})</title>", ran.stdout)[1].replace("&amp;", "&"))
    assert measured["window"] == width
    assert measured["content"] <= width
    assert measured["wide"] == []
    shot = tmp_path / "shot.png"
    ran = opened(pages / "full" / "index.html", f"--screenshot={shot}", f"--window-size={max(500, width)},3000")
    assert shot.stat().st_size > 10_000
    assert "CONSOLE" not in ran.stderr
