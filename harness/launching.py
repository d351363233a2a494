"""From arms to the jobs of a Hydra launcher: joblib, submitit (Slurm, or this machine) or Ray."""

import importlib.util
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

from harness import sweep
from harness.composition import Composition, loaded
from harness.config import Arm, ConfigError
from harness.quiet import set_levels
from harness.targets import first_line

EXTRAS = {"joblib": "joblib", "submitit_local": "slurm", "submitit_slurm": "slurm", "ray": "ray"}
"""Launcher -> the extra of this package that brings it."""
Failures = list[tuple[str, str]]


@dataclass(frozen=True)
class Job:
    """What a launcher's worker calls: trains one of the arms, the one with the job's number.

    The arms travel as they were composed and checked, so that a job cannot compose another config. `cores`: how many
    of its machine's the worker may take; None: all it is allowed to run on.
    """

    arms: tuple[Arm, ...]
    folder: str
    command: tuple[str, ...]
    cores: int | None

    def __call__(self, _: DictConfig) -> Failures:
        """Train; the failures as (run, cause)."""
        set_levels()
        arm = self.arms[HydraConfig.get().job.num]
        try:
            os.chdir(self.folder)
        except OSError as error:
            return [(arm.name, f"{os.uname().nodename} has no folder {self.folder} ({error.strerror}); share it")]
        sys.argv = list(self.command)
        from harness.__main__ import one_line_errors

        try:
            plan = sweep.Plan(self.arms)
            slots = sweep.open_slots(plan.config, self.cores)
            with sweep.trained(plan, sweep.prepare([arm]), slots) as failures:
                return [(each.run, f"{type(each.error).__name__}: {each.error}") for each in failures]
        except Exception as error:
            if not isinstance(error, one_line_errors()):
                raise
            return [(arm.name, str(error))]


def check(launcher: str) -> None:
    """Refuse a launcher whose package is not there.

    Raises:
        ConfigError: with the command that installs it.
    """
    plugin = "submitit" if launcher.startswith("submitit") else launcher
    if launcher in EXTRAS and (
        importlib.util.find_spec("hydra_plugins") is None
        or importlib.util.find_spec(f"hydra_plugins.hydra_{plugin}_launcher") is None
    ):
        raise ConfigError(f"hydra/launcher={launcher}: is not installed; pip install 'harness[{EXTRAS[launcher]}]'")


def launch(composed: Composition, arms: Sequence[Arm]) -> Failures:
    """Have the launcher train the arms, each in a job of its own; what failed, as (run, cause).

    A launcher that gives up is a failure too: what its jobs trained so far is in the store.
    """
    quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none"]
    with loaded([*composed.overrides, *quiet], composed.config_dir) as (loader, master):
        settings = master.hydra.launcher
        with open_dict(master.hydra):  # submitit takes no such key
            at_once = settings.pop("concurrent", None)
        job = Job(tuple(arms), str(Path.cwd()), tuple(sys.argv), _cores(settings))
        context = HydraContext(config_loader=loader, callbacks=_no_callbacks())

        def start(first: int, last: int) -> Sequence[JobReturn]:
            launcher = Plugins.instance().instantiate_launcher(context, job, master)
            return launcher.launch(composed.jobs[first:last], initial_job_idx=first)

        try:
            if at_once is None:
                done = list(start(0, len(arms)))
            else:
                with ThreadPoolExecutor(at_once) as pool:
                    done = [each for (each,) in pool.map(lambda i: start(i, i + 1), range(len(arms)))]
        except Exception as error:  # each launcher has errors of its own
            return [(f"hydra/launcher={composed.launcher}", f"{type(error).__name__}: {first_line(error)}")]
    return [failure for arm, one in zip(arms, done, strict=True) for failure in _failures(arm, one)]


def _failures(arm: Arm, done: JobReturn) -> Failures:
    try:
        return list(done.return_value)
    except Exception as error:  # what the job raised
        return [(arm.name, f"{type(error).__name__}: {first_line(error)}")]


def _cores(settings: DictConfig) -> int | None:
    """How many cores the launcher's settings leave to one job."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if "n_jobs" in settings:
        return max(1, there // settings.n_jobs) if settings.n_jobs > 0 else 1
    given = settings.get("cpus_per_task") or OmegaConf.select(settings, "ray.remote.num_cpus")
    return None if given is None else max(1, int(given))


def _no_callbacks() -> Any:
    from hydra._internal.callbacks import Callbacks

    return Callbacks()
