"""Experiments: folders that say what was published, and which sweeps of the store stand beside it."""

import os
import shlex
import tempfile
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from harness.config import Arm, ConfigError, block_ids

FILE = "experiment.yaml"
SERIES = ("ltfn", "bcnn", "cnt")


@dataclass(frozen=True)
class Experiment:
    """One folder below experiments/, as its experiment.yaml declares it.

    Attributes:
        folder: its own.
        row: of the sources.
        question: it asks.
        setting: how, and in what it is not the source's.
        minutes: on 2 cores, for all of it.
        sweeps: names; their files lie in folder/sweep/ or in conf/sweep/.
        metrics: shown of each arm.
        figure: points | curves | histograms | regions | surface | parts.
        tables: nets whose layers are compared with published ones: name, input, classes, config.
        surface: overrides of the optimizers whose paths over a surface are drawn, a text each.
        shown: what is shown by tests: (what, command, test).
        conclusion: in words that no table says, once there are results.
    """

    folder: Path
    row: str
    question: str
    setting: str
    minutes: float = 0
    sweeps: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ("accuracy/test", "loss/test")
    figure: str = "points"
    tables: tuple[dict[str, Any], ...] = ()
    surface: tuple[str, ...] = ()
    shown: tuple[tuple[str, str, str], ...] = field(default=())
    conclusion: str = ""
    _arms: dict[str, tuple[Arm, ...]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def id(self) -> str:
        """The folder's name."""
        return self.folder.name

    def overrides(self, sweep: str) -> tuple[list[str], str | None]:
        """What `composition.compose` takes: overrides and a config folder."""
        own = (self.folder / "sweep" / f"{sweep}.yaml").exists()
        return [f"+sweep={sweep}"], str(self.folder) if own else None

    def command(self, sweep: str) -> str:
        """What is typed in the project's folder."""
        overrides, own = self.overrides(sweep)
        return shlex.join(
            ["python", "-m", "harness", *(["--config-dir", f"experiments/{self.id}"] if own else []), *overrides]
        )

    def arms(self, sweep: str) -> tuple[Arm, ...]:
        """The arms that the sweep's file means today."""
        from harness.composition import compose

        if sweep not in self._arms:
            self._arms[sweep] = compose(*self.overrides(sweep)).arms
        return self._arms[sweep]

    def read(self, name: str) -> pd.DataFrame | None:
        """A table of the folder, or None where there is none."""
        path = self.folder / name
        return pd.read_csv(path) if path.exists() else None

    @cached_property
    def minutes_on_2_cores(self) -> tuple[float, bool]:
        """How long, and whether that is measured: its runs as fast as the fastest of the arm, two at a time."""
        results = self.read("results.csv")
        if self.state != "done" or results is None or "minutes" not in results:
            return self.minutes, False
        if not results["machine"].str.match(r"2 cores,.* on the CPU$").all():
            return self.minutes, False
        arms = results.drop_duplicates(["sweep", "arm"])
        alone = arms["minutes"] / (arms["n"] + arms["diverged"]).clip(
            lower=1
        )  # the last run may have no other beside it
        return float(arms["minutes"].sum() + alone.max()) / 2, True

    @cached_property
    def state(self) -> str:
        """From what lies in the folder: done, partly (how much), or not run."""
        results = self.read("results.csv")
        if not self.sweeps:
            return "done"
        if results is None or not len(results):
            return "not run"
        if "planned" not in results:
            return "done"
        arms = results.drop_duplicates([name for name in ("sweep", "arm") if name in results])
        ended, planned = (
            int((arms["n"] + arms["diverged"]).clip(upper=arms["planned"]).sum()),
            int(arms["planned"].sum()),
        )
        missing = [name for name in self.sweeps if "sweep" in arms and name not in set(arms["sweep"])]
        if not ended:
            return "not run"
        if ended < planned or missing:
            return f"partly: {ended} of {planned} runs" + (f", without {', '.join(missing)}" if missing else "")
        return "done"


def read(folder: Path) -> Experiment:
    """The experiment that a folder declares.

    Raises:
        ConfigError: no such file, or a key that is unknown or missing.
    """
    path = folder / FILE
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from None
    allowed = [each.name for each in fields(Experiment) if each.init and each.name != "folder"]
    given = given if isinstance(given, dict) else {}
    if unknown := [key for key in given if key not in allowed]:
        raise ConfigError(f"{path}: unknown key {unknown[0]}; allowed: {', '.join(allowed)}")
    if missing := [key for key in ("row", "question", "setting") if key not in given]:
        raise ConfigError(f"{path}: {missing[0]} is missing")
    values: dict[str, Any] = {key: tuple(each) if isinstance(each, list) else each for key, each in given.items()}
    return Experiment(folder, **values)


def every(root: Path) -> list[Experiment]:
    """All experiments below a folder, in the order of the sources."""

    def place(path: Path) -> tuple[int, str]:
        name = path.parent.name
        series = next((i for i, start in enumerate(SERIES) if name.startswith(start)), len(SERIES))
        return series, name

    return [read(path.parent) for path in sorted(root.glob(f"*/{FILE}"), key=place)]


def planned(arms: tuple[Arm, ...]) -> set[tuple[int, str]]:
    """The blocks of each arm: seed, and draw as runs name it."""
    config = arms[0].config
    draws = ["all"] if config.draws is None else [str(draw) for draw in range(config.draws)]
    return {(seed, draw) for seed in block_ids(config.seeds) for draw in draws}


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        file.write(text)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)
