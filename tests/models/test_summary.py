"""The table of a net, against the published ones and against arithmetic done by hand."""

from __future__ import annotations

import math
from typing import Any

import keras
import pytest

from harness.models import architectures
from harness.models.summary import Row, rows

# LTFN 8: shape of the output, and weights; of the convolutions with their biases, of the dense layers without.
VGG16 = [
    ("conv1", (224, 224, 64), 1_792),
    ("conv2", (224, 224, 64), 36_928),
    ("conv3", (112, 112, 128), 73_856),
    ("conv4", (112, 112, 128), 147_584),
    ("conv5", (56, 56, 256), 295_168),
    ("conv6", (56, 56, 256), 590_080),
    ("conv7", (56, 56, 256), 590_080),
    ("conv8", (28, 28, 512), 1_180_160),
    ("conv9", (28, 28, 512), 2_359_808),
    ("conv10", (28, 28, 512), 2_359_808),
    ("conv11", (14, 14, 512), 2_359_808),
    ("conv12", (14, 14, 512), 2_359_808),
    ("conv13", (14, 14, 512), 2_359_808),
    ("dense1", (4096,), 102_760_448),
    ("dense2", (4096,), 16_777_216),
    ("logits", (1000,), 4_096_000),
]


def table(builder: str, shape: tuple[int, ...], classes: int = 10, **arguments: Any) -> dict[str, Row]:
    model = architectures.build(getattr(architectures, builder), shape, classes, arguments)
    return {row.layer: row for row in rows(model)}


@pytest.fixture(scope="module")
def vgg16() -> dict[str, Row]:
    return table("vgg", (224, 224, 3), 1000)


@pytest.mark.parametrize(("layer", "output", "weights"), VGG16)
def test_vgg_16_is_the_published_table(
    layer: str, output: tuple[int, ...], weights: int, vgg16: dict[str, Row]
) -> None:
    row = vgg16[layer]
    assert row.output == output
    assert row.kernel + (row.bias if row.kind == "Conv2D" else 0) == weights


def test_vgg_16_has_no_other_weighted_layer_and_sums_up(vgg16: dict[str, Row]) -> None:
    assert [name for name, row in vgg16.items() if row.kernel] == [name for name, _, _ in VGG16]
    assert sum(row.kernel + row.bias + row.other for row in vgg16.values()) == 138_357_544
    # 15.5 billion multiply-adds, of which the convolutions take 15.35
    assert sum(row.multiply_adds for row in vgg16.values()) == 15_470_264_320


def test_the_maps_of_vgg_16_shrink_by_half_at_each_pooling(vgg16: dict[str, Row]) -> None:
    assert [vgg16[f"pool{i}"].output for i in range(1, 6)] == [
        (112, 112, 64),
        (56, 56, 128),
        (28, 28, 256),
        (14, 14, 512),
        (7, 7, 512),
    ]


# BCNN 2.6: O = 1 + (W - K + 2 P) / S
@pytest.mark.parametrize(
    ("padding", "stride", "side"),
    [
        *(("same", stride, side) for stride, side in zip((1, 2, 3, 4), (28, 14, 10, 7), strict=True)),
        *(("valid", stride, side) for stride, side in zip((1, 2, 3, 4), (24, 12, 8, 6), strict=True)),
    ],
)
def test_the_sizes_of_maps_are_the_published_table(padding: str, stride: int, side: int) -> None:
    net = table("convnet", (28, 28, 1), blocks=[[2]], kernel_size=5, padding=padding, stride=stride, pooling="none")
    assert net["conv1"].output == (side, side, 2)


# LTFN 4: a kernel reads all the input's channels, gives one of the output's, and has one bias.
@pytest.mark.parametrize(
    ("shape", "filters", "kernel", "padding", "stride", "output"),
    [
        ((28, 28, 1), 1, 3, "valid", 1, (26, 26, 1)),
        ((28, 28, 1), 1, 3, "same", 1, (28, 28, 1)),
        ((28, 28, 1), 4, 3, "same", 2, (14, 14, 4)),
        ((32, 32, 3), 8, 5, "valid", 1, (28, 28, 8)),
        ((7, 7, 3), 2, 3, "valid", 2, (3, 3, 2)),
        ((6, 9, 2), 5, 3, "valid", 3, (2, 3, 5)),
    ],
)
def test_the_arithmetic_of_a_convolution(
    shape: tuple[int, ...], filters: int, kernel: int, padding: str, stride: int, output: tuple[int, ...]
) -> None:
    net = table(
        *("convnet", shape),
        blocks=[[filters]],
        kernel_size=kernel,
        padding=padding,
        stride=stride,
        pooling="none",
    )
    row = net["conv1"]
    assert row.output == output
    assert (row.kernel, row.bias, row.other) == (kernel * kernel * shape[-1] * filters, filters, 0)
    assert row.multiply_adds == output[0] * output[1] * kernel * kernel * shape[-1] * filters
    assert row.activation_bytes == 4 * math.prod(output)
    assert net["flatten"].activation_bytes == 0


def test_batch_norm_has_four_numbers_a_channel_of_another_kind() -> None:
    net = table("cnt", (28, 28, 1), batch_norm=True)
    assert (net["pool1_norm"].kernel, net["pool1_norm"].bias, net["pool1_norm"].other) == (0, 0, 4 * 12)


def test_activations_take_half_the_memory_in_16_bits() -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        net = table("mlp", (6,), widths=[8])
    finally:
        keras.config.set_dtype_policy(before)
    assert net["dense1"].activation_bytes == 8 * 2
    assert net["logits"].activation_bytes == 10 * 4
