"""How fast is the harness, against the script that one would write without it? Ratios measured side by side in one run.

    python scripts/bench.py                  # all three parts, about 6 minutes on 2 cores
    python scripts/bench.py compare --nets mlp
    python scripts/bench.py overhead
    python scripts/bench.py convolutions

compare: 5 schemes x 5 seeds x 5 epochs on digits, batch 100, Adam, in processes of their own, in turn. Both sides train
on the same 1,437 images, evaluate all of train and test each epoch, log to an sqlite MLflow store and save each model;
imports and the making of the empty store are left out on both sides. The script logs per-layer histograms once an
epoch; the harness logs all that its default configuration logs (more probes, moments, gradients, checkpoints, figures).
The report, which the script has no counterpart of, is timed apart.
overhead: what probes, evaluation, checkpoints and tracking add to a bare compiled loop, default schedules, convnet.
convolutions: the bare loop against the time of its convolutions alone, computed directly: the loop takes Winograd's
algorithm on CPUs, and may be faster than these allow.
"""

import argparse
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
ROOT = Path(__file__).resolve().parent.parent
SCHEMES = {
    "truncated_normal": "truncated_normal",
    "glorot": "glorot_uniform",
    "he": "he_normal",
    "lecun": "lecun_normal",
    "orthogonal": "orthogonal",
}
SEEDS, EPOCHS, BATCH = 5, 5, 100
ROUNDS = 3


def settle() -> None:
    """Set aside what the imports made, on both sides: the real command composes its arms before the heavy imports."""
    gc.collect()
    gc.freeze()


def script(net: str, folder: Path) -> tuple[float, float]:
    """The whole study as a competent user writes it without the harness; returns its seconds, and 0 for no report."""
    import keras
    import mlflow
    import numpy as np
    from keras import layers
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    def build(scheme: str) -> keras.Model:
        made = {"kernel_initializer": scheme}
        x = inputs = keras.Input((8, 8, 1))
        if net == "mlp":
            x = layers.Flatten()(x)
            for number, width in enumerate((500, 500)):
                x = layers.ReLU()(layers.Dense(width, name=f"dense{number}", **made)(x))
        elif net == "lenet5":
            x = layers.Activation("sigmoid")(layers.Conv2D(6, 5, padding="same", name="conv0", **made)(x))
            x = layers.AveragePooling2D(2)(x)
            x = layers.Activation("sigmoid")(layers.Conv2D(16, 3, name="conv1", **made)(x))
            x = layers.Flatten()(layers.AveragePooling2D(2)(x))
            for number, width in enumerate((120, 84)):
                x = layers.Activation("sigmoid")(layers.Dense(width, name=f"dense{number}", **made)(x))
        else:
            for number, (filters, pool) in enumerate(((64, False), (64, True), (128, False), (128, True))):
                x = layers.ReLU()(layers.Conv2D(filters, 3, padding="same", name=f"conv{number}", **made)(x))
                x = layers.MaxPooling2D(2)(x) if pool else x
            x = layers.Flatten()(x)
        return keras.Model(inputs, layers.Dense(10, name="logits", **made)(x))

    class EachEpoch(keras.callbacks.Callback):
        def __init__(self, target: Path) -> None:
            super().__init__()
            self.target = target

        def on_train_begin(self, logs: object = None) -> None:
            watched = [layer for layer in self.model.layers if isinstance(layer, layers.Conv2D | layers.Dense)]
            self.inner = keras.Model(self.model.inputs, [layer.output for layer in watched])

        def on_epoch_end(self, epoch: int, logs: object = None) -> None:
            train = self.model.evaluate(x_train, y_train, batch_size=500, verbose=0)
            test = self.model.evaluate(x_test, y_test, batch_size=500, verbose=0)
            values = {
                "loss/train": train[0],
                "accuracy/train": train[1],
                "loss/test": test[0],
                "accuracy/test": test[1],
            }
            mlflow.log_metrics({**values, "gap/accuracy": train[1] - test[1]}, step=epoch)
            found = [np.histogram(output, bins=245) for output in self.inner.predict(x_train[:100], verbose=0)]
            named = {f"{kind}{i}": part for i, pair in enumerate(found) for kind, part in zip("ce", pair, strict=True)}
            np.savez(self.target / f"histograms_{epoch}.npz", **named)

    os.chdir(folder)  # MLflow keeps files of an sqlite store where it was opened
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.set_experiment("script")
    settle()
    began = time.perf_counter()
    digits = load_digits()
    images = (digits.images / 16).astype("float32")[..., None]
    x_train, x_test, y_train, y_test = train_test_split(
        images, digits.target, test_size=360, random_state=0, stratify=digits.target
    )
    for scheme in SCHEMES.values():
        for seed in range(SEEDS):
            keras.utils.set_random_seed(seed)
            with mlflow.start_run(run_name=f"{scheme}-{seed}"), tempfile.TemporaryDirectory() as name:
                mlflow.log_params({"net": net, "initializer": scheme, "seed": seed})
                model = build(scheme)
                loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
                model.compile("adam", loss, metrics=["accuracy"])
                callback = EachEpoch(Path(name))
                model.fit(x_train, y_train, batch_size=BATCH, epochs=EPOCHS, verbose=0, callbacks=[callback])
                model.save(Path(name) / "model.keras")
                mlflow.log_artifacts(name)
    return time.perf_counter() - began, 0.0


def harness(net: str, folder: Path) -> tuple[float, float]:
    """The same study by the harness; returns its seconds without the report, and the report's."""
    from harness.quiet import import_tensorflow

    import_tensorflow()
    import mlflow  # noqa: F401
    import sklearn.datasets  # noqa: F401

    import harness.report
    import harness.runner
    from harness.__main__ import main
    from harness.tracking import child
    from harness.tracking.store import open_store
    from harness.tracking.tracker import Tracker

    os.chdir(folder)
    client = open_store(None, Path("mlruns"))
    child.warm_up()
    Tracker(client, "0", "imports", {}).close()  # the writer has imported what it needs
    settle()
    reporting: list[float] = []
    write = harness.report.write

    def timed(*arguments: object, **named: object) -> object:
        began = time.perf_counter()
        path = write(*arguments, **named)  # type: ignore[arg-type]
        reporting.append(time.perf_counter() - began)
        return path

    harness.report.write = timed  # type: ignore[assignment]
    began = time.perf_counter()
    code = main(
        [
            f"arch={net}",
            f"initializer={','.join(SCHEMES)}",
            f"seeds={SEEDS}",
            f"train.epochs={EPOCHS}",
            f"train.batch_size={BATCH}",
            "train.val_share=0",
            "train.eval_examples=1437",
            "train.evaluate.every=1 epoch",
            "train.evaluate.at=[0]",
            "train.evaluate.examples=1437",
        ]
    )
    seconds = time.perf_counter() - began
    assert code == 0, f"the harness exited with {code}"
    return seconds - sum(reporting), sum(reporting)


def in_process_of_its_own(side: str, net: str) -> tuple[float, float]:
    """Seconds of one side, and of its report, measured inside a fresh process after its imports."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, __file__, side, "--nets", net, "--folder", folder],
            env=environment,
            capture_output=True,
            text=True,
        )
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    seconds, report = json.loads(done.stdout.splitlines()[-1])
    return float(seconds), float(report)


def compare(nets: list[str], repeats: int) -> None:
    """Print the table of both sides."""
    print("\n| net | script, s | harness, s | times faster | its report, s | n |\n|---|--:|--:|--:|--:|--:|")
    for net in nets:
        pairs = [(in_process_of_its_own("script", net), in_process_of_its_own("harness", net)) for _ in range(repeats)]
        slow, fast = (statistics.median(seconds for seconds, _ in side) for side in zip(*pairs, strict=True))
        ratios = [a / b for (a, _), (b, _) in pairs]
        report = statistics.median(seconds for _, (_, seconds) in pairs)
        spread = f" ({min(ratios):.1f} to {max(ratios):.1f})" if repeats > 1 else ""
        print(
            f"| {net} | {slow:.1f} | {fast:.1f} | {statistics.median(ratios):.1f}{spread} | {report:.1f} | {repeats} |",
            flush=True,
        )


def together(actions: list[Callable[[], object]]) -> float:
    """Seconds until all actions, a thread each, are done."""
    threads = [threading.Thread(target=action) for action in actions]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


def overhead(repeats: int, precision: str = "float32") -> None:
    """Print what each duty adds to the bare loop, in % of the bare loop's time."""
    import dataclasses

    from harness import composition, sweep
    from harness.quiet import set_levels

    set_levels()
    (arm,) = composition.compose([f"runtime.precision={precision}"]).arms
    slots = sweep.open_slots(arm.config)
    arm.config.seeds = ROUNDS * len(slots)
    plan = sweep.Plan((arm,))
    (prepared,) = sweep.prepare(plan.arms)
    from harness.data import draws
    from harness.progress import Lines
    from harness.runner import Cell, Runner
    from harness.tracking.tracker import Tracker
    from harness.training import loop
    from harness.training.recorder import MemoryRecorder
    from harness.training.replica import DeviceData, Replica

    on_device = DeviceData(prepared.data, slots[0])
    replicas = [Replica(prepared.spec, on_device) for _ in slots]
    blocks = plan.blocks[: len(slots)]
    full = prepared.recipe
    none = dataclasses.replace(full, evaluate=(), probe=(), checkpoint=(), checkpoint_seconds=None)
    ready = [prepared.draw(block) for block in blocks]

    def bare() -> float:
        orders = [
            draws.order(block.order, draw.split.train, full.batch_size, full.steps)
            for block, draw in zip(blocks, ready, strict=True)
        ]
        return together(
            [
                lambda replica=replica, order=order: replica.train(order, full.learning_rates)
                for replica, order in zip(replicas, orders, strict=True)
            ]
        )

    def run(recipe: loop.Recipe) -> float:
        return together(
            [
                lambda replica=replica, draw=draw, block=block: loop.train(
                    replica, recipe, draw, block, MemoryRecorder()
                )
                for replica, draw, block in zip(replicas, ready, blocks, strict=True)
            ]
        )

    def tracked() -> float:
        """ROUNDS runs a slot through the runner into MLflow, with the arm's figures, by replicas compiled before."""
        with tempfile.TemporaryDirectory() as folder:
            own = dataclasses.replace(plan.config, tracking=dataclasses.replace(plan.config.tracking, folder=folder))
            arm = dataclasses.replace(plan.arms[0], config=own)
            client, experiment = sweep.open_experiment(sweep.Plan((arm,)))
            tracker = Tracker(client, experiment, own.sweep.name, {})

            keys = [prepared.arm.run_key(block, prepared.data.digest) for block in plan.blocks]

            def end(_: object) -> None:
                tracker.end_arm(prepared.arm.key, keys, prepared.data, False)

            cells = [Cell(prepared, block) for block in plan.blocks]
            runner = Runner(slots, tracker, Lines(len(cells)), end)
            waiting = list(replicas)
            runner.replica = lambda last, *_: last or waiting.pop()  # type: ignore[method-assign]
            began = time.perf_counter()
            runner.run(cells)
            tracker.close()
            return (time.perf_counter() - began) / ROUNDS

    stages = {
        "bare compiled loop": bare,
        "+ start, final evaluation, model": lambda: run(none),
        "+ evaluation": lambda: run(dataclasses.replace(none, evaluate=full.evaluate)),
        "+ probes": lambda: run(dataclasses.replace(none, evaluate=full.evaluate, probe=full.probe)),
        "+ checkpoints": lambda: run(full),
        "+ tracking, figures": tracked,
    }
    for stage in stages.values():
        stage()
    rounds = [{name: stage() for name, stage in stages.items()} for _ in range(repeats)]
    base = statistics.median(r["bare compiled loop"] for r in rounds)
    print(f"\n{len(slots)} replicas, {full.steps} steps each, {precision}, n = {repeats}; bare loop {base:.2f} s\n")
    print("| | s | % of the bare loop, so far | this step |\n|---|--:|--:|--:|")
    before = 100.0
    for name in stages:
        share = 100 * statistics.median(r[name] / r["bare compiled loop"] for r in rounds)
        seconds = statistics.median(r[name] for r in rounds)
        print(f"| {name} | {seconds:.2f} | {share - 100:+.1f} | {share - before:+.1f} |")
        before = share
    print(f"\n{100 * (1 - 100 / before):.1f} % of the harness's time goes to all of these together")


def convolutions(repeats: int) -> None:
    """Print the bare loop's time a step beside that of the net's convolutions and their gradients alone."""
    from harness import composition, sweep
    from harness.quiet import set_levels

    set_levels()
    plan = sweep.Plan(composition.compose([]).arms)
    slots = sweep.open_slots(plan.config)
    (prepared,) = sweep.prepare(plan.arms)
    import tensorflow as tf

    from harness.data import draws
    from harness.training.replica import DeviceData, Replica

    steps, batch = 60, plan.config.train.batch_size
    on_device = DeviceData(prepared.data, slots[0])
    replicas = [Replica(prepared.spec, on_device) for _ in slots]
    order = draws.order(0, prepared.draw(plan.blocks[0]).split.train, batch, steps)

    def alone(model: object) -> Callable[[], object]:
        layers = [layer for layer in model.layers if hasattr(layer, "kernel") and "conv" in layer.name]  # type: ignore[attr-defined]
        parts = [
            (
                tf.random.normal((batch, *layer.input.shape[1:])),
                tf.random.normal(layer.kernel.shape),
                tf.random.normal((batch, *layer.output.shape[1:])),
            )
            for layer in layers
        ]

        @tf.function
        def many() -> tf.Tensor:
            total = tf.constant(0.0)
            for _ in tf.range(steps):
                for first, (x, kernel, gradient) in enumerate(parts):
                    # Each result is used, and each input changes, or the compiler would leave the work out.
                    kernel += total
                    results = [tf.nn.conv2d(x, kernel, 1, "SAME")]
                    results.append(
                        tf.raw_ops.Conv2DBackpropFilter(
                            input=x, filter_sizes=kernel.shape, out_backprop=gradient, strides=[1] * 4, padding="SAME"
                        )
                    )
                    if first:
                        results.append(
                            tf.raw_ops.Conv2DBackpropInput(
                                input_sizes=x.shape,
                                filter=kernel,
                                out_backprop=gradient,
                                strides=[1] * 4,
                                padding="SAME",
                            )
                        )
                    total += tf.add_n([result[0, 0, 0, 0] for result in results]) * 0.0
            return total

        return many

    flops = sum(
        2 * 3 * batch * layer.output.shape[1] * layer.output.shape[2] * float(tf.size(layer.kernel))
        for layer in replicas[0].model.layers
        if "conv" in layer.name and hasattr(layer, "kernel")
    )
    loops = [alone(replica.model) for replica in replicas]
    rates = prepared.recipe.learning_rates[:1].repeat(steps)
    loop = [lambda replica=replica: replica.train(order, rates) for replica in replicas]
    together(loops), together(loop)
    rounds = [(together(loops), together(loop)) for _ in range(repeats)]
    bound, bare = (statistics.median(side) / steps * 1e3 for side in zip(*rounds, strict=True))
    share = statistics.median(a / b for a, b in rounds)
    rate = flops / bound * len(slots) / 1e6
    print(f"\ndirect convolutions alone {bound:.2f} ms a step ({rate:.0f} GFLOP/s over {len(slots)} threads),")
    print(f"bare loop {bare:.2f} ms a step: {100 * share:.0f} % of what the convolutions allow, n = {repeats}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=["compare", "overhead", "convolutions", "script", "harness"])
    parser.add_argument("--nets", default="mlp,lenet5,convnet")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part in ("script", "harness"):
        print(json.dumps({"script": script, "harness": harness}[given.part](given.nets, given.folder)))
        return
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.machine())
    print(f"{cpu}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}")
    if given.part in (None, "compare"):
        compare(given.nets.split(","), given.repeats)
    if given.part in (None, "convolutions"):
        convolutions(5 * given.repeats)
    if given.part in (None, "overhead"):
        overhead(given.repeats, given.precision)


if __name__ == "__main__":
    main()
