"""Initial weights: their variance against theory, and what they depend on."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from harness.analysis.theory import weight_variance
from harness.config import Arm, Config
from harness.models import architectures
from harness.models.initializers import Scheme, digest, initial_weights
from harness.streams import Block

SHAPE = (28, 28, 1)
SCHEMES = ["normal", "small_normal", "truncated_normal", "glorot", "he", "lecun", "orthogonal", "he_glorot"]


def scheme_of(config: Config) -> Scheme:
    found = config.initializer
    return Scheme(found.default, found.conv, found.dense, found.output, found.bias)


def start(model: Any, scheme: Scheme, init: int = 1) -> dict[str, Any]:
    """Weight path -> initial value."""
    values = initial_weights(model, scheme, init, [weight.numpy() for weight in model.weights])
    return {weight.path: value for weight, value in zip(model.weights, values, strict=True)}


@pytest.fixture(scope="module")
def schemes(compose: Callable[..., tuple[Arm, ...]]) -> dict[str, Scheme]:
    arms = compose(f"initializer={','.join(SCHEMES)}")
    return {name: scheme_of(arm.config) for name, arm in zip(SCHEMES, arms, strict=True)}


@pytest.fixture(scope="module")
def mlp() -> Any:
    return architectures.mlp(SHAPE, 10, widths=[300, 200])


@pytest.fixture(scope="module")
def convnet() -> Any:
    return architectures.convnet((8, 8, 1), 10, blocks=[[32, 64]])


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("net", ["mlp", "convnet"])
def test_every_kernel_has_the_variance_of_its_scheme(
    name: str, net: str, schemes: dict[str, Scheme], request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(net)
    scheme = schemes[name]
    values = start(model, scheme)
    for layer in model.layers:
        if not layer.weights:
            continue
        kernel = values[layer.kernel.path]
        spec = scheme.spec(layer)
        arguments = {key: value for key, value in spec.items() if key != "_target_"}
        variance = weight_variance(spec["_target_"].rpartition(".")[2], kernel.shape, **arguments)
        # The sample variance of n normal weights has a relative sd of sqrt(2 / n); fewer for bounded ones.
        assert kernel.var() == pytest.approx(variance, rel=5 * math.sqrt(2 / kernel.size)), layer.name
        assert abs(kernel.mean()) < 5 * math.sqrt(variance / kernel.size), layer.name


def test_orthogonal_kernels_are_orthogonal(schemes: dict[str, Scheme], mlp: Any) -> None:
    kernel = start(mlp, schemes["orthogonal"])["dense2/kernel"]
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(200), atol=1e-5)


@pytest.mark.parametrize("name", SCHEMES)
def test_biases_start_at_zero(name: str, schemes: dict[str, Scheme], convnet: Any) -> None:
    biases = [value for path, value in start(convnet, schemes[name]).items() if path.endswith("bias")]
    assert len(biases) == 3
    assert not any(bias.any() for bias in biases)


def test_he_glorot_gives_glorot_to_the_output_alone(schemes: dict[str, Scheme], convnet: Any) -> None:
    kinds = {
        layer.name: schemes["he_glorot"].spec(layer)["_target_"].rpartition(".")[2]
        for layer in convnet.layers
        if layer.weights
    }
    assert kinds == {"conv1": "HeNormal", "conv2": "HeNormal", "logits": "GlorotNormal"}


def test_output_goes_before_the_kind_of_layer_and_that_before_default() -> None:
    specs = {name: {"_target_": name} for name in ("default", "conv", "dense", "output")}
    model = architectures.convnet((8, 8, 1), 10, blocks=[[2]], dense=[3])
    layers = {name: model.get_layer(name) for name in ("conv1", "dense1", "logits")}
    assert {name: Scheme(**specs).spec(layer)["_target_"] for name, layer in layers.items()} == {
        "conv1": "conv",
        "dense1": "dense",
        "logits": "output",
    }
    partly = Scheme(specs["default"], dense=specs["dense"])
    assert {name: partly.spec(layer)["_target_"] for name, layer in layers.items()} == {
        "conv1": "default",
        "dense1": "dense",
        "logits": "dense",
    }


def test_a_bias_scheme_is_used(mlp: Any) -> None:
    scheme = Scheme(
        {"_target_": "keras.initializers.Zeros"}, bias={"_target_": "keras.initializers.Constant", "value": 2.0}
    )
    values = start(mlp, scheme)
    assert (values["dense1/bias"] == 2).all()
    assert not values["dense1/kernel"].any()


def test_the_same_block_starts_alike_every_time(schemes: dict[str, Scheme], mlp: Any) -> None:
    first, second = start(mlp, schemes["he"], 7), start(mlp, schemes["he"], 7)
    assert all((first[path] == second[path]).all() for path in first)


def test_another_block_starts_otherwise(schemes: dict[str, Scheme], mlp: Any) -> None:
    first, second = start(mlp, schemes["he"], Block.of(0).init), start(mlp, schemes["he"], Block.of(1).init)
    kernels = [path for path in first if path.endswith("kernel")]
    assert all((first[path] != second[path]).mean() > 0.99 for path in kernels)


def test_the_same_layer_starts_alike_in_every_architecture(schemes: dict[str, Scheme]) -> None:
    deep = start(architectures.mlp(SHAPE, 10, widths=[30, 30, 30]), schemes["he"])
    shallow = start(architectures.mlp(SHAPE, 7, widths=[30], activation="tanh", dropout=0.5), schemes["he"])
    assert (deep["dense1/kernel"] == shallow["dense1/kernel"]).all()


def test_layers_of_one_shape_start_differently(schemes: dict[str, Scheme]) -> None:
    values = start(architectures.mlp((30,), 30, widths=[30, 30]), schemes["he"])
    kernels = [values[f"{layer}/kernel"] for layer in ("dense1", "dense2", "logits")]
    for a in range(3):
        for b in range(a):
            assert abs(np.corrcoef(kernels[a].ravel(), kernels[b].ravel())[0, 1]) < 5 / 30


def test_the_global_seed_does_not_matter(schemes: dict[str, Scheme], mlp: Any) -> None:
    keras.utils.set_random_seed(1)
    first = digest(start(mlp, schemes["glorot"]).values())
    keras.utils.set_random_seed(2)
    assert digest(start(mlp, schemes["glorot"]).values()) == first


def test_other_weights_keep_the_value_they_were_built_with(schemes: dict[str, Scheme]) -> None:
    inputs = keras.Input((6,))
    x = keras.layers.BatchNormalization(name="norm")(keras.layers.Dense(4, name="dense1")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2, name="logits")(x))
    values = start(model, schemes["he"])
    assert values["dense1/kernel"].any()
    assert {path: value.tolist() for path, value in values.items() if path.startswith("norm")} == {
        "norm/gamma": [1.0] * 4,
        "norm/beta": [0.0] * 4,
        "norm/moving_mean": [0.0] * 4,
        "norm/moving_variance": [1.0] * 4,
    }


def test_the_digest_of_weights_is_of_their_bytes_in_order() -> None:
    weights = [np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(3, np.float32)]
    assert digest(weights) == "bb8ae7cc6847820e"
    assert digest(weights[::-1]) != digest(weights)
    assert digest([np.asfortranarray(weights[0]), weights[1]]) == digest(weights)
