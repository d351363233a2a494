"""`vary=[…]`: random streams that differ between blocks one at a time, from the command line to the report."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest

from harness.__main__ import main
from harness.config import Arm, Config, ConfigError
from harness.data.datasets import Dataset
from harness.streams import STREAMS, Block
from harness.tracking.frames import Results, load

pytestmark = pytest.mark.usefixtures("slots")

SWEEP = (
    *("sweep.name=sources", "vary=[init],[order],[],null"),
    *("arch=mlp", "arch.widths=[12]", "train.batch_size=10", "train.steps=20", "optimizer=sgd"),
    *("train.probe={at:[0],examples:16}", "train.checkpoint={at:[],seconds:null}", "train.evaluate={at:[0],every:20}"),
    *("data=npz", "data.path=rows.npz", "seeds=[2,5,7]"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, rows: Dataset) -> Path:
    folder, out = tmp_path_factory.mktemp("vary"), io.StringIO()
    np.savez(folder / "rows.npz", x_train=rows.x_train, y_train=rows.y_train, x_test=rows.x_test, y_test=rows.y_test)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(out):
        patch.chdir(folder)
        assert main(SWEEP) == 0, out.getvalue()
    return folder


@pytest.fixture(scope="module")
def results(folder: Path) -> Results:
    return load("sources", folder=folder / "mlruns")


def test_an_arm_varies_its_streams_and_holds_the_others_at_block_0(results: Results) -> None:
    for arm, varied in {"[init]": {"init"}, "[order]": {"order"}, "[]": set(), "null": set(STREAMS)}.items():
        runs = results.runs[results.runs["arm"] == f"vary={arm}"].set_index("block")
        assert runs.index.tolist() == [2, 5, 7]
        for stream in STREAMS:
            for block in runs.index:
                source = Block.of(block if stream in varied else 0)
                assert runs.loc[block, f"seed.{stream}"] == str(source.seeds[stream]), (arm, stream)


def test_what_is_held_is_alike_to_the_bit(results: Results) -> None:
    ends = {run.data.tags["weights.final"] for run in results._found if run.data.tags["arm"] == "vary=[]"}
    assert len(ends) == 1
    starts = results.runs.groupby("arm")["weights.initial"].nunique()
    assert starts.to_dict() == {"vary=[init]": 3, "vary=[order]": 1, "vary=[]": 1, "vary=null": 3}


def test_the_report_shows_a_bar_an_arm(folder: Path) -> None:
    page = (folder / "reports" / "sources" / "index.html").read_text()
    panel = page.split("<h2>Variance by source</h2>")[1].split("<h2>")[0]
    assert "<td>nothing</td>" in panel
    assert "holds the others at block 0" in panel
    assert (folder / "reports" / "sources" / "figures" / "sources_one_by_one.svg").exists()
    assert "init" in (folder / "reports" / "sources" / "tables" / "sources.csv").read_text()


def test_a_run_is_also_its_block_where_blocks_have_the_same_seeds() -> None:
    arm = Arm("any", Config(vary=[]))
    assert arm.run_key(Block.of(1), "abc") != arm.run_key(Block.of(2), "abc")
    assert arm.on(Block.of(1)).seeds == arm.on(Block.of(2)).seeds == Block.of(0).seeds
    assert arm.run_key(Block.of(1), "abc") == arm.run_key(arm.on(Block.of(1)), "abc")


def test_what_varies_is_part_of_an_arm_and_all_of_it_is_the_arm_there_always_was() -> None:
    keys = [Arm("any", Config(vary=vary)).key for vary in (None, [], ["init"], ["order"])]
    assert len(set(keys)) == 4
    assert Arm("any", Config()).run_key(Block.of(3), "d") == Arm("any", Config(vary=None)).run_key(Block.of(3), "d")


def test_streams_are_held_at_block_0_of_the_same_root() -> None:
    arm = Arm("any", Config(vary=["init"], root_seed=4))
    assert arm.on(Block.of(3, root=4)).order == Block.of(0, root=4).order


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("vary=[weights]",), "allowed: a list of draw, init, order, augment, dropout, or null"),
        (("vary=[init]", "draws=3"), "null with draws=K"),
        (("vary=[init]", "draw.scheme=disjoint"), "draw.scheme=bootstrap"),
    ],
)
def test_what_cannot_be_held_is_refused(words: tuple[str, ...], said: str, compose) -> None:
    with pytest.raises(ConfigError, match=r"^vary: got") as refused:
        compose(*words)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
