"""Residual nets for small images."""

from typing import TYPE_CHECKING, Any

from harness.models.architectures.chain import Chain, Shape

if TYPE_CHECKING:
    import keras


def resnet(
    input_shape: Shape,
    classes: int,
    *,
    widths: list[int] = [16, 32, 64],  # noqa: B006
    blocks: int = 3,
    activation: str = "relu",
    dropout: float = 0.0,
) -> "keras.Model":
    """A residual net as on CIFAR-10 in He et al. 2016, section 4.2; 3 stages of 3 blocks: ResNet-20.

    A 3x3 convolution, stages of `blocks` blocks of two 3x3 convolutions, the mean over each map, the logits; batch norm
    after every convolution. Each stage after the first halves the maps with its first convolution; its shortcut takes
    every second pixel and fills the new channels with zeros (option A: no weights).

    Args:
        input_shape: (height, width, channels).
        classes: outputs.
        widths: filters of each stage.
        blocks: of each stage.
        activation: any Keras activation.
        dropout: rate in front of the logits.
    """
    import keras

    net = Chain(input_shape, images=True, batch_norm=True).conv("conv1", widths[0], 3, activation)
    position, number = 1, 0
    for stage, width in enumerate(widths):
        for first in (True, *(False,) * (blocks - 1)):
            number += 1
            stride = 2 if first and stage else 1
            shortcut = net.branch()
            net.conv(f"conv{position + 1}", width, 3, activation, stride=stride)
            net.conv(f"conv{position + 2}", width, 3, "linear")
            position += 2
            if stride > 1:
                shortcut.add(keras.layers.MaxPooling2D(1, stride, name=f"block{number}_halved"))
            if new := width - shortcut.shape[-1]:
                shortcut.add(_more_channels(new, f"block{number}_widened"))
            net.join(f"block{number}_add", shortcut).activation(f"block{number}", activation)
    net.add(keras.layers.GlobalAveragePooling2D(name="mean"))
    return net.dropout("dropout_logits", dropout).logits(classes)


def _more_channels(count: int, name: str) -> Any:
    """Zeros behind the last channel: with `channels_first`, Keras pads the last two axes, here columns and channels."""
    import keras

    if count < 0:
        raise ValueError(f"widths: a stage has {-count} filters fewer than the one before; allowed: as many, or more")
    return keras.layers.ZeroPadding2D(((0, 0), (0, count)), data_format="channels_first", name=name)
