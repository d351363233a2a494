"""Blocks of convolutions, each ended by a reduction of the maps, and a dense part."""

from typing import TYPE_CHECKING

from harness.models.architectures.chain import Chain, Shape

if TYPE_CHECKING:
    import keras

POOLINGS = ("max", "average", "stride", "none")


def convnet(
    input_shape: Shape,
    classes: int,
    *,
    blocks: list[list[int]] = [[64, 64], [128, 128]],  # noqa: B006
    kernel_size: int = 3,
    padding: str = "same",
    stride: int = 1,
    pooling: str = "max",
    dense: list[int] = [],  # noqa: B006
    activation: str = "relu",
    batch_norm: bool = False,
    dropout: float = 0.0,
) -> "keras.Model":
    """Blocks of convolutions (one inner list a block: the filters), each ended by a 2x2/2 pooling (LTFN 5).

    Args:
        input_shape: (height, width, channels).
        classes: outputs.
        blocks: filters of each convolution, block by block.
        kernel_size: side of the square kernels.
        padding: same | valid.
        stride: of every convolution.
        pooling: what ends a block: max | average | stride (its last convolution has twice the stride, in the place of
            a pooling; Springenberg et al. 2015) | none.
        dense: widths of the dense layers between the flattened maps and the logits.
        activation: any Keras activation.
        batch_norm: whether one stands in front of every activation.
        dropout: rate in front of every dense layer, the output layer too.
    """
    if pooling not in POOLINGS:
        raise ValueError(f"pooling: got {pooling!r}; allowed: {', '.join(POOLINGS)}")
    net = Chain(input_shape, images=True, batch_norm=batch_norm)
    position = 0
    for number, block in enumerate(blocks, 1):
        for place, filters in enumerate(block, 1):
            position += 1
            longer = 2 if pooling == "stride" and place == len(block) else 1
            net.conv(f"conv{position}", filters, kernel_size, activation, padding, stride * longer)
        if pooling in ("max", "average"):
            net.pool(f"pool{number}", pooling)
    net.flatten()
    for number, width in enumerate(dense, 1):
        net.dropout(f"dropout{number}", dropout).dense(f"dense{number}", width, activation)
    return net.dropout("dropout_logits", dropout).logits(classes)
