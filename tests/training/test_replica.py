"""What is compiled: options train, penalties add up, exported nets do their own preprocessing."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from harness.data import draws
from harness.data.datasets import Dataset, from_arrays
from harness.models.initializers import digest
from harness.prepared import Prepared
from harness.streams import Block
from harness.training import export, loop
from harness.training.recorder import MemoryRecorder
from harness.training.replica import DeviceData, Replica

Prepare = Callable[..., Prepared]
ReplicaOf = Callable[..., Replica]
TEST = np.arange(60, 80, dtype=np.int32)
FIRST = Block.of(0)


def trained(prepared: Prepared, replica: Replica, block: Block = FIRST) -> MemoryRecorder:
    recorder = MemoryRecorder()
    loop.train(replica, prepared.recipe, prepared.draw(block), block, recorder)
    return recorder


OPTIONS = [
    *(f"optimizer={name}" for name in ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw")),
    *(f"learning_rate={name}" for name in ("exponential", "step", "cosine")),
    *(f"preprocess={name}" for name in ("scale", "mean_image", "standardize")),
    *(f"regularizer={name}" for name in ("none", "l2", "dropout", "batch_norm", "label_smoothing")),
    *(f"runtime.precision={name}" for name in ("mixed_bfloat16", "mixed_float16")),
    "optimizer.clipnorm=1",
]


@pytest.mark.parametrize("option", OPTIONS)
def test_each_option_trains(option: str, prepare: Prepare, replica_of: ReplicaOf) -> None:
    prepared = prepare(option)
    prepared.check()
    recorder = trained(prepared, replica_of(prepared))
    assert recorder.outcome is not None
    assert recorder.outcome.kind == "finished"
    assert recorder.facts["weights.final"] != recorder.facts["weights.initial"]
    assert recorder.curves["loss/batch"][12] < 5


def test_an_augmentation_changes_the_training(prepare: Prepare, replica_of: ReplicaOf) -> None:
    plain, flipped = prepare(), prepare("augment=flip")
    ends = {trained(each, replica_of(each)).facts["weights.final"] for each in (plain, flipped)}
    assert len(ends) == 2


def test_arms_that_compile_the_same_share_a_spec(prepare: Prepare) -> None:
    first = prepare("initializer=he", "learning_rate.value=0.1", "preprocess=scale", "train.steps=9")
    second = prepare("initializer=normal", "learning_rate=cosine", "preprocess=standardize")
    assert first.spec.key == second.spec.key
    for other in ("arch.activation=tanh", "optimizer=sgd", "augment=flip", "regularizer=l2", "regularizer=dropout"):
        assert prepare(other).spec.key != first.spec.key, other
    for other in ("train.batch_size=9", "runtime.precision=mixed_bfloat16", "runtime.xla=true"):
        assert prepare(other).spec.key != first.spec.key, other


def test_a_probe_of_ones_own_outlives_the_steps_taken_over_from_another(
    prepare: Prepare, replica_of: ReplicaOf
) -> None:
    prepared = prepare()
    first = replica_of(prepared, fresh=True)
    second = Replica(prepared.spec, DeviceData(prepared.data, first.device), like=first)
    order, rates = TEST[:10].reshape(1, 10) - 60, np.array([0.0], np.float32)
    before = second.probe(TEST[:16])
    first.train(order, rates)  # a run that was resumed: it steps before it probes
    second.train(order, rates)
    assert list(second.probe(TEST[:16])) == list(before)


def test_l2_adds_the_squares_of_the_kernels_alone(prepare: Prepare, replica_of: ReplicaOf) -> None:
    still = (
        "optimizer=sgd",
        "learning_rate.value=0",
        "initializer.bias={_target_:keras.initializers.Constant,value:3.0}",
        "train.evaluate.every=1",
    )
    plain, penalized = prepare(*still), prepare(*still, "regularizer.l2=0.25")
    replica = replica_of(plain)
    without, with_it = trained(plain, replica), trained(penalized, replica_of(penalized))
    squares = sum(float((weight.astype(float) ** 2).sum()) for weight in replica.weights if weight.ndim > 1)
    assert any((weight == 3).all() for weight in replica.weights if weight.ndim == 1)
    for step in (1, 7, 12):
        penalty = with_it.curves["loss/batch"][step] - without.curves["loss/batch"][step]
        assert penalty == pytest.approx(0.25 * squares, rel=1e-4)
    assert with_it.curves["loss/train"] == without.curves["loss/train"]


def test_label_smoothing_mixes_in_the_loss_against_even_labels(prepare: Prepare, replica_of: ReplicaOf) -> None:
    still = ("optimizer=sgd", "learning_rate.value=0", "train.steps=1", "train.evaluate.every=1")
    plain, smooth = prepare(*still), prepare(*still, "regularizer.label_smoothing=0.3")
    replica = replica_of(plain)
    without, with_it = trained(plain, replica), trained(smooth, replica_of(smooth))
    (batch,) = draws.order(Block.of(0).order, plain.draw(Block.of(0)).split.train, 10, 1, start=0)
    logits = replica.logits(batch).astype(float)
    log_shares = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = 0.7 * without.curves["loss/batch"][1] + 0.3 * -log_shares.mean()
    assert with_it.curves["loss/batch"][1] == pytest.approx(expected, rel=1e-5)
    assert with_it.curves["loss/train"] == without.curves["loss/train"]


# Batch norm

NORMED = ("~arch.widths", "arch=cnt_regularized", "arch.dropout=0.3", "augment=cnt", "optimizer=adam")


def moving(replica: Replica) -> dict[str, np.ndarray]:
    return {
        weight.path: value
        for weight, value in zip(replica.model.weights, replica.weights, strict=True)
        if "moving" in weight.path
    }


def test_moving_statistics_follow_the_batches(prepare: Prepare, replica_of: ReplicaOf) -> None:
    prepared = prepare(*NORMED, "train.steps=1", "optimizer=sgd", "learning_rate.value=0")
    replica, block = replica_of(prepared), Block.of(0)
    replica.reset(block, prepared.scheme, prepared.draw(block).affine)
    (order,) = draws.order(block.order, prepared.draw(block).split.train, 10, 1, start=0)
    images, _ = replica.augmented(block, order, 1)
    _, augmented = replica.augmented(block, order, 1)
    assert (images != augmented[:, 0]).any()
    pooled = keras.Model(replica.model.input, replica.model.get_layer("pool1").output)
    seen = pooled((augmented[:, 0] - prepared.draw(block).affine.mean) / prepared.draw(block).affine.std).numpy()
    trained(prepared, replica)
    found = moving(replica)
    np.testing.assert_allclose(found["pool1_norm/moving_mean"], 0.1 * seen.mean(axis=(0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(found["pool1_norm/moving_variance"], 0.9 + 0.1 * seen.var(axis=(0, 1, 2)), atol=1e-5)


def test_moving_statistics_start_afresh_with_every_run_and_are_part_of_its_state(
    prepare: Prepare, replica_of: ReplicaOf
) -> None:
    prepared = prepare(*NORMED)
    replica = replica_of(prepared)
    first = trained(prepared, replica)
    after, state = moving(replica), replica.state
    assert len(after) == 4
    assert all(value.any() and (value != 1).any() for value in after.values())
    replica.reset(Block.of(0), prepared.scheme, prepared.draw(Block.of(0)).affine)
    assert {path: value.flat[0] for path, value in moving(replica).items() if (value == value.flat[0]).all()} == {
        f"pool{number}_norm/moving_{kind}": start for number in (1, 2) for kind, start in (("mean", 0), ("variance", 1))
    }
    replica.state = state
    assert all((value == after[path]).all() for path, value in moving(replica).items())
    assert digest(replica.weights) == first.facts["weights.final"]
    assert trained(prepared, replica).facts == first.facts


def test_evaluation_uses_the_moving_statistics_and_leaves_them(prepare: Prepare, replica_of: ReplicaOf) -> None:
    prepared = prepare(*NORMED)
    replica = replica_of(prepared)
    trained(prepared, replica)
    before = digest(replica.weights)
    together, alone = replica.logits(TEST), replica.logits(TEST[:1])
    replica.probe(TEST)
    np.testing.assert_allclose(alone, together[:1], atol=1e-5)
    assert digest(replica.weights) == before


def test_a_replica_that_takes_its_graphs_over_ends_in_the_same_statistics(
    prepare: Prepare, replica_of: ReplicaOf
) -> None:
    prepared = prepare(*NORMED)
    first = replica_of(prepared)
    alone = trained(prepared, first).facts["weights.final"]
    second = Replica(prepared.spec, DeviceData(prepared.data, first.device), like=first)
    assert trained(prepared, second).facts["weights.final"] == alone
    assert (moving(second)["pool2_norm/moving_mean"] == moving(first)["pool2_norm/moving_mean"]).all()


def test_a_wide_nets_zeros_take_no_memory_twice(prepare: Prepare, replica_of: ReplicaOf) -> None:
    replica = replica_of(prepare("optimizer=adam"))
    assert {sum(array.strides) for array in replica._built_weights + replica._built_slots if array.size > 1} == {0}


def test_mixed_precision_computes_in_16_bits_and_keeps_32(prepare: Prepare, replica_of: ReplicaOf) -> None:
    prepared = prepare("runtime.precision=mixed_bfloat16")
    replica = replica_of(prepared)
    assert replica.model.get_layer("dense1").compute_dtype == "bfloat16"
    assert replica.model.get_layer("logits").compute_dtype == "float32"
    assert {str(weight.dtype) for weight in replica.weights} == {"float32"}
    assert replica.logits(TEST).dtype == np.float32
    assert keras.config.dtype_policy().name == "float32"


def test_logits_do_not_depend_on_how_many_are_asked_for_at_once(prepare: Prepare, replica_of: ReplicaOf) -> None:
    prepared = prepare()
    replica = replica_of(prepared)
    trained(prepared, replica)
    many = np.resize(np.arange(80, dtype=np.int32), 600)
    together = replica.logits(many)
    assert together.shape == (600, 3)
    np.testing.assert_allclose(together[:80], together[80:160], atol=1e-6)
    np.testing.assert_allclose(together[:40], together[560:], atol=1e-6)
    np.testing.assert_allclose(replica.logits(many[300:310]), together[300:310], atol=1e-6)


# What is exported


@pytest.fixture(scope="module")
def exported(
    prepare: Prepare, replica_of: ReplicaOf, rows: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, Path, np.ndarray]]:
    """Name -> model.keras, raw test examples, and the logits of the replica that trained it."""
    folder = tmp_path_factory.mktemp("exported")
    rng = np.random.default_rng(3)
    vectors = from_arrays(
        "vectors",
        {
            "x_train": rng.normal(5, 3, (60, 4)),
            "y_train": np.arange(60) % 3,
            "x_test": rng.normal(5, 3, (20, 4)),
            "y_test": np.arange(20) % 3,
        },
        "vectors",
    )
    colours = from_arrays(
        "colours",
        {
            "x_train": rng.integers(0, 255, (60, 4, 5, 3)).astype(np.uint8),
            "y_train": np.arange(60) % 3,
            "x_test": rng.integers(0, 255, (20, 4, 5, 3)).astype(np.uint8),
            "y_test": np.arange(20) % 3,
        },
        "colours",
    )
    cases: dict[str, tuple[Dataset, tuple[str, ...]]] = {
        "scale": (rows, ("preprocess=scale",)),
        "mean_image": (rows, ("preprocess=mean_image",)),
        "channel": (rows, ("preprocess=standardize",)),
        "pixel": (rows, ("preprocess=standardize", "preprocess.per=pixel", "augment=crop")),
        "all": (rows, ("preprocess=standardize", "preprocess.per=all", "regularizer=dropout")),
        "vectors": (vectors, ("preprocess=standardize",)),
        "vectors_all": (vectors, ("preprocess=standardize", "preprocess.per=all")),
        "colours": (colours, ("preprocess=standardize",)),
        "colour_mean": (colours, ("preprocess=mean_image",)),
        OURS: (colours, ("~arch.widths", "arch=alexnet", "arch.filters=[4,4,4,4,4]", "arch.dense=[5]")),
    }
    found = {}
    for name, (data, overrides) in cases.items():
        prepared = prepare(*overrides, "train.steps=3", data=data)
        replica = replica_of(prepared)
        path, raw = folder / f"{name}.keras", folder / f"{name}.npy"
        path.write_bytes(trained(prepared, replica).artifacts["model.keras"])
        np.save(raw, data.x_test)
        found[name] = (path, raw, replica.logits(TEST))
    return found


OURS = "local_response"
CASES = ["scale", "mean_image", "channel", "pixel", "all", "vectors", "vectors_all", "colours", "colour_mean", OURS]


@pytest.mark.parametrize("name", CASES)
def test_an_exported_net_gives_the_same_logits_from_raw_examples(name: str, exported: dict[str, Any]) -> None:
    path, raw, logits = exported[name]
    model = keras.models.load_model(path)
    np.testing.assert_allclose(model.predict(np.load(raw), verbose=0), logits, atol=2e-5)


@pytest.mark.parametrize("large", [export.LARGE, 0], ids=["in place", "by Keras"])
def test_a_replica_exports_its_own_weights_where_one_that_is_alike_has_exported(
    prepare: Prepare, replica_of: ReplicaOf, rows: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, large: int
) -> None:
    monkeypatch.setattr(export, "LARGE", large)
    prepared = prepare(*NORMED, "preprocess=scale")
    first = replica_of(prepared, fresh=True)
    second = Replica(prepared.spec, DeviceData(prepared.data, first.device), like=first)
    trained(prepared, first)
    path = tmp_path / "model.keras"
    path.write_bytes(trained(prepared, second, Block.of(1)).artifacts["model.keras"])
    found = keras.models.load_model(path).predict(rows.x_test, verbose=0)
    np.testing.assert_allclose(found, second.logits(TEST), atol=2e-5)


def test_an_exported_net_needs_nothing_of_ours_but_its_layers(exported: dict[str, Any]) -> None:
    script = """
        import json, sys
        import keras, numpy as np
        found = {}
        for name, (path, raw) in json.loads(sys.argv[1]).items():
            if name == sys.argv[2]:  # the last: it has a layer of ours
                assert "harness" not in sys.modules
                import harness.layers
            found[name] = keras.models.load_model(path).predict(np.load(raw), verbose=0).tolist()
        assert "harness.models" not in sys.modules
        print("RESULT", json.dumps(found))
    """
    asked = json.dumps({name: (str(path), str(raw)) for name, (path, raw, _) in exported.items()})
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), asked, OURS], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.partition("RESULT ")[2])
    for name, (_, _, logits) in exported.items():
        np.testing.assert_allclose(found[name], logits, atol=2e-5)


def test_compiling_the_steps_takes_none(prepare: Prepare, replica_of: ReplicaOf) -> None:
    replica = replica_of(prepare("arch=mlp", "regularizer=dropout"))
    before = replica.state

    replica.trace(probed=4)
    for name, size in (("probe", 4), ("infer", None), ("train", None)):
        replica._graph(name, size)

    for name, value in replica.state.items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
