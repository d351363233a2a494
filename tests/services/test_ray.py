"""A real Ray cluster of two nodes on this machine, one of which is killed while it trains."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_cli import ENVIRONMENT, ended, here, save, trained

from harness.data.datasets import Dataset

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="`make test-services` installs Ray and its launcher"
)
WORDS = (
    *("sweep.name=rays", "data=npz", "data.path=rows.npz", "arch=softmax", "optimizer=sgd,adam", "seeds=2"),
    *("train.steps=20000", "train.batch_size=10", "train.evaluate={at:[0],every:10000}", "train.probe.at=[0]"),
    "train.checkpoint={every:500,at:[]}",
)
MEMORY = 80 * 2**20


@pytest.fixture
def cluster() -> Iterator[tuple[Any, Any]]:
    """A cluster of two nodes with one CPU each, and its second node."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": MEMORY}
    for attempt in range(3):  # Ray gives its dashboard's agent 30 s to start, which a busy machine may not
        made = Cluster()
        try:
            made.add_node(**node, include_dashboard=False)
            second = made.add_node(**node)
            break
        except Exception:
            made.shutdown()
            if attempt == 2:
                raise
    yield made, second
    made.shutdown()


def start(folder: Path, address: str) -> subprocess.Popen[str]:
    settings = {"init.address": f"'{address}'", "remote.max_retries": 0}
    launcher = ["hydra/launcher=ray", *(f"hydra.launcher.ray.{name}={value}" for name, value in settings.items())]
    return subprocess.Popen(
        [sys.executable, "-m", "harness", *WORDS, *launcher],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def weights(folder: Path) -> list[tuple[str, str, str]]:
    """Arm, block and digest of the final weights of what was finished; a run killed before it saved is begun anew."""
    finished = [run for run in trained(folder, "rays") if run["status"] == "FINISHED"]
    return sorted((run["arm"], run["block"], run["weights.final"]) for run in finished)


def test_a_sweep_on_a_cluster_that_loses_a_node_is_finished_by_the_same_command(
    cluster: tuple[Any, Any], tmp_path: Path, rows: Dataset, slots: list[str]
) -> None:
    ray, second = cluster
    save(rows, tmp_path)
    first = start(tmp_path, ray.address)
    patience = time.monotonic() + 200
    saved = "mlruns/artifacts/rays/*/artifacts/checkpoints/step_*.npz"
    while len({path.parent for path in tmp_path.glob(saved)}) < 2:  # both nodes train
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < patience
        time.sleep(0.05)
    ray.remove_node(second, allow_graceful=False)
    done = ended(first)
    assert done.code == 1, done
    assert "FAILED hydra/launcher=ray: " in done.err
    assert "the same command goes on where this one stopped" in done.err
    assert sum(run["status"] == "FINISHED" for run in trained(tmp_path, "rays")) < 4
    ray.add_node(num_cpus=1, object_store_memory=MEMORY)
    done = ended(start(tmp_path, ray.address))
    assert done.code == 0, done
    whole = tmp_path / "whole"
    whole.mkdir()
    save(rows, whole)
    assert here(whole, *WORDS).code == 0
    assert len(weights(tmp_path)) == 4
    assert weights(tmp_path) == weights(whole)
