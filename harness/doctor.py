"""`python -m harness.doctor [--folder mlruns] [--fix]`: is the local store whole, and what would put it right?

Looks for a database of another version or damaged, runs of dead processes, missing artifacts and metrics, artifacts and
checkpoints without a run, half-written files, messages that were never written, and claims that nobody holds. Says what
it would do; `--fix` does it. Nothing is deleted: what belongs to no run is moved to FOLDER/orphaned/.

Ends with 0 if nothing is wrong (with --fix: any more), 1 if something is, 2 if it cannot look.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.quiet import set_levels

if TYPE_CHECKING:
    from harness.tracking.checkup import Finding


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    set_levels()
    parser = argparse.ArgumentParser(
        prog="python -m harness.doctor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("place", nargs="?", metavar="tracking.folder=FOLDER", help="as in the sweep's command")
    parser.add_argument("--folder", help="folder of the local store (default: mlruns)")
    parser.add_argument("--fix", action="store_true", help="do it")
    given = parser.parse_args(arguments)
    key, _, value = (given.place or "").partition("=")
    if given.place and (key != "tracking.folder" or not value or given.folder is not None):
        print(f"error: {given.place}: allowed: tracking.folder=FOLDER, or --folder FOLDER", file=sys.stderr)
        return 2
    from harness.tracking.checkup import check
    from harness.tracking.store import StoreError

    folder = Path(value or given.folder or "mlruns")
    wrong = curable = 0
    seen: set[str] = set()
    try:
        while fresh := [each for each in check(folder) if each.what not in seen]:
            for finding in fresh:
                seen.add(finding.what)
                wrong += not _told(finding, given.fix)
                curable += finding.fix is not None
            if not given.fix:
                break  # else: what was put right may show something else
    except StoreError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not seen:
        print(f"{folder}: nothing is wrong")
    elif curable and not given.fix:
        print(f"{wrong} found; --fix does what it says that it would do")
    return int(wrong > 0)


def _told(finding: "Finding", fix: bool) -> bool:
    """Say what is wrong and put it right where that is asked for; whether it is right now."""
    would = "would " if finding.fix is not None and not fix else ""
    print(f"{finding.what}\n    {would}{finding.remedy}")
    if not fix or finding.fix is None:
        return False
    try:
        finding.fix()
    except Exception as error:  # a store, a disk, a server: the others can still be put right
        from harness.targets import first_line

        print(f"    could not: {first_line(error)}")
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
