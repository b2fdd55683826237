"""How a layer comes by its first values: what `weight_init` may be, and how it is told in words."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import init
from ._core.arrays import as_real
from ._rng import stream_seed

if TYPE_CHECKING:
    from ._rng import RNG

__all__ = ["Initialization", "Recorded", "auto", "repeatable"]

Array = NDArray[Any]

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
            self.function = init.resolve(value)
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
        return "given values" if self.function is None else init.describe(self.function, self.shape)


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
