"""VGG nets: 3x3 convolutions in blocks, 2x2 max pooling, two wide dense layers."""

from typing import TYPE_CHECKING

from harness.models.architectures.chain import Chain, Shape

if TYPE_CHECKING:
    import keras

CONFIGURATION_D = [[64, 64], [128, 128], [256, 256, 256], [512, 512, 512], [512, 512, 512]]


def vgg(
    input_shape: Shape,
    classes: int,
    *,
    blocks: list[list[int]] = CONFIGURATION_D,
    dense: list[int] = [4096, 4096],  # noqa: B006
    pad_to: int | None = None,
    pooling: str = "max",
    activation: str = "relu",
    batch_norm: bool = False,
    dropout: float = 0.0,
) -> "keras.Model":
    """3x3 SAME convolutions, one inner list a block, each block ended by a 2x2/2 pooling (Simonyan and Zisserman 2015).

    Args:
        input_shape: (height, width, channels).
        classes: outputs.
        blocks: filters of each convolution; the default is configuration D, VGG-16.
        dense: widths of the dense layers between the flattened maps and the logits.
        pad_to: side to which smaller images are padded with zeros inside the net (LTFN 8: 28 -> 32).
        pooling: max | average.
        activation: any Keras activation.
        batch_norm: whether one stands in front of every activation.
        dropout: rate after each dense activation.
    """
    net = Chain(input_shape, images=True, batch_norm=batch_norm)
    if pad_to is not None:
        net.zero_pad(pad_to)
    position = 0
    for number, block in enumerate(blocks, 1):
        for filters in block:
            position += 1
            net.conv(f"conv{position}", filters, 3, activation)
        net.pool(f"pool{number}", pooling)
    net.flatten()
    for number, width in enumerate(dense, 1):
        net.dense(f"dense{number}", width, activation).dropout(f"dropout{number}", dropout)
    return net.logits(classes)
