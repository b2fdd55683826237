"""Derivatives by central differences, in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# The error of a central difference is about h^2 f''' / 6 + eps |f| / h: least near eps^(1/3).
H = 6e-6


def numeric_gradient(f: Callable[[], float], x: Array) -> Array:
    """The derivative of f() by each element of x, which f reads; x is put back."""
    gradient = np.empty(x.shape)
    for index in np.ndindex(x.shape):
        value = x[index]
        x[index] = value + H
        above = f()
        x[index] = value - H
        below = f()
        x[index] = value
        gradient[index] = (above - below) / (2 * H)
    return gradient


def assert_gradient(got: Array, want: Array) -> None:
    """Equal to about ten digits of the largest element, which is not zero."""
    assert got.shape == want.shape
    scale = np.abs(want).max()
    assert scale > 0, "a vacuous gradient"
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-8 * max(scale, 1))
