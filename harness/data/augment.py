"""Augmentations that Keras does not have, as Keras layers for training images in [0, 1]."""

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("harness")
class PadAndCrop(keras.layers.Layer):  # type: ignore[misc]
    """Pad with zeros, then cut a window of the old size at a place drawn for each image (He et al. 2016, section 4.2).

    Keras' RandomCrop cuts all images of a batch at one place.

    Args:
        padding: pixels on every side, at least 1.
        seed: of the layer's own generator.
    """

    def __init__(self, padding: int = 4, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if padding < 1:
            raise ValueError(f"padding must be >= 1, got {padding}")
        self.padding = padding
        self.seed = seed
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, images: tf.Tensor, training: bool = True) -> tf.Tensor:
        """(batch, height, width, channels) -> the same shape."""
        if not training:
            return images
        batch, (height, width) = tf.shape(images)[0], images.shape[1:3]
        p = self.padding
        padded = tf.pad(images, [[0, 0], [p, p], [p, p], [0, 0]])
        corners = keras.random.randint((batch, 2), 0, 2 * p + 1, seed=self.generator)
        rows = corners[:, :1] + tf.range(height)
        columns = corners[:, 1:] + tf.range(width)
        return tf.gather(tf.gather(padded, rows, batch_dims=1), columns, axis=2, batch_dims=1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """What `keras.models.load_model` needs."""
        return {**super().get_config(), "padding": self.padding, "seed": self.seed}
