"""The net of "Convolutional Neural Net in TensorFlow"."""

from typing import TYPE_CHECKING

from harness.models.architectures.chain import Chain, Shape

if TYPE_CHECKING:
    import keras


def cnt(
    input_shape: Shape,
    classes: int,
    *,
    activation: str = "relu",
    conv_activation: str = "linear",
    pooling: str = "max",
    batch_norm: bool = False,
    dropout: float = 0.0,
    relu_logits: bool = False,
) -> "keras.Model":
    """Conv 3x3x12 and 3x3x16 SAME, each with a 3x3/2 VALID pooling, then dense 256, 100 and the logits (CNT 1-3).

    Args:
        input_shape: (height, width, channels).
        classes: outputs.
        activation: of the dense layers.
        conv_activation: of the convolutions.
        pooling: max | average.
        batch_norm: whether one (momentum 0.9) stands after each pooling.
        dropout: rate after each dense activation.
        relu_logits: a ReLU on the logits, as in the source's code: no logit can be negative, and where all of an
            example's are, it teaches nothing.
    """
    net = Chain(input_shape, images=True)
    for number, filters in enumerate((12, 16), 1):
        net.conv(f"conv{number}", filters, 3, conv_activation).pool(f"pool{number}", pooling, size=3)
        if batch_norm:
            net.norm(f"pool{number}_norm")
    net.flatten()
    for number, width in enumerate((256, 100), 1):
        net.dense(f"dense{number}", width, activation).dropout(f"dropout{number}", dropout)
    return net.logits(classes, "relu" if relu_logits else "linear")
