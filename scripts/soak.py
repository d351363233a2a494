"""Long tests of what people rely on: `python scripts/soak.py load | kill | store | input` in an empty folder.

load   processes that log at once for some minutes; every metric point is counted afterwards
kill   a sweep killed at random moments by random signals and started again, until it is done; weights compared
store  a store with many runs: how long planning over it takes, and a report over a hundred of them
input  configs, command lines, arrays and folders of pictures at random: each is taken, or refused in one clear line

Each prints what it measured and ends with 1 if something was lost, differs, or took longer than it may.
"""

import argparse
import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
PLANNING_SECONDS, REPORT_SECONDS = 3.0, 30.0


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "harness", *words]


# load


def log_for(uri: str | None, folder: str, minutes: float, number: int, told: "multiprocessing.Queue[object]") -> None:
    """One process: one run, ten metrics a step, fifty steps a second at most; tells (run key, points)."""
    from harness.tracking.runs import RunRecorder
    from harness.tracking.store import experiment_id, open_store
    from harness.tracking.tracker import Tracker
    from harness.training.recorder import Outcome

    client = open_store(uri, Path(folder))
    experiment = experiment_id(client, "soak", Path(folder) / "artifacts" if uri is None else None)
    tracker = Tracker(client, experiment, "soak", {})
    tracker.start_arm("soak", "soak", {})
    key = uuid.uuid4().hex[:16]
    tags = {"run_key": key, "arm": "soak", "arm_key": "soak", "block": str(number)}
    recorder = RunRecorder(tracker, "soak", tags, {"a": 1}, None, 2)
    end, step = time.monotonic() + 60 * minutes, 0
    while time.monotonic() < end:
        recorder.metrics(step, {f"metric{i}": float(step + i) for i in range(10)})
        step += 1
        time.sleep(0.02)
    recorder.finish(Outcome("finished", step))
    tracker.close()
    told.put((key, step))


def load(given: argparse.Namespace) -> int:
    from harness.tracking.store import open_store

    client = open_store(given.uri, Path(given.folder))
    context = multiprocessing.get_context("spawn")
    told: multiprocessing.Queue[tuple[str, int]] = context.Queue()
    began = time.monotonic()
    processes = [
        context.Process(target=log_for, args=(given.uri, given.folder, given.minutes, number, told))
        for number in range(given.processes)
    ]
    for process in processes:
        process.start()
    steps = dict(told.get(timeout=60 * given.minutes + 600) for _ in processes)
    for process in processes:
        process.join()
    seconds = time.monotonic() - began
    experiment = client.get_experiment_by_name("soak")
    assert experiment is not None
    lost = 0
    for key, count in steps.items():
        (run,) = client.search_runs([experiment.experiment_id], f"tags.run_key = '{key}'")
        for i in range(10):
            points = client.get_metric_history(run.info.run_id, f"metric{i}")
            there = sorted((point.step, point.value) for point in points)
            expected = [(step, float(step + i)) for step in range(count)]
            lost += len(set(expected) - set(there)) + abs(len(there) - count)
    total = 10 * sum(steps.values())
    print(f"{given.processes} processes, {seconds:.0f} s: {total:,} points logged, {lost} missing or twice")
    return int(lost > 0)


# kill

LONG = (
    *("sweep.name=killed", "arch=mlp", "arch.widths=[32]", "arch.dropout=0.1", "optimizer=sgd,adam", "seeds=2"),
    *("train.steps=6000", "train.batch_size=10", "train.evaluate={at:[0],every:2000}", "train.probe.at=[0,2000]"),
    "train.checkpoint={every:200,at:[]}",
)


def weights(folder: Path) -> dict[tuple[str, str], str]:
    """(arm, block) -> digest of the final weights; a cell that was finished twice counts as broken."""
    from harness.tracking.store import open_store

    client = open_store(None, folder / "mlruns", create=False)
    experiment = client.get_experiment_by_name("killed")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.kind = 'run' and attributes.status = 'FINISHED'")
    found = {(run.data.tags["arm"], run.data.tags["block"]): run.data.tags.get("weights.final", "") for run in runs}
    return found if len(found) == len(runs) else {("twice", ""): str(len(runs))}


def kill(given: argparse.Namespace) -> int:
    chance, folder = random.Random(given.seed), Path(given.folder)
    whole = folder / "whole"
    whole.mkdir(parents=True)
    began = time.monotonic()
    subprocess.run(command(*LONG), cwd=whole, env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)
    length, expected = time.monotonic() - began, weights(whole)
    print(f"uninterrupted: {length:.1f} s, {len(expected)} runs", flush=True)
    kills = wrong = sweeps = 0
    while kills < given.kills:
        place = folder / f"sweep{sweeps}"
        place.mkdir()
        sweeps += 1
        while True:
            process = subprocess.Popen(
                command(*LONG), cwd=place, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
            last = kills >= given.kills
            by = chance.choice([signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
            try:
                _, errors = process.communicate(timeout=None if last else chance.uniform(0.5, length))
                break
            except subprocess.TimeoutExpired:
                process.send_signal(by)
                _, errors = process.communicate(timeout=120)
                kills += 1
                if "Traceback" in errors and by != signal.SIGKILL:
                    wrong += 1
                    print(f"{place}: {by.name} ended in a traceback:\n{errors}", flush=True)
        same = process.returncode == 0 and weights(place) == expected
        wrong += not same
        print(f"{place.name}: {kills} kills so far, {'the same weights' if same else f'DIFFERS: {errors}'}", flush=True)
    print(f"{kills} kills in {sweeps} sweeps: {wrong} wrong")
    return int(wrong > 0)


# store


def store(given: argparse.Namespace) -> int:
    """A real run, copied in the database until there are enough, each with its own arm and block."""
    from harness import composition, sweep
    from harness.tracking.store import open_store
    from harness.tracking.tracker import earlier_runs

    folder = Path(given.folder)
    folder.mkdir(parents=True, exist_ok=True)
    seeds = 100
    rates = ",".join(f"{0.001 * (1 + number):.3f}" for number in range(given.runs // seeds))
    words = ("+debug=smoke", "arch=mlp", "sweep.name=many")
    subprocess.run(
        command(*words, "learning_rate.value=0.001,0.002", "seeds=1"),
        cwd=folder,
        env=ENVIRONMENT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    os.chdir(folder)
    began = time.monotonic()
    plan = sweep.Plan(composition.compose([*words, f"learning_rate.value={rates}", f"seeds={seeds}"]).arms)
    composing = time.monotonic() - began
    client = open_store(None, Path("mlruns"))
    experiment = client.get_experiment_by_name("many")
    assert experiment is not None
    copy_runs(Path("mlruns/mlflow.db"), plan)
    began = time.monotonic()
    earlier = earlier_runs(client, experiment.experiment_id, [arm.key for arm in plan.arms])
    planning = time.monotonic() - began
    done = sum(each.finished for each in earlier.values())
    print(f"{done:,} runs: what is done is known in {planning:.2f} s (allowed: {PLANNING_SECONDS:.0f}); ", end="")
    print(f"{len(plan.arms)} arms are composed in {composing:.1f} s")
    some = client.search_runs([experiment.experiment_id], "tags.kind = 'run'", max_results=100)
    began = time.monotonic()
    report = [sys.executable, "-m", "harness.report", "--runs", *(run.info.run_id for run in some)]
    ended = subprocess.run(report, env=ENVIRONMENT, capture_output=True, text=True)
    reporting = time.monotonic() - began
    print(f"a report over {len(some)} of them takes {reporting:.1f} s (allowed: {REPORT_SECONDS:.0f}) {ended.stderr}")
    complete = done >= given.runs // seeds * seeds and ended.returncode == 0
    return int(not complete or planning > PLANNING_SECONDS or reporting > REPORT_SECONDS)


def copy_runs(database: Path, plan: object) -> None:
    """Fill the store: the rows of a real run, for every cell of the plan."""
    from harness.sweep import Plan

    assert isinstance(plan, Plan)
    with closing(sqlite3.connect(database)) as db:
        (source, digest), *_ = db.execute(
            "SELECT run_uuid, value FROM tags JOIN runs USING (run_uuid) WHERE key = 'data.digest' ORDER BY start_time"
        ).fetchall()
        tables = {}
        for table in ("runs", "tags", "params", "metrics", "latest_metrics"):
            columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
            rows = db.execute(f"SELECT * FROM {table} WHERE run_uuid = ?", (source,)).fetchall()
            tables[table] = (columns, rows)
        for arm in plan.arms:
            for block in plan.blocks:
                run = uuid.uuid4().hex
                mine = {"arm": arm.name, "arm_key": arm.key, "block": str(block.id)}
                mine["run_key"] = arm.run_key(block, digest)
                for table, (columns, rows) in tables.items():
                    place, key, value = (columns.index(n) if n in columns else -1 for n in ("run_uuid", "key", "value"))
                    copied = []
                    for row in rows:
                        new = list(row)
                        new[place] = run
                        if table == "tags" and row[key] in mine:
                            new[value] = mine[row[key]]
                        copied.append(new)
                    marks = ", ".join("?" * len(columns))
                    db.executemany(f"INSERT INTO {table} VALUES ({marks})", copied)
        db.commit()


# input


def counted(attempt: Callable[[object], str | None], counts: dict[str, int]) -> Callable[[object], None]:
    def one(case: object) -> None:
        counts["refused" if attempt(case) is not None else "taken"] += 1

    return one


def input_(given: argparse.Namespace) -> int:
    """A quarter of the cases of each kind; all that go wrong are counted, hypothesis shows the smallest."""
    sys.path.insert(0, str(ROOT / "tests"))
    import anything
    from hypothesis import HealthCheck, seed, settings
    from hypothesis import given as drawn

    from harness import config, sweep

    Path(given.folder).mkdir(parents=True)
    os.chdir(given.folder)
    sweep.open_slots(config.Config())
    wrong = 0
    for kind, (strategy, attempt) in anything.ALL.items():
        counts = {"taken": 0, "refused": 0}

        profile = settings(
            max_examples=given.cases // len(anything.ALL),
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        every = counted(attempt, counts)
        began = time.monotonic()
        try:
            seed(given.seed)(profile(drawn(strategy)(every)))()
        except Exception as error:
            wrong += 1
            print(f"{kind}: {type(error).__name__}: {error}", file=sys.stderr)
        seconds = time.monotonic() - began
        print(f"{kind}: {counts['taken']} taken, {counts['refused']} refused in a line, {seconds:.0f} s", flush=True)
    left = [path.name for path in Path.cwd().iterdir()]
    print(f"left behind: {', '.join(left) or 'nothing'}; {wrong} kinds went wrong")
    return int(wrong > 0 or bool(left))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="soak", help="where to work; must not be there yet (default: soak)")
    tests = parser.add_subparsers(required=True)
    for test, defaults in (
        (load, ("processes", 8)),
        (kill, ("kills", 30)),
        (store, ("runs", 10_000)),
        (input_, ("cases", 2000)),
    ):
        one = tests.add_parser(test.__name__.rstrip("_"))
        one.add_argument(f"--{defaults[0]}", type=int, default=defaults[1])
        one.set_defaults(test=test)
        if test is load:
            one.add_argument("--minutes", type=float, default=10.0)
            one.add_argument("--uri", help="an MLflow server (default: sqlite below --folder)")
        if test in (kill, input_):
            one.add_argument("--seed", type=int, default=0, help="of what is drawn at random")
    given = parser.parse_args(arguments)
    if Path(given.folder).exists():
        print(f"error: --folder={given.folder}: is there already; give another", file=sys.stderr)
        return 2
    result: int = given.test(given)
    return result


if __name__ == "__main__":
    sys.exit(main())
