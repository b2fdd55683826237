"""Initializers: the starting values of weights and biases.

A weight has shape (n_out, n_in): fan_out is its first length, fan_in its second. All initializers
take the keywords

    dtype   "float32" (default) or "float64"
    rng     None, an int, a SeedSequence, a BitGenerator or a Generator (SPEC 7). A Generator is
            advanced, so a second call gives other values; an int gives the same ones each time.
    stream  which of the 2**48 streams of that seed is used: layers of one seed take different ones
    out     an array of exactly that shape and dtype to fill instead of a new one; any strides

and return the filled array. Element i in C order is a pure function of (seed, stream, i): the same
bits on every CPU and for any number of threads (Philox4x32-10, Salmon et al. 2011; normals by Box
and Muller 1958). They raise ValueError for wrong values and shapes, TypeError for wrong types,
before anything is written.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ._checks import as_choice, as_float_dtype
from ._core.arrays import as_finite
from ._core.random import normal_fill, truncated_normal_fill, uniform_fill
from ._rng import stream_seed

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from ._rng import RNG

    Array: TypeAlias = NDArray[Any]

__all__ = [
    "calculate_gain",
    "constant",
    "eye",
    "he_normal",
    "he_uniform",
    "lecun_normal",
    "lecun_uniform",
    "normal",
    "ones",
    "orthogonal",
    "truncated_normal",
    "uniform",
    "variance_scaling",
    "xavier_normal",
    "xavier_uniform",
    "zeros",
]

Shape: TypeAlias = int | Sequence[int]

_MODES = ("fan_in", "fan_out", "fan_avg")
_DISTRIBUTIONS = ("normal", "truncated_normal", "uniform")
# Standard deviation of a standard normal truncated at -2 and 2: sqrt(1 - 4 phi(2) / erf(sqrt 2)).
_TRUNCATED_STD = 0.87962566103423978
_GAINS = {
    "linear": 1.0,
    "identity": 1.0,
    "sigmoid": 1.0,
    "tanh": 5 / 3,
    "relu": math.sqrt(2),
    "leaky_relu": math.sqrt(2),
    "gelu": math.sqrt(2),
    "silu": math.sqrt(2),
    "selu": 3 / 4,
}


def _shape(shape: Shape) -> tuple[int, ...]:
    if isinstance(shape, (str, bytes)):
        raise TypeError(f"shape: expected an int or a sequence of ints, got {shape!r}")
    try:
        lengths: tuple[int, ...] = (operator.index(shape),)  # type: ignore[arg-type]
    except TypeError:
        try:
            lengths = tuple(operator.index(length) for length in shape)  # type: ignore[union-attr]
        except TypeError:
            raise TypeError(
                f"shape: expected an int or a sequence of ints, got {shape!r}"
            ) from None
    if any(length < 0 for length in lengths):
        raise ValueError(f"shape: expected lengths of at least 0, got {lengths}")
    if math.prod(length for length in lengths if length) > sys.maxsize // 8:
        raise ValueError(f"shape: expected an array that fits into memory, got {lengths}")
    return lengths


def _fans(shape: Shape) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight."""
    lengths = _shape(shape)
    if len(lengths) != 2 or 0 in lengths:
        raise ValueError(f"shape: expected (n_out, n_in), both at least 1, got {lengths}")
    return lengths[1], lengths[0]


def _fan(shape: Shape, mode: str) -> float:
    fan_in, fan_out = _fans(shape)
    as_choice(mode, "mode", _MODES)
    return {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[mode]


def _positive(value: float, name: str) -> float:
    number: float = as_finite(value, name)
    if number <= 0:
        raise ValueError(f"{name}: expected more than 0, got {value}")
    return number


def _representable(value: float, name: str, dtype: DTypeLike) -> float:
    number: float = as_finite(value, name)
    if abs(number) > float(np.finfo(as_float_dtype(dtype)).max):
        raise ValueError(f"{name}: expected a finite {as_float_dtype(dtype)}, got {value}")
    return number


def _target(shape: Shape, dtype: DTypeLike, out: Array | None) -> Array:
    """`out` after its checks, or a new array."""
    lengths = _shape(shape)
    wanted = as_float_dtype(dtype)
    if out is None:
        return np.empty(lengths, wanted)
    if not isinstance(out, np.ndarray) or hasattr(out, "mask"):
        raise TypeError(f"out: expected a plain ndarray, got {type(out).__name__}")
    if out.dtype != wanted:
        raise TypeError(f"out: expected dtype {wanted}, got {out.dtype}")
    if out.shape != lengths:
        raise ValueError(f"out: expected shape {lengths}, got {out.shape}")
    if not out.flags.writeable:
        raise ValueError("out: expected a writable array, got a read-only one")
    return out


def _draw(
    fill: Callable[..., None],
    shape: Shape,
    dtype: DTypeLike,
    rng: RNG,
    stream: int,
    out: Array | None,
    *arguments: float,
) -> Array:
    """A new array, or `out`, filled by one of the compiled fills."""
    array = _target(shape, dtype, out)
    fill(np.empty(0, array.dtype), 0, stream, *arguments)  # the checks, before rng advances
    seed = stream_seed(rng)
    if array.flags.c_contiguous and array.flags.aligned:
        fill(array, seed, stream, *arguments)
        return array
    # Elements count in C order whatever the strides. Pieces of a multiple of 64 rows begin where a
    # fill can begin, and stay in the cache until they are copied.
    rows = np.atleast_1d(array)
    width = array.size // rows.shape[0]
    step = 64 * max(1, 1024 // width)
    for first in range(0, rows.shape[0], step):
        piece = rows[first : first + step]
        values = np.empty(piece.shape, array.dtype)
        fill(values, seed, stream, *arguments, start=first * width)
        piece[...] = values
    return array


def zeros(
    shape: Shape,
    *,
    dtype: DTypeLike = "float32",
    rng: RNG = None,
    stream: int = 0,
    out: Array | None = None,
) -> Array:
    """All 0. For biases; as weights they keep all units of a layer alike, which learn the same.

    `rng` and `stream` are checked and not used, as in the others that draw nothing.
    """
    return constant(shape, 0.0, dtype=dtype, rng=rng, stream=stream, out=out)


def ones(
    shape: Shape,
    *,
    dtype: DTypeLike = "float32",
    rng: RNG = None,
    stream: int = 0,
    out: Array | None = None,
) -> Array:
    """All 1."""
    return constant(shape, 1.0, dtype=dtype, rng=rng, stream=stream, out=out)


def constant(
    shape: Shape,
    value: float,
    *,
    dtype: DTypeLike = "float32",
    rng: RNG = None,
    stream: int = 0,
    out: Array | None = None,
) -> Array:
    """All `value`, a finite number."""
    number = _representable(value, "value", dtype)
    array = _target(shape, dtype, out)
    uniform_fill(np.empty(0, array.dtype), 0, stream, 0.0, 1.0)  # checks the stream
    if not isinstance(rng, np.random.Generator | np.random.BitGenerator):  # which it would advance
        stream_seed(rng)
    array[...] = number
    return array


def eye(
    shape: Shape,
    gain: float = 1.0,
    *,
    dtype: DTypeLike = "float32",
    rng: RNG = None,
    stream: int = 0,
    out: Array | None = None,
) -> Array:
    """`gain` on the main diagonal, 0 elsewhere: y = gain * x as far as the widths agree."""
    _fans(shape)
    factor = _representable(gain, "gain", dtype)
    array = constant(shape, 0.0, dtype=dtype, rng=rng, stream=stream, out=out)
    np.fill_diagonal(array, factor)
    return array


def uniform(
    shape: Shape,
    low: float = -0.1,
    high: float = 0.1,
    *,
    dtype: DTypeLike = "float32",
    rng: RNG = None,
    stream: int = 0,
    out: Array | None = None,
) -> Array:
    """low + u (high - low) with u uniform in [0, 1): 24 random bits for float32, 53 for float64.

    It breaks the symmetry between units. Variance (high - low)^2 / 12, whatever the width of the
    layer; the final rounding can give `high` itself.
    """
    return _draw(uniform_fill, shape, dtype, rng, stream, out, low, high)


def normal(
    shape: Shape,
    mean: float = 0.0,
    std: float = 0.01,
    *,
    dtype: DTypeLike = "float32",
    rng: RNG = None,
    stream: int = 0,
    out: Array | None = None,
) -> Array:
    """Normal distribution of that mean and standard deviation, by Box and Muller (1958).

    No value lies further from the mean than sqrt(66 ln 2) = 6.764 standard deviations in float32,
    sqrt(130 ln 2) = 9.493 in float64.
    """
    return _draw(normal_fill, shape, dtype, rng, stream, out, mean, std)


def truncated_normal(
    shape: Shape,
    mean: float = 0.0,
    std: float = 0.01,
    low: float = -2.0,
    high: float = 2.0,
    *,
    dtype: DTypeLike = "float32",
    rng: RNG = None,
    stream: int = 0,
    out: Array | None = None,
) -> Array:
    """mean + std z, with z standard normal and drawn again until low <= z <= high.

    low and high count in standard deviations; `std` is that of the normal distribution before it is
    cut, 1 / 0.8796 of the result's for -2 and 2. Bounds that hold less than 1 % of the distribution
    raise ValueError.
    """
    return _draw(truncated_normal_fill, shape, dtype, rng, stream, out, mean, std, low, high)


def variance_scaling(
    shape: Shape,
    scale: float = 1.0,
    mode: str = "fan_in",
    distribution: str = "truncated_normal",
    *,
    dtype: DTypeLike = "float32",
    rng: RNG = None,
    stream: int = 0,
    out: Array | None = None,
) -> Array:
    """Mean 0 and variance scale / fan: what the Xavier, He and LeCun initializers are cases of.

    Parameters
    ----------
    scale : float
        More than 0.
    mode : {"fan_in", "fan_out", "fan_avg"}
        fan is n_in, n_out, or their mean.
    distribution : {"normal", "truncated_normal", "uniform"}
        truncated_normal is cut at two standard deviations of the normal distribution, which is made
        wider by 1 / 0.8796 so that the variance after the cut is the one asked for.
    """
    std = _scaled_std(shape, scale, mode, distribution)
    if distribution == "uniform":
        bound = math.sqrt(3) * std
        return _draw(uniform_fill, shape, dtype, rng, stream, out, -bound, bound)
    if distribution == "normal":
        return _draw(normal_fill, shape, dtype, rng, stream, out, 0.0, std)
    wider = std / _TRUNCATED_STD
    return _draw(truncated_normal_fill, shape, dtype, rng, stream, out, 0.0, wider, -2.0, 2.0)


def _scaled_std(
    shape: Shape, scale: float = 1.0, mode: str = "fan_in", distribution: str = "truncated_normal"
) -> float:
    fan = _fan(shape, mode)
    as_choice(distribution, "distribution", _DISTRIBUTIONS)
    return math.sqrt(_positive(scale, "scale") / fan)


def _xavier_std(shape: Shape, gain: float = 1.0) -> float:
    return _positive(gain, "gain") * math.sqrt(1 / _fan(shape, "fan_avg"))


def _he_std(shape: Shape, negative_slope: float = 0.0, mode: str = "fan_in") -> float:
    return calculate_gain("leaky_relu", negative_slope) / math.sqrt(_fan(shape, mode))


def _lecun_std(shape: Shape) -> float:
    return math.sqrt(1 / _fan(shape, "fan_in"))


def xavier_uniform(
    shape: Shape,
    gain: float = 1.0,
    *,
    dtype: DTypeLike = "float32",
    rng: RNG = None,
    stream: int = 0,
    out: Array | None = None,
) -> Array:
    """Uniform in +-gain sqrt(6 / (n_in + n_out)), for sigmoid and tanh (Glorot and Bengio 2010)."""
    bound = math.sqrt(3) * _xavier_std(shape, gain)
    return _draw(uniform_fill, shape, dtype, rng, stream, out, -bound, bound)


def xavier_normal(
    shape: Shape,
    gain: float = 1.0,
    *,
    dtype: DTypeLike = "float32",
    rng: RNG = None,
    stream: int = 0,
    out: Array | None = None,
) -> Array:
    """Normal, variance gain^2 2 / (n_in + n_out), for sigmoid and tanh (Glorot and Bengio 2010)."""
    return _draw(normal_fill, shape, dtype, rng, stream, out, 0.0, _xavier_std(shape, gain))


def he_uniform(
    shape: Shape,
    negative_slope: float = 0.0,
    mode: str = "fan_in",
    *,
    dtype: DTypeLike = "float32",
    rng: RNG = None,
    stream: int = 0,
    out: Array | None = None,
) -> Array:
    """Uniform in +-sqrt(6 / ((1 + negative_slope^2) fan): he_normal's variance (He et al. 2015)."""
    bound = math.sqrt(3) * _he_std(shape, negative_slope, mode)
    return _draw(uniform_fill, shape, dtype, rng, stream, out, -bound, bound)


def he_normal(
    shape: Shape,
    negative_slope: float = 0.0,
    mode: str = "fan_in",
    *,
    dtype: DTypeLike = "float32",
    rng: RNG = None,
    stream: int = 0,
    out: Array | None = None,
) -> Array:
    """Normal, variance 2 / ((1 + negative_slope^2) fan), for ReLU and LeakyReLU (He et al. 2015).

    fan is n_in, which keeps the variance on the way forward, or n_out for mode="fan_out", which
    keeps that of the gradients.
    """
    std = _he_std(shape, negative_slope, mode)
    return _draw(normal_fill, shape, dtype, rng, stream, out, 0.0, std)


def lecun_uniform(
    shape: Shape,
    *,
    dtype: DTypeLike = "float32",
    rng: RNG = None,
    stream: int = 0,
    out: Array | None = None,
) -> Array:
    """Uniform in +-sqrt(3 / n_in): variance 1 / n_in (LeCun et al. 1998)."""
    bound = math.sqrt(3) * _lecun_std(shape)
    return _draw(uniform_fill, shape, dtype, rng, stream, out, -bound, bound)


def lecun_normal(
    shape: Shape,
    *,
    dtype: DTypeLike = "float32",
    rng: RNG = None,
    stream: int = 0,
    out: Array | None = None,
) -> Array:
    """Normal, variance 1 / n_in (LeCun et al. 1998)."""
    return _draw(normal_fill, shape, dtype, rng, stream, out, 0.0, _lecun_std(shape))


def orthogonal(
    shape: Shape,
    gain: float = 1.0,
    *,
    dtype: DTypeLike = "float32",
    rng: RNG = None,
    stream: int = 0,
    out: Array | None = None,
) -> Array:
    """gain times a matrix with orthonormal rows (n_out <= n_in) or columns (Saxe et al. 2014).

    The Q of a normal matrix's QR decomposition in float64, its columns signed by the diagonal of R,
    so that it is uniformly distributed (Mezzadri 2007). The decomposition is NumPy's LAPACK: its
    last bits may differ between NumPy builds, unlike those of the other initializers.
    """
    fan_in, fan_out = _fans(shape)
    factor = _representable(gain, "gain", dtype)
    array = _target(shape, dtype, out)
    tall = _draw(
        normal_fill, sorted(_fans(shape), reverse=True), "float64", rng, stream, None, 0.0, 1.0
    )
    q, r = np.linalg.qr(tall)
    q *= np.where(np.diagonal(r) < 0, -factor, factor)
    array[...] = q if fan_out >= fan_in else q.T
    return array


def calculate_gain(nonlinearity: str, negative_slope: float = 0.01) -> float:
    """Factor on sqrt(1 / fan) that keeps the variance through layers with that activation.

    Parameters
    ----------
    nonlinearity : str
        linear or identity: 1; sigmoid: 1; tanh: 5/3; relu: sqrt(2); leaky_relu:
        sqrt(2 / (1 + negative_slope^2)) (He et al. 2015); gelu, silu: sqrt(2), as ReLU, which they
        approach; selu: 3/4.
    negative_slope : float
        Only for leaky_relu.

    Raises
    ------
    ValueError
        For another name, or a slope that is not finite.
    TypeError
        If nonlinearity is not a str, or the slope not a number.
    """
    if not isinstance(nonlinearity, str):
        raise TypeError(f"nonlinearity: expected a name, got {type(nonlinearity).__name__}")
    if nonlinearity not in _GAINS:
        raise ValueError(
            f"nonlinearity: expected one of {', '.join(sorted(_GAINS))}, got {nonlinearity!r}"
        )
    if nonlinearity == "leaky_relu":
        return math.sqrt(2) / math.hypot(1.0, as_finite(negative_slope, "negative_slope"))
    return _GAINS[nonlinearity]


_COMMON = """

    Parameters and errors common to all initializers
    ------------------------------------------------
    shape : int or sequence of ints; of a weight, (n_out, n_in)
    dtype, rng, stream, out : see `help(fastnn.init)`
    Raises ValueError for wrong values and shapes, TypeError for wrong types, before anything is
    written or rng advances.
"""
for _name in __all__:
    _function = globals()[_name]
    if _name != "calculate_gain" and _function.__doc__:  # none under python -OO
        _function.__doc__ = _function.__doc__.rstrip() + _COMMON
del _name, _function
