"""METHODS 3.2: the signal at step 0 of real nets, as the probes measure it, against what theory makes expect."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from itertools import pairwise
from math import sqrt

import numpy as np
import pandas as pd
import pytest

from harness.analysis.layout import WeightedLayer, weighted_layers
from harness.analysis.propagation import step_zero
from harness.analysis.theory import Conv, Dense, relu_gain, relu_length_scatter, relu_moments, weight_variance
from harness.data.datasets import Dataset, from_arrays
from harness.prepared import Prepared
from harness.runner import params
from harness.streams import blocks
from harness.training.replica import Replica

pytestmark = pytest.mark.usefixtures("slots")

BLOCKS = 24
WITHIN = 3
"""Standard errors of the mean over the blocks, each block's being at most sqrt(2/width)."""
INITIALIZERS = ("he", "glorot", "lecun", "normal", "orthogonal")
NETS = {
    "dense": ("arch=mlp", "arch.widths=[64,48]"),
    # SAME padding, a pooling after two convolutions and after the third; the last reads 6x6 maps.
    "conv": ("arch=convnet", "~arch.widths", "arch.blocks=[[16,24],[32]]", "arch.dense=[40]"),
}

Prepare = Callable[..., Prepared]


@pytest.fixture(scope="module")
def squares() -> Dataset:
    """60 training images of noise, 12x12x2, of 10 classes."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 10
    x = rng.integers(0, 256, (60, 12, 12, 2), dtype=np.uint8)
    return from_arrays("squares", {"x_train": x, "y_train": labels, "x_test": x[:20], "y_test": labels[:20]}, "squares")


def measured(replica: Replica, prepared: Prepared) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The moments at step 0 on some blocks, and the runs' config, as the store gives them back."""
    rows, name = [], prepared.arm.name
    for block in blocks(BLOCKS):
        draw = prepared.draw(block)
        replica.reset(block, prepared.scheme, draw.affine)
        found = replica.probe(draw.split.train_eval[:16])
        rows += [
            {"arm": name, "run_id": block.name, "step": 0, "layer": layer, "array": array, "moment": moment, "value": v}
            for path, numbers in found.items()
            for layer, _, array in [path.rpartition("/")]
            for moment, v in numbers.items()
            if moment != "counts"
        ]
    config = {key: str(value) for key, value in params(prepared.arm).items()}
    return pd.DataFrame(rows), pd.DataFrame([{"arm": name, **config}])


def layers_of(replica: Replica) -> list[WeightedLayer]:
    with zipfile.ZipFile(io.BytesIO(replica.export())) as file:
        return weighted_layers(file.read("config.json"))


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("initializer", INITIALIZERS)
def test_measured_pre_activations_are_those_expected_of_the_initializer(
    net: str, initializer: str, squares: Dataset, prepare: Prepare, replica_of: Callable[..., Replica]
) -> None:
    prepared = prepare(*NETS[net], f"initializer={initializer}", "preprocess=standardize", data=squares)
    replica = replica_of(prepared)
    layers, runs = measured(replica, prepared)
    table = step_zero(layers, runs, [prepared.arm.name], {prepared.arm.name: layers_of(replica)})
    print(f"\n{net} {initializer}: " + ", ".join(f"{r.layer} {r.ratio:.3f}" for r in table.itertuples()))
    assert table["layer"].tolist() == [layer.name for layer in layers_of(replica)]
    for row in table.itertuples():
        assert row.ratio == pytest.approx(1, abs=WITHIN * row.scatter / sqrt(BLOCKS)), row
    assert (table["verdict"] == "").all()
    # What each layer hands back, He et al. 2015, section 2.2; the first has nobody to hand it to.
    print(f"{net} {initializer} back: " + ", ".join(f"{r.layer} {r.back:.3f}" for r in table.iloc[1:].itertuples()))
    assert np.isnan(table["back"].iloc[0])
    for row in table.iloc[1:].itertuples():
        assert row.back == pytest.approx(1, abs=WITHIN * row.back_scatter / sqrt(BLOCKS)), row


@pytest.mark.parametrize("initializer", INITIALIZERS)
def test_relu_halves_the_gradient_on_its_way_back(
    initializer: str, squares: Dataset, prepare: Prepare, replica_of: Callable[..., Replica]
) -> None:
    prepared = prepare("arch.widths=[64,48]", f"initializer={initializer}", "preprocess=standardize", data=squares)
    replica = replica_of(prepared)
    layers, runs = measured(replica, prepared)
    nets = layers_of(replica)
    table = step_zero(layers, runs, [prepared.arm.name], {prepared.arm.name: nets}).set_index("layer")
    target = prepared.scheme.default["_target_"].rpartition(".")[2]
    given = {k: v for k, v in prepared.scheme.default.items() if k != "_target_"}
    for before, after in pairwise(nets):
        gain = relu_gain(after.width, weight_variance(target, after.kernel, **given))  # with fan_out for fan_in
        scatter = sqrt(2 / after.width + 2 / before.width)
        ratio = table.loc[before.name, "error"] / (gain * table.loc[after.name, "error"])
        assert ratio == pytest.approx(1, abs=WITHIN * scatter / sqrt(BLOCKS)), (before.name, ratio)


@pytest.mark.parametrize("initializer", INITIALIZERS)
@pytest.mark.parametrize("net", ["arch.widths=[64,48]", "arch.blocks=[[16,24,16]]"])
def test_relu_halves_the_second_moment_from_the_input_to_the_last_layer(
    net: str, initializer: str, squares: Dataset, prepare: Prepare, replica_of: Callable[..., Replica]
) -> None:
    arch = ["arch=convnet", "~arch.widths", net] if "blocks" in net else ["arch=mlp", net]
    prepared = prepare(*arch, f"initializer={initializer}", "preprocess=standardize", data=squares)
    replica = replica_of(prepared)
    layers, _ = measured(replica, prepared)
    chain = layers_of(replica)[: 3 if "blocks" in net else None]  # a pooling comes before the logits
    target = prepared.scheme.default["_target_"].rpartition(".")[2]
    given = {k: v for k, v in prepared.scheme.default.items() if k != "_target_"}
    expected = []
    for block in blocks(BLOCKS):  # each block has its own examples
        draw = prepared.draw(block)
        x = draw.affine(prepared.data.x_train[draw.split.train_eval[:16]] / np.float32(255))
        steps = [
            Dense(each.width, weight_variance(target, each.kernel, **given))
            if len(each.kernel) == 2
            else Conv(each.width, each.kernel[:-2], weight_variance(target, each.kernel, **given))
            for each in chain
        ]
        expected.append([float(m.mean()) for m in relu_moments((x**2).sum(axis=-1).mean(axis=0), steps)])
    z2 = layers[(layers["array"] == "pre_activation") & (layers["moment"] == "mean_square")]
    order = [block.name for block in blocks(BLOCKS)]
    ratios = z2.pivot(index="run_id", columns="layer", values="value").loc[order, [each.name for each in chain]]
    ratios /= np.array(expected)
    print(f"\n{net} {initializer}: " + ", ".join(f"{k} {v:.3f}" for k, v in ratios.mean().items()))
    widths: list[int] = []
    for each in chain:
        scatter = sqrt((1 + relu_length_scatter(widths)) * (1 + 2 / each.width) - 1)
        assert ratios[each.name].mean() == pytest.approx(1, abs=WITHIN * scatter / sqrt(BLOCKS)), each
        widths.append(each.width)
