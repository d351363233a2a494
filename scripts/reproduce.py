"""The experiments: train what is missing, and write their results from the MLflow store.

    python scripts/reproduce.py --list             the state of each, and the time it takes
    python scripts/reproduce.py ltfn01             trains what is missing, then writes the folder
    python scripts/reproduce.py --all              all of them, the shortest first; stop it and start it again at will
    python scripts/reproduce.py --all --no-train   writes the folders from what the store has

Data: where keras.datasets cannot load, HARNESS_DATA=FOLDER with mnist.npz, cifar10.npz (or cifar10_jpeg.zip) and
flowers17.zip.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    from harness import experiments
    from harness.checks import ConfigError
    from harness.experiment_pages import index, minutes, readme
    from harness.quiet import set_levels
    from harness.reproduction import measure, unfinished

    set_levels()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", nargs="*", metavar="ID", help="folders of experiments/")
    parser.add_argument("--all", action="store_true", help="all experiments")
    parser.add_argument("--list", action="store_true", help="print their state, do nothing")
    parser.add_argument("--no-train", action="store_true", help="only write from the store")
    parser.add_argument("--folder", type=Path, default=Path("mlruns"), help="folder of the store (default: mlruns)")
    parser.add_argument("--uri", help="an MLflow tracking URI instead")
    parser.add_argument("--experiments", type=Path, default=ROOT / "experiments", help=argparse.SUPPRESS)
    given = parser.parse_args()
    try:
        every = experiments.every(given.experiments)
        by_id = {each.id: each for each in every}
        if unknown := [name for name in given.experiment if name not in by_id]:
            raise ConfigError(f"{unknown[0]}: no such experiment; there are: {', '.join(by_id)}")
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if given.list:
        for each in every:
            print(f"{each.id:22}{minutes(each):>5} min  {each.state:24}{each.question}")
        return 0
    if not given.experiment and not given.all:
        parser.error("give an experiment, --all or --list")
    chosen = (
        sorted(every, key=lambda each: each.minutes_on_2_cores[0])
        if given.all
        else [by_id[name] for name in given.experiment]
    )
    failed = False
    for each in chosen:
        try:
            code = 0
            for sweep in () if given.no_train else unfinished(each, given.uri, given.folder):
                code = max(code, train(each, sweep, given.uri, given.folder))
            measure(each, given.uri, given.folder)
        except ConfigError as error:
            print(f"error: {each.id}: {error}", file=sys.stderr)
            code = 2
        each = experiments.read(each.folder)
        experiments.write(each.folder / "README.md", readme(each))
        experiments.write(given.experiments / "README.md", index(experiments.every(given.experiments)))
        print(f"{each.id}: {each.state}")
        failed |= code != 0 or (each.state != "done" and not given.no_train)
        if code == 130:
            print("stopped; the same command goes on from here", file=sys.stderr)
            return 130
    return int(failed)


def train(experiment: "experiments.Experiment", sweep: str, uri: str | None, folder: Path) -> int:  # type: ignore[name-defined]  # noqa: F821
    """Run the experiment's own command on a sweep, in a process of its own; returns the exit code."""
    overrides, own = experiment.overrides(sweep)
    command = [sys.executable, "-m", "harness", *(["--config-dir", own] if own else []), *overrides]
    command.append(f"tracking.uri={uri}" if uri else f"tracking.folder={folder.resolve()}")
    print(f"{experiment.id}: {experiment.command(sweep)}", flush=True)
    running = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])})
    while True:
        try:
            return running.wait()
        except KeyboardInterrupt:
            continue  # it has been told as well, saves what it does and ends


if __name__ == "__main__":
    sys.exit(main())
