"""Nets of dense layers alone, for images and vectors."""

from typing import TYPE_CHECKING

from harness.models.architectures.chain import Chain, Shape

if TYPE_CHECKING:
    import keras


def softmax(input_shape: Shape, classes: int) -> "keras.Model":
    """One dense layer on the flattened input (LTFN 1-2)."""
    return Chain(input_shape).flatten().logits(classes)


def mlp(
    input_shape: Shape,
    classes: int,
    *,
    widths: list[int] = [500, 500],  # noqa: B006 (read, never changed; OmegaConf reads the default)
    activation: str = "relu",
    batch_norm: bool = False,
    dropout: float = 0.0,
) -> "keras.Model":
    """Dense layers of these widths on the flattened input (LTFN 3), dropout after each activation."""
    net = Chain(input_shape, batch_norm=batch_norm).flatten()
    for position, width in enumerate(widths, 1):
        net.dense(f"dense{position}", width, activation).dropout(f"dropout{position}", dropout)
    return net.logits(classes)
