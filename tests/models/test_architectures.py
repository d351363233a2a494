"""Nets: their layers, their shapes, and their parameters counted by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
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
        # every 2nd pixel by the last convolution of a block, no pooling: 8 -> 4 -> 2
        ("convnet", DIGIT, 10, {"blocks": [[2, 3], [4]], "pooling": "stride"}, 10 * 2 + 19 * 3 + 28 * 4 + 17 * 10),
        # a batch norm's 4 numbers a channel in the place of a bias
        ("convnet", DIGIT, 10, {"blocks": [[2]], "dense": [3], "batch_norm": True}, 9 * 2 + 8 + 32 * 3 + 12 + 4 * 10),
        ("mlp", (4,), 3, {"widths": [7], "batch_norm": True}, 4 * 7 + 4 * 7 + 8 * 3),
        # LTFN 8: 28 padded to 32, halved four times to 2
        (
            *("vgg", GRAY, 10),
            {"blocks": [[64, 64], [128, 128], [256] * 3, [512] * 3], "dense": [4096], "pad_to": 32},
            (10 * 64 + 577 * 64 + 577 * 128 + 1153 * 128 + 1153 * 256 + 2305 * 256 * 2 + 2305 * 512 + 4609 * 512 * 2)
            + (2 * 2 * 512 + 1) * 4096
            + 4097 * 10,
        ),
        # 32 -> 8 -> 4 -> 2 -> 1
        (
            *("alexnet", COLOR, 17),
            {"filters": [2, 3, 4, 5, 6], "dense": [7, 8]},
            (11 * 11 * 3 + 1) * 2 + (25 * 2 + 1) * 3 + 28 * 4 + 37 * 5 + 46 * 6 + 7 * 7 + 8 * 8 + 9 * 17,
        ),
        # 28 -> 13 -> 6
        ("cnt", GRAY, 10, {}, 10 * 12 + 109 * 16 + 577 * 256 + 257 * 100 + 101 * 10),
        ("cnt", GRAY, 10, {"batch_norm": True}, 10 * 12 + 109 * 16 + 577 * 256 + 257 * 100 + 101 * 10 + 4 * 28),
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
    residual = architectures.resnet(COLOR, 10)
    assert sum(weight.value.shape.num_elements() for weight in residual.trainable_weights) == 269_722  # "0.27M"


def test_the_cnt_has_the_published_maps() -> None:
    net = architectures.cnt(GRAY, 10)
    shapes = {name: net.get_layer(name).output.shape[1:] for name in ("conv1", "pool1", "conv2", "pool2")}
    assert shapes == {"conv1": (28, 28, 12), "pool1": (13, 13, 12), "conv2": (13, 13, 16), "pool2": (6, 6, 16)}


def test_the_cnt_as_written_has_a_relu_on_its_logits() -> None:
    assert layers(architectures.cnt(GRAY, 10))[-1] == "logits"
    as_written = architectures.cnt(GRAY, 10, relu_logits=True)
    assert layers(as_written)[-2:] == ["logits", "logits_relu"]
    as_written.get_layer("logits").bias.assign([-1.0] * 5 + [2.0] * 5)
    assert as_written(np.zeros((1, *GRAY))).numpy().tolist() == [[0.0] * 5 + [2.0] * 5]


def test_batch_norms_of_the_cnt_stand_after_the_poolings_with_a_momentum_of_0_9() -> None:
    net = architectures.cnt(GRAY, 10, batch_norm=True, dropout=0.5)
    assert layers(net)[:6] == ["conv1", "pool1", "pool1_norm", "conv2", "pool2", "pool2_norm"]
    assert {layer.momentum for layer in net.layers if "norm" in layer.name} == {0.9}


def test_batch_norm_stands_between_a_layer_and_its_activation() -> None:
    net = architectures.convnet(DIGIT, 10, blocks=[[2]], dense=[3], batch_norm=True)
    assert layers(net) == [
        *("conv1", "conv1_norm", "conv1_relu", "pool1", "flatten"),
        *("dense1", "dense1_norm", "dense1_relu", "logits"),
    ]


def test_padding_inside_a_net_puts_zeros_around_the_image() -> None:
    net = architectures.vgg((4, 3, 1), 2, blocks=[], dense=[], pad_to=6)
    padded = keras.Model(net.input, net.get_layer("pad").output)(np.ones((1, 4, 3, 1)))[0, :, :, 0].numpy()
    np.testing.assert_array_equal(padded, np.pad(np.ones((4, 3)), ((1, 1), (1, 2))))
    assert "pad" not in layers(architectures.vgg((8, 8, 1), 2, blocks=[[1]], dense=[], pad_to=6))


def test_a_residual_net_adds_what_it_skipped() -> None:
    """All its weights at zero, each block gives the ReLU of its shortcut: every 2nd pixel, new channels at zero."""
    net = architectures.resnet((4, 4, 1), 2, widths=[1, 3], blocks=1)
    net.get_layer("conv1").kernel.assign(np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]]).reshape(3, 3, 1, 1))
    image = np.arange(-4.0, 12.0).reshape(1, 4, 4, 1)
    found = keras.Model(net.input, net.get_layer("block2_relu").output)(image)[0].numpy()
    expected = np.maximum(image, 0)[0, ::2, ::2, 0] / np.sqrt(1 + 1e-3)  # Keras' epsilon in conv1's batch norm
    np.testing.assert_allclose(found[..., 0], expected, rtol=1e-6)
    assert not found[..., 1:].any()


def test_convolutions_are_counted_alike_in_all_nets() -> None:
    for net in (architectures.vgg(COLOR, 10, dense=[8]), architectures.resnet(COLOR, 10)):
        convolutions = [layer.name for layer in net.layers if "Conv" in type(layer).__name__]
        assert convolutions == [f"conv{i + 1}" for i in range(len(convolutions))]


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
        ("vgg", (20, 20, 3), {"dense": [4]}, "pool5", "32x32"),
        # backwards from one pixel: pool 3, three 3x3 9, pool 19, 5x5 23, pool 47, 11x11/4 195
        ("alexnet", (32, 32, 3), {"dense": [4], "padding": "valid"}, "conv2", "195x195"),
        # 7 -> 3 -> 1
        ("cnt", (6, 6, 1), {}, "pool2", "7x7"),
    ],
)
def test_a_net_that_shrinks_an_image_away_names_the_layer_and_the_smallest_side(
    builder: str, shape: tuple[int, ...], arguments: dict[str, Any], layer: str, smallest: str
) -> None:
    with pytest.raises(ShapeError, match=f"layer {layer} .*; the smallest input that works is {smallest}$"):
        architectures.build(getattr(architectures, builder), shape, 10, arguments)


@pytest.mark.parametrize("builder", ["convnet", "lenet5", "vgg", "alexnet", "cnt", "resnet"])
def test_a_convolution_of_vectors_is_refused(builder: str) -> None:
    with pytest.raises(ShapeError, match=r"needs images \(height, width, channels\), got \(64,\)"):
        architectures.build(getattr(architectures, builder), (64,), 10, {})


def test_an_unknown_pooling_is_refused() -> None:
    with pytest.raises(ValueError, match="pooling: got 'min'; allowed: max, average"):
        architectures.convnet(GRAY, 10, pooling="min")


def test_a_stage_with_fewer_filters_is_refused() -> None:
    with pytest.raises(ValueError, match="a stage has 8 filters fewer than the one before"):
        architectures.resnet(COLOR, 10, widths=[16, 8])


def test_alexnet_wants_a_number_of_filters_for_each_convolution() -> None:
    with pytest.raises(ValueError, match="filters: got 2; allowed: one for each of the 5 convolutions"):
        architectures.alexnet(COLOR, 10, filters=[4, 4])
