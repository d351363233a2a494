"""LeNet-5, as published and with ReLU and max pooling."""

from typing import TYPE_CHECKING

from harness.models.architectures.chain import Chain, Shape

if TYPE_CHECKING:
    import keras


def lenet5(
    input_shape: Shape,
    classes: int,
    *,
    activation: str = "sigmoid",
    pooling: str = "average",
    batch_norm: bool = False,
    dropout: float = 0.0,
) -> "keras.Model":
    """LeNet-5 (LeCun et al. 1998; BCNN 2.5): conv 5x5x6 SAME, pool 2, conv 5x5x16 VALID, pool 2, dense 120 and 84.

    On inputs whose maps are smaller than 5 pixels at the second convolution, its kernel is as large as the map allows
    while leaving 2 pixels to pool (8x8 digits: 4x4 maps, 3x3 kernels).
    """
    net = Chain(input_shape, images=True, batch_norm=batch_norm)
    net.conv("conv1", 6, 5, activation).pool("pool1", pooling)
    kernel = max(1, min(5, net.side - 1))
    net.conv("conv2", 16, kernel, activation, padding="valid").pool("pool2", pooling).flatten()
    for position, width in enumerate((120, 84), 1):
        net.dense(f"dense{position}", width, activation).dropout(f"dropout{position}", dropout)
    return net.logits(classes)
