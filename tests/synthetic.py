"""Real MLflow stores (sqlite) filled with numbers made up here, in the shape in which a sweep leaves them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from harness.analysis import plots
from harness.tracking import artifacts, histograms, sweeps
from harness.tracking.store import experiment_id, open_store

LAYERS = ("dense1", "dense2", "logits")
STEPS = (0, 20, 40, 60)


def accuracy(arm: int, draw: int, seed: int) -> float:
    """A block's luck, the same for all arms, an arm's advantage, and a little of their own."""
    rng = np.random.default_rng([arm, draw, seed])
    shared = np.random.default_rng([draw, seed]).normal(0, 0.01)
    return float(0.8 + 0.02 * arm + shared + rng.normal(0, 0.004))


def make_store(
    folder: Path,
    sweep: str = "made_up",
    arms: Sequence[str] = ("initializer=he", "initializer=glorot"),
    seeds: Sequence[int] = range(5),
    draws: int | None = None,
    baseline: str | None = "initializer=glorot",
    question: str = "Does it matter?",
    examples: int = 0,
    classes: int = 3,
    layers: bool = False,
    digest: str = "d" * 32,
    score: Callable[[int, int, int], float] = accuracy,
    diverged: Mapping[str, Sequence[int]] | None = None,
    missing: Mapping[str, Sequence[int]] | None = None,
    params: Callable[[str], Mapping[str, object]] = lambda arm: {},
    tags: Mapping[str, str] | None = None,
    mistakes: bool = False,
    keys: Mapping[str, str] | None = None,
    **declared: Any,
) -> MlflowClient:
    """Fill a store below `folder` with one sweep, all its runs finished but those named.

    Args:
        folder: of the store.
        sweep: name.
        arms: names; those of `data=X,…` are on data of their own.
        seeds: ids of the blocks.
        draws: crossed with the seeds, if any.
        baseline: as declared.
        question: as declared.
        examples: of the test set; 0: no predictions.
        classes: of the test set.
        layers: whether per-layer statistics are stored.
        digest: of the data.
        score: (arm, draw, seed) -> test accuracy.
        diverged: arm -> seeds whose runs diverged.
        missing: arm -> seeds that were not run.
        params: arm -> config columns.
        tags: more tags of every run.
        mistakes: whether each arm has a picture of its worst mistakes.
        keys: arm -> its key, where they are not made up.
        declared: more of the declaration.
    """
    client = open_store(None, folder)
    experiment = experiment_id(client, sweep, folder / "artifacts")
    labels = np.random.default_rng(0).integers(0, classes, examples).astype(np.int32)
    cells = [(draw, seed) for draw in range(draws or 1) for seed in seeds]
    blocks = [f"seed {seed}" if draws is None else f"draw {draw} seed {seed}" for draw, seed in cells]
    keys = keys or {arm: f"{sweep}-{digest[:4]}-{arm}" for arm in arms}
    declaration = sweeps.Declaration(sweep, question, baseline, keys, blocks, **declared)
    sweeps.declare(client, experiment, declaration, {})
    for position, arm in enumerate(arms):
        if mistakes:
            parent = client.create_run(experiment, tags={"kind": "arm", "arm": arm, "arm_key": keys[arm]})
            artifacts.write(client, parent, {"figures/worst_mistakes.png": _mistakes(position)})
        for (draw, seed), block in zip(cells, blocks, strict=True):
            if seed in (missing or {}).get(arm, ()):
                continue
            ended = "diverged" if seed in (diverged or {}).get(arm, ()) else "finished"
            marks = {
                "kind": "run",
                "sweep": sweep,
                "arm": arm,
                "arm_key": keys[arm],
                "run_key": f"{keys[arm]}-{block}-{digest[:4]}",
                "block": str(seed),
                "draw": "all" if draws is None else str(draw),
                "data.digest": f"{arm.partition(',')[0]:d<32}" if arm.startswith("data=") else digest,
                "outcome": ended,
                "outcome.step": str(STEPS[-1]),
                "command": f"python -m harness +sweep={sweep}",
                "device": "/CPU:0",
                "seed.draw": str(draw),
                "seed.init": str(seed),
                "seed.order": str(seed),
                **(tags or {}),
            }
            columns = {"root_seed": 0, "initializer": arm.partition("=")[2], "preprocess._target_": "x.standardize"}
            run = client.create_run(experiment, tags=marks, start_time=1000)
            metrics = [] if ended == "diverged" else _curves(score(position, draw, seed))
            listed = [Param(name, str(value)) for name, value in {**columns, **params(arm)}.items()]
            client.log_batch(run.info.run_id, metrics, listed, [RunTag("weights.initial", f"{position}{seed}")])
            files = {"provenance.json": json.dumps({"versions": {"python": "3"}, "data": {"name": "made up"}}).encode()}
            if layers:
                files["histograms.npz"] = _layers(position, seed)
            if examples and ended == "finished":
                files["predictions.npz"] = _predictions(
                    labels, classes, score(position, draw, seed), (position, draw, seed)
                )
            artifacts.write(client, run, files)
            client.set_terminated(run.info.run_id, "FINISHED", end_time=3000)
    return client


def _curves(final: float) -> list[Metric]:
    points = []
    for step in STEPS:
        share = 0.1 + (final - 0.1) * step / STEPS[-1]
        for part, more in (("train", 0.02), ("val", 0.005), ("test", 0.0)):
            points.append(Metric(f"accuracy/{part}", share + more, 1, step))
            points.append(Metric(f"loss/{part}", -float(np.log(share)) - more, 1, step))
        points.append(Metric("gap/accuracy", 0.02, 1, step))
    return points


def _mistakes(arm: int) -> bytes:
    rng = np.random.default_rng([arm, 3])
    images, labels = rng.random((24, 8, 8, 1)), rng.integers(0, 3, 24)
    return plots.png(plots.worst_mistakes(rng.normal(size=(2, 24, 3)), images, labels, ["a", "b", "c"]))


def _layers(arm: int, seed: int) -> bytes:
    rng = np.random.default_rng([arm, seed, 1])
    found = {}
    for step in (0, STEPS[-1]):
        found[step] = {}
        for layer in LAYERS:
            values = rng.normal(0, 1 + arm, 500).astype(np.float32)
            for array, x in (("pre_activation", values), ("activation", np.maximum(values, 0))):
                counts = np.bincount(np.searchsorted(histograms.EDGES, x, side="right"), minlength=245).astype(np.int32)
                found[step][f"{layer}/{array}"] = {
                    "mean": float(x.mean()),
                    "std": float(x.std()),
                    "mean_square": float((x**2).mean()),
                    "dead": float(layer == "dense2" and arm == 0) if array == "activation" else np.nan,
                    "counts": counts,
                }
    return histograms.pack(found)


def _predictions(labels: np.ndarray, classes: int, share: float, key: Sequence[int]) -> bytes:
    rng = np.random.default_rng([*key, 2])
    logits = rng.normal(0, 1, (len(labels), classes)).astype(np.float32)
    right = rng.random(len(labels)) < share
    logits[np.arange(len(labels)), np.where(right, labels, (labels + 1) % classes)] += 8
    buffer = io.BytesIO()
    np.savez(
        buffer,
        allow_pickle=False,
        test_logits=logits,
        test_labels=labels,
        train_logits=logits,
        train_labels=labels,
        train_indices=np.arange(len(labels), dtype=np.int32),
    )
    return buffer.getvalue()
