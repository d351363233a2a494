"""`python -m harness.lr_range [OVERRIDES]`: which learning rates lower the loss? One short run with a rising rate.

The rate climbs from --low to --high by the same factor at each step; nothing goes to MLflow.
"""

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.quiet import set_levels

if TYPE_CHECKING:
    from harness.analysis.rate_range import RateRange
    from harness.config import Config
    from harness.prepared import Prepared
    from harness.streams import Block
    from harness.sweep import Plan

FEWEST_STEPS = 20


def measure(prepared: "Prepared", block: "Block", device: str, low: float, high: float, steps: int) -> "RateRange":
    """Train a block while the rate rises, until the loss is far above its least or not finite."""
    from harness.analysis.rate_range import RateRange, ended
    from harness.data import draws
    from harness.training.feeds import feed
    from harness.training.replica import Replica

    on_device = feed(prepared.data, device, prepared.arm.config.runtime.stream_above_gib)
    replica = Replica(prepared.spec, on_device)
    draw = prepared.draw(block)
    replica.reset(block, prepared.scheme, draw.affine)
    rates = np.geomspace(low, high, steps)
    order = draws.order(block.order, draw.split.train, prepared.recipe.batch_size, steps)
    losses: list[float] = []
    for step in range(steps):
        stretch = replica.train(order[step : step + 1], rates[step : step + 1].astype(np.float32))
        losses.append(stretch.loss if stretch.finite else math.inf)
        if ended(losses):
            break
    if losses and not math.isfinite(losses[-1]):
        losses.pop()
    return RateRange(rates[: len(losses)], np.array(losses))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: 0 with a suggestion, 1 if no rate lowered the loss, 2 if something was refused."""
    set_levels()
    parser = argparse.ArgumentParser(prog="python -m harness.lr_range", description=__doc__)
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDES", help="of one arm, as for python -m harness")
    parser.add_argument("--low", type=float, default=1e-6, help="the first rate (default: 1e-6)")
    parser.add_argument("--high", type=float, default=10.0, help="the last rate (default: 10)")
    parser.add_argument("--steps", type=int, default=200, help="from the first to the last (default: 200)")
    parser.add_argument("--plot", type=Path, help="a .png or .svg file (default: lr_range.png below reports=)")
    given = parser.parse_intermixed_args(arguments)
    from harness import composition, sweep
    from harness.__main__ import one_line_errors

    try:
        plan = sweep.Plan(composition.compose(given.overrides).arms)
        plot = given.plot or Path(plan.config.reports or "") / "lr_range.png"
        _check(plan, given.low, given.high, given.steps, plot)
        slots = sweep.open_slots(plan.config)
        (prepared,) = sweep.prepare(plan.arms)
        prepared.check_net()
        prepared.check()
    except Exception as error:
        if not isinstance(error, one_line_errors()):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    found = measure(prepared, plan.blocks[0], slots[0], given.low, given.high, given.steps)
    if len(found.rates) == 0:
        print(f"error: --low: the loss is not finite at the rate {given.low:g} already; give less", file=sys.stderr)
        return 1
    _write(found, plot, f"{_named(plan.config)}, {plan.blocks[0].name}")
    if len(found.rates) < given.steps:
        print(f"ended    at the rate {found.rates[-1]:.2g}, where the loss was far above its least or not finite")
    if found.suggested is not None:
        print(f"suggest  learning_rate.value={found.suggested:.2g} (the loss was lowest at {found.lowest:.2g})")
    print(f"plot     {plot}")
    if found.suggested is None:
        print(f"no rate from {given.low:g} to {given.high:g} lowered the loss; try other ends", file=sys.stderr)
        return 1
    return 0


def _check(plan: "Plan", low: float, high: float, steps: int, plot: Path) -> None:
    from harness.config import ConfigError

    rate = plan.config.learning_rate
    there = next((path for path in plot.absolute().parents if path.exists()), Path("/"))
    for key, value, ok, allowed in (
        ("--low", f"{low:g}", 0 < low < math.inf, "a number above 0"),
        ("--high", f"{high:g}", low < high < math.inf, f"a number above --low={low:g}"),
        ("--steps", steps, steps >= FEWEST_STEPS, f"{FEWEST_STEPS} up"),
        ("--plot", plot, plot.suffix in (".png", ".svg"), "a .png or .svg file"),
        ("--plot", plot, there.is_dir() and os.access(there, os.W_OK), "a file in a folder that can be written"),
        ("OVERRIDES", f"{len(plan.arms)} arms", len(plan.arms) == 1, "one arm"),
        (
            "learning_rate",
            "a schedule",
            not (rate.schedule or rate.warmup),
            "constant: the test sets every step's rate",
        ),
    ):
        if not ok:
            raise ConfigError(f"{key}: got {value}; allowed: {allowed}")


def _named(config: "Config") -> str:
    return ", ".join(str(spec["_target_"]).rpartition(".")[2] for spec in (config.arch, config.data, config.optimizer))


def _write(found: "RateRange", plot: Path, title: str) -> None:
    from harness.analysis import figure
    from harness.analysis.rate_range import rate_range

    drawn = rate_range(found, title)
    plot.parent.mkdir(parents=True, exist_ok=True)
    plot.write_bytes(figure.png(drawn) if plot.suffix == ".png" else figure.svg(drawn).encode())
    table = np.stack([found.rates, found.losses, found.smoothed], axis=1)
    np.savetxt(plot.with_suffix(".csv"), table, delimiter=",", header="rate,loss,smoothed", comments="", fmt="%.9g")


if __name__ == "__main__":
    sys.exit(main())
