"""The story of one run: reset to the block, evaluate and probe on schedule, train in between, and say how it ended."""

import io
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax

from harness.data import draws
from harness.data.datasets import Dataset
from harness.data.preprocess import Affine
from harness.models.initializers import Scheme, digest
from harness.streams import Block
from harness.training import checkpoints
from harness.training.early_stopping import Watch
from harness.training.keeping import keeping
from harness.training.recorder import Outcome, Recorder
from harness.training.replica import Replica

LONGEST_STRETCH = 500
"""Steps between two looks at the clock, the stop signal and the weights."""


@dataclass(frozen=True)
class Recipe:
    """What a run does with a replica; all moments in steps."""

    steps: int
    batch_size: int
    learning_rates: npt.NDArray[np.float32]
    scheme: Scheme
    evaluate: tuple[int, ...]
    evaluate_examples: int
    probe: tuple[int, ...]
    probe_examples: int
    checkpoint: tuple[int, ...]
    checkpoint_seconds: float | None
    keep: int | str = 2
    patience: int | None = None


@dataclass(frozen=True)
class Draw:
    """What a block sees of a data set: its split, and the preprocessing measured on the training part."""

    data: Dataset
    split: draws.Split
    affine: Affine


def train(
    replica: Replica,
    recipe: Recipe,
    draw: Draw,
    block: Block,
    recorder: Recorder,
    resume: bytes | None = None,
    stop: threading.Event | None = None,
    progress: Callable[[int], None] = lambda steps: None,
) -> Outcome:
    """Train one arm on one block and report everything to the recorder.

    Args:
        replica: compiled for this arm; all its state is replaced.
        recipe: the arm's training.
        draw: the block's view of the data.
        block: seeds of the random streams.
        recorder: told what happens.
        resume: a checkpoint of this run to go on from.
        stop: when set, the run saves a checkpoint at the next stretch and ends as interrupted.
        progress: told how many steps were taken, stretch by stretch.
    """
    recorder = keeping(recorder, recipe.keep, lambda: replica.state, resume)
    replica.trace(len(_probed(recipe, draw)) if recipe.probe else None)
    replica.reset(block, recipe.scheme, draw.affine)
    recorder.params({"weights.initial": digest(replica.weights)})
    watch = Watch(recipe.patience) if recipe.patience is not None else None
    step = 0
    if resume is not None:
        state = checkpoints.unpack(resume)
        step = int(state.pop("step"))
        replica.state = state
        if watch is not None:
            watch.state = state
    saved = time.monotonic()
    if step == 0 and _observe(0, replica, recipe, draw, recorder, {}, watch) is None:
        return _end(recorder, Outcome("diverged", 0, "evaluation not finite before the first step"))
    for end in _stops(recipe, step):
        if watch is not None and watch.over:
            break
        if stop is not None and stop.is_set():
            recorder.checkpoint(step, _snapshot(replica, step, watch))
            return _end(recorder, Outcome("interrupted", step, "stopped; the same command goes on from here"))
        began = time.perf_counter()
        order = draws.order(block.order, draw.split.train, recipe.batch_size, end - step, start=step)
        stretch = replica.train(order, recipe.learning_rates[step:end])
        seconds = time.perf_counter() - began
        step += stretch.steps
        progress(stretch.steps)
        if not stretch.finite:
            what = "loss" if stretch.steps < len(order) or not np.isfinite(stretch.loss) else "loss or a weight"
            return _end(recorder, Outcome("diverged", step, f"{what} not finite after step {step}"))
        measured = {"loss/batch": stretch.loss, "learning_rate": float(recipe.learning_rates[step - 1])}
        if step in recipe.evaluate or step == recipe.steps:
            recorder.metrics(step, measured | {"examples_per_second": len(order) * recipe.batch_size / seconds})
        if _observe(step, replica, recipe, draw, recorder, stretch.update_ratios, watch) is None:
            return _end(recorder, Outcome("diverged", step, f"evaluation not finite after step {step}"))
        late = recipe.checkpoint_seconds is not None and time.monotonic() - saved > recipe.checkpoint_seconds
        last = watch is not None and watch.over and recipe.steps in recipe.checkpoint
        if step in recipe.checkpoint or late or last:
            recorder.checkpoint(step, _snapshot(replica, step, watch))
            saved = time.monotonic()
    if watch is not None:
        progress(recipe.steps - step)  # no longer to be waited for
        replica.weights = watch.best_weights
        recorder.params({"best.step": watch.best_step} | ({"stopped.step": step} if step < recipe.steps else {}))
    metrics, logits = _evaluate(replica, draw, None)
    if not all(map(np.isfinite, metrics.values())):
        return _end(recorder, Outcome("diverged", step, f"evaluation not finite after step {step}"))
    recorder.metrics(step, metrics)
    recorder.artifact("predictions.npz", _predictions(draw, logits))
    recorder.params({"weights.final": digest(replica.weights)})
    recorder.artifact("model.keras", replica.export())
    return _end(recorder, Outcome("finished", step, metrics=metrics))


def evaluation(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int32]) -> tuple[float, float]:
    """Mean cross-entropy (nats) and accuracy (0 to 1) of logits (n, classes) against labels (n,).

    The one piece of code behind every loss and accuracy of train, validation and test.
    """
    with np.errstate(invalid="ignore"):  # infinite logits: the caller sees that the loss is not finite
        likelihoods = log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels]
    return -float(likelihoods.mean()), float((logits.argmax(axis=1) == labels).mean())


def _stops(recipe: Recipe, start: int) -> Iterator[int]:
    """The ends of the stretches after `start`: every scheduled moment, and at most LONGEST_STRETCH steps between."""
    moments = {*recipe.evaluate, *recipe.probe, *recipe.checkpoint, recipe.steps}
    step = start
    for moment in sorted(m for m in moments if start < m <= recipe.steps):
        while step < moment:
            step = min(moment, step + LONGEST_STRETCH)
            yield step


def _observe(
    step: int,
    replica: Replica,
    recipe: Recipe,
    draw: Draw,
    recorder: Recorder,
    ratios: dict[str, float],
    watch: Watch | None,
) -> dict[str, float] | None:
    """Probe and evaluate where they are due; the metrics, empty where no evaluation was due, None if not finite.

    The evaluation of the end is not made here: it is of all examples, and with a watch of its best weights.
    """
    if step in recipe.probe:
        found = replica.probe(_probed(recipe, draw))
        updates = {f"{layer}/update": {"ratio": ratio} for layer, ratio in ratios.items()}
        recorder.histograms(step, found | updates)
    end = step == recipe.steps
    if (end and watch is not None) or (step in recipe.evaluate and not end):
        metrics, _ = _evaluate(replica, draw, recipe.evaluate_examples)
        if not all(map(np.isfinite, metrics.values())):
            return None
        if watch is not None:
            watch.see(step, metrics["loss/val"], replica.weights)
            end |= watch.over
        if not end:
            recorder.metrics(step, metrics)
        return metrics
    return {}


def _probed(recipe: Recipe, draw: Draw) -> npt.NDArray[np.int32]:
    """The examples of every probe."""
    return _spread(draw.split.train_eval, recipe.probe_examples)


def _spread(indices: npt.NDArray[np.int32], count: int) -> npt.NDArray[np.int32]:
    """At most `count` of the indices, evenly spread: a data set may be sorted by class."""
    chosen: npt.NDArray[np.int32] = indices[np.linspace(0, len(indices) - 1, min(count, len(indices))).astype(int)]
    return chosen


def _evaluate(
    replica: Replica, draw: Draw, most: int | None
) -> tuple[dict[str, float], dict[str, npt.NDArray[np.float32]]]:
    """Loss and accuracy of each part and the gap (train - test), and the logits (n, classes) of each part.

    With `most`, of at most so many examples of each part: always the same ones.
    """
    test = np.arange(len(draw.data.x_test), dtype=np.int32) + np.int32(len(draw.data.x_train))
    parts = {"train": draw.split.train_eval, "val": draw.split.val, "test": test}
    if most is not None:
        parts = {name: _spread(indices, most) for name, indices in parts.items()}
    together = replica.logits(np.concatenate(list(parts.values())))
    logits = dict(zip(parts, np.split(together, np.cumsum([len(part) for part in parts.values()])[:-1]), strict=True))
    labels = np.concatenate([draw.data.y_train, draw.data.y_test])
    metrics: dict[str, float] = {}
    for name, indices in parts.items():
        if len(indices):
            loss, accuracy = evaluation(logits[name], labels[indices])
            metrics |= {f"loss/{name}": loss, f"accuracy/{name}": accuracy}
    for score in ("accuracy", "loss"):
        metrics[f"gap/{score}"] = metrics[f"{score}/train"] - metrics[f"{score}/test"]
    return metrics, logits


def _predictions(draw: Draw, logits: dict[str, npt.NDArray[np.float32]]) -> bytes:
    buffer = io.BytesIO()
    np.savez(
        buffer,
        allow_pickle=False,
        test_logits=logits["test"],
        test_labels=draw.data.y_test,
        train_labels=draw.data.y_train[draw.split.train_eval],
        train_logits=logits["train"],
        train_indices=draw.split.train_eval,
    )
    return buffer.getvalue()


def _snapshot(replica: Replica, step: int, watch: Watch | None) -> bytes:
    watched = watch.state if watch is not None else {}
    return checkpoints.pack({**replica.state, **watched, "step": np.array(step)})


def _end(recorder: Recorder, outcome: Outcome) -> Outcome:
    recorder.finish(outcome)
    return outcome
