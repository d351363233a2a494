"""A chain of named Keras layers under construction, and what happens when an image is too small for it."""

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

Shape = tuple[int, ...]
LARGEST = 512
"""Side up to which the smallest input that works is looked for."""
NORM_MOMENTUM = 0.9
"""Of batch norm's moving statistics; Keras' 0.99 lags behind in trainings of some hundred steps."""


class ShapeError(ValueError):
    """A net that cannot be built on this input: names the layer, its input and the smallest side that works."""


def build(
    builder: "Callable[..., keras.Model]", input_shape: Shape, classes: int, arguments: dict[str, Any]
) -> "keras.Model":
    """The net on this input.

    Raises:
        ShapeError: a layer would shrink its input below 1 pixel; names the smallest square input that works.
    """
    try:
        return builder(input_shape, classes, **arguments)
    except ShapeError as error:
        for side in range(max(input_shape[:2]) + 1, LARGEST + 1) if len(input_shape) == 3 else ():
            try:
                builder((side, side, input_shape[2]), classes, **arguments)
            except ShapeError:
                continue
            raise ShapeError(f"{error}; the smallest input that works is {side}x{side}") from None
        raise


class Chain:
    """Layers added one after another; each method gives the chain itself.

    Layers are built with zeros: the harness makes all initial weights itself, and random ones for a net of 10^8 weights
    take seconds.

    Args:
        input_shape: of one example.
        images: refuse vectors.
        batch_norm: whether a batch norm stands between every convolution or dense layer and its activation.
    """

    def __init__(self, input_shape: Shape, images: bool = False, batch_norm: bool = False) -> None:
        import keras

        if images and len(input_shape) != 3:
            raise ShapeError(f"a convolutional net needs images (height, width, channels), got {input_shape}")
        self._layers = keras.layers
        self._batch_norm = batch_norm
        self._input = self._x = keras.Input(input_shape, name="input")

    @property
    def shape(self) -> Shape:
        """Of what the last layer gives, without the batch."""
        return tuple(self._x.shape[1:])

    @property
    def side(self) -> int:
        """The smaller side of the current maps, in pixels."""
        return int(min(self.shape[:2]))

    def branch(self) -> "Chain":
        """A second chain that goes on from here; `join` brings it back."""
        return copy.copy(self)

    def join(self, name: str, other: "Chain") -> "Chain":
        """Add what another branch gives."""
        self._x = self._layers.Add(name=name)([self._x, other._x])
        return self

    def add(self, layer: Any) -> "Chain":
        """Any Keras layer.

        Raises:
            ShapeError: it cannot take what the chain gives, or nothing would be left of it.
        """
        try:
            self._x = layer(self._x)
        except ValueError as error:
            raise ShapeError(
                f"layer {layer.name} cannot take maps of {'x'.join(map(str, self._x.shape[1:3]))} pixels"
                if len(self._x.shape) == 4
                else f"layer {layer.name}: {error}"
            ) from error
        if 0 in self._x.shape[1:]:
            raise ShapeError(f"layer {layer.name} shrinks its maps below 1 pixel: {tuple(self._x.shape[1:])}")
        return self

    def conv(
        self, name: str, filters: int, kernel: int, activation: str, padding: str = "same", stride: int = 1
    ) -> "Chain":
        """A square convolution, its batch norm where the net has them, its activation."""
        layer = self._layers.Conv2D(
            *(filters, kernel, stride),
            padding=padding,
            name=name,
            use_bias=not self._batch_norm,
            kernel_initializer="zeros",
        )
        return self.add(layer)._activated(name, activation)

    def dense(self, name: str, width: int, activation: str) -> "Chain":
        """A dense layer, its batch norm where the net has them, its activation."""
        layer = self._layers.Dense(width, name=name, use_bias=not self._batch_norm, kernel_initializer="zeros")
        return self.add(layer)._activated(name, activation)

    def _activated(self, name: str, activation: str) -> "Chain":
        # Its shift does what a bias in front of it would.
        return (self.norm(f"{name}_norm") if self._batch_norm else self).activation(name, activation)

    def activation(self, name: str, activation: str) -> "Chain":
        """The activation `<name>_<activation>`; none for `linear`."""
        if activation == "linear":
            return self
        return self.add(self._layers.Activation(activation, name=f"{name}_{activation}"))

    def norm(self, name: str) -> "Chain":
        """Batch normalization (Ioffe and Szegedy 2015)."""
        return self.add(self._layers.BatchNormalization(momentum=NORM_MOMENTUM, name=name))

    def pool(self, name: str, kind: str, size: int = 2, padding: str = "valid") -> "Chain":
        """A pooling of size x size with stride 2.

        Raises:
            ValueError: another kind than max and average.
        """
        layers = {"max": self._layers.MaxPooling2D, "average": self._layers.AveragePooling2D}
        if kind not in layers:
            raise ValueError(f"pooling: got {kind!r}; allowed: {', '.join(layers)}")
        return self.add(layers[kind](size, 2, padding=padding, name=name))

    def zero_pad(self, side: int) -> "Chain":
        """Zeros around maps smaller than `side` pixels, the odd one below and to the right."""
        missing = [max(0, side - length) for length in self.shape[:2]]
        edges = tuple((count // 2, count - count // 2) for count in missing)
        return self.add(self._layers.ZeroPadding2D(edges, name="pad")) if any(missing) else self

    def flatten(self) -> "Chain":
        """Maps to a vector."""
        return self.add(self._layers.Flatten(name="flatten"))

    def dropout(self, name: str, rate: float) -> "Chain":
        """Dropout; nothing for a rate of 0."""
        return self.add(self._layers.Dropout(rate, name=name)) if rate else self

    def logits(self, classes: int, activation: str = "linear") -> "keras.Model":
        """The output layer, and with it the net."""
        import keras

        # float32 also under mixed precision: the loss is taken on these.
        self.add(self._layers.Dense(classes, name="logits", dtype="float32", kernel_initializer="zeros"))
        if activation != "linear":
            self.add(self._layers.Activation(activation, name=f"logits_{activation}", dtype="float32"))
        return keras.Model(self._input, self._x)
