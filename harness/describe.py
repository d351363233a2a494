"""`python -m harness.describe arch=vgg16 data=mnist`: the net of a config as a table, without any training."""

import csv
import io
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.quiet import set_levels

if TYPE_CHECKING:
    from harness.config import Config
    from harness.models.summary import Row

COLUMNS = ("layer", "kind", "output", "kernel", "bias", "other", "multiply_adds", "activation_bytes")
USAGE = "usage: python -m harness.describe [--csv] [input=224x224x3] [classes=17] [GROUP=CHOICE ...] [KEY=VALUE ...]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table of layers for each arm of a command line: shapes, parameters, multiply-adds, activation memory.

    The data need not be there for the well-known sets; `input=224x224x3 classes=17` goes before what they say. `--csv`
    prints comma-separated values instead.

    Returns:
        0, or 2 if the config is refused.
    """
    set_levels()
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "--help" in given or "-h" in given:
        print(USAGE)
        return 0
    as_csv = "--csv" in given
    split = (word.partition("=") for word in given)
    words = {key: value for key, _, value in split if key in ("input", "classes")}
    overrides = [word for word in given if word != "--csv" and word.partition("=")[0] not in words]
    from harness import composition
    from harness.__main__ import one_line_errors

    try:
        arms = composition.compose(overrides).arms
        nets = {arm.name: table(arm.config, words) for arm in arms}
    except Exception as error:
        if not isinstance(error, one_line_errors()):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    if as_csv:
        _print_csv(nets)
    else:
        for name, rows in nets.items():
            _print_table(name, rows)
    return 0


def table(config: "Config", words: dict[str, str]) -> list["Row"]:
    """The layers of a config's net, on the input that `words`, the name of the data set, or else the data tell.

    Raises:
        ConfigError: the net cannot be built on it.
    """
    from harness.config import ConfigError
    from harness.quiet import import_tensorflow

    import_tensorflow()
    from harness.data.shapes import known
    from harness.models import summary
    from harness.prepared import build_net
    from harness.targets import build

    try:
        shape = tuple(int(side) for side in words["input"].split("x")) if "input" in words else None
        classes = int(words["classes"]) if "classes" in words else None
    except ValueError:
        shape, classes = (), None
    if shape == () or min(shape or (1,)) < 1 or (classes or 2) < 2:
        shown = " ".join(f"{name}={value}" for name, value in words.items())
        raise ConfigError(f"{shown}: allowed: input=28x28x1 or input=784, classes=10: whole numbers, 2 classes or more")
    if shape is None or classes is None:
        there = known(config.data)
        if there is None:
            data = build(config.data)
            there = data.example_shape, data.classes
        shape, classes = shape or there[0], classes or there[1]
    return list(summary.rows(build_net(config, shape, classes)))


def _cells(row: "Row") -> list[str]:
    """As text: 28x28x64, 36,928."""
    found = [getattr(row, column) for column in COLUMNS]
    return ["x".join(map(str, x)) if isinstance(x, tuple) else f"{x:,}" if isinstance(x, int) else x for x in found]


def _totals(rows: Sequence["Row"]) -> list[int]:
    return [sum(getattr(row, column) for row in rows) for column in COLUMNS[3:]]


def _print_table(name: str, rows: Sequence["Row"]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    totals = _totals(rows)
    parameters = sum(totals[:3])
    drawn = Table(
        title=escape(name) if name != "default" else None,
        title_justify="left",
        caption=f"{parameters:,} parameters; other: batch norm's; multiply-adds and activation bytes of one example",
    )
    for column in COLUMNS:
        left = column in ("layer", "kind")
        drawn.add_column(column.replace("_", " "), justify="left" if left else "right", overflow="fold")
    for row in rows:
        drawn.add_row(*_cells(row))
    drawn.add_section()
    drawn.add_row("total", "", "", *(f"{total:,}" for total in totals))
    Console(width=None if sys.stdout.isatty() else 140).print(drawn)


def _print_csv(nets: dict[str, list["Row"]]) -> None:
    """Plain numbers, a line a layer; with several arms, the arm first."""
    several = len(nets) > 1
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["arm"] * several + list(COLUMNS))
    for name, rows in nets.items():
        for row in rows:
            shape = "x".join(map(str, row.output))
            writer.writerow([name] * several + [row.layer, row.kind, shape, *(getattr(row, c) for c in COLUMNS[3:])])
    print(text.getvalue(), end="")


if __name__ == "__main__":
    sys.exit(main())
