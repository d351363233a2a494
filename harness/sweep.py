"""A sweep from its command line to its end: the arms that Hydra composes, the plan, the training, table and report."""

import gc
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config import Arm, Config, ConfigError, block_ids
from harness.streams import Block, blocks

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from harness.prepared import Prepared
    from harness.runner import Cell, Failure
    from harness.tracking.frames import Results


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


def run(arms: Sequence[Arm], relaunch: Sequence[str] | None = None) -> int:
    """Plan, train and report a sweep.

    Args:
        arms: of one sweep.
        relaunch: Hydra arguments, when another launcher than the basic one is to train the arms.

    Returns:
        The exit code: 0 if every run finished or diverged as recorded, 1 if one failed, 130 after Ctrl-C.

    Raises:
        ConfigError, DataError, StoreError, DeviceError, TrackingError: before or while training, in one line.
    """
    plan = Plan(tuple(arms))
    slots = open_slots(plan.config)
    ready = prepare(plan.arms)
    for prepared in {(each.spec.key, each.data.digest): each for each in reversed(ready)}.values():
        prepared.check_net()
    for prepared in ready:
        prepared.check()
    if plan.config.dry_run:
        _print_plan(plan, ready)
        return 0
    from harness.composition import launch
    from harness.report import write
    from harness.tracking import sweeps
    from harness.tracking.frames import Results
    from harness.tracking.provenance import git

    reports = Path(plan.config.reports)
    there = next(path for path in (reports, *reports.parents) if path.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise ConfigError(f"reports={reports}: {there} is no folder that can be written; give another")
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
        plan.config.sweep.tune,
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
    from harness.prepared import Draws, Prepared
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
    from harness.prepared import Prepared
    from harness.progress import display
    from harness.runner import Runner
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
