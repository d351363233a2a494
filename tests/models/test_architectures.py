"""Nets: their layers, their shapes, and their parameters counted by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from harness.models import architectures
from harness.models.architectures import ShapeError

Builder = Callable[..., Any]
GRAY, COLOR, DIGIT = (28, 28, 1), (32, 32, 3), (8, 8, 1)


def layers(model: Any) -> list[str]:
    return [layer.name for layer in model.layers[1:]]


@pytest.mark.parametrize(
    ("builder", "shape", "classes", "arguments", "parameters"),
    [
        ("softmax", GRAY, 10, {}, 784 * 10 + 10),  # 7,850
        ("softmax", (5,), 2, {}, 5 * 2 + 2),
        ("mlp", GRAY, 10, {}, 785 * 500 + 501 * 500 + 501 * 10),  # 648,010
        ("mlp", (4,), 3, {"widths": [7]}, 5 * 7 + 8 * 3),
        ("mlp", (4,), 3, {"widths": []}, 5 * 3),
        # conv kxk: (k * k * in + 1) * out, and maps of 28 -> 14 -> 7 in front of the logits
        ("convnet", GRAY, 10, {}, 10 * 64 + 577 * 64 + 577 * 128 + 1153 * 128 + (7 * 7 * 128 + 1) * 10),
        ("convnet", DIGIT, 10, {}, 10 * 64 + 577 * 64 + 577 * 128 + 1153 * 128 + (2 * 2 * 128 + 1) * 10),
        ("convnet", COLOR, 100, {"blocks": [[4], [8]], "dense": [9]}, 28 * 4 + 37 * 8 + 513 * 9 + 10 * 100),
        # 6 maps of 28, 16 of 10 after 5x5 VALID on 14, 16 of 5 in front of 120-84-10 (LeCun et al. 1998)
        ("lenet5", GRAY, 10, {}, 26 * 6 + 151 * 16 + 401 * 120 + 121 * 84 + 85 * 10),  # 61,706
        # 8 -> 4, a 3x3 kernel on 4x4 maps -> 2 -> 1
        ("lenet5", DIGIT, 10, {}, 26 * 6 + 55 * 16 + 17 * 120 + 121 * 84 + 85 * 10),
    ],
)
def test_the_parameters_are_those_counted_by_hand(
    builder: str, shape: tuple[int, ...], classes: int, arguments: dict[str, Any], parameters: int
) -> None:
    model = architectures.build(getattr(architectures, builder), shape, classes, arguments)
    assert model.count_params() == parameters
    assert model.input_shape == (None, *shape)
    assert model.output_shape == (None, classes)


def test_the_published_counts() -> None:
    assert architectures.softmax(GRAY, 10).count_params() == 7_850
    assert architectures.mlp(GRAY, 10).count_params() == 648_010
    assert architectures.lenet5(GRAY, 10).count_params() == 61_706


def test_layers_are_named_by_kind_and_place_and_their_activation_stands_apart() -> None:
    assert layers(architectures.mlp(GRAY, 10, widths=[4, 3], activation="tanh")) == [
        "flatten",
        "dense1",
        "dense1_tanh",
        "dense2",
        "dense2_tanh",
        "logits",
    ]
    assert layers(architectures.convnet(DIGIT, 10, blocks=[[2, 2], [2]], dense=[5])) == [
        "conv1",
        "conv1_relu",
        "conv2",
        "conv2_relu",
        "pool1",
        "conv3",
        "conv3_relu",
        "pool2",
        "flatten",
        "dense1",
        "dense1_relu",
        "logits",
    ]


def test_every_layer_with_weights_is_linear() -> None:
    for builder in (architectures.mlp, architectures.convnet, architectures.lenet5):
        weighted = [layer for layer in builder(GRAY, 10).layers if layer.weights]
        assert {layer.activation.__name__ for layer in weighted} == {"linear"}


def test_lenet_has_sigmoids_and_averages_its_relu_variant_maxima() -> None:
    import keras

    first, second = architectures.lenet5(GRAY, 10), architectures.lenet5(GRAY, 10, activation="relu", pooling="max")
    assert "conv1_sigmoid" in layers(first)
    assert isinstance(first.get_layer("pool2"), keras.layers.AveragePooling2D)
    assert "conv1_relu" in layers(second)
    assert isinstance(second.get_layer("pool2"), keras.layers.MaxPooling2D)


@pytest.mark.parametrize(
    ("builder", "places"),
    [
        ("mlp", ["dropout1", "dropout2"]),
        ("lenet5", ["dropout1", "dropout2"]),
        ("convnet", ["dropout1", "dropout_logits"]),
    ],
)
def test_dropout_stands_at_the_dense_layers_only_when_asked_for(builder: str, places: list[str]) -> None:
    build = getattr(architectures, builder)
    more = {"dense": [5]} if builder == "convnet" else {}
    assert not [name for name in layers(build(GRAY, 10, **more)) if "dropout" in name]
    assert [name for name in layers(build(GRAY, 10, dropout=0.5, **more)) if "dropout" in name] == places


@pytest.mark.parametrize(
    ("builder", "shape", "arguments", "layer", "smallest"),
    [
        ("convnet", (8, 8, 1), {"blocks": [[2]] * 4}, "pool4", "16x16"),
        ("convnet", (3, 3, 1), {}, "pool2", "4x4"),
        # VALID 3x3 twice, halved, twice, halved: 16 -> 12 -> 6 -> 2 -> 1
        ("convnet", (8, 8, 1), {"padding": "valid"}, "conv3", "16x16"),
        ("convnet", (8, 16, 3), {"padding": "valid"}, "conv3", "17x17"),
        # 5 -> 2 (SAME, pool), 1x1 kernel, pooled to 1: nothing smaller than 4
        ("lenet5", (3, 3, 1), {}, "pool2", "4x4"),
    ],
)
def test_a_net_that_shrinks_an_image_away_names_the_layer_and_the_smallest_side(
    builder: str, shape: tuple[int, ...], arguments: dict[str, Any], layer: str, smallest: str
) -> None:
    with pytest.raises(ShapeError, match=f"layer {layer} .*; the smallest input that works is {smallest}$"):
        architectures.build(getattr(architectures, builder), shape, 10, arguments)


@pytest.mark.parametrize("builder", ["convnet", "lenet5"])
def test_a_convolution_of_vectors_is_refused(builder: str) -> None:
    with pytest.raises(ShapeError, match=r"needs images \(height, width, channels\), got \(64,\)"):
        architectures.build(getattr(architectures, builder), (64,), 10, {})


def test_an_unknown_pooling_is_refused() -> None:
    with pytest.raises(ValueError, match="pooling: got 'min'; allowed: max, average"):
        architectures.convnet(GRAY, 10, pooling="min")
