"""How a layer comes by its first values: what `weight_init` may be, and how it is told in words."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from . import init
from ._core.arrays import as_real
from ._rng import stream_seed

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from ._rng import RNG

    Array = NDArray[Any]

__all__ = ["Initialization", "Recorded", "auto", "describe", "repeatable"]


# fastnn.init also holds functions that are not initializers, or that need more than a shape.
NAMES = tuple(name for name in init.__all__ if name not in ("calculate_gain", "constant"))


class Initialization:
    """One checked `weight_init` or `bias_init`.

    Parameters
    ----------
    value : str, callable or array_like
        A name of `fastnn.init`, a callable ``f(shape, dtype=..., rng=...)``, or the values.
    argument : str
        What errors call it.
    shape, dtype : of the parameter
    """

    def __init__(
        self,
        value: str | Callable[..., Array] | ArrayLike,
        argument: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
    ) -> None:
        self.argument, self.shape, self.dtype = argument, shape, dtype
        self.values: Array | None = None
        self.function: Callable[..., Array] | None = None
        if isinstance(value, str):
            if value not in NAMES:
                raise ValueError(f"{argument}: expected one of {', '.join(NAMES)}, got {value!r}")
            self.function = getattr(init, value)
        elif callable(value):
            self.function = value
        else:
            self.values = np.array(self._fitting(value))

    def _fitting(self, value: ArrayLike) -> Array:
        array = as_real(value, self.argument, self.dtype)
        if array.shape != self.shape:
            raise ValueError(f"{self.argument}: expected shape {self.shape}, got {array.shape}")
        return array

    def draw(self, root: RNG, stream: int) -> Array:
        """The values; what is random is drawn from this stream of a `repeatable` rng."""
        if self.function is None:
            assert self.values is not None
            return self.values
        base: Any = self.function
        while isinstance(base, functools.partial):
            base = base.func
        if getattr(base, "__module__", None) == init.__name__:
            options: dict[str, Any] = {"rng": root, "stream": stream}
        else:
            options = {"rng": np.random.default_rng([stream_seed(root), stream])}
        return self._fitting(self.function(self.shape, dtype=self.dtype, **options))

    def __str__(self) -> str:
        """Such as "he_normal, slope 0.01, std 0.0505"."""
        return "given values" if self.function is None else describe(self.function, self.shape)


class Recorded:
    """What a file tells of how a weight was drawn, once."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


def auto(activation: str, negative_slope: float) -> Callable[..., Array]:
    """The initializer for weights whose output goes through this activation ("identity": none).

    Sources: He et al. 2015 for what is linear on one side, Glorot & Bengio 2010 for the others.
    """
    if activation in ("relu", "leaky_relu", "gelu", "silu"):
        return functools.partial(init.he_normal, negative_slope=negative_slope)
    return init.xavier_normal


def repeatable(rng: RNG) -> RNG:
    """What gives the same seed each time: rng itself, or a seed drawn from it now."""
    seed = stream_seed(rng)
    return rng if isinstance(rng, int | np.integer | np.random.SeedSequence) else seed


def _uniform_std(shape: init.Shape, low: float = -0.1, high: float = 0.1) -> float:
    return (high - low) / math.sqrt(12)


def _truncated_std(
    shape: init.Shape, mean: float = 0.0, std: float = 0.01, low: float = -2.0, high: float = 2.0
) -> float:
    def density(z: float) -> float:
        return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    mass = (math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2))) / 2
    shift = (density(low) - density(high)) / mass
    return std * math.sqrt(1 + (low * density(low) - high * density(high)) / mass - shift * shift)


# The initializers by name, with the standard deviation each aims at (None: it draws nothing).
_STD: dict[str, Callable[..., float] | None] = {
    "constant": None,
    "eye": None,
    "he_normal": init._he_std,
    "he_uniform": init._he_std,
    "lecun_normal": init._lecun_std,
    "lecun_uniform": init._lecun_std,
    "normal": lambda shape, mean=0.0, std=0.01: std,
    "ones": None,
    "orthogonal": lambda shape, gain=1.0: abs(gain) / math.sqrt(max(init._fans(shape))),
    "truncated_normal": _truncated_std,
    "uniform": _uniform_std,
    "variance_scaling": init._scaled_std,
    "xavier_normal": init._xavier_std,
    "xavier_uniform": init._xavier_std,
    "zeros": None,
}


def describe(initializer: Callable[..., Any], shape: init.Shape, **arguments: Any) -> str:
    """What an initializer does to a weight of that shape: "he_normal, slope 0.01, std 0.0505".

    `initializer` is a function of `fastnn.init` or a functools.partial of one; `arguments` are its
    keywords. Those that concern the values are named, then the standard deviation that the formula
    gives for this shape. A function from elsewhere is told by its name alone.
    """
    if isinstance(initializer, functools.partial):
        arguments = initializer.keywords | arguments
        initializer = initializer.func
    name = getattr(initializer, "__name__", type(initializer).__name__)
    if name not in _STD or getattr(init, name) is not initializer:
        return str(name)
    values = {k: v for k, v in arguments.items() if k not in ("dtype", "rng", "stream", "out")}
    if name.startswith("he_"):
        values = {"negative_slope": 0.0} | values
    words = [name]
    for key, value in values.items():
        text = f"{value:.3g}" if isinstance(value, (int, float)) else str(value)
        if key != "std":
            words.append(f"{'slope' if key == 'negative_slope' else key} {text}")
    std = _STD[name]
    if std is not None:
        words.append(f"std {std(shape, **values):.3g}")
    return ", ".join(words)
