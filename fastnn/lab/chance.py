"""How far a network may be from the theory by the chance of its draw.

The theory of `fastnn.diagnosis` gives means over all draws of the weights; a network is one draw.
Given the activations x before it, a layer's n pre-activations are independent and normal, so the
mean over them of f(z)^2 is its expectation times 1 + a fluctuation of variance

    (E f(z)^4 / (E f(z)^2)^2 - 1) / n

which for ReLU is 5 / n, for a linear layer 2 / n. The next layer's mean square is proportional to
it, and f hands a share c = d log E f(z)^2 / d log E z^2 of a deviation of z on: all of it for ReLU,
less for what saturates. So the logarithm of the mean square is a sum of independent terms; its
variance is S' = c^2 S + (that of this layer), and its mean at least -S / 2, as the mean of the mean
square itself is what theory says. Gradients on their way back do the same with f', whose shares are
all 1. Source: Hanin & Rolnick 2018, for ReLU.

Rows that are not all alike average some of it out, so S is an upper bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from .._core.pointwise import act, act_derivative
from ..diagnosis.figures import Figures
from ..diagnosis.theory import Moments, expected, transformed

__all__ = ["SIGMAS", "backward", "band", "excess", "forward", "inside"]

SIGMAS = 4.0  # by chance alone one in 16,000 is farther off


def excess(function: str, slope: float, z: Moments, derivative: bool = False) -> float:
    """E f^4 / (E f^2)^2 - 1, or of f' times a normal number 3 E f'^4 / (E f'^2)^2 - 1."""
    factor = 1.0
    if function in ("relu", "leaky_relu", "identity") and z.mean == 0:
        # In closed form: the quadrature of `expected` wants a smooth function.
        a = {"identity": 1.0, "relu": 0.0}.get(function, slope)
        return 6 * (1 + a**4) / (1 + a * a) ** 2 - 1
    f = act
    if derivative:
        f, factor = act_derivative, 3.0
    second = expected(lambda t: np.square(f(function, t, slope)), z)
    fourth = expected(lambda t: np.square(np.square(f(function, t, slope))), z)
    return factor * fourth / (second * second) - 1


def _moments(one: Figures) -> Moments:
    mean, std = one.predicted.z_mean or 0.0, one.predicted.z_std or 0.0
    return Moments(mean, mean * mean + std * std)


def _handed_on(function: str, slope: float, z: Moments) -> float:
    """d log E f(z)^2 / d log E z^2, by a difference."""
    if function in ("relu", "leaky_relu", "identity"):
        return 1.0
    step = 1.01
    more = Moments(z.mean, z.mean**2 + step * z.std**2)
    squares = [transformed(function, slope, one).square for one in (z, more)]
    return math.log(squares[1] / squares[0]) / math.log(step)


def forward(layers: Sequence[Figures]) -> list[float]:
    """S of the mean square of z, for each layer."""
    sums, s = [], 0.0
    for one in layers:
        sums.append(s + 2 / one.n_out)
        z = _moments(one)
        s *= _handed_on(one.function, one.slope, z) ** 2
        s += excess(one.function, one.slope, z) / one.n_out
    return sums


def backward(layers: Sequence[Figures]) -> list[float]:
    """S of the mean square of the gradient by z over that at the last layer, for each layer."""
    sums, total = [0.0], 0.0
    for before, _ in reversed(list(pairwise(layers))):
        total += excess(before.function, before.slope, _moments(before), True) / before.n_out
        sums.append(total)
    return sums[::-1]


def band(s: float, draws: int = 1) -> tuple[float, float]:
    """Between which factors of the theory a root mean square lies, as the geometric mean of draws.

    The shift of -S / 2 counts below only, since S is an upper bound.
    """
    reach = SIGMAS * math.sqrt(s / draws)
    return math.exp((-s / 2 - reach) / 2), math.exp(reach / 2)


def inside(ratios: Sequence[float], s: Sequence[float], draws: int = 1) -> bool:
    """Whether each measured value over theory lies in the band of its S."""
    bands = [band(one, draws) for one in s]
    return all(low <= r <= high for r, (low, high) in zip(ratios, bands, strict=True))
