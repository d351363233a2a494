"""Augmentations that Keras does not have, as Keras layers for training images in [0, 1]."""

from typing import Any

import keras
import tensorflow as tf


class _Random(keras.layers.Layer):  # type: ignore[misc]
    """A layer that changes images in training only, each its own way, by draws from a generator of its own."""

    def __init__(self, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = seed
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, images: tf.Tensor, training: bool = True) -> tf.Tensor:
        """(batch, height, width, channels) -> the same shape."""
        return self.change(images) if training else images

    def change(self, images: tf.Tensor) -> tf.Tensor:
        """What happens in training."""
        raise NotImplementedError

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """What `keras.models.load_model` needs."""
        return {**super().get_config(), "seed": self.seed}


@keras.saving.register_keras_serializable("harness")
class PadAndCrop(_Random):
    """Pad with zeros, then cut a window of the old size at a place drawn for each image (He et al. 2016, section 4.2).

    Keras' RandomCrop cuts all images of a batch at one place.

    Args:
        padding: pixels on every side, at least 1.
        seed: of the layer's own generator.
    """

    def __init__(self, padding: int = 4, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(seed, **kwargs)
        if padding < 1:
            raise ValueError(f"padding must be >= 1, got {padding}")
        self.padding = padding

    def change(self, images: tf.Tensor) -> tf.Tensor:
        """See the class."""
        corners = keras.random.randint((tf.shape(images)[0], 2), 0, 2 * self.padding + 1, seed=self.generator)
        return _windows(images, self.padding, corners)

    def get_config(self) -> dict[str, Any]:
        """See above."""
        return {**super().get_config(), "padding": self.padding}


@keras.saving.register_keras_serializable("harness")
class ShiftOrMirror(_Random):
    """One of six, each as likely: the image, shifted by a pixel up, down, left or right, or mirrored (CNT 2)."""

    def change(self, images: tf.Tensor) -> tf.Tensor:
        """See the class."""
        choice = keras.random.randint((tf.shape(images)[0],), 0, 6, seed=self.generator)
        # Of the window in the image with one pixel around it; the mirror image stays where it is.
        corners = tf.constant([[1, 1], [0, 1], [2, 1], [1, 0], [1, 2], [1, 1]])
        mirrored = tf.reshape(choice == 5, (-1, 1, 1, 1))
        return tf.where(mirrored, images[:, :, ::-1], _windows(images, 1, tf.gather(corners, choice)))


@keras.saving.register_keras_serializable("harness")
class Saturate(_Random):
    """Move each pixel away from or towards its gray (ITU-R BT.601), by a share drawn for each image; clip to [0, 1].

    Keras' RandomSaturation refuses gray images; here they stay as they are.

    Args:
        factor: at most this share either way, in [0, 1].
        seed: of the layer's own generator.
    """

    def __init__(self, factor: float = 0.2, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(seed, **kwargs)
        if not 0 <= factor <= 1:
            raise ValueError(f"factor must be in [0, 1], got {factor}")
        self.factor = factor

    def change(self, images: tf.Tensor) -> tf.Tensor:
        """See the class."""
        if images.shape[-1] != 3:
            return images
        share = keras.random.uniform(
            (tf.shape(images)[0], 1, 1, 1), 1 - self.factor, 1 + self.factor, seed=self.generator
        )
        gray = tf.reduce_sum(images * tf.constant([0.299, 0.587, 0.114]), axis=-1, keepdims=True)
        return tf.clip_by_value(gray + share * (images - gray), 0.0, 1.0)

    def get_config(self) -> dict[str, Any]:
        """See above."""
        return {**super().get_config(), "factor": self.factor}


def _windows(images: tf.Tensor, padding: int, corners: tf.Tensor) -> tf.Tensor:
    """Windows of the images' own size out of the images with zeros around them.

    Args:
        images: (batch, height, width, channels).
        padding: pixels of zeros on every side.
        corners: (batch, 2), the first row and column of each window, in [0, 2 * padding].
    """
    height, width = images.shape[1:3]
    padded = tf.pad(images, [[0, 0], [padding, padding], [padding, padding], [0, 0]])
    rows = corners[:, :1] + tf.range(height)
    columns = corners[:, 1:] + tf.range(width)
    return tf.gather(tf.gather(padded, rows, batch_dims=1), columns, axis=2, batch_dims=1)
