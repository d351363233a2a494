"""A sweep from its command line to its end: the arms that Hydra composes, the plan, the training, table and report."""

import contextlib
import gc
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness import confirm
from harness.config import Arm, Config, ConfigError, block_ids
from harness.folders import check_writable
from harness.streams import Block, blocks
from harness.targets import first_line

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from harness.analysis.study import Study
    from harness.continuation import Origin
    from harness.prepared import Prepared
    from harness.runner import Cell, Failure
    from harness.tracking.frames import Results
    from harness.tracking.sweeps import Declaration


@dataclass(frozen=True)
class Plan:
    """Arms x blocks, checked as a whole.

    Raises:
        ConfigError: two arms with one name or one config, arms that disagree on the blocks or the sweep, a baseline
            that is no arm.
    """

    arms: tuple[Arm, ...]
    only: tuple[Block, ...] = ()  # of the blocks that the seeds make; none named: all
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
        paths: dict[str, set[str]] = {}
        for each in self.arms:
            paths.setdefault(each.key, set()).add(str(each.config.data.get("path")))
        arms = tuple(replace(each, path_counts=each.path_counts or len(paths[each.key]) > 1) for each in self.arms)
        object.__setattr__(self, "arms", arms)
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
        every = blocks(block_ids(first.seeds), first.root_seed, first.draws)
        object.__setattr__(self, "blocks", tuple(block for block in every if not self.only or block in self.only))

    @property
    def config(self) -> Config:
        """What all arms agree on: sweep, tracking, blocks."""
        return self.arms[0].config


def run(arms: Sequence[Arm], launch: "Callable[[Sequence[Arm]], list[tuple[str, str]]] | None" = None) -> int:
    """Plan, train and report a sweep.

    Args:
        arms: of one sweep.
        launch: trains the arms elsewhere, where a launcher is to, and returns what failed as (run, cause).

    Returns:
        The exit code: 0 if every run finished or diverged as recorded, 1 if one failed, 130 after Ctrl-C.

    Raises:
        ConfigError, DataError, StoreError, DeviceError, TrackingError: before or while training, in one line.
    """
    plan = Plan(tuple(arms))
    if plan.config.confirm:
        confirm.check([each.config for each in plan.arms], launch is not None)
    if not plan.config.dry_run:
        from harness.tracking import child

        child.warm_up()
    slots = open_slots(plan.config)
    ready = prepare(plan.arms)
    kinds = {(each.spec.key, each.data.digest): each for each in reversed(ready)}
    nets = {kind: prepared.check_net() for kind, prepared in kinds.items()}
    for prepared in ready:
        prepared.check(nets[prepared.spec.key, prepared.data.digest])
    del nets
    origins: dict[Block, Origin] = {}
    if plan.config.resume_from is not None:
        from harness import continuation

        if launch is not None:
            raise ConfigError("resume_from: works with the basic launcher only")
        origins = continuation.origins(plan, ready[0])
        plan = Plan(plan.arms, tuple(origins))
    if plan.config.dry_run:
        _print_plan(plan, ready)
        return 0
    from harness.report import study, write
    from harness.tracking import sweeps
    from harness.tracking.claims import claims_of, hold
    from harness.tracking.frames import Results
    from harness.tracking.provenance import git

    reports = None if plan.config.reports is None else Path(plan.config.reports)
    if reports is not None:
        check_writable(reports, "reports")
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
        plan.config.sweep.search,
    )
    claims = claims_of(plan.config.tracking.uri, Path(plan.config.tracking.folder), experiment)
    with hold(claims, "report"):
        sweeps.declare(client, experiment, declaration, git())
    failures: list[tuple[str, str]] = []
    interrupted = False
    with contextlib.ExitStack() as drawing:
        try:
            if launch is None:
                failures = told(drawing.enter_context(trained(plan, ready, slots, origins)))
            else:
                failures = launch(plan.arms)
            if plan.config.confirm:
                drawing.close()
                failures += told(train_again(plan, ready, slots, declaration))
        except KeyboardInterrupt:
            interrupted = True
        results = Results(client, plan.config.sweep.name, [each.key for each in plan.arms], run_keys(plan, ready))
        _print_table(plan, results)
        missing = len(plan.arms) * len(plan.blocks) - _ended(results)
        if plan.config.confirm and results.confirmation is not None:
            missing += len(results.confirmation.run_keys) - _ended(results, "confirmed")
        page = None
        if len(results.runs):
            subject = study(results, declaration)
            with hold(claims, "report"):
                if reports is not None:
                    page = write(results, reports, declaration, subject=subject)
                else:
                    sweeps.log_report(client, experiment, None)
            _print_claims(subject)
    for failed, cause in failures:
        print(f"FAILED {failed}: {cause}", file=sys.stderr)
    if missing:
        print(f"{missing} runs are missing; the same command goes on where this one stopped.", file=sys.stderr)
    if page is not None:
        print(f"report   {page}")
    elif reports is None:
        print(f"report   none; `python -m harness.report {plan.config.sweep.name}` writes it")
    claims.close()
    print(f"browse   {_browse(plan.config.tracking.uri, Path(plan.config.tracking.folder), experiment)}")
    return 130 if interrupted else int(bool(missing or failures))


def told(failures: "Sequence[Failure]") -> list[tuple[str, str]]:
    """What failed, as (run, cause)."""
    return [(each.run, f"{type(each.error).__name__}: {first_line(each.error)}") for each in failures]


def open_experiment(plan: Plan) -> "tuple[MlflowClient, str]":
    """The store and the id of the sweep's experiment in it, both made when they are not there."""
    from harness.tracking.store import experiment_id, open_store

    tracking = plan.config.tracking
    client = open_store(tracking.uri, Path(tracking.folder))
    artifacts = Path(tracking.folder) / "artifacts" if tracking.uri is None else None
    return client, experiment_id(client, plan.config.sweep.name, artifacts)


def open_slots(config: Config, cores: int | None = None) -> list[str]:
    """Import TensorFlow, set up its devices, and name the slots for replicas, on `cores` of the CPU's at most."""
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
    return slots(runtime.device, runtime.replicas, runtime.slots_per_gpu, runtime.threads, runtime.deterministic, cores)


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

    listed = [Cell(prepared, prepared.arm.on(block)) for prepared in ready for block in plan.blocks]
    return [Cell(cell.prepared, cell.block, earlier.get(cell.run_key)) for cell in listed]


def run_keys(plan: Plan, ready: Sequence["Prepared"]) -> list[str]:
    """The identities of all runs of the plan."""
    return [cell.run_key for cell in cells(plan, ready, {})]


def train_again(
    plan: Plan, ready: Sequence["Prepared"], slots: Sequence[str], declaration: "Declaration"
) -> list["Failure"]:
    """`confirm=true`: train what validation chose, and the baseline, on fresh blocks; the sweep itself is finished.

    Raises:
        KeyboardInterrupt: after the runs in flight were saved.
    """
    from harness.prepared import Draws, Prepared
    from harness.report import study
    from harness.tracking import sweeps
    from harness.tracking.frames import Results

    client, experiment = open_experiment(plan)
    name = plan.config.sweep.name
    results = Results(client, name, [each.key for each in plan.arms], run_keys(plan, ready))
    if _ended(results) < len(plan.arms) * len(plan.blocks):
        print("confirm: the sweep has to be finished first", file=sys.stderr)
        return []
    subject = study(results, declaration)
    if subject.reference is None or not subject.finalists:
        print("confirm: validation chose nothing, as no arm has a score on every block", file=sys.stderr)
        return []
    used = confirm.used_blocks(Results(client, name))
    again = Plan(tuple(confirm.fresh_arms(plan.arms, subject.finalists, subject.reference, used)))
    data, draws = {each.arm.name: each.data for each in ready}, Draws()
    on_fresh = [Prepared(arm, data[old], draws) for arm, old in zip(again.arms, subject.finalists, strict=True)]
    confirmation = sweeps.Confirmation(
        {old: arm.key for arm, old in zip(again.arms, subject.finalists, strict=True)},
        {old: declaration.arms[old] for old in subject.finalists},
        subject.reference,
        [block.name for block in again.blocks],
        list(declaration.blocks),
        run_keys(again, on_fresh),
    )
    sweeps.declare_confirmation(client, experiment, confirmation)
    print(f"confirm: {', '.join(subject.finalists)} on fresh blocks, {confirm.names_of(again.arms)}")
    with trained(again, on_fresh, slots) as failures:
        return failures


@contextlib.contextmanager
def trained(
    plan: Plan, ready: Sequence["Prepared"], slots: Sequence[str], origins: "Mapping[Block, Origin] | None" = None
) -> Iterator[list["Failure"]]:
    """Train what is not done yet of the arms that are `ready`, here; where there is an origin, from its end on.

    All runs are written where the context begins, and the figures of their arms where it ends.

    Raises:
        KeyboardInterrupt: after the runs in flight were saved.
        TrackingError: something could not be written.
    """
    from harness.prepared import Prepared
    from harness.progress import display
    from harness.runner import Runner
    from harness.tracking import models
    from harness.tracking.claims import claims_of
    from harness.tracking.frames import Results
    from harness.tracking.provenance import command_line
    from harness.tracking.tracker import Tracker

    config = plan.config
    client, experiment = open_experiment(plan)
    tags = {"command": command_line(), "confirm": "true" if plan.arms[0].confirms else ""}
    tracker = Tracker(
        client,
        experiment,
        config.sweep.name,
        {name: value for name, value in tags.items() if value},
        Path(config.tracking.folder) / "unwritten",
        config.tracking.patience,
    )
    gone_on = {ready[0].arm.on(block): origin for block, origin in (origins or {}).items()}
    earlier = {} if config.rerun else tracker.earlier(each.arm.key for each in ready)
    waiting = [
        replace(cell, origin=gone_on.get(cell.block))
        for cell in cells(plan, ready, earlier)
        if cell.earlier is None or not cell.earlier.finished
    ]
    claims = claims_of(config.tracking.uri, Path(config.tracking.folder), experiment)

    def end_arm(prepared: Prepared) -> None:
        keys = [prepared.arm.run_key(block, prepared.data.digest) for block in plan.blocks]
        tracker.end_arm(prepared.arm.key, keys, prepared.data, config.tracking.run_figures)

    total = sum(cell.prepared.steps for cell in waiting)
    if len(waiting) < len(ready) * len(plan.blocks):
        print(f"{len(ready) * len(plan.blocks) - len(waiting)} runs are finished.")
    try:
        with display(len(ready), len(waiting), total) as shown:
            runner = Runner(slots, tracker, shown, end_arm, config.fail_fast, claims, config.rerun)
            runner.run(waiting)
        before = {each.arm.key for each in ready} - {cell.prepared.arm.key for cell in waiting}
        left_open = tracker.open_arms(before) if before else set()
        for prepared in ready:
            if prepared.arm.key in left_open:
                tracker.start_arm(prepared.arm.name, prepared.arm.key, {})
                end_arm(prepared)
        tracker.wait_for_actions()  # the claim of a run is released once the run is written
        if config.tracking.log_model != "none":
            for prepared in ready:
                keys = [prepared.arm.run_key(block, prepared.data.digest) for block in plan.blocks]
                results = Results(client, config.sweep.name, [prepared.arm.key], keys)
                models.log(client, results, config.tracking.log_model)
        yield runner.failures
    finally:
        try:
            tracker.close()
        finally:
            claims.close()


def _ended(results: "Results", which: Literal["runs", "confirmed"] = "runs") -> int:
    runs = getattr(results, which)
    return int(runs["outcome"].isin(["finished", "diverged"]).sum()) if len(runs) else 0


def _print_table(plan: Plan, results: "Results") -> None:
    from rich.console import Console

    from harness.report import summary_table, terminal_table

    table = summary_table(results.runs, [each.name for each in plan.arms], planned=len(plan.blocks))
    Console(width=None if sys.stdout.isatty() else 140).print(
        terminal_table(table, plan.config.sweep.question, plan.config.sweep.baseline)
    )


def _print_claims(subject: "Study") -> None:
    """What the report claims, in its words."""
    from harness.analysis.render import Page

    for claims, title in (
        (subject.claims, ""),
        (subject.confirmed.claims if subject.confirmed else [], "On fresh blocks:"),
    ):
        if claims and title:
            print(title)
        for claim in claims[: Page.unfolded]:
            print(claim.sentence)
        if len(claims) > Page.unfolded:
            print(f"and {len(claims) - Page.unfolded} more comparisons in the report")


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
    from rich.markup import escape
    from rich.table import Table

    from harness.disk import forecast
    from harness.tracking.store import NoStoreError, open_store
    from harness.tracking.tracker import earlier_runs

    config, earlier = plan.config, {}
    try:
        client = open_store(config.tracking.uri, Path(config.tracking.folder), create=False)
        experiment = client.get_experiment_by_name(config.sweep.name)
        if experiment is not None and not config.rerun:
            earlier = earlier_runs(client, experiment.experiment_id, [each.key for each in plan.arms])
    except NoStoreError:
        pass  # nothing is done
    table = Table(title=f"{config.sweep.name}: {len(plan.arms)} arms x {len(plan.blocks)} blocks", title_justify="left")
    for column in ("arm", "arm key", "steps", "done", "to go on", "to run"):
        table.add_column(column, justify="left" if column.startswith("arm") else "right")
    to_run, left = 0, []
    for prepared in ready:
        mine = [earlier.get(prepared.arm.run_key(block, prepared.data.digest)) for block in plan.blocks]
        done, broken = (
            sum(e is not None and e.finished for e in mine),
            sum(e is not None and not e.finished for e in mine),
        )
        to_run += len(mine) - done
        left.append((prepared, len(mine) - done))
        marked = f"{prepared.arm.name} (baseline)" if prepared.arm.name == config.sweep.baseline else prepared.arm.name
        numbers = (prepared.steps, done, broken, len(mine) - done - broken)
        table.add_row(escape(marked), prepared.arm.key, *map(str, numbers))
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    names = [block.name for block in plan.blocks]
    some = ", ".join(names if len(names) <= 10 else [*names[:9], "…", names[-1]])
    print(f"{to_run} of {len(ready) * len(plan.blocks)} runs would train, on {some}.")
    if to_run:
        print(forecast(left))
    if config.confirm:
        print(f"Then what validation chooses and {config.sweep.baseline} would train on {len(names)} fresh blocks.")
