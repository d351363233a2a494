"""AlexNet on one device, with local response normalization after the pooling."""

from typing import TYPE_CHECKING

from harness.models.architectures.chain import Chain, Shape

if TYPE_CHECKING:
    import keras

KERNELS = (11, 5, 3, 3, 3)
POOLED = (1, 2, 5)
NORMALIZED = (1, 2)


def alexnet(
    input_shape: Shape,
    classes: int,
    *,
    filters: list[int] = [96, 256, 384, 384, 256],  # noqa: B006
    dense: list[int] = [4096, 4096],  # noqa: B006
    padding: str = "same",
    activation: str = "relu",
    dropout: float = 0.0,
    radius: int = 2,
    bias: float = 2.0,
    alpha: float = 1e-4,
    beta: float = 0.75,
) -> "keras.Model":
    """Krizhevsky et al. 2012 as in BCNN 3.1: five convolutions, 3x3/2 max pooling after the 1st, 2nd and 5th.

    Args:
        input_shape: (height, width, channels).
        classes: outputs.
        filters: of the convolutions 11x11/4, 5x5, 3x3, 3x3, 3x3.
        dense: widths of the dense layers between the flattened maps and the logits.
        padding: of convolutions and poolings: same (224 -> 56 -> 28 -> 14 -> 7 pixels) | valid.
        activation: any Keras activation.
        dropout: rate after each dense activation.
        radius: of the local response normalization after the 1st and 2nd pooling, in channels either way.
        bias: k in the paper's section 3.3.
        alpha: scale of the sum of squares.
        beta: exponent.
    """
    from harness.layers import LocalResponseNormalization

    if len(filters) != len(KERNELS):
        raise ValueError(f"filters: got {len(filters)}; allowed: one for each of the {len(KERNELS)} convolutions")
    net = Chain(input_shape, images=True)
    for number, (count, kernel) in enumerate(zip(filters, KERNELS, strict=True), 1):
        net.conv(f"conv{number}", count, kernel, activation, padding, stride=4 if number == 1 else 1)
        if number in POOLED:
            net.pool(f"pool{number}", "max", 3, padding)
        if number in NORMALIZED:
            net.add(LocalResponseNormalization(radius, bias, alpha, beta, name=f"response_norm{number}"))
    net.flatten()
    for number, width in enumerate(dense, 1):
        net.dense(f"dense{number}", width, activation).dropout(f"dropout{number}", dropout)
    return net.logits(classes)
