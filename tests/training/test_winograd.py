"""Winograd's convolutions: the direct ones' outputs and gradients, used where they pay, and not seen in a saved net."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from harness.training import winograd


def layer(model: Any, name: str = "conv") -> Any:
    return model.get_layer(name)


def net(side: int = 8, channels: int = 32, filters: int = 32, **arguments: Any) -> Any:
    import keras

    inputs = keras.Input((side, side, channels))
    made = keras.layers.Conv2D(filters, **{"kernel_size": 3, "padding": "same", "name": "conv"} | arguments)
    return keras.Model(inputs, made(inputs))


def both(x: Any, kernel: Any, upstream: Any) -> list[list[np.ndarray]]:
    """Output, gradient of the images and of the kernel: directly in float64, and by Winograd in float32."""
    found = []
    for convolve, kind in (
        (lambda x, k: tf.nn.conv2d(x, k, 1, "SAME"), tf.float64),
        (winograd.convolution, tf.float32),
    ):
        images, weights = tf.cast(x, kind), tf.cast(kernel, kind)
        with tf.GradientTape() as tape:
            tape.watch([images, weights])
            output = convolve(images, weights)
        gradients = tape.gradient(output, [images, weights], tf.cast(upstream, kind))
        found.append([part.numpy() for part in (output, *gradients)])
    return found


def test_a_row_of_four_outputs_by_hand() -> None:
    inputs, kernel, outputs = winograd._of_tiles()
    row, taps = np.array([1, 2, 3, 4, 5, 6]), np.array([1, 0, -2])
    np.testing.assert_allclose(outputs @ ((kernel @ taps) * (inputs @ row)), [1 - 6, 2 - 8, 3 - 10, 4 - 12], rtol=1e-12)


def test_the_input_s_matrix_holds_short_fractions_that_float32_keeps() -> None:
    inputs, _, outputs = winograd._of_tiles()
    for value in np.concatenate([inputs.ravel(), outputs.ravel()]):
        assert Fraction(float(np.float32(value))) == Fraction(value).limit_denominator(64)


@pytest.mark.parametrize("sides", [(4, 4), (8, 8), (7, 6), (5, 9), (3, 1)])
def test_outputs_and_gradients_are_those_of_the_direct_convolution(sides: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    x, upstream = random.normal(size=(5, *sides, 6)), random.normal(size=(5, *sides, 7))
    for direct, ours in zip(*both(x, random.normal(size=(3, 3, 6, 7)), upstream), strict=True):
        assert ours.shape == direct.shape
        np.testing.assert_allclose(ours, direct, atol=3e-5 * direct.std())


def test_rounding_stays_within_ten_times_that_of_the_direct_convolution() -> None:
    random = np.random.default_rng(1)
    x, kernel = np.maximum(random.normal(size=(20, 8, 8, 64)), 0), random.normal(size=(3, 3, 64, 64))
    exact = tf.nn.conv2d(tf.constant(x), tf.constant(kernel), 1, "SAME").numpy()
    single = tf.constant(x, tf.float32), tf.constant(kernel, tf.float32)
    direct = tf.nn.conv2d(*single, 1, "SAME").numpy()

    def error(found: np.ndarray) -> float:
        return float(np.sqrt(np.mean((found - exact) ** 2)) / exact.std())

    assert error(winograd.convolution(*single).numpy()) < min(10 * error(direct), 3e-6)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"side": 4},
        {"side": 7, "filters": 100},
    ],
)
def test_it_is_used_where_it_pays(arguments: dict[str, Any]) -> None:
    assert winograd.pays(layer(net(**arguments)))


@pytest.mark.parametrize(
    "arguments",
    [
        {"side": 28},
        {"side": 5},
        {"side": 2},
        {"channels": 16},
        {"filters": 31},
        {"kernel_size": 5},
        {"kernel_size": (3, 1)},
        {"strides": 2},
        {"dilation_rate": 2},
        {"groups": 2},
        {"padding": "valid"},
        {"dtype": "mixed_bfloat16"},
    ],
)
def test_other_convolutions_stay_direct(arguments: dict[str, Any]) -> None:
    assert not winograd.pays(layer(net(**arguments)))


def test_what_is_saved_of_the_net_is_a_plain_keras_net(tmp_path: Any) -> None:
    import keras

    model = net()
    x = np.random.default_rng(2).normal(size=(3, 8, 8, 32)).astype(np.float32)
    direct = model(x).numpy()
    winograd.use(model)
    ours = model(x).numpy()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert (ours != direct).any()
    np.testing.assert_allclose(ours, direct, atol=3e-5 * direct.std())
    np.testing.assert_array_equal(loaded(x).numpy(), direct)


@pytest.mark.parametrize(
    ("words", "used"),
    [([], True), (["runtime.winograd=false"], False), (["runtime.xla=true"], False)],
)
def test_runtime_winograd_chooses(words: list[str], used: bool, prepare: Any, replica_of: Any) -> None:
    model = replica_of(prepare("arch=convnet", "~arch.widths", "arch.blocks=[[32,32]]", *words), fresh=True).model
    assert (layer(model, "conv2").convolution_op is winograd.convolution) == used
    assert layer(model, "conv1").convolution_op is not winograd.convolution
