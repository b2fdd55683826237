"""What the kernels are compared with: the formulas in extended precision, and how far from them a
result may be."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

# In long double, so that the oracle's own error is negligible for float64 too.
WIDE = np.longdouble


def dense(x: Array, weight: Array, bias: Array | None = None, slope: float | None = None) -> Array:
    """act(x @ weight.T + bias)."""
    z = x.astype(WIDE) @ weight.astype(WIDE).T
    if bias is not None:
        z = z + bias.astype(WIDE)
    return z if slope is None else np.where(z > 0, z, x.dtype.type(slope) * z)


def tolerance(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """The bound (k + 2) eps (|x| |W|^T + |b|) on the error of each element of x @ W.T + b.

    A term of the sum is rounded once as a product (not at all if fused) and at most k times as part
    of the sum, each time by half an eps; then the activation rounds once. (Higham 2002, "Accuracy
    and stability of numerical algorithms", section 3.1.)
    """
    k = x.shape[-1]
    magnitude = np.abs(x.astype(WIDE)) @ np.abs(weight.astype(WIDE)).T
    if bias is not None:
        magnitude = magnitude + np.abs(bias)
    return (k + 2) * np.finfo(x.dtype).eps * magnitude


def assert_within(got: Array, want: Array, bound: Array) -> None:
    """|got - want| <= bound everywhere, where the bound is small enough to mean something."""
    assert got.shape == want.shape
    assert np.max(bound, initial=0) <= 0.05 * np.max(np.abs(want), initial=0), "a vacuous bound"
    excess = np.abs(got - want) - bound
    assert np.max(excess, initial=0) <= 0, f"{np.max(excess)} above the bound"


def same_bits(a: Array, b: Array) -> bool:
    """Equal to the last bit: this tells -0.0 from 0.0, and a NaN equals itself."""
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
