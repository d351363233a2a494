"""Keras layers of our own that nets are made of: import this file before loading a saved net that has one."""

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("harness")
class LocalResponseNormalization(keras.layers.Layer):  # type: ignore[misc]
    """x / (bias + alpha * sum of x^2 over the channels at most `radius` away)^beta.

    Krizhevsky et al. 2012, section 3.3.

    Args:
        radius: channels either way, at least 0; the paper's n is 2 radius + 1.
        bias: above 0.
        alpha: scale of the sum of squares.
        beta: exponent.
    """

    def __init__(
        self, radius: int = 2, bias: float = 2.0, alpha: float = 1e-4, beta: float = 0.75, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if radius < 0:
            raise ValueError(f"radius must be >= 0, got {radius}")
        if bias <= 0:
            raise ValueError(f"bias must be > 0, got {bias}")
        self.radius, self.bias, self.alpha, self.beta = radius, bias, alpha, beta

    def call(self, maps: tf.Tensor) -> tf.Tensor:
        """(batch, height, width, channels) -> the same shape; sums in float32."""
        wide = tf.cast(maps, tf.float32)
        normed = tf.nn.local_response_normalization(wide, self.radius, self.bias, self.alpha, self.beta)
        return tf.cast(normed, maps.dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """What `keras.models.load_model` needs."""
        own = {"radius": self.radius, "bias": self.bias, "alpha": self.alpha, "beta": self.beta}
        return {**super().get_config(), **own}
