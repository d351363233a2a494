"""A sweep from its command line to its end: the arms that Hydra composes, the plan, the training, table and report."""

import contextlib
import gc
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from harness.config import FREE, Arm, Config, ConfigError, block_ids, known_keys, resolve, unknown_key
from harness.streams import Block, blocks
from harness.targets import TargetError

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from harness.runner import Cell, Failure, Prepared
    from harness.tracking.frames import Results

PACKAGE = Path(__file__).resolve().parent


def config_folder() -> Path:
    """The project's conf/ beside the package in a checkout, or the copy inside an installed package."""
    beside = PACKAGE.parent / "conf"
    return beside if (beside / "config.yaml").exists() else PACKAGE / "conf"


@dataclass(frozen=True)
class Composition:
    """The arms of a command line, and the launcher it asks for."""

    arms: tuple[Arm, ...]
    launcher: str = "basic"


def compose(overrides: Sequence[str], config_dir: str | None = None) -> Composition:
    """The arms that a command line means: what a sweep file and the command line sweep, as a product.

    Raises:
        ConfigError: Hydra or the schema refuses something.
    """
    overrides = [as_hydra(override) for override in overrides]
    search_path = create_config_search_path(str(config_folder()))
    if config_dir is not None:
        if not Path(config_dir).is_dir():
            raise ConfigError(f"--config-dir={config_dir}: no such folder")
        search_path.prepend("command-line", f"file://{Path(config_dir).resolve()}", None)
    GlobalHydra.instance().clear()
    try:
        loader = Hydra.create_main_hydra2("harness", search_path).config_loader
        master = loader.load_configuration("config", list(overrides), run_mode=RunMode.MULTIRUN)
        if master.hydra.runtime.choices.get("hydra/sweeper") != "basic":
            raise ConfigError("hydra/sweeper: only basic is supported: arms must be known before any of them trains")
        swept = dict(master.hydra.sweeper.params or {})
        listed = [as_hydra(f"{key}={value}") for key, value in swept.items()] + list(master.hydra.overrides.task)
        (jobs,) = BasicSweeper.split_arguments(OverridesParser.create(loader).parse_overrides(listed), None)
        varying = {str(key) for key in swept} | {
            job[i].partition("=")[0].lstrip("+") for job in jobs for i in range(len(job)) if job[i] != jobs[0][i]
        }
        arms = tuple(
            arm(loader.load_sweep_config(master, [*job, *together]), job, varying, name)
            for name, together in named_arms(OmegaConf.to_container(master.sweep.arms))
            for job in jobs
        )
    except (ConfigError, TargetError):
        raise
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explained(error, overrides)) from None
    except (ValueError, YAMLError) as error:
        raise ConfigError(" ".join(f"{' '.join(overrides)}: {error}".split())) from None
    finally:
        GlobalHydra.instance().clear()
    return Composition(arms, master.hydra.runtime.choices.get("hydra/launcher", "basic"))


def as_hydra(override: str) -> str:
    """The override as Hydra takes it: an argument that a file does not name needs no `+`, a baseline no quotes."""
    key, sign, value = override.partition("=")
    if key == "sweep.baseline" and "=" in value and value[0] not in "'\"":
        return f"{key}='{value}'"
    free = "." in key and f"{key}.".startswith(tuple(f"{each}." for each in FREE))
    return f"++{override}" if sign and free else override


def named_arms(arms: object) -> list[tuple[str, list[str]]]:
    """`sweep.arms` as (name, overrides) pairs; one pair of nothing when there are none.

    Raises:
        ConfigError: an item that is neither a list of overrides nor {name: such a list}.
    """
    pairs: list[tuple[str, list[str]]] = []
    for item in arms if isinstance(arms, list) else []:
        name, overrides = next(iter(item.items())) if isinstance(item, dict) and len(item) == 1 else (None, item)
        if not isinstance(overrides, list) or not all(isinstance(each, str) and "=" in each for each in overrides):
            raise ConfigError(f"sweep.arms: got {item!r}; allowed: a list of overrides, or {{name: [overrides]}}")
        pairs.append((str(name or ",".join(overrides)), overrides))
    return pairs or [("", [])]


def arm(composed: DictConfig, job: Sequence[str], swept: set[str], first: str = "") -> Arm:
    """One composed job as an arm, named by `first` and the swept overrides: `initializer=he`."""
    choices = OmegaConf.to_container(composed.hydra.runtime.choices)
    assert isinstance(choices, dict)
    groups = {
        str(group): str(choice)
        for group, choice in choices.items()
        if choice and not str(group).startswith(("hydra/", "sweep", "debug", "tracking", "runtime"))
    }
    names = [first] if first else []
    names += [override.lstrip("+") for override in job if override.partition("=")[0].lstrip("+") in swept]
    config = resolve(composed)
    config.sweep.swept = sorted(swept)
    return Arm(",".join(names) or "default", config, groups)


def _explained(error: Exception, overrides: Sequence[str]) -> str:
    """Hydra's message in one line; for a key that does not exist, the nearest ones."""
    cause = error.__cause__
    text = " ".join(f"{error} {cause if cause is not None else ''}".split())
    for aside in (" full_key:", " Config search path:", " See https://hydra.cc/docs/1.2/"):
        text = text.partition(aside)[0]
    if "defaults list" not in text and ("Could not override" in text or "not in struct" in text):
        known = set(known_keys())
        for override in overrides:
            key = override.partition("=")[0].lstrip("+~")
            if key not in known and "'" + key + "'" in text:
                return unknown_key(key)
    return text


@dataclass(frozen=True)
class Plan:
    """Arms x blocks, checked as a whole.

    Raises:
        ConfigError: two arms with one name or one config, arms that disagree on the blocks or the sweep, a baseline
            that is no arm.
    """

    arms: tuple[Arm, ...]
    blocks: tuple[Block, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Check the arms against each other."""
        first = self.arms[0].config
        for each in self.arms:
            for key in ("seeds", "draws", "root_seed", "sweep", "tracking", "reports"):
                if getattr(each.config, key) != getattr(first, key):
                    raise ConfigError(
                        f"{key}: differs between arms; all arms of a sweep run on the same blocks and store"
                    )
        by_key: dict[str, Arm] = {}
        for each in self.arms:
            if (twin := by_key.setdefault(each.key, each)) is not each:
                raise ConfigError(
                    f"arms {twin.name} and {each.name} are the same config (only runtime, tracking or seeds differ)"
                )
        baseline, names = first.sweep.baseline, [each.name for each in self.arms]
        if baseline is not None and baseline not in names:
            raise ConfigError(
                f"sweep.baseline: got {baseline!r}, no arm of the sweep; "
                f"allowed: {', '.join(names)}, or sweep.baseline=null"
            )
        object.__setattr__(self, "blocks", blocks(block_ids(first.seeds), first.root_seed, first.draws))

    @property
    def config(self) -> Config:
        """What all arms agree on: sweep, tracking, blocks."""
        return self.arms[0].config


def run(composition: Composition, relaunch: Sequence[str] | None = None) -> int:
    """Plan, train and report a sweep.

    Args:
        composition: the arms.
        relaunch: Hydra arguments, when another launcher than the basic one is to train the arms.

    Returns:
        The exit code: 0 if every run finished or diverged as recorded, 1 if one failed, 130 after Ctrl-C.

    Raises:
        ConfigError, DataError, StoreError, DeviceError, TrackingError: before or while training, in one line.
    """
    plan = Plan(composition.arms)
    slots = open_slots(plan.config)
    ready = prepare(plan.arms)
    for prepared in {(each.spec.key, each.data.digest): each for each in reversed(ready)}.values():
        prepared.check_net()
    for prepared in ready:
        prepared.check()
    if plan.config.dry_run:
        _print_plan(plan, ready)
        return 0
    from harness.report import write
    from harness.tracking import sweeps
    from harness.tracking.frames import Results
    from harness.tracking.provenance import git

    client, experiment = open_experiment(plan)
    declaration = sweeps.Declaration(
        plan.config.sweep.name,
        plan.config.sweep.question,
        plan.config.sweep.baseline,
        {each.name: each.key for each in plan.arms},
        [block.name for block in plan.blocks],
        plan.config.sweep.family,
        plan.config.sweep.margin,
        plan.config.sweep.correction,
    )
    sweeps.declare(client, experiment, declaration, git())
    failures: list[Failure] = []
    interrupted = False
    try:
        if relaunch is None:
            failures = train(plan, ready, slots)
        else:
            launch(relaunch)
    except KeyboardInterrupt:
        interrupted = True
    results = Results(client, plan.config.sweep.name, [each.key for each in plan.arms], run_keys(plan, ready))
    _print_table(plan, results)
    for failure in failures:
        print(
            f"FAILED {failure.run}: {type(failure.error).__name__}: {failure.error}",
            file=sys.stderr,
        )
    missing = len(plan.arms) * len(plan.blocks) - _ended(results)
    if missing:
        print(f"{missing} runs are missing; the same command goes on where this one stopped.", file=sys.stderr)
    if len(results.runs):
        print(f"report   {write(results, Path(plan.config.reports), declaration)}")
    print(f"browse   {_browse(plan.config.tracking.uri, Path(plan.config.tracking.folder), experiment)}")
    return 130 if interrupted else int(bool(missing or failures))


def open_experiment(plan: Plan) -> "tuple[MlflowClient, str]":
    """The store and the id of the sweep's experiment in it, both made when they are not there."""
    from harness.tracking.store import experiment_id, open_store

    tracking = plan.config.tracking
    client = open_store(tracking.uri, Path(tracking.folder))
    artifacts = Path(tracking.folder) / "artifacts" if tracking.uri is None else None
    return client, experiment_id(client, plan.config.sweep.name, artifacts)


def open_slots(config: Config) -> list[str]:
    """Import TensorFlow, set up its devices, and name the slots for replicas."""
    from harness.quiet import import_tensorflow

    import_tensorflow()
    from harness import runner
    from harness.training.devices import slots

    assert runner  # imported here, so that all there is to import is there before it is set aside
    # What the imports made stays for good; looking through it again and again took a fifth of a short sweep's time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    runtime = config.runtime
    return slots(runtime.device, runtime.replicas, runtime.slots_per_gpu, runtime.threads, runtime.deterministic)


def prepare(arms: Sequence[Arm]) -> list["Prepared"]:
    """Load the data of all arms, each set once, and make them ready to be checked and trained."""
    from harness.quiet import import_tensorflow

    import_tensorflow()
    from harness.runner import Draws, Prepared
    from harness.targets import build

    loaded: dict[str, Any] = {}
    ready, draws = [], Draws()
    for each in arms:
        place = str(sorted(each.config.data.items()))
        if place not in loaded:
            loaded[place] = build(each.config.data)
        ready.append(Prepared(each, loaded[place], draws))
    return ready


def cells(plan: Plan, ready: Sequence["Prepared"], earlier: Mapping[str, Any]) -> list["Cell"]:
    """All arms x blocks, arm by arm, each with its earlier run if there is one."""
    from harness.runner import Cell

    listed = [Cell(prepared, block) for prepared in ready for block in plan.blocks]
    return [Cell(cell.prepared, cell.block, earlier.get(cell.run_key)) for cell in listed]


def run_keys(plan: Plan, ready: Sequence["Prepared"]) -> list[str]:
    """The identities of all runs of the plan."""
    return [cell.run_key for cell in cells(plan, ready, {})]


def train(plan: Plan, ready: Sequence["Prepared"], slots: Sequence[str]) -> list["Failure"]:
    """Train what is not done yet, in this process.

    Raises:
        KeyboardInterrupt: after the runs in flight were saved.
    """
    from harness.progress import display
    from harness.runner import Prepared, Runner
    from harness.tracking import arms
    from harness.tracking.frames import Results
    from harness.tracking.provenance import command_line
    from harness.tracking.tracker import Tracker

    config = plan.config
    client, experiment = open_experiment(plan)
    tracker = Tracker(client, experiment, config.sweep.name, {"command": command_line()})
    earlier = {} if config.rerun else tracker.earlier(each.key for each in plan.arms)
    waiting = [
        cell
        for cell in cells(plan, ready, earlier)
        if cell.earlier is None or not (cell.earlier.finished or cell.earlier.alive)
    ]

    def close_arm(prepared: Prepared, parent: str) -> None:
        keys = [prepared.arm.run_key(block, prepared.data.digest) for block in plan.blocks]
        results = Results(client, config.sweep.name, [prepared.arm.key], keys)
        complete = _ended(results) == len(plan.blocks)
        arms.close(
            client, parent, results, prepared.data, "FINISHED" if complete else "KILLED", config.tracking.run_figures
        )

    total = sum(cell.prepared.steps for cell in waiting)
    if len(waiting) < len(plan.arms) * len(plan.blocks):
        print(f"{len(plan.arms) * len(plan.blocks) - len(waiting)} runs are finished or under way elsewhere.")
    with display(len(plan.arms), len(waiting), total) as shown:
        runner = Runner(slots, tracker, shown, close_arm, config.fail_fast)
        try:
            runner.run(waiting)
        finally:
            tracker.close()
    return runner.failures


def launch(arguments: Sequence[str]) -> None:
    """Have Hydra's launcher train the arms, each in a job of its own."""
    import hydra

    from harness.__main__ import job

    sys.argv = [sys.argv[0], *arguments]
    with contextlib.suppress(SystemExit):  # which arms are missing is read from the store
        hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="config")(job)()


def _ended(results: "Results") -> int:
    return int(results.runs["outcome"].isin(["finished", "diverged"]).sum()) if len(results.runs) else 0


def _print_table(plan: Plan, results: "Results") -> None:
    from rich.console import Console

    from harness.report import summary_table, terminal_table

    table = summary_table(results.runs, [each.name for each in plan.arms], planned=len(plan.blocks))
    Console(width=None if sys.stdout.isatty() else 140).print(
        terminal_table(table, plan.config.sweep.question, plan.config.sweep.baseline)
    )


def _browse(uri: str | None, folder: Path, experiment: str) -> str:
    page = f"#/experiments/{experiment}/runs?workflowType=machine_learning"
    if uri is not None:
        from harness.tracking.provenance import without_password

        uri = without_password(uri)
        return f"{uri.rstrip('/')}/{page}" if uri.startswith("http") else f"mlflow server --backend-store-uri {uri}"
    database = os.path.relpath(folder / "mlflow.db")
    return f"mlflow server --workers 1 --backend-store-uri sqlite:///{database}   http://127.0.0.1:5000/{page}"


def _print_plan(plan: Plan, ready: Sequence["Prepared"]) -> None:
    from rich.console import Console
    from rich.table import Table

    from harness.tracking.store import StoreError, open_store
    from harness.tracking.tracker import earlier_runs

    config, earlier = plan.config, {}
    try:
        client = open_store(config.tracking.uri, Path(config.tracking.folder), create=False)
        experiment = client.get_experiment_by_name(config.sweep.name)
        if experiment is not None and not config.rerun:
            earlier = earlier_runs(client, experiment.experiment_id, [each.key for each in plan.arms])
    except StoreError:
        pass  # no store yet: nothing is done
    table = Table(title=f"{config.sweep.name}: {len(plan.arms)} arms x {len(plan.blocks)} blocks", title_justify="left")
    for column in ("arm", "arm key", "steps", "done", "to go on", "to run"):
        table.add_column(column, justify="left" if column.startswith("arm") else "right")
    to_run = 0
    for prepared in ready:
        mine = [earlier.get(prepared.arm.run_key(block, prepared.data.digest)) for block in plan.blocks]
        done, broken = (
            sum(e is not None and e.finished for e in mine),
            sum(e is not None and not e.finished for e in mine),
        )
        to_run += len(mine) - done
        marked = f"{prepared.arm.name} (baseline)" if prepared.arm.name == config.sweep.baseline else prepared.arm.name
        numbers = (prepared.steps, done, broken, len(mine) - done - broken)
        table.add_row(marked, prepared.arm.key, *map(str, numbers))
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    names = [block.name for block in plan.blocks]
    some = ", ".join(names if len(names) <= 10 else [*names[:9], "…", names[-1]])
    print(f"{to_run} of {len(ready) * len(plan.blocks)} runs would train, on {some}.")
