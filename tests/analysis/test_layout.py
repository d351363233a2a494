from __future__ import annotations

import json

import pytest

from harness.analysis.layout import weighted_layers
from harness.analysis.theory import Conv, Dense


def layer(kind: str, name: str, reads: tuple[int, ...], *sources: str, **config: object) -> dict[str, object]:
    """A layer as Keras 3 writes it into config.json, with what matters here."""
    tensors = [{"class_name": "__keras_tensor__", "config": {"keras_history": [source, 0, 0]}} for source in sources]
    found: dict[str, object] = {"class_name": kind, "config": {"name": name, **config}}
    if reads:
        found["build_config"] = {"input_shape": [None, *reads]}
    return found | {
        "inbound_nodes": [{"args": [tensors] if len(tensors) > 1 else tensors, "kwargs": {}}] if tensors else []
    }


CONV = {"strides": [1, 1], "padding": "same", "dilation_rate": [1, 1], "groups": 1}
NET = [
    layer("InputLayer", "input", ()),
    layer("Conv2D", "conv1", (8, 8, 1), "input", filters=4, kernel_size=[3, 3], **CONV),
    layer("Activation", "conv1_relu", (), "conv1"),
    layer("Conv2D", "conv2", (8, 8, 4), "conv1_relu", filters=6, kernel_size=[5, 3], **CONV),
    layer("Activation", "conv2_relu", (), "conv2"),
    layer("MaxPooling2D", "pool", (), "conv2_relu"),
    layer("Flatten", "flatten", (), "pool"),
    layer("Dense", "dense1", (96,), "flatten", units=10),
    layer("Activation", "dense1_relu", (), "dense1"),
    layer("Dropout", "dropout", (), "dense1_relu"),
    layer("Dense", "logits", (10,), "dropout", units=3),
]


def test_the_weighted_layers_of_a_nested_net():
    outer = {
        "class_name": "Functional",
        "config": {"layers": [layer("InputLayer", "raw", ()), {"class_name": "Functional", "config": {"layers": NET}}]},
    }
    conv1, conv2, dense1, logits = weighted_layers(json.dumps(outer))
    assert [each.name for each in (conv1, conv2, dense1, logits)] == ["conv1", "conv2", "dense1", "logits"]
    assert (conv1.kernel, conv1.reads, conv1.source) == ((3, 3, 1, 4), (8, 8, 1), "input")
    assert (conv2.kernel, conv2.source, conv2.width) == ((5, 3, 4, 6), "conv1", 6)
    assert (dense1.kernel, dense1.source) == ((96, 10), None)
    assert logits.source == "dense1"
    assert conv2.with_variance(0.5) == Conv(6, (5, 3), 0.5, (1, 1), "same")
    assert logits.with_variance(0.5) == Dense(3, 0.5)


def test_two_inputs_have_no_single_source():
    net = [*NET[:3], layer("Add", "add", (), "conv1", "conv1_relu"), layer("Dense", "logits", (4,), "add", units=2)]
    assert weighted_layers(json.dumps({"config": {"layers": net}}))[-1].source is None


@pytest.mark.parametrize("change", [{"groups": 2}, {"dilation_rate": [2, 2]}, {"padding": "causal"}])
def test_convolutions_without_a_simple_fan_in_are_left_out(change):
    net = [NET[0], layer("Conv2D", "conv1", (8, 8, 2), "input", filters=4, kernel_size=[3, 3], **(CONV | change))]
    assert weighted_layers(json.dumps({"config": {"layers": net}})) == []
