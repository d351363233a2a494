"""`confirm=true`: the arms that validation chose and the baseline, trained once more on blocks that chose nothing."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.config import Arm, Config, ConfigError, block_ids
from harness.streams import blocks

if TYPE_CHECKING:
    from harness.tracking.frames import Results


def check(arms: Sequence[Config], relaunched: bool) -> None:
    """Refuse what could not be confirmed, before anything trains.

    Args:
        arms: the configs of a sweep's arms.
        relaunched: whether a launcher trains them in other processes.

    Raises:
        ConfigError: nothing to choose from or by, nothing to compare with, no fresh data draws, or another launcher.
    """
    config = arms[0]
    scheme = config.draw.scheme
    reason = None
    if len(arms) < 2:
        reason = "there is one arm, so nothing is chosen; sweep something"
    elif config.sweep.baseline is None:
        reason = "the chosen arms are compared with a baseline; name one with sweep.baseline=ARM"
    elif not all(each.train.val_share for each in arms):
        reason = "arms are chosen by validation; hold examples out with train.val_share=0.1"
    elif config.draws is not None or scheme == "disjoint" or (scheme == "subsample" and config.draw.examples is None):
        reason = "these data draws leave no fresh ones; take root_seed=1 and a sweep.name of its own instead"
    elif any(each.vary is not None for each in arms):
        reason = "streams that vary=[…] holds stay at block 0, which is not fresh; leave vary out"
    elif len({str(sorted(each.data.items())) for each in arms}) > 1:
        reason = "arms on different data sets are not chosen among; confirm each data set in a sweep of its own"
    elif relaunched:
        reason = "not with hydra/launcher; once the sweep is finished, the same command without it confirms"
    if reason is not None:
        raise ConfigError(f"confirm: {reason}")


def fresh_arms(arms: Sequence[Arm], finalists: Sequence[str], baseline: str, used: Sequence[int]) -> list[Arm]:
    """The finalists on fresh blocks: as many as the sweep has, numbered on from the largest ever used.

    Args:
        arms: of the sweep.
        finalists: names of those to confirm, the baseline among them.
        baseline: what they are compared with.
        used: ids of all blocks that the sweep was ever run on.
    """
    config = arms[0].config
    planned = block_ids(config.seeds)
    first = max([*planned, *used]) + 1
    ids = list(range(first, first + len(planned)))
    sweep = dataclasses.replace(config.sweep, baseline=fresh_name(baseline))
    return [
        Arm(fresh_name(arm.name), dataclasses.replace(arm.config, seeds=ids, sweep=sweep), arm.choices, confirms=True)
        for arm in arms
        if arm.name in finalists
    ]


def fresh_name(arm: str) -> str:
    """What MLflow calls the arm that confirms this one."""
    return f"{arm} (confirm)"


def used_blocks(results: "Results") -> list[int]:
    """Ids of the blocks of a sweep's own runs, of all its starts."""
    runs = results.runs
    return sorted({int(block) for block in runs.loc[runs["confirm"] != "true", "block"]}) if len(runs) else []


def names_of(arms: Sequence[Arm]) -> str:
    """The fresh blocks, in words."""
    listed = [block.name for block in blocks(block_ids(arms[0].config.seeds))]
    return ", ".join(listed if len(listed) < 4 else [listed[0], "…", listed[-1]])
