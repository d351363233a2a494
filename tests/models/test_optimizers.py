"""Optimizers against their textbook step, learning rates against their formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from harness.config import Arm, Config
from harness.models.optimizers import learning_rates, optimizer
from harness.prepared import Prepared

ConfigOf = Callable[..., Config]
STEPS, RATE = 4, 0.1
START = np.array([1.0, -2.0])
CURVATURE = np.array([1.0, 3.0])  # of the loss sum(c w^2) / 2, whose gradient is c w
KERAS_EPS = 1e-7


def by_keras(spec: dict[str, Any], rate: float = RATE) -> list[npt.NDArray[Any]]:
    """The weights after each of STEPS steps down the quadratic."""
    built = optimizer(spec, "float32")
    weight = keras.Variable(START.astype(np.float32))
    built.build([weight])
    path = []
    for _ in range(STEPS):
        built.learning_rate.assign(rate)
        built.apply([keras.ops.multiply(CURVATURE.astype(np.float32), weight)], [weight])
        path.append(weight.numpy().copy())
    return path


def sgd() -> list[npt.NDArray[Any]]:
    return [START * (1 - RATE * CURVATURE) ** step for step in range(1, STEPS + 1)]


def momentum(nesterov: bool) -> list[npt.NDArray[Any]]:
    w, v, path = START, np.zeros(2), []
    for _ in range(STEPS):
        g = CURVATURE * w
        v = 0.9 * v - RATE * g
        w = w + (0.9 * v - RATE * g if nesterov else v)
        path.append(w)
    return path


def adam(decay: float = 0.0) -> list[npt.NDArray[Any]]:
    w, m, v, path = START, np.zeros(2), np.zeros(2), []
    for step in range(1, STEPS + 1):
        g = CURVATURE * w
        w = w - RATE * decay * w
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        w = w - RATE * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + KERAS_EPS)
        path.append(w)
    return path


def rmsprop() -> list[npt.NDArray[Any]]:
    w, v, path = START, np.zeros(2), []
    for _ in range(STEPS):
        g = CURVATURE * w
        v = 0.9 * v + 0.1 * g**2
        w = w - RATE * g / np.sqrt(v + KERAS_EPS)
        path.append(w)
    return path


def adagrad() -> list[npt.NDArray[Any]]:
    w, v, path = START, np.full(2, 0.1), []
    for _ in range(STEPS):
        g = CURVATURE * w
        v = v + g**2
        w = w - RATE * g / np.sqrt(v + KERAS_EPS)
        path.append(w)
    return path


@pytest.mark.parametrize(
    ("name", "textbook"),
    [
        ("sgd", sgd()),
        ("momentum", momentum(nesterov=False)),
        ("nesterov", momentum(nesterov=True)),
        ("adagrad", adagrad()),
        ("rmsprop", rmsprop()),
        ("adam", adam()),
        ("adamw", adam(decay=0.004)),
    ],
)
def test_the_steps_are_those_of_the_textbook(name: str, textbook: list[Any], config_of: ConfigOf) -> None:
    np.testing.assert_allclose(by_keras(config_of(f"optimizer={name}").optimizer), textbook, rtol=1e-4)


def test_at_rate_zero_nothing_moves(config_of: ConfigOf) -> None:
    np.testing.assert_array_equal(by_keras(config_of("optimizer=adamw").optimizer, rate=0.0)[-1], START)


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
@pytest.mark.parametrize("options", [{}, {"clipnorm": 0.1}, {"beta_1": 0.5, "epsilon": 1e-3}, {"use_ema": True}])
def test_a_fused_step_is_keras_own(name: str, options: dict[str, Any]) -> None:
    rng, paths = np.random.default_rng(0), []
    start, gradients = rng.standard_normal((8, 5)), rng.standard_normal((6, 8, 5))
    ours = optimizer({"_target_": f"keras.optimizers.{name}", **options}, "float32")
    for each in (ours, getattr(keras.optimizers, name)(**options)):
        weight = keras.Variable(start.astype(np.float32))
        each.build([weight])
        each.learning_rate.assign(RATE)
        for gradient in gradients:
            each.apply([keras.ops.convert_to_tensor(gradient, "float32")], [weight])
        paths.append([weight.numpy(), *(slot.numpy() for slot in each.variables)])
    assert "Fused" in type(ours).__name__
    for one, other in zip(*paths, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_a_fused_step_takes_the_gradient_of_looked_up_rows() -> None:
    table = keras.Variable(np.ones((3, 2), np.float32))
    built = optimizer({"_target_": "keras.optimizers.Adam"}, "float32")
    built.build([table])
    built.learning_rate.assign(RATE)
    built.apply([tf.IndexedSlices(tf.ones((1, 2)), tf.constant([1]), (3, 2))], [table])
    np.testing.assert_allclose(table.numpy(), [[1, 1], [1 - RATE, 1 - RATE], [1, 1]], atol=1e-5)


@pytest.mark.parametrize(
    "spec", [{"_target_": "keras.optimizers.Adam", "amsgrad": True}, {"_target_": "keras.optimizers.Nadam"}]
)
def test_a_step_of_another_kind_is_left_to_keras(spec: dict[str, Any]) -> None:
    assert type(optimizer(spec, "float32")).__module__.startswith("keras.")


def test_the_loss_is_scaled_under_float16_alone(config_of: ConfigOf) -> None:
    spec = config_of("optimizer=sgd").optimizer
    assert isinstance(optimizer(spec, "mixed_float16"), keras.optimizers.LossScaleOptimizer)
    for precision in ("float32", "mixed_bfloat16"):
        assert isinstance(optimizer(spec, precision), keras.optimizers.SGD)


@pytest.fixture
def rates(prepare: Callable[..., Prepared]) -> Callable[..., npt.NDArray[np.float32]]:
    """The learning rate of every step, of a command line, at 4 steps an epoch of 40 examples."""

    def table(*overrides: str) -> npt.NDArray[np.float32]:
        prepared = prepare("train.val_share=0.3333", "optimizer=sgd", "learning_rate.value=0.5", *overrides)
        assert prepared.epoch == 4
        found = prepared.recipe.learning_rates
        assert found.dtype == np.float32
        assert found.shape == (prepared.steps,)
        return found

    return table


def test_a_constant_rate(rates: Callable[..., Any]) -> None:
    np.testing.assert_array_equal(rates("train.steps=5"), [0.5] * 5)


def test_an_exponential_decay_to_a_tenth(rates: Callable[..., Any]) -> None:
    t = np.arange(20)
    np.testing.assert_allclose(rates("learning_rate=exponential", "train.steps=20"), 0.5 * 0.1 ** (t / 20), rtol=1e-5)


def test_a_tenth_after_each_third(rates: Callable[..., Any]) -> None:
    # 33.4 % of 30 steps is 10.02: 10 steps
    expected = [0.5] * 10 + [0.05] * 10 + [0.005] * 10
    np.testing.assert_allclose(rates("learning_rate=step", "train.steps=30"), expected, rtol=1e-5)


def test_half_a_cosine_after_a_linear_warm_up_of_a_twentieth(rates: Callable[..., Any]) -> None:
    climb = 0.5 * np.array([1, 2]) / 2
    t = np.arange(38)
    fall = 0.5 * (1 + np.cos(np.pi * t / 38)) / 2
    found = rates("learning_rate=cosine", "train.steps=40")
    np.testing.assert_allclose(found, np.concatenate([climb, fall]), atol=1e-6)


def test_a_warm_up_climbs_linearly_to_the_base_rate(rates: Callable[..., Any]) -> None:
    found = rates("learning_rate.warmup=1 epoch", "train.steps=6")
    np.testing.assert_allclose(found, [0.125, 0.25, 0.375, 0.5, 0.5, 0.5])


def test_a_warm_up_longer_than_the_training_is_cut(rates: Callable[..., Any]) -> None:
    np.testing.assert_allclose(rates("learning_rate.warmup=10", "train.steps=3"), [0.05, 0.1, 0.15], rtol=1e-6)


def test_a_decay_by_epochs(rates: Callable[..., Any]) -> None:
    found = rates("learning_rate=exponential", "learning_rate.schedule.decay_steps=2 epochs", "train.steps=17")
    np.testing.assert_allclose(found[[0, 8, 16]], [0.5, 0.05, 0.005], rtol=1e-5)


def test_a_schedule_of_keras_without_an_initial_rate_of_its_own() -> None:
    spec = {
        "_target_": "keras.optimizers.schedules.PiecewiseConstantDecay",
        "boundaries": [2],
        "values": [0.3, 0.1],
    }
    np.testing.assert_allclose(learning_rates(9.0, 0, spec, 5), [0.3, 0.3, 0.3, 0.1, 0.1], rtol=1e-6)


def test_a_rate_of_zero_is_a_rate(compose: Callable[..., tuple[Arm, ...]]) -> None:
    (arm,) = compose("learning_rate.value=0")
    assert arm.config.learning_rate.value == 0
