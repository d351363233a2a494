"""Per-layer statistics against numpy and against numbers counted by hand."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from harness.bins import EDGES
from harness.models import architectures
from harness.models.initializers import initial_weights
from harness.prepared import Prepared
from harness.streams import Block
from harness.training import probes
from harness.training.replica import Replica

RNG = np.random.default_rng(0)


def numbers(x: object, activation: str | None = None) -> dict[str, float]:
    return {name: float(value) for name, value in probes.moments(tf.constant(x, tf.float32), activation).items()}


def test_moments_are_those_of_all_values() -> None:
    x = RNG.normal(3, 2, (10, 4, 4, 2)).astype(np.float32)
    assert numbers(x) == pytest.approx({"mean": x.mean(), "std": x.std()}, rel=1e-5)


def test_zeros_and_dead_units_by_hand() -> None:
    # Three units on three examples: never zero, zero twice, dead.
    found = numbers([[1.0, 0.0, 0.0], [2.0, 3.0, 0.0], [4.0, 0.0, 0.0]], "relu")
    assert found["zeros"] == pytest.approx(5 / 9)
    assert found["dead"] == pytest.approx(1 / 3)
    assert "saturated" not in found


def test_a_dead_unit_of_a_map_is_one_place_of_one_channel() -> None:
    x = np.ones((2, 2, 2, 1), np.float32)
    x[:, 0, 0, 0] = 0
    x[0, 1, 1, 0] = 0
    found = numbers(x, "relu")
    assert found["dead"] == pytest.approx(1 / 4)
    assert found["zeros"] == pytest.approx(3 / 8)


@pytest.mark.parametrize(
    ("activation", "values", "share"),
    [
        ("sigmoid", [[0.005, 0.02], [0.5, 0.995]], 0.5),
        ("softmax", [[0.999, 0.001]], 1.0),
        ("tanh", [[-0.995, 0.995, 0.98, 0.0]], 0.5),
    ],
)
def test_saturated_is_the_share_within_a_hundredth_of_a_bound(
    activation: str, values: list[list[float]], share: float
) -> None:
    assert numbers(values, activation)["saturated"] == pytest.approx(share)


def counted(x: object) -> np.ndarray:
    (found,) = probes.counts([tf.constant(x, tf.float32)]).numpy()
    return found


def test_counts_are_those_of_numpy_for_half_open_bins() -> None:
    x = (RNG.normal(size=(50, 30)) * 10.0 ** RNG.integers(-8, 8, (50, 30))).astype(np.float32)
    expected = np.bincount(np.searchsorted(EDGES, x.ravel(), side="right"), minlength=245)
    found = counted(x)
    assert found.shape == (245,)
    np.testing.assert_array_equal(found, expected)


def test_each_edge_and_the_numbers_beside_it_are_counted_as_by_numpy() -> None:
    for towards in (-np.inf, 0, np.inf):
        for value in np.nextafter(EDGES, np.float32(towards)):
            if abs(value) >= np.finfo(np.float32).tiny:  # TensorFlow takes smaller ones for 0
                place = int(np.searchsorted(EDGES, value, side="right"))
                assert probes._bins(tf.constant([value])).numpy().tolist() == [place], value


def test_arrays_are_counted_each_for_itself() -> None:
    found = probes.counts([tf.constant([[1.0, -1.0]]), tf.constant([[[0.0], [0.0], [2e6]]])]).numpy()
    assert found.shape == (2, 245)
    assert [np.flatnonzero(row).tolist() for row in found] == [[61, 184], [122, 244]]
    assert found.sum(axis=1).tolist() == [2, 3]


def test_an_edge_belongs_to_the_bin_above_it() -> None:
    found = counted([[EDGES[0], EDGES[130], EDGES[243]]])
    assert np.flatnonzero(found).tolist() == [1, 131, 244]


@pytest.mark.parametrize(
    ("value", "place"),
    [(0.0, 122), (-0.0, 122), (1e-30, 123), (-1e-30, 121), (-1e7, 0), (1e7, 244), (np.inf, 244), (-np.inf, 0)],
)
def test_zero_and_what_lies_outside_have_bins_of_their_own(value: float, place: int) -> None:
    assert np.flatnonzero(counted([[value]])).tolist() == [place]


def test_not_a_number_counts_as_above() -> None:
    assert np.flatnonzero(counted([[np.nan]])).tolist() == [244]


@pytest.mark.parametrize("shape", [(100, 28, 28, 6), (300, 100), (7, 3001)])
def test_a_large_array_is_sampled_evenly_over_all_its_channels(shape: tuple[int, ...]) -> None:
    # Channel c holds the value of bin 130 + c % 20 alone.
    channels = np.arange(shape[-1]) % 20
    x = np.broadcast_to(np.sqrt(EDGES[129:149] * EDGES[130:150])[channels], shape)
    found = counted(x)
    assert probes.SAMPLE / 3 < found.sum() <= probes.SAMPLE
    shares = found[130:150] / found.sum()
    np.testing.assert_allclose(shares, np.bincount(channels, minlength=20) / shape[-1], atol=0.01)


def test_a_small_array_is_counted_whole() -> None:
    assert counted(np.ones((80, 100))).sum() == 8_000


def names(model: keras.Model) -> list[str]:
    return [tap.name for tap in probes.taps(model)]


def test_each_layer_has_its_pre_activations_and_activations_watched() -> None:
    assert names(architectures.lenet5((28, 28, 1), 10)) == [
        "conv1/pre_activation",
        "conv1/activation",
        "conv2/pre_activation",
        "conv2/activation",
        "dense1/pre_activation",
        "dense1/activation",
        "dense2/pre_activation",
        "dense2/activation",
        "logits/pre_activation",
    ]


def test_dropout_is_not_taken_for_an_activation() -> None:
    taps = probes.taps(architectures.mlp((4,), 2, widths=[3], dropout=0.5))
    assert [(tap.name, tap.activation) for tap in taps] == [
        ("dense1/pre_activation", None),
        ("dense1/activation", "relu"),
        ("logits/pre_activation", None),
    ]


def test_a_fused_activation_is_watched_alone_and_a_normalization_comes_before_the_activation() -> None:
    inputs = keras.Input((4,))
    x = keras.layers.Dense(3, activation="tanh", name="fused")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(keras.layers.Dense(5, name="plain")(x))
    model = keras.Model(inputs, keras.layers.ReLU()(x))
    taps = {tap.name: tap for tap in probes.taps(model)}
    assert list(taps) == ["fused/activation", "plain/pre_activation", "plain/activation"]
    assert taps["plain/pre_activation"].tensor is model.get_layer("norm").output
    assert (taps["fused/activation"].activation, taps["plain/activation"].activation) == ("tanh", "relu")


@pytest.fixture
def softmax(prepare: Callable[..., Prepared], replica_of: Callable[..., Replica]) -> tuple[Replica, Prepared]:
    """Softmax regression at the start of block 0: everything about it can be computed by hand."""
    prepared = prepare("arch=softmax", "~arch.widths", "optimizer=sgd", "preprocess=standardize", "initializer=normal")
    replica = replica_of(prepared)
    replica.reset(Block.of(0), prepared.scheme, prepared.draw(Block.of(0)).affine)
    return replica, prepared


def test_a_probe_of_softmax_regression_is_what_numpy_finds(softmax: tuple[Replica, Prepared]) -> None:
    replica, prepared = softmax
    chosen = np.array([0, 5, 9, 30], np.int32)
    affine = prepared.draw(Block.of(0)).affine
    x = affine(prepared.data.x_train[chosen] / np.float32(255)).reshape(4, -1)
    kernel, bias = initial_weights(
        replica.model, prepared.scheme, Block.of(0).init, [w.numpy() for w in replica.model.weights]
    )
    logits = x @ kernel + bias
    predictions = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    gradient = x.T @ (predictions - np.eye(3)[prepared.data.y_train[chosen]]) / 4

    found = replica.probe(chosen)
    assert set(found) == {"logits/pre_activation", "predictions/activation", "logits/weight", "logits/gradient"}
    for name, values in (
        ("logits/pre_activation", logits),
        ("predictions/activation", predictions),
        ("logits/weight", kernel),
        ("logits/gradient", gradient),
    ):
        assert found[name]["mean"] == pytest.approx(values.mean(), rel=1e-4, abs=1e-6), name
        assert found[name]["std"] == pytest.approx(values.std(), rel=1e-4), name
        assert found[name]["counts"].sum() == values.size, name
    np.testing.assert_array_equal(
        found["logits/weight"]["counts"],
        np.bincount(np.searchsorted(EDGES, kernel.ravel(), side="right"), minlength=245),
    )


def test_the_update_ratio_is_the_last_change_over_the_size_before_it(softmax: tuple[Replica, Prepared]) -> None:
    replica, _ = softmax
    order = np.arange(20, dtype=np.int32).reshape(2, 10)
    replica.train(order[:1], np.full(1, 0.1, np.float32))
    before = replica.weights[0]
    stretch = replica.train(order[1:], np.full(1, 0.1, np.float32))
    change = np.linalg.norm(replica.weights[0] - before) / np.linalg.norm(before)
    assert stretch.update_ratios == {"logits": pytest.approx(change, rel=1e-5)}


def test_one_step_of_gradient_descent_on_softmax_regression(softmax: tuple[Replica, Prepared]) -> None:
    replica, prepared = softmax
    batch = np.arange(10, dtype=np.int32)
    affine = prepared.draw(Block.of(0)).affine
    x = affine(prepared.data.x_train[batch] / np.float32(255)).reshape(10, -1)
    kernel, bias = replica.weights
    logits = x @ kernel + bias
    predictions = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    error = predictions - np.eye(3)[prepared.data.y_train[batch]]
    loss = -np.log(predictions[np.arange(10), prepared.data.y_train[batch]]).mean()
    stretch = replica.train(batch[None], np.array([0.5], np.float32))
    assert stretch.loss == pytest.approx(loss, rel=1e-4)
    np.testing.assert_allclose(replica.weights[0], kernel - 0.5 * x.T @ error / 10, atol=1e-5)
    np.testing.assert_allclose(replica.weights[1], bias - 0.5 * error.mean(axis=0), atol=1e-5)


def test_the_squares_that_a_dense_unit_sees_are_those_of_all_features() -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    layer = keras.layers.Dense(5)
    assert float(probes.input_square_sum(layer, x)) == pytest.approx((x**2).sum(axis=1).mean())


@pytest.mark.parametrize(("padding", "expected"), [("valid", 9 * 2.0), ("same", 2.0 * (4 * 9 + 8 * 6 + 4 * 4) / 16)])
def test_the_squares_that_a_convolution_sees_are_fewer_at_the_zero_padded_edge(padding: str, expected: float) -> None:
    x = np.ones((2, 4, 4, 2), np.float32)  # two channels of ones: 2 a tap
    layer = keras.layers.Conv2D(3, 3, padding=padding)
    assert float(probes.input_square_sum(layer, x)) == pytest.approx(expected)


def test_the_errors_of_a_dense_layer_are_summed_over_the_units_that_an_input_feeds() -> None:
    x, out, back = (np.arange(n, dtype=np.float32).reshape(3, -1) for n in (12, 15, 12))
    found = probes.errors(keras.layers.Dense(5), tf.constant(out), tf.constant(back), x)
    assert float(found["error_mean_square"]) == pytest.approx((out**2).mean())
    assert float(found["error_square_sum"]) == pytest.approx((out**2).sum(axis=1).mean())
    assert float(found["input_error_mean_square"]) == pytest.approx((back**2).mean())


@pytest.mark.parametrize(
    ("padding", "side", "expected"),
    [("same", 4, 2.0 * (4 * 9 + 8 * 6 + 4 * 4) / 16), ("valid", 6, 2.0 * 9 * 16 / 36)],
)
def test_an_input_at_the_edge_feeds_fewer_places_of_a_convolution(padding: str, side: int, expected: float) -> None:
    x, out = np.ones((2, side, side, 3), np.float32), tf.ones((2, 4, 4, 2))  # two filters of ones: 2 a place
    found = probes.errors(keras.layers.Conv2D(2, 3, padding=padding), out, tf.constant(x), x)
    assert float(found["error_square_sum"]) == pytest.approx(expected)


def test_the_first_layer_hands_nothing_back_and_a_fused_activation_shows_nothing() -> None:
    x, out = np.ones((2, 4), np.float32), tf.ones((2, 3))
    assert set(probes.errors(keras.layers.Dense(3), out, None, x)) == {"error_mean_square"}
    assert probes.errors(keras.layers.Dense(3, activation="relu"), out, None, x) == {}


def test_the_error_of_an_example_is_that_of_its_own_loss(softmax: tuple[Replica, Prepared]) -> None:
    replica, prepared = softmax
    chosen = np.array([0, 5, 9, 30], np.int32)
    logits = replica.logits(chosen).astype(float)
    predictions = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    error = predictions - np.eye(3)[prepared.data.y_train[chosen]]
    found = replica.probe(chosen)["logits/pre_activation"]
    assert found["error_mean_square"] == pytest.approx((error**2).mean(), rel=1e-4)
    assert "error_square_sum" not in found
