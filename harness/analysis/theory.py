"""What is known beforehand: weight variances, signal propagation, first losses, simple updates.

Expectations are over symmetric, zero-mean, independent weights and zero biases (He et al. 2015); a "second
moment" is a mean square, not a variance. Squared sums are maps S[position...] of squared inputs summed over
channels; a dense layer reads the sum over the whole map.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, log, nan, prod, sqrt
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

FloatArray = NDArray[np.float64]

TRUNCATED_SD = 0.87962566103423978
_VARIANCE_SCALING: dict[str, tuple[float, str]] = {
    "HeNormal": (2.0, "fan_in"),
    "HeUniform": (2.0, "fan_in"),
    "GlorotNormal": (1.0, "fan_avg"),
    "GlorotUniform": (1.0, "fan_avg"),
    "LecunNormal": (1.0, "fan_in"),
    "LecunUniform": (1.0, "fan_in"),
}
_DEFAULTS: dict[str, dict[str, float | str]] = {
    **{name: {} for name in _VARIANCE_SCALING},
    "VarianceScaling": {"scale": 1.0, "mode": "fan_in", "distribution": "truncated_normal"},
    "RandomNormal": {"mean": 0.0, "stddev": 0.05},
    "TruncatedNormal": {"mean": 0.0, "stddev": 0.05},
    "RandomUniform": {"minval": -0.05, "maxval": 0.05},
    "Orthogonal": {"gain": 1.0},
    "Constant": {"value": 0.0},
    "Zeros": {},
    "Ones": {},
}


def fans(shape: Sequence[int]) -> tuple[int, int]:
    """(fan_in, fan_out) of a dense kernel (in, out) or convolution kernel (*window, in, out) in Keras."""
    if len(shape) < 2:
        size = shape[0] if shape else 1
        return size, size
    window = prod(shape[:-2])
    return window * shape[-2], window * shape[-1]


def _arguments(name: str, kwargs: dict[str, float | str | None]) -> dict[str, float | str]:
    if name not in _DEFAULTS:
        raise ValueError(f"no variance known for initializer {name!r}; known: {', '.join(_DEFAULTS)}")
    given = {key: value for key, value in kwargs.items() if key != "seed" and value is not None}
    unknown = given.keys() - _DEFAULTS[name].keys()
    if unknown:
        valid = ", ".join(_DEFAULTS[name]) or "none"
        raise ValueError(f"{name} does not take {', '.join(sorted(unknown))}; it takes {valid}")
    return _DEFAULTS[name] | given


def weight_mean(name: str, **kwargs: float | str | None) -> float:
    """Mean of a weight drawn by a Keras initializer; the propagation below holds only where it is zero."""
    arguments = _arguments(name, kwargs)
    if name == "RandomUniform":
        return (float(arguments["minval"]) + float(arguments["maxval"])) / 2
    return 1.0 if name == "Ones" else float(arguments.get("mean", arguments.get("value", 0.0)))


def weight_variance(name: str, shape: Sequence[int], **kwargs: float | str | None) -> float:
    """Var[w] of a kernel of `shape` drawn by the Keras initializer class `name` with its keyword arguments.

    Keras corrects VarianceScaling's truncated normals for the truncation, but not TruncatedNormal. Raises
    ValueError on a name or an argument it does not know. `seed` is ignored.
    """
    arguments = _arguments(name, kwargs)
    if name in _VARIANCE_SCALING:
        scale, mode = _VARIANCE_SCALING[name]
    elif name == "VarianceScaling":
        scale, mode = float(arguments["scale"]), str(arguments["mode"])
    elif name == "RandomUniform":
        return (float(arguments["maxval"]) - float(arguments["minval"])) ** 2 / 12
    elif name == "Orthogonal":
        return float(arguments["gain"]) ** 2 / max(prod(shape[:-1]), shape[-1])
    else:
        sd = float(arguments.get("stddev", 0.0))
        return (sd * TRUNCATED_SD) ** 2 if name == "TruncatedNormal" else sd**2
    fan_in, fan_out = fans(shape)
    fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}
    if mode not in fan:
        raise ValueError(f"mode must be one of {', '.join(fan)}, got {mode!r}")
    return scale / max(1.0, fan[mode])


@dataclass(frozen=True)
class Dense:
    """A dense layer's width and Var[w]; flattens what it reads."""

    units: int
    variance: float


@dataclass(frozen=True)
class Conv:
    """A convolution's filters, window (one length per dimension), Var[w], strides and padding."""

    filters: int
    window: tuple[int, ...]
    variance: float
    strides: tuple[int, ...] | None = None
    padding: Literal["same", "valid"] = "same"


Layer = Dense | Conv


def _window_sums(x: FloatArray, length: int, stride: int, padding: str, axis: int) -> FloatArray:
    """Sum windows along one axis, with TensorFlow's zero padding."""
    size = x.shape[axis]
    if padding == "same":
        total = max((-(-size // stride) - 1) * stride + length - size, 0)
        widths = [(0, 0)] * x.ndim
        widths[axis] = (total // 2, total - total // 2)
        x = np.pad(x, widths)
    windows = np.lib.stride_tricks.sliding_window_view(x, length, axis=axis).sum(axis=-1)
    return np.take(windows, np.arange(0, windows.shape[axis], stride), axis=axis)


def preactivation_moments(squared_sum: ArrayLike, layer: Layer) -> FloatArray:
    """E z^2 of a layer given the squared sum of its input, exact per position: a map for Conv, 0-d for Dense.

    With a *measured* input this is the layer-conditional expectation, true in any architecture; a mean over
    examples may be taken first, since the relation is linear.
    """
    s = np.asarray(squared_sum, dtype=np.float64)
    if isinstance(layer, Dense):
        return np.asarray(layer.variance * s.sum())
    strides = layer.strides or (1,) * len(layer.window)
    if not s.ndim == len(layer.window) == len(strides):
        raise ValueError(f"map of shape {s.shape}, window {layer.window} and strides {strides} differ in dimensions")
    for axis, (length, stride) in enumerate(zip(layer.window, strides, strict=True)):
        s = _window_sums(s, length, stride, layer.padding, axis)
    return layer.variance * s


def relu_moments(squared_sum: ArrayLike, layers: Sequence[Layer]) -> list[FloatArray]:
    """E z^2 of every layer of a ReLU network, from the squared sum of its input (He et al. 2015, eq. 10).

    ReLU keeps half the second moment of symmetric z, so S_l = width * E z_l^2 / 2. Holds for dense layers and
    convolutions in sequence, not through pooling or normalisation.
    """
    s = np.asarray(squared_sum, dtype=np.float64)
    moments = []
    for layer in layers:
        z2 = preactivation_moments(s, layer)
        moments.append(z2)
        s = (layer.units if isinstance(layer, Dense) else layer.filters) * z2 / 2
    return moments


def moment_ratio(measured: float, squared_sum: ArrayLike, layer: Layer) -> tuple[float, float]:
    """Measured mean z^2 over its layer-conditional expectation (1 in expectation), and the ratio's scatter.

    The scatter sqrt(2/width) bounds the standard deviation over weight draws. NaN ratio where nothing is
    expected.
    """
    expected = float(preactivation_moments(squared_sum, layer).mean())
    width = layer.units if isinstance(layer, Dense) else layer.filters
    return (measured / expected if expected > 0 else nan), sqrt(2 / width)


def relu_gain(fan_in: int, variance: float) -> float:
    """Factor by which a dense ReLU layer multiplies E z^2: fan_in Var[w] / 2.

    With fan_out for fan_in, the factor for the gradients on the way back.
    """
    return fan_in * variance / 2


def relu_length_scatter(widths: Sequence[int]) -> float:
    """Relative variance over weights of |h_L|^2 in a dense ReLU network of Gaussian weights: prod(1+5/n) - 1.

    For one fixed input; compare Hanin & Rolnick 2018. Heavy-tailed once it exceeds about 1.
    """
    return prod(1 + 5 / n for n in widths) - 1


_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
_ACTIVATIONS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "sigmoid": special.expit,
    "softsign": lambda x: x / (1 + np.abs(x)),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "selu": lambda x: _SELU_SCALE * np.where(x > 0, x, _SELU_ALPHA * np.expm1(np.minimum(x, 0))),
}


def activation_moment(activation: str, q: float) -> float:
    """E phi(z)^2 for z ~ N(0, q), by a trapezoid fine enough for units saturated up to sqrt(q)=3000."""
    if activation not in _ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(_ACTIVATIONS)}, got {activation!r}")
    x = np.linspace(-12.0, 12.0, 40001)
    return float(np.trapezoid(_ACTIVATIONS[activation](sqrt(q) * x) ** 2 * np.exp(-(x**2) / 2), x)) / sqrt(2 * np.pi)


def gain(activation: str, q: float, fan_in: int, variance: float) -> float:
    """Factor q_next / q of one infinitely wide dense layer whose input units are phi(N(0, q))."""
    return fan_in * variance * activation_moment(activation, q) / q if q > 0 else nan


def mean_field_moments(activation: str, input_second_moment: float, layers: Sequence[tuple[int, float]]) -> list[float]:
    """E z^2 of dense layers (fan_in, Var[w]) with `activation` between them, at infinite width.

    q_1 = fan_in Var[w] m2 of the input, then q_l = fan_in Var[w] E phi(sqrt(q_{l-1}) Z)^2 (Poole et al.
    2016).
    """
    moments: list[float] = []
    m2 = input_second_moment
    for fan_in, variance in layers:
        moments.append(fan_in * variance * m2)
        m2 = activation_moment(activation, moments[-1])
    return moments


def initial_cross_entropy(q: float, classes: int) -> float:
    """Expected softmax cross-entropy in nats of logits i.i.d. N(0, q), q >= 0: log(classes) at q=0.

    LSE(z) + Euler's constant is the expected maximum of z_i plus standard Gumbel noise, whose distribution
    function is integrated over a grid, to a relative error below 1e-11 (all is smooth on the scale of its steps).
    """
    if classes < 1 or not 0 <= q < inf:
        raise ValueError(f"needs classes >= 1 and a finite q >= 0, got {classes} and {q}")
    if q == 0:
        return log(classes)
    sd = sqrt(q)
    low, high = -9.0 * sd - 5, 9.0 * sd + 40 + log(classes)
    x = np.linspace(low, high, 501)
    if sd < 1:
        z = np.linspace(-9.0, 9.0, 121)
        weights = np.exp(-(z**2) / 2)
        cdf = np.exp(-np.exp(np.minimum(sd * z - x[:, None], 50.0))) @ weights / weights.sum()
    else:
        g = np.linspace(-4.0, 40.0, 221)
        weights = np.exp(-g - np.exp(-g))
        cdf = special.ndtr((x[:, None] - g) / sd) @ weights / weights.sum()
    return high - float(np.trapezoid(cdf**classes, x)) - float(np.euler_gamma)


def gradient_descent(w0: float, curvature: float, learning_rate: float, steps: int) -> float:
    """Weight after `steps` of gradient descent on curvature/2 w^2: (1 - lr*curvature)^steps w0."""
    return (1 - learning_rate * curvature) ** steps * w0


def heavy_ball(
    w0: float, curvature: float, learning_rate: float, momentum: float, steps: int, nesterov: bool = False
) -> float:
    """Weight after `steps` of Keras' SGD with momentum on curvature/2 w^2, velocity 0 at first.

    Stable iff 0 < lr*curvature < 2(1+momentum), without nesterov.
    """
    step = learning_rate * curvature
    matrix = np.array([[1 - step, momentum], [-step, momentum]])
    if nesterov:
        matrix[0] = [1 - step * (1 + momentum), momentum**2]
    return float((np.linalg.matrix_power(matrix, steps) @ np.array([w0, 0.0]))[0])


def adam(
    w0: float,
    curvature: float,
    learning_rate: float,
    steps: int,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
) -> float:
    """Weight after `steps` of Keras' Adam on curvature/2 w^2.

    Keras' epsilon is the "epsilon hat" of Kingma & Ba 2015 (end of section 2), added to the square root of
    the *uncorrected* second moment: step 1 is -lr g / (|g| + epsilon/sqrt(1-beta_2)).
    """
    w, m, v = w0, 0.0, 0.0
    for t in range(1, steps + 1):
        g = curvature * w
        m += (1 - beta_1) * (g - m)
        v += (1 - beta_2) * (g * g - v)
        w -= learning_rate * sqrt(1 - beta_2**t) / (1 - beta_1**t) * m / (sqrt(v) + epsilon)
    return w
