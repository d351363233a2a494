"""The weighted layers of a net, read from the `config.json` of a .keras file, and what each of them reads."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from harness.analysis.theory import Conv, Dense, Layer

_KEEP_MOMENT = ("Flatten", "Reshape", "Dropout", "Identity", "Activation", "ReLU", "LeakyReLU", "ELU")


@dataclass(frozen=True)
class WeightedLayer:
    """A dense or convolutional layer.

    Attributes:
        name: of the layer.
        kernel: shape of its kernel, (in, out) or (*window, in, out).
        reads: shape of its input without the batch.
        source: the weighted layer whose activations it reads unchanged, "input", or None behind pooling and the like.
        strides: of a convolution.
        padding: of a convolution.
    """

    name: str
    kernel: tuple[int, ...]
    reads: tuple[int, ...]
    source: str | None
    strides: tuple[int, ...] = ()
    padding: Literal["same", "valid"] = "same"

    @property
    def width(self) -> int:
        """Units or filters."""
        return self.kernel[-1]

    def with_variance(self, variance: float) -> Layer:
        """The layer as `analysis.theory` takes it."""
        if len(self.kernel) == 2:
            return Dense(self.width, variance)
        return Conv(self.width, self.kernel[:-2], variance, self.strides, self.padding)


def weighted_layers(config: str | bytes) -> list[WeightedLayer]:
    """The weighted layers of a net, in the order in which the file lists them."""
    listed = {layer["config"]["name"]: layer for layer in _leaves(json.loads(config))}
    return [found for name, layer in listed.items() if (found := _weighted(name, layer, listed)) is not None]


def _leaves(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Every layer that holds no others."""
    children = node.get("config", {}).get("layers")
    if children is None:
        yield node
    else:
        for child in children:
            yield from _leaves(child)


def _weighted(name: str, layer: Mapping[str, Any], listed: Mapping[str, Mapping[str, Any]]) -> WeightedLayer | None:
    config, shape = layer["config"], layer.get("build_config", {}).get("input_shape")
    if shape is None:
        return None
    reads = tuple(shape[1:])
    if layer["class_name"] == "Dense":
        return WeightedLayer(name, (reads[-1], config["units"]), reads, _source(layer, listed))
    if layer["class_name"] in ("Conv1D", "Conv2D", "Conv3D") and config.get("groups", 1) == 1:
        if config["padding"] not in ("same", "valid") or any(rate != 1 for rate in config["dilation_rate"]):
            return None
        kernel = (*config["kernel_size"], reads[-1], config["filters"])
        return WeightedLayer(name, kernel, reads, _source(layer, listed), tuple(config["strides"]), config["padding"])
    return None


def _source(layer: Mapping[str, Any], listed: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Follow single inputs back, through layers that keep the mean square, to a weighted layer or to the input."""
    while True:
        tensors = list(_inputs(layer.get("inbound_nodes", [])))
        if len(tensors) != 1 or tensors[0] not in listed:
            return None
        name = tensors[0]
        layer = listed[name]
        if layer["class_name"] == "InputLayer":
            return "input"
        if layer["class_name"] == "Dense" or layer["class_name"].startswith("Conv"):
            return name
        if layer["class_name"] not in _KEEP_MOMENT:
            return None


def _inputs(node: Any) -> Iterator[str]:
    """Names of the layers whose outputs a call takes."""
    if isinstance(node, Mapping):
        if "keras_history" in node:
            yield str(node["keras_history"][0])
        else:
            for child in node.values():
                yield from _inputs(child)
    elif isinstance(node, list):
        for child in node:
            yield from _inputs(child)
