"""Hydra's launchers: the same sweep, with named arms, ends in the same weights under each."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_cli import Done, ended, here, save, start, trained

from harness.data.datasets import Dataset

SWEEP = """# @package _global_
defaults: [override /arch: softmax, override /data: npz]
sweep:
  name: launched
  baseline: slow
  arms:
    - slow: [learning_rate.value=0.01]
    - fast: [learning_rate.value=0.1, optimizer=sgd]
data: {path: rows.npz}
seeds: 2
train: {steps: 6, batch_size: 10, val_share: 0.2, evaluate: {at: [0], every: 3}, probe: {at: [0], examples: 8}}
"""
WORDS = ("--config-dir", "mine", "+sweep=launched")

needs_submitit = pytest.mark.skipif(
    importlib.util.find_spec("submitit") is None, reason="pip install 'harness[slurm]' brings submitit"
)
needs_joblib = pytest.mark.skipif(
    not list(importlib.metadata.distributions(name="hydra-joblib-launcher")),
    reason="pip install 'harness[joblib]' brings the launcher",
)


def folder_with_sweep(folder: Path, rows: Dataset) -> Path:
    save(rows, folder)
    (folder / "mine" / "sweep").mkdir(parents=True)
    (folder / "mine" / "sweep" / "launched.yaml").write_text(SWEEP)
    return folder


def weights(folder: Path) -> dict[tuple[str, str], str]:
    """(arm, block) -> digest of the final weights."""
    return {(run["arm"], run["block"]): run["weights.final"] for run in trained(folder, "launched")}


@pytest.fixture(scope="module")
def basic(tmp_path_factory: pytest.TempPathFactory, slots: list[str], rows: Dataset) -> dict[tuple[str, str], str]:
    """What the basic launcher ends in."""
    folder = folder_with_sweep(tmp_path_factory.mktemp("basic"), rows)
    done = here(folder, *WORDS)
    assert done.code == 0, done
    assert set(weights(folder)) == {(arm, block) for arm in ("slow", "fast") for block in "01"}
    return weights(folder)


def launched(folder: Path, rows: Dataset, *words: str) -> Done:
    return ended(start(folder_with_sweep(folder, rows), *WORDS, *words))


@needs_joblib
def test_joblib_trains_named_arms_to_the_same_weights(
    tmp_path: Path, rows: Dataset, basic: dict[tuple[str, str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*WORDS, "hydra/launcher=joblib")
    monkeypatch.setattr(sys, "argv", ["__main__.py", *words])
    done = here(folder_with_sweep(tmp_path, rows), *words)
    assert done.code == 0, done
    assert weights(tmp_path) == basic
    assert "slow (baseline)" in done.out
    assert {run["command"] for run in trained(tmp_path, "launched")} == {
        "python -m harness --config-dir mine +sweep=launched hydra/launcher=joblib"
    }
    assert len({run["pid"] for run in trained(tmp_path, "launched")}) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "mlruns", "reports", "rows.npz"]


FAKES = {
    # Runs each task of the array as Slurm would, on this machine, and keeps the script.
    "sbatch": """
script = pathlib.Path(sys.argv[-1]).read_text()
(here / "script.sh").write_text(script)
for task in range(int(re.search("--array=0-([0-9]+)", script)[1]) + 1):
    job = {"SLURM_JOB_ID": str(42 + task), "SLURM_ARRAY_JOB_ID": "42", "SLURM_ARRAY_TASK_ID": str(task)}
    rest = {"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
    node = {"SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "localhost"}
    out = (here / f"task{task}.log").open("w")
    subprocess.Popen(["bash", "-c", script], env=os.environ | job | rest | node, stdout=out, stderr=out)
print("Submitted batch job 42")
""",
    "srun": """
first = next(i for i, word in enumerate(sys.argv) if i and "python" in pathlib.Path(word).name)
os.execv(sys.argv[first], sys.argv[first:])
""",
    "sacct": """
print("JobID|State|NodeList")
for task in range(2):
    print(f"42_{task}|RUNNING|localhost")
""",
    "scancel": "",
    "scontrol": 'print("localhost")',
}


@needs_submitit
def test_slurm_gets_one_array_of_jobs_that_end_in_the_same_weights(
    tmp_path: Path, rows: Dataset, basic: dict[tuple[str, str], str]
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, code in FAKES.items():
        program = programs / name
        program.write_text(
            f"#!{sys.executable}\nimport os, pathlib, re, subprocess, sys\n"
            f"here = pathlib.Path({str(programs)!r})\n{code}"
        )
        program.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
    }
    folder = tmp_path / "work"
    folder.mkdir()
    command = [sys.executable, "-m", "harness", *WORDS, "hydra/launcher=submitit_slurm", "hydra.launcher.partition=cpu"]
    done = subprocess.run(
        command, cwd=folder_with_sweep(folder, rows), env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done
    script = (programs / "script.sh").read_text().splitlines()
    for line in ("array=0-1%2", "cpus-per-task=4", "mem=8GB", "partition=cpu", "time=1440", "job-name=harness"):
        assert f"#SBATCH --{line}" in script
    assert weights(folder) == basic


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed here")
def test_a_launcher_that_is_not_installed_is_refused_with_the_command_that_installs_it(
    tmp_path: Path, rows: Dataset
) -> None:
    done = here(folder_with_sweep(tmp_path, rows), *WORDS, "hydra/launcher=ray")
    assert done.code == 2
    assert done.err == "error: hydra/launcher=ray: is not installed; pip install 'harness[ray]'\n"
