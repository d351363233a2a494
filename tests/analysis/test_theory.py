from itertools import pairwise
from math import isnan, log, sqrt

import numpy as np
import pytest
from scipy import integrate, stats

from harness.analysis.theory import (
    TRUNCATED_SD,
    Conv,
    Dense,
    activation_moment,
    adam,
    fans,
    gain,
    gradient_descent,
    heavy_ball,
    initial_cross_entropy,
    mean_field_moments,
    moment_ratio,
    preactivation_moments,
    relu_gain,
    relu_length_scatter,
    relu_moments,
    weight_mean,
    weight_variance,
)

pytestmark = pytest.mark.filterwarnings("error")

KERNEL = (3, 3, 16, 32)


def test_fans_of_dense_and_convolution_kernels():
    assert fans((784, 100)) == (784, 100)
    assert fans(KERNEL) == (144, 288)
    assert fans((5, 8, 4)) == (40, 20)


@pytest.mark.parametrize(
    ("name", "kwargs", "variance"),
    [
        ("HeNormal", {}, 2 / 144),
        ("HeUniform", {"seed": 3}, 2 / 144),
        ("GlorotNormal", {}, 2 / 432),
        ("GlorotUniform", {"seed": None}, 2 / 432),
        ("LecunNormal", {}, 1 / 144),
        ("LecunUniform", {}, 1 / 144),
        ("RandomNormal", {"stddev": 1.0}, 1.0),
        ("RandomNormal", {}, 0.0025),
        ("TruncatedNormal", {"stddev": 0.5}, (0.87962566 * 0.5) ** 2),
        ("RandomUniform", {}, 0.0025 / 3),
        ("RandomUniform", {"minval": -0.3, "maxval": 0.3}, 0.03),
        ("Orthogonal", {}, 1 / 144),
        ("VarianceScaling", {}, 1 / 144),
        ("VarianceScaling", {"scale": 0.5, "mode": "fan_out", "distribution": "uniform"}, 0.5 / 288),
        ("Zeros", {}, 0.0),
        ("Constant", {"value": 0.3}, 0.0),
    ],
)
def test_weight_variance_of_keras_initializers(name, kwargs, variance):
    assert weight_variance(name, KERNEL, **kwargs) == pytest.approx(variance, rel=1e-6)


def test_an_orthogonal_kernel_wider_than_it_is_tall():
    assert weight_variance("Orthogonal", (3, 3, 3, 64), gain=2.0) == pytest.approx(4 / 64)


def test_the_standard_deviation_left_by_truncation():
    assert pytest.approx(stats.truncnorm(-2, 2).std(), abs=1e-9) == TRUNCATED_SD


def test_weight_mean_tells_where_propagation_does_not_hold():
    assert weight_mean("HeNormal") == 0.0
    assert weight_mean("RandomUniform", minval=0.0, maxval=0.1) == 0.05
    assert weight_mean("RandomNormal", mean=0.2) == 0.2
    assert weight_mean("Constant", value=0.3) == 0.3
    assert weight_mean("Ones") == 1.0


def test_an_unknown_initializer_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'he_normal'; known: HeNormal"):
        weight_variance("he_normal", KERNEL)


def test_an_unknown_argument_is_refused():
    with pytest.raises(ValueError, match="TruncatedNormal does not take scale; it takes mean, stddev"):
        weight_variance("TruncatedNormal", KERNEL, scale=2.0)


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="mode must be one of fan_in"):
        weight_variance("VarianceScaling", KERNEL, mode="fan")


def test_the_first_dense_layer_reads_the_mean_square_of_its_input():
    mnist = preactivation_moments(784 * 0.1125, Dense(100, variance=1.0))
    assert sqrt(mnist) == pytest.approx(9.4, abs=0.01)


@pytest.mark.parametrize(
    ("fan_in", "variance", "expected"),
    [(400, 1.0, 200.0), (400, 1e-4, 0.02), (400, 2 / 800, 0.5), (400, 1 / 400, 0.5), (400, 2 / 400, 1.0)],
)
def test_relu_gain(fan_in, variance, expected):
    assert relu_gain(fan_in, variance) == pytest.approx(expected)


def test_relu_moments_multiply_by_the_gain_of_every_layer():
    layers = [Dense(50, 0.02), Dense(20, 0.1), Dense(10, 0.3)]
    first, second, third = relu_moments(np.full(30, 0.5), layers)
    assert first == pytest.approx(30 * 0.02 * 0.5)
    assert second == pytest.approx(first * relu_gain(50, 0.1))
    assert third == pytest.approx(second * relu_gain(20, 0.3))


def test_relu_moments_are_exact_for_narrow_layers_of_uniform_weights():
    rng = np.random.default_rng(0)
    x = rng.uniform(size=4)
    limit = sqrt(3 * 0.5)
    h, measured = np.tile(x, (20_000, 1)), []
    for fan_in, units in ((4, 3), (3, 5), (5, 2)):
        z = np.einsum("ri,rij->rj", h, rng.uniform(-limit, limit, size=(20_000, fan_in, units)))
        measured.append((z**2).mean(axis=1))
        h = np.maximum(z, 0)
    expected = relu_moments(x**2, [Dense(3, 0.5), Dense(5, 0.5), Dense(2, 0.5)])
    for sample, moment in zip(measured, expected, strict=True):
        assert sample.mean() == pytest.approx(float(moment), abs=4 * sample.std() / sqrt(20_000))


def convolve(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """SAME convolution of x[H, W, in] with kernel[3, 3, in, out], stride 1."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((1, 1), (1, 1), (0, 0))), (3, 3), axis=(0, 1))
    return np.tensordot(windows, kernel.transpose(2, 0, 1, 3), axes=3)


def test_relu_moments_are_exact_for_convolutions_with_zero_padding():
    rng = np.random.default_rng(1)
    x = rng.uniform(size=(8, 8, 3))
    widths = [3, 16, 32, 32, 16]
    shapes = [(3, 3, *pair) for pair in pairwise(widths)]
    layers = [Conv(s[3], (3, 3), weight_variance("HeNormal", s)) for s in shapes]
    measured = np.empty((250, 4))
    for draw in range(250):
        h = x
        for i, (shape, layer) in enumerate(zip(shapes, layers, strict=True)):
            z = convolve(h, rng.normal(0, sqrt(layer.variance), size=shape))
            measured[draw, i] = (z**2).mean()
            h = np.maximum(z, 0)
    expected = [moment.mean() for moment in relu_moments((x**2).sum(-1), layers)]
    error = measured.std(axis=0) / sqrt(250)
    assert (np.abs(measured.mean(axis=0) - expected) < 4 * error).all()
    assert expected[-1] < 0.75 * expected[0]


@pytest.mark.parametrize(("size", "share"), [(32, 0.959), (28, 0.953), (16, 0.918), (8, 0.840), (4, 0.694), (2, 0.444)])
def test_zero_padding_costs_a_three_by_three_window_its_share_of_taps(size, share):
    moments = preactivation_moments(np.ones((size, size)), Conv(1, (3, 3), 1 / 9))
    assert moments.mean() == pytest.approx((3 - 2 / size) ** 2 / 9)
    assert moments.mean() == pytest.approx(share, abs=0.0015)


def test_strided_same_padding_is_tensorflows():
    moments = preactivation_moments(np.ones(4), Conv(1, (3,), 1.0, strides=(2,)))
    assert moments.tolist() == [3.0, 2.0]


def test_valid_padding_reads_whole_windows_only():
    moments = preactivation_moments(np.arange(6.0), Conv(1, (3,), 2.0, strides=(2,), padding="valid"))
    assert moments.tolist() == [2 * 3.0, 2 * 9.0]


def test_a_dense_layer_flattens_the_map_before_it():
    conv, dense = relu_moments(np.ones((4, 4)), [Conv(8, (1, 1), 0.5), Dense(10, 0.1)])
    assert conv.shape == (4, 4)
    assert dense == pytest.approx(0.1 * 16 * 8 * 0.5 / 2)


def test_map_and_window_must_have_the_same_dimensions():
    with pytest.raises(ValueError, match="differ in dimensions"):
        preactivation_moments(np.ones((4, 4)), Conv(1, (3,), 1.0))


def test_the_layer_conditional_ratio_is_one_within_its_scatter():
    rng = np.random.default_rng(2)
    h = np.maximum(rng.normal(size=(6, 6, 8)) + 0.5, 0)
    layer = Conv(24, (3, 3), 2 / 72)
    ratios = []
    for _ in range(300):
        z = convolve(h, rng.normal(0, sqrt(2 / 72), size=(3, 3, 8, 24)))
        ratio, scatter = moment_ratio((z**2).mean(), (h**2).sum(-1), layer)
        ratios.append(ratio)
    assert np.mean(ratios) == pytest.approx(1, abs=4 * scatter / sqrt(300))
    assert np.std(ratios) < scatter * 1.1
    assert scatter == sqrt(2 / 24)


def test_the_layer_conditional_ratio_of_zero_weights_is_nan():
    assert isnan(moment_ratio(0.0, np.ones(3), Dense(2, 0.0))[0])


@pytest.mark.parametrize(("widths", "scatter"), [([50] * 5, 0.611), ([100] * 10, 0.629), ([20] * 10, 8.3)])
def test_relu_length_scatter(widths, scatter):
    assert relu_length_scatter(widths) == pytest.approx(scatter, rel=0.002)


def test_relu_length_scatter_agrees_with_random_networks():
    rng = np.random.default_rng(3)
    h = np.ones((8000, 10)) / sqrt(10)
    for _ in range(2):
        h = np.maximum(np.einsum("ri,rij->rj", h, rng.normal(0, sqrt(2 / 10), size=(8000, 10, 10))), 0)
    length = (h**2).sum(axis=1)
    assert length.var() / length.mean() ** 2 == pytest.approx(relu_length_scatter([10, 10]), rel=0.1)


def test_activation_moments_in_closed_form():
    assert activation_moment("linear", 3.0) == pytest.approx(3.0, abs=1e-9)
    assert activation_moment("relu", 3.0) == pytest.approx(1.5, abs=1e-9)
    assert activation_moment("selu", 1.0) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ("tanh", np.tanh),
        ("sigmoid", lambda x: 1 / (1 + np.exp(-x))),
        ("softsign", lambda x: x / (1 + abs(x))),
    ],
)
def test_activation_moments_agree_with_adaptive_quadrature(activation, function):
    expected = integrate.quad(lambda x: function(sqrt(2) * x) ** 2 * stats.norm.pdf(x), -9, 9, limit=200)[0]
    assert activation_moment(activation, 2.0) == pytest.approx(expected, abs=1e-7)


def test_a_saturated_tanh_keeps_its_narrow_middle():
    assert activation_moment("tanh", 44.0**2) == pytest.approx(1 - sqrt(2 / np.pi) / 44, abs=1e-5)


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="activation must be one of linear"):
        activation_moment("swoosh", 1.0)


def test_gain_of_tanh_under_lecun_falls_from_one():
    assert gain("tanh", 1e-4, 100, 1 / 100) == pytest.approx(1, abs=3e-4)
    assert gain("tanh", 1.0, 100, 1 / 100) == pytest.approx(0.394, abs=0.001)
    assert isnan(gain("tanh", 0.0, 100, 1 / 100))


def test_mean_field_moments_of_relu_are_the_exact_ones():
    exact = relu_moments(np.full(30, 0.5), [Dense(50, 0.02), Dense(20, 0.1), Dense(10, 0.3)])
    moments = mean_field_moments("relu", 0.5, [(30, 0.02), (50, 0.1), (20, 0.3)])
    assert moments == pytest.approx([float(m) for m in exact], rel=1e-6)


@pytest.mark.parametrize(
    ("q", "nats"),
    [(0.01, 2.307), (0.1, 2.347), (1, 2.729), (4, 3.773), (25, 7.97), (100, 15.52), (2500, 76.96)],
)
def test_initial_cross_entropy_of_ten_classes(q, nats):
    assert initial_cross_entropy(q, 10) == pytest.approx(nats, rel=7e-4)


def test_initial_cross_entropy_agrees_with_random_logits():
    z = np.random.default_rng(4).normal(0, sqrt(4), size=(200_000, 10))
    losses = np.log(np.exp(z).sum(axis=1)) - z[:, 0]
    assert initial_cross_entropy(4, 10) == pytest.approx(losses.mean(), abs=4 * losses.std() / sqrt(200_000))


@pytest.mark.parametrize("q", [0.3, 0.999, 1.001, 30.0])
def test_initial_cross_entropy_of_two_classes_agrees_with_quadrature(q):
    expected = integrate.quad(lambda x: np.logaddexp(0, sqrt(2 * q) * x) * stats.norm.pdf(x), -12, 12, limit=200)
    assert initial_cross_entropy(q, 2) == pytest.approx(expected[0], abs=1e-7)


def test_initial_cross_entropy_at_its_limits():
    assert initial_cross_entropy(0, 10) == log(10)
    assert initial_cross_entropy(1e-4, 10) - log(10) == pytest.approx(0.5e-4 * 0.9, rel=1e-3)
    assert initial_cross_entropy(1e6, 10) == pytest.approx(1.5388 * 1e3, rel=1e-3)


def test_initial_cross_entropy_refuses_a_diverged_variance():
    with pytest.raises(ValueError, match="finite q"):
        initial_cross_entropy(float("inf"), 10)


def test_gradient_descent_by_hand_and_at_its_edge_of_stability():
    assert gradient_descent(2.0, 3.0, 0.1, 2) == pytest.approx(2 * 0.7**2)
    assert abs(gradient_descent(1.0, 4.0, 0.5, 101)) == pytest.approx(1.0)
    assert abs(gradient_descent(1.0, 4.0, 0.51, 101)) > 10


@pytest.mark.parametrize("nesterov", [False, True])
def test_heavy_ball_agrees_with_the_recursion(nesterov):
    w, velocity = 1.0, 0.0
    for _ in range(20):
        velocity = 0.9 * velocity - 0.05 * 3.0 * w
        w += 0.9 * velocity - 0.05 * 3.0 * w if nesterov else velocity
    assert heavy_ball(1.0, 3.0, 0.05, 0.9, 20, nesterov) == pytest.approx(w, abs=1e-12)


def test_heavy_ball_is_stable_up_to_twice_one_plus_momentum():
    assert abs(heavy_ball(1.0, 1.0, 3.79, 0.9, 5000)) < 1e-3
    assert abs(heavy_ball(1.0, 1.0, 3.81, 0.9, 5000)) > 1e3


def test_the_first_adam_step_is_the_learning_rate_against_the_sign():
    assert adam(2.0, 3.0, 0.01, 1) == pytest.approx(2 - 0.01, abs=1e-8)
    with_epsilon = 2 - 0.01 * 6 / (6 + 0.1 / sqrt(1 - 0.999))
    assert adam(2.0, 3.0, 0.01, 1, epsilon=0.1) == pytest.approx(with_epsilon, abs=1e-12)


def test_adam_agrees_with_its_bias_corrected_form():
    w, m, v = 1.0, 0.0, 0.0
    for t in range(1, 11):
        g = 2.0 * w
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g**2
        w -= 0.1 * (m / (1 - 0.8**t)) / (sqrt(v / (1 - 0.95**t)) + 1e-3 / sqrt(1 - 0.95**t))
    assert adam(1.0, 2.0, 0.1, 10, beta_1=0.8, beta_2=0.95, epsilon=1e-3) == pytest.approx(w, abs=1e-12)
