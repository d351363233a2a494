"""`+resume_from=RUN_ID train.steps=2000`: a finished run goes on for longer, as a new run that is linked to it.

What the command line does not say is as the run had it. The new run is the longer arm's own: its key is that of an arm
which trains 2,000 steps from the start, and it ends in the same bits. So all that a step depends on must be the same,
and the learning rates of the steps already taken too.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from harness.config import NOT_IDENTITY, Arm, Config, ConfigError, flat, number_of_draws, stored
from harness.prepared import Draws, Prepared
from harness.streams import Block
from harness.tracking import artifacts, histograms
from harness.tracking.artifacts import CHECKPOINTS
from harness.tracking.entries import PARENT
from harness.tracking.frames import is_curve
from harness.tracking.store import find_run, open_store
from harness.training.checkpoints import CheckpointError, unpack
from harness.training.recorder import Recorder

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from harness.sweep import Plan

# What says how long to train, or when to look; of the learning rates only the first ones must be the same.
FREE = (*NOT_IDENTITY, "train.steps", "train.epochs", "train.evaluate", "train.probe", "learning_rate")
# What is always as the command that goes on says it.
OF_THIS_COMMAND = ("tracking", "sweep", "reports", "confirm", "dry_run", "rerun", "fail_fast", "resume_from", "trust")


@dataclass(frozen=True)
class Origin:
    """A finished run that goes on.

    Attributes:
        client: of its store.
        run: in MLflow.
        step: after which it ended.
        checkpoint: its whole state then.
    """

    client: "MlflowClient"
    run: "Run"
    step: int
    checkpoint: bytes

    def retell(self, recorder: Recorder) -> None:
        """Report what the run reported up to its end: its curves and per-layer statistics."""
        content = artifacts.read(self.client, self.run, "histograms.npz")
        for step, layers in sorted(histograms.unpack(content).items() if content else ()):
            recorder.histograms(step, layers)
        for metric in filter(is_curve, self.run.data.metrics):
            for point in self.client.get_metric_history(self.run.info.run_id, metric):
                recorder.metrics(point.step, {metric: point.value})


def as_begun(arm: Arm, given: Sequence[str]) -> Arm:
    """The arm with what was not given as the run had it that `resume_from` names, or the first run of the arm it names.

    Args:
        arm: composed of the command line alone.
        given: groups and keys of the command line, as `composition.Composition` has them. With a sweep or a debug file,
            which may say anything, the arm stays.

    Raises:
        ConfigError: something was given that cannot be laid over what the run had, or does not go together with it.
        StoreError: no such store or run.
    """
    if {"sweep", "debug"} & {*given}:
        return arm
    tracking, name = arm.config.tracking, str(arm.config.resume_from)
    client = open_store(tracking.uri, Path(tracking.folder), create=False)
    runs = _runs(client, find_run(client, name))
    content = artifacts.read(client, runs[0], "config.yaml") if runs else None
    if content is None:
        return arm  # which `origins` refuses
    config, now = yaml.safe_load(content), asdict(arm.config)
    said = [key for key in given if not key.startswith("hydra")]
    if strange := [key for key in said if key.partition(".")[0] not in now]:
        raise ConfigError(
            f"resume_from: goes on with what run {name} had, over which {strange[0]} cannot be laid; leave it out"
        )
    for key in (*OF_THIS_COMMAND, *said):
        _lay(key, now, config)
    for length, other in (("steps", "epochs"), ("epochs", "steps")):
        if f"train.{length}" in said and f"train.{other}" not in said:
            _lay(f"train.{other}", now, config)
    choices = {group: runs[0].data.params.get(group, chosen) for group, chosen in arm.choices.items()}
    choices |= {group: arm.choices[group] for group in given if group in arm.choices}
    named = runs[0].data.tags.get("arm", arm.name) if arm.name == "default" else arm.name
    return replace(arm, name=named, config=stored(yaml.safe_dump(config)), choices=choices)


def _lay(key: str, above: Mapping[str, Any], below: dict[str, Any]) -> None:
    """Give a dotted key the value that it has above; where one of the two has nothing to go into, all from there on."""
    first, _, rest = key.partition(".")
    if rest and isinstance(above[first], dict) and isinstance(below.get(first), dict):
        _lay(rest, above[first], below[first])
    else:
        below[first] = above[first]


def origins(plan: "Plan", prepared: Prepared) -> dict[Block, Origin]:
    """The plan's blocks that go on, and from which run each: the one that is named, or those of the arm that is named.

    Raises:
        ConfigError: the run is no finished one, or what is to go on is something else.
        StoreError: no such store or run.
    """
    tracking, name = plan.config.tracking, str(plan.config.resume_from)
    if len(plan.arms) > 1:
        raise ConfigError(
            f"resume_from: got {len(plan.arms)} arms; one arm goes on from one run, or from one arm's runs"
        )
    client = open_store(tracking.uri, Path(tracking.folder), create=False)
    named = find_run(client, name)
    found = {}
    for run in _runs(client, named):
        block = _block(plan, prepared.arm, run)
        found[block] = _origin(client, run, prepared, block)
    if not found:
        raise ConfigError(f"resume_from: run {name} is no training run and no arm with finished ones")
    return found


def _runs(client: "MlflowClient", named: "Run") -> "list[Run]":
    if named.data.tags.get("kind") == "run":
        return [named]
    parent = f"tags.{PARENT} = '{named.info.run_id}' and tags.outcome = 'finished'"
    return list(client.search_runs([named.info.experiment_id], parent, max_results=1000))


def _block(plan: "Plan", arm: Arm, run: "Run") -> Block:
    tags = run.data.tags
    for block in plan.blocks:
        if (str(block.id), "all" if block.draw_id is None else str(block.draw_id)) == (tags["block"], tags["draw"]):
            if any(tags[f"seed.{stream}"] != str(value) for stream, value in arm.on(block).seeds.items()):
                raise ConfigError(f"root_seed: run {run.info.run_id} had other seeds; give its root_seed")
            return block
    raise ConfigError(
        f"seeds: run {run.info.run_id} is seed {tags['block']}, draw {tags['draw']}, which is none of these blocks; "
        "give the seeds (and draws) that it was trained with"
    )


def _origin(client: "MlflowClient", run: "Run", prepared: Prepared, block: Block) -> Origin:
    run_id, tags, config = run.info.run_id, run.data.tags, prepared.arm.config
    if tags.get("outcome") != "finished":
        state = tags.get("outcome") or run.info.status.lower()
        raise ConfigError(f"resume_from: run {run_id} is {state}; only finished runs go on (the same command resumes)")
    if tags["data.digest"] != prepared.data.digest:
        raise ConfigError(
            f"data: run {run_id} saw data of digest {tags['data.digest'][:12]}, these are {prepared.data.digest[:12]}"
        )
    if config.regularizer.patience is not None:
        raise ConfigError(
            f"regularizer.patience: got {config.regularizer.patience} with resume_from; a run that stops early on "
            "validation has ended; allowed: null"
        )
    old = stored((artifacts.read(client, run, "config.yaml") or b"{}").decode())
    for key, (before, now) in _differences(old, config):
        raise ConfigError(
            f"{key}: got {now}, but run {run_id} had {before}; a run goes on with what it began with: leave it out"
        )
    if config.draw.scheme not in ("all", "bootstrap") and number_of_draws(old) != number_of_draws(config):
        raise ConfigError(f"seeds: run {run_id} was one of {number_of_draws(old)} draws, not {number_of_draws(config)}")
    step, rates = int(tags["outcome.step"]), prepared.recipe.learning_rates
    if prepared.steps <= step:
        raise ConfigError(f"train.steps: got {prepared.steps}, but run {run_id} has taken {step} already; give more")
    before = Prepared(Arm("before", old), prepared.data, Draws()).recipe
    if before.steps != step:
        raise ConfigError(
            f"resume_from: run {run_id} ended after {step} of {before.steps} steps; it would end there again"
        )
    if not np.array_equal(before.learning_rates, rates[:step]):
        raise ConfigError(
            f"learning_rate: its first {step} steps are not those of run {run_id}; a schedule must not stretch with "
            "train.steps (take a constant rate, or give its durations in steps)"
        )
    name = f"{CHECKPOINTS}/step_{step:09d}.npz"
    content = artifacts.read(client, run, name)
    try:
        if content is None:
            raise CheckpointError("it is not there")
        unpack(content)
    except CheckpointError as error:
        raise ConfigError(
            f"resume_from: run {run_id} cannot go on from {name} ({error}); train.checkpoint.at=['100 %'] keeps one"
        ) from None
    return Origin(client, run, step, content)


def _differences(old: Config, new: Config) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Keys that the two give differently, among those that a training step depends on."""
    before, now = _leaves(old), _leaves(new)
    for key in sorted({*before, *now}):
        if before.get(key) != now.get(key) and not f"{key}.".startswith(tuple(f"{free}." for free in FREE)):
            yield key, (before.get(key), now.get(key))
    if old.runtime.precision != new.runtime.precision:
        yield "runtime.precision", (old.runtime.precision, new.runtime.precision)


def _leaves(config: Config) -> Mapping[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in flat(asdict(config)).items()}
