"""What theory says of a signal on its way through a network, without any data.

A wide layer with independent random weights makes pre-activations z that are nearly normal, so two
numbers describe them, and a layer is a map from the moments of its inputs to those of its outputs:

    E z = n_in E w E x + E b
    Var z = n_in (Var w E x^2 + (E w)^2 Var x) + Var b
    E f(z), E f(z)^2 for z normal with that mean and variance

and backwards, for a gradient g by the pre-activations,

    E g_before^2 = E f'(z_before)^2  n_out E w^2  E g^2

Sources: He et al. 2015, section 2.2, for ReLU and LeakyReLU, where the expectations have a closed
form; Poole et al. 2016 and Schoenholz et al. 2017, the mean-field recursion, for the others.

Outside the theory, and given as None: what comes after a Softmax, whose outputs depend on each
other; after an activation of what is not a Linear's output; and after units that are all alike.
Dropout is off, as in inference. The real network differs by chance, the more the narrower it is:
its weights are one draw, and the theory tells the mean over all draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._core.pointwise import act, act_derivative

__all__ = ["SATURATING", "Moments", "after_linear", "expected", "gain", "saturation", "transformed"]

Function = Callable[[NDArray[np.float64]], NDArray[np.float64]]

# |z| from which f' is below a tenth of its largest value, f'(0): 1 - y^2 and 4 y (1 - y) at 0.1.
_TANH_LIMIT = math.atanh(math.sqrt(0.9))
SATURATING = {"tanh": _TANH_LIMIT, "sigmoid": 2 * _TANH_LIMIT}

_REACH = 9.0  # standard deviations: beyond them lies 2e-19 of a normal distribution
_MOST = 200_000  # points of a quadrature: enough for a standard deviation of 3000


class Moments(NamedTuple):
    """Mean and mean square of a random variable."""

    mean: float
    square: float

    @property
    def std(self) -> float:
        variance = self.square - self.mean * self.mean
        return 0.0 if variance <= 0 else math.sqrt(variance)  # NaN stays


def after_linear(x: Moments, weight: Moments, bias: Moments, fan_in: int) -> Moments:
    """The pre-activations, for independent inputs, weights and biases."""
    mean = fan_in * weight.mean * x.mean + bias.mean
    variance = fan_in * (weight.std**2 * x.square + weight.mean**2 * x.std**2) + bias.std**2
    return Moments(mean, variance + mean * mean)


def transformed(name: str, slope: float, z: Moments) -> Moments:
    """Mean and mean square of f(z), z normal."""
    if name == "identity":
        return z
    if name in ("relu", "leaky_relu"):
        _, mean, square = _positive_part(z)
        a = slope if name == "leaky_relu" else 0.0
        return Moments(mean + a * (z.mean - mean), square + a * a * (z.square - square))
    mean = expected(lambda t: act(name, t, slope), z)
    square = expected(lambda t: np.square(act(name, t, slope)), z)
    # tanh of what is symmetric has mean 0, to rounding.
    return Moments(mean if abs(mean) > 1e-14 * math.sqrt(square) else 0.0, square)


def gain(name: str, slope: float, z: Moments) -> float:
    """E f'(z)^2, z normal: what the mean square of a gradient is multiplied by."""
    if name == "identity":
        return 1.0
    if name in ("relu", "leaky_relu"):
        share = _positive_part(z)[0]
        a = slope if name == "leaky_relu" else 0.0
        return share + a * a * (1 - share)
    return expected(lambda t: np.square(act_derivative(name, t, slope)), z)


def saturation(name: str, z: Moments) -> float | None:
    """The probability that tanh or sigmoid is saturated: f'(z) below a tenth of f'(0)."""
    if name not in SATURATING:
        return None
    limit = SATURATING[name]
    if z.std == 0:
        return float(abs(z.mean) > limit)
    return _above((limit - z.mean) / z.std) + _above((limit + z.mean) / z.std)


def expected(f: Function, z: Moments) -> float:
    """E f(z), z normal.

    By the trapezoidal rule, whose error for a function that is analytic in a strip of half-width d
    around the real axis falls as e^(-2 pi d / h) with the step h (Trefethen & Weideman 2014).
    Gauss-Hermite rules, exact for polynomials, lose sight of f' where z is spread far beyond the
    bend of tanh. The nearest poles, those of tanh, lie at pi / 2 in z.
    """
    std = z.std
    if std == 0:
        return float(f(np.array([z.mean]))[0])
    step = min(0.25, 0.25 / std)
    n = min(math.ceil(_REACH / step), _MOST)
    t = np.linspace(-_REACH, _REACH, 2 * n + 1)
    density = np.exp(-t * t / 2)
    return float(np.dot(f(z.mean + std * t), density) / density.sum())


def _positive_part(z: Moments) -> tuple[float, float, float]:
    """P(z > 0), and mean and mean square of max(z, 0)."""
    if z.std == 0:
        return float(z.mean > 0), max(z.mean, 0.0), max(z.mean, 0.0) ** 2
    ratio = z.mean / z.std
    share = _above(-ratio)
    density = math.exp(-ratio * ratio / 2) / math.sqrt(2 * math.pi)
    mean = z.mean * share + z.std * density
    return share, mean, max(0.0, z.square * share + z.mean * z.std * density)


def _above(t: float) -> float:
    """P(a standard normal number > t)."""
    return math.erfc(t / math.sqrt(2)) / 2
