"""Builders of nets: `(input_shape, classes, *, …) -> keras.Model` from preprocessed examples to logits.

Every layer with weights is linear and named; its activation is a layer of its own, `<layer>_<activation>`, so that
probes see pre-activations and activations alike. The output layer is called `logits`. Keras is imported when a net
is built, so that a config can be checked against a builder's signature without TensorFlow.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

Shape = tuple[int, ...]


class ShapeError(ValueError):
    """A net that cannot be built on this input: names the layer, its input and the smallest side that works."""


def softmax(input_shape: Shape, classes: int) -> "keras.Model":
    """One dense layer on the flattened input (LTFN 1-2)."""
    return _Net(input_shape).flatten().logits(classes)


def mlp(
    input_shape: Shape,
    classes: int,
    *,
    widths: list[int] = [500, 500],  # noqa: B006 (read, never changed; OmegaConf reads the default)
    activation: str = "relu",
    dropout: float = 0.0,
) -> "keras.Model":
    """Dense layers of these widths on the flattened input (LTFN 3), dropout after each activation."""
    net = _Net(input_shape).flatten()
    for position, width in enumerate(widths, 1):
        net.dense(f"dense{position}", width, activation).dropout(f"dropout{position}", dropout)
    return net.logits(classes)


def convnet(
    input_shape: Shape,
    classes: int,
    *,
    blocks: list[list[int]] = [[64, 64], [128, 128]],  # noqa: B006
    kernel_size: int = 3,
    padding: str = "same",
    pooling: str = "max",
    dense: list[int] = [],  # noqa: B006
    activation: str = "relu",
    dropout: float = 0.0,
) -> "keras.Model":
    """Blocks of stride-1 convolutions (one inner list a block: the filters), each ended by a 2x2/2 pooling (LTFN 5).

    Args:
        input_shape: (height, width, channels).
        classes: outputs.
        blocks: filters of each convolution, block by block.
        kernel_size: side of the square kernels.
        padding: same | valid.
        pooling: max | average.
        dense: widths of the dense layers between the flattened maps and the logits.
        activation: any Keras activation.
        dropout: rate in front of every dense layer, the output layer too.
    """
    net = _Net(input_shape, images=True)
    position = 0
    for number, block in enumerate(blocks, 1):
        for filters in block:
            position += 1
            net.conv(f"conv{position}", filters, kernel_size, activation, padding=padding)
        net.pool(f"pool{number}", pooling)
    net.flatten()
    for number, width in enumerate(dense, 1):
        net.dropout(f"dropout{number}", dropout).dense(f"dense{number}", width, activation)
    return net.dropout("dropout_logits", dropout).logits(classes)


def lenet5(
    input_shape: Shape,
    classes: int,
    *,
    activation: str = "sigmoid",
    pooling: str = "average",
    dropout: float = 0.0,
) -> "keras.Model":
    """LeNet-5 (LeCun et al. 1998; BCNN 2.5): conv 5x5x6 SAME, pool 2, conv 5x5x16 VALID, pool 2, dense 120 and 84.

    On inputs whose maps are smaller than 5 pixels at the second convolution, its kernel is as large as the map allows
    while leaving 2 pixels to pool (8x8 digits: 4x4 maps, 3x3 kernels).
    """
    net = _Net(input_shape, images=True)
    net.conv("conv1", 6, 5, activation).pool("pool1", pooling)
    kernel = max(1, min(5, net.side - 1))
    net.conv("conv2", 16, kernel, activation, padding="valid").pool("pool2", pooling).flatten()
    for position, width in enumerate((120, 84), 1):
        net.dense(f"dense{position}", width, activation).dropout(f"dropout{position}", dropout)
    return net.logits(classes)


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
        for side in range(max(input_shape[:2]) + 1, 513) if len(input_shape) == 3 else ():
            try:
                builder((side, side, input_shape[2]), classes, **arguments)
            except ShapeError:
                continue
            raise ShapeError(f"{error}; the smallest input that works is {side}x{side}") from None
        raise


class _Net:
    """A chain of Keras layers under construction."""

    def __init__(self, input_shape: Shape, images: bool = False) -> None:
        import keras

        if images and len(input_shape) != 3:
            raise ShapeError(f"a convolutional net needs images (height, width, channels), got {input_shape}")
        self._keras = keras
        self._input = self._x = keras.Input(input_shape, name="input")

    @property
    def side(self) -> int:
        """The smaller side of the current maps, in pixels."""
        return int(min(self._x.shape[1:3]))

    def _add(self, layer: Any) -> "_Net":
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

    def conv(self, name: str, filters: int, kernel: int, activation: str, padding: str = "same") -> "_Net":
        layers = self._keras.layers
        self._add(layers.Conv2D(filters, kernel, padding=padding, name=name))
        return self._add(layers.Activation(activation, name=f"{name}_{activation}"))

    def dense(self, name: str, width: int, activation: str) -> "_Net":
        layers = self._keras.layers
        self._add(layers.Dense(width, name=name))
        return self._add(layers.Activation(activation, name=f"{name}_{activation}"))

    def pool(self, name: str, kind: str) -> "_Net":
        layers = self._keras.layers
        kinds = {"max": layers.MaxPooling2D, "average": layers.AveragePooling2D}
        if kind not in kinds:
            raise ValueError(f"pooling: got {kind!r}; allowed: {', '.join(kinds)}")
        return self._add(kinds[kind](2, name=name))

    def flatten(self) -> "_Net":
        return self._add(self._keras.layers.Flatten(name="flatten"))

    def dropout(self, name: str, rate: float) -> "_Net":
        return self._add(self._keras.layers.Dropout(rate, name=name)) if rate else self

    def logits(self, classes: int) -> "keras.Model":
        # float32 also under mixed precision: the loss is taken on these.
        self._add(self._keras.layers.Dense(classes, name="logits", dtype="float32"))
        return self._keras.Model(self._input, self._x)
