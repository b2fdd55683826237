"""Layers: small objects with sizes, parameters, and a `forward` and `backward` of their own.

A layer works alone, or inside a `Sequential`, which moves the parameters of all its layers into
one flat buffer; the kernels are the same. `layer(x)` is the layer as inference has it;
`layer.forward(x)` also keeps what `backward` needs.

The weight of a Linear is seen as (n_out, n_in). It is the transpose of an (n_in, n_out) C-ordered
block, which the kernels read in whole vectors; the bias follows that block.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ._checks import as_bool, as_float, as_float_dtype, as_int
from ._core.arrays import as_real
from ._core.linear import linear, linear_backward
from ._core.pointwise import act, act_grad, softmax, softmax_grad
from ._core.random import dropout
from ._initialization import Initialization, Recorded, auto, repeatable
from ._memory import flat_zeros
from ._rng import check_rng, rewinding, stream_seed

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from ._rng import RNG

    Array = NDArray[Any]

__all__ = [
    "GELU",
    "Activation",
    "Dropout",
    "Layer",
    "LeakyReLU",
    "Linear",
    "ReLU",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Tanh",
]


_BIAS_STREAMS = 1 << 32  # a weight draws from stream i, its bias from stream i + this


class Layer:
    """What all layers have in common: `layer(x)`, `forward`, `backward`, a repr.

    All three raise ValueError or TypeError where the shape or dtype of x or grad does not fit, and
    `backward` RuntimeError where no `forward` went before.
    """

    _owner: Any = None  # a weak reference to the model that the layer is part of
    _saved: Array | None = None  # what forward leaves for backward

    def __call__(self, x: ArrayLike) -> Array:
        """The layer's output for x, as in inference."""
        raise NotImplementedError

    def forward(self, x: ArrayLike) -> Array:
        """The layer's output for x; keeps what `backward` needs."""
        raise NotImplementedError

    def backward(self, grad: ArrayLike) -> Array:
        """The gradient by the input of the last `forward`, given that by its output."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments that tell what the layer computes, as plain values."""
        return {}

    def _operation(self) -> tuple[Any, ...]:
        """The layer as an operation of a plan (Linear's offsets are the model's business)."""
        raise NotImplementedError

    def _take_saved(self, grad: ArrayLike, columns: int | None = None) -> tuple[Array, Array]:
        """What forward left, and grad checked against it."""
        saved = self._saved
        if saved is None:
            raise RuntimeError("backward: expected a call of forward before it, found none")
        grad = as_real(grad, "grad", saved.dtype)
        shape = saved.shape if columns is None else (*saved.shape[:-1], columns)
        if grad.shape != shape:
            raise ValueError(f"grad: expected shape {shape}, got {grad.shape}")
        self._saved = None
        return saved, grad

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        for name in ("_owner", "_saved"):
            state.pop(name, None)
        return state

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{v:g}' for v in self.settings().values())})"


class Linear(Layer):
    """y = x @ weight.T + bias.

    Parameters
    ----------
    in_features, out_features : int
        n_in and n_out, at least 1.
    bias : bool
        Whether there is a bias, the b of y = m x + b.
    weight_init, bias_init : str, callable or array_like
        The name of a function of `fastnn.init`; a callable ``f(shape, dtype=..., rng=...)`` that
        returns an array of that shape (a `functools.partial` of a function of `fastnn.init`, say);
        or the values. "auto", for the weight, asks which activation follows: He's variance with its
        true slope before ReLU, LeakyReLU, GELU and SiLU, else Xavier's.
    dtype : "float32" or "float64"
    rng : None, int, SeedSequence, BitGenerator or Generator
        Where the layer draws from. None: the model's own, or for a layer alone the system's
        entropy.

    Raises
    ------
    ValueError, TypeError
        If a size is below 1, an initializer is unknown or gives another shape, dtype is another, or
        rng is none of these.

    Notes
    -----
    Parameters are drawn when first needed: when the layer enters a model, or alone at its first
    use. A layer that enters a model keeps values drawn or set before, at a new place: views taken
    before no longer show them.

    Sources: Glorot & Bengio 2010 (Xavier); He et al. 2015.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        weight_init: str | Callable[..., Array] | ArrayLike = "auto",
        bias_init: str | Callable[..., Array] | ArrayLike = "zeros",
        dtype: DTypeLike = "float32",
        rng: RNG = None,
    ) -> None:
        self.in_features = as_int(in_features, "in_features", 1, below=2**60)
        self.out_features = as_int(out_features, "out_features", 1, below=2**60)
        self.has_bias = as_bool(bias, "bias")
        if self.size > sys.maxsize // 8:
            raise ValueError(
                "in_features, out_features: expected a weight that fits into memory, got shape "
                f"({self.out_features}, {self.in_features})"
            )
        self.dtype = as_float_dtype(dtype)
        check_rng(rng)
        self._rng = rng
        self._weight_init: Initialization | Recorded | None = None
        if not (isinstance(weight_init, str) and weight_init == "auto"):
            self._weight_init = self._initialization(weight_init, "weight_init")
        self._bias_init = self._initialization(bias_init, "bias_init")
        self._parameters: Array | None = None
        self._gradients: Array | None = None

    def _initialization(self, value: Any, argument: str) -> Initialization:
        shape: tuple[int, ...] = (self.out_features, self.in_features)
        if argument == "bias_init":
            shape = shape[:1]
        return Initialization(value, argument, shape, self.dtype)

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self.out_features * (self.in_features + self.has_bias)

    @property
    def initialization(self) -> str:
        """How the weight is or was drawn, such as "he_normal, slope 0.01, std 0.0505"."""
        return "auto" if self._weight_init is None else str(self._weight_init)

    def settings(self) -> dict[str, Any]:
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "bias": self.has_bias,
            "dtype": self.dtype.name,
        }

    @property
    def weight(self) -> Array:
        """View of shape (n_out, n_in); what is written to it holds from the next call."""
        return self._weight_of(self._drawn())

    @weight.setter
    def weight(self, value: ArrayLike) -> None:
        given = self._initialization(as_real(value, "weight", self.dtype), "weight")
        self.weight[...] = given.draw(0, 0)

    @property
    def bias(self) -> Array | None:
        """View of shape (n_out,), or None for a layer without bias."""
        return self._bias_of(self._drawn()) if self.has_bias else None

    @bias.setter
    def bias(self, value: ArrayLike) -> None:
        if not self.has_bias:
            raise ValueError("bias: expected a layer with one, got a layer made with bias=False")
        array = as_real(value, "bias", self.dtype)
        if array.shape != (self.out_features,):
            raise ValueError(f"bias: expected shape ({self.out_features},), got {array.shape}")
        self._bias_of(self._drawn())[...] = array

    @property
    def grad_weight(self) -> Array:
        """View of shape (n_out, n_in): the gradient that the last `backward` left."""
        return self._weight_of(self._gradient())

    @property
    def grad_bias(self) -> Array | None:
        """View of shape (n_out,), or None for a layer without bias."""
        return self._bias_of(self._gradient()) if self.has_bias else None

    def __call__(self, x: ArrayLike) -> Array:
        """x @ weight.T + bias for x of shape (m, n_in) or (n_in,), converted to the layer's dtype.

        Raises ValueError where x has another shape, TypeError where it is no array of real numbers.
        """
        return linear(as_real(x, "x", self.dtype), self.weight, self.bias)

    def forward(self, x: ArrayLike) -> Array:
        """As `layer(x)`, errors too; keeps a copy of x for `backward`."""
        x = np.array(as_real(x, "x", self.dtype))
        y = linear(x, self.weight, self.bias)
        self._saved = x
        return y

    def backward(self, grad: ArrayLike) -> Array:
        """Sets grad_weight = grad.T @ x, grad_bias = the sum of grad's rows; returns grad @ weight.

        Parameters
        ----------
        grad : array_like, of the shape of `forward`'s output

        Returns
        -------
        ndarray, of the shape of x

        Raises
        ------
        ValueError, TypeError
            Where grad does not fit.
        RuntimeError
            Without a `forward` before.
        """
        x, grad = self._take_saved(grad, self.out_features)
        grad_x, grad_weight, grad_bias = linear_backward(grad, x, self.weight)
        flat = self._gradient()
        self._weight_of(flat)[...] = grad_weight
        if self.has_bias:
            self._bias_of(flat)[...] = grad_bias
        return grad_x

    def _weight_of(self, flat: Array) -> Array:
        block = flat[: self.in_features * self.out_features]
        return block.reshape(self.in_features, self.out_features).T

    def _bias_of(self, flat: Array) -> Array:
        return flat[self.in_features * self.out_features :]

    def _gradient(self) -> Array:
        if self._gradients is None:
            model = None if self._owner is None else self._owner()
            if model is None:
                self._gradients = flat_zeros(self.size, self.dtype, 1)
            else:
                _ = model._gradients  # which gives this layer its part
        assert self._gradients is not None
        return self._gradients

    def _drawn(self) -> Array:
        if self._parameters is None:
            with rewinding(self._rng):
                self._weight_init, self._parameters = self._draw(self._rng, 0, None)
        return self._parameters

    def _draw(self, rng: RNG, stream: int, follower: Layer | None) -> tuple[Initialization, Array]:
        """How the weight is drawn, and first values for the parameters, from this stream of rng.

        follower : the layer that the output goes to.
        """
        how = self._weight_init
        if how is None:
            name, slope = "identity", 0.0
            if isinstance(follower, Activation):
                name, slope = follower.name, follower.negative_slope
            how = self._initialization(auto(name, slope), "weight_init")
        assert isinstance(how, Initialization)
        root = repeatable(rng)
        flat = flat_zeros(self.size, self.dtype, 0)
        self._weight_of(flat)[...] = how.draw(root, stream)
        if self.has_bias:
            self._bias_of(flat)[...] = self._bias_init.draw(root, stream + _BIAS_STREAMS)
        return how, flat

    def _move(self, parameters: Array) -> None:
        """Take this slice of a model's flat buffer for the layer's own."""
        parameters[...] = self._drawn()
        self._parameters, self._gradients = parameters, None

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        state["_gradients"] = None
        if self._parameters is not None:
            state["_parameters"] = self._parameters.copy()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._parameters is not None:
            flat = flat_zeros(self.size, self.dtype, 0)
            flat[...] = self._parameters
            self._parameters = flat

    def __repr__(self) -> str:
        text = f"Linear({self.in_features}, {self.out_features}"
        text += "" if self.has_bias else ", bias=False"
        text += "" if self.dtype == np.float32 else f", dtype={self.dtype.name!r}"
        return f"{text}): {self.size:,} parameters, {self.initialization}"


class Activation(Layer):
    """An elementwise function of arrays of any shape, float32 or float64."""

    name: ClassVar[str]  # what the compiled modules call it
    negative_slope: float = 0.0  # the slope far left of 0, where it is linear there

    def __call__(self, x: ArrayLike) -> Array:
        """f(x), of x's shape and dtype; TypeError where x is not of float32 or float64."""
        return act(self.name, x, self.negative_slope)

    def forward(self, x: ArrayLike) -> Array:
        """As `layer(x)`, errors too; keeps a copy of x or of f(x) for `backward`."""
        x = as_real(x, "x")
        y = self(x)
        self._saved = (x if self._needs_input() else y).copy()
        return y

    def backward(self, grad: ArrayLike) -> Array:
        """grad * f'(x), of x's shape. The derivative at 0 is the slope on the left.

        Raises ValueError or TypeError where grad does not fit, RuntimeError without a `forward`
        before.
        """
        saved, grad = self._take_saved(grad)
        return act_grad(self.name, saved, grad, self.negative_slope)

    def _needs_input(self) -> bool:
        """Whether f' needs x: below a slope of 0, and for GELU and SiLU, f(x) does not tell it."""
        return self.name in ("gelu", "silu") or self.negative_slope < 0

    def _operation(self) -> tuple[Any, ...]:
        return ("act", self.name, self.negative_slope)


class LeakyReLU(Activation):
    """f(x) = x where x > 0, else negative_slope * x; f'(x) = 1 where x > 0, else negative_slope.

    negative_slope : any finite number, else ValueError or TypeError is raised.
    Source: Maas, Hannun, Ng 2013.
    """

    name = "leaky_relu"

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = as_float(negative_slope, "negative_slope")

    def settings(self) -> dict[str, Any]:
        return {"negative_slope": self.negative_slope}


class ReLU(Activation):
    """f(x) = x where x > 0, else 0; f'(x) = 1 where x > 0, else 0. Source: Nair & Hinton 2010."""

    name = "relu"


class Tanh(Activation):
    """f(x) = tanh x; f' = 1 - f^2. Source: LeCun, Bottou, Orr, Müller 1998."""

    name = "tanh"


class Sigmoid(Activation):
    """f(x) = 1 / (1 + e^-x); f' = f (1 - f). Source: Bishop 2006, section 4.2."""

    name = "sigmoid"


class GELU(Activation):
    """f(x) = x Phi(x), Phi the normal distribution function (not its tanh approximation).

    Source: Hendrycks & Gimpel 2016.
    """

    name = "gelu"


class SiLU(Activation):
    """f(x) = x / (1 + e^-x). Sources: Elfwing et al. 2018; as Swish, Ramachandran et al. 2017."""

    name = "silu"


class Softmax(Layer):
    """y = e^x / sum of e^x over each row, for x of shape (m, n) or (n,); float32 or float64.

    For probabilities from a trained model. `CrossEntropy` takes the outputs before it.
    Source: Bridle 1990.
    """

    def __call__(self, x: ArrayLike) -> Array:
        """Softmax of each row; TypeError for another dtype, ValueError for other dimensions."""
        return softmax(as_real(x, "x"))

    def forward(self, x: ArrayLike) -> Array:
        """As `layer(x)`, errors too; keeps a copy of the result for `backward`."""
        y = self(x)
        self._saved = y.copy()
        return y

    def backward(self, grad: ArrayLike) -> Array:
        """y * (grad - sum of grad * y over the row), of x's shape.

        Raises ValueError or TypeError where grad does not fit, RuntimeError without a `forward`
        before.
        """
        return softmax_grad(*self._take_saved(grad))

    def _operation(self) -> tuple[Any, ...]:
        return ("softmax",)


class Dropout(Layer):
    """In training each element is 0 with probability `rate`, else divided by 1 - rate.

    In inference, as in `layer(x)`, nothing happens. Elements are dropped by a stream of random
    numbers that the seed and the number of the step name, so the same step drops the same ones
    whatever the number of threads.

    Parameters
    ----------
    rate : float
        At least 0 and below 1.
    rng : None, int, SeedSequence, BitGenerator or Generator
        For a layer alone; in a model the numbers are the model's.

    Raises
    ------
    ValueError, TypeError
        If rate is not such a number, or rng none of these.

    Source: Srivastava et al. 2014.
    """

    def __init__(self, rate: float = 0.5, *, rng: RNG = None) -> None:
        self.rate = as_float(rate, "rate", 0.0, below=1.0)
        check_rng(rng)
        self._rng = rng
        self._seed: int | None = None
        self._step = 0  # calls of forward: each has a stream of its own
        self._stream = 0

    def settings(self) -> dict[str, Any]:
        return {"rate": self.rate}

    def __call__(self, x: ArrayLike) -> Array:
        """A copy of x, of any shape; TypeError where x is not of float32 or float64."""
        return np.array(as_real(x, "x"))

    def forward(self, x: ArrayLike) -> Array:
        """x with elements dropped, other ones at each call; errors as for `layer(x)`."""
        x = as_real(x, "x")
        if self._seed is None:
            self._seed = stream_seed(self._rng)
        self._stream = self._step << 16
        self._step += 1
        y = dropout(x, None, self._seed, self._stream, self.rate)
        self._saved = y
        return y

    def backward(self, grad: ArrayLike) -> Array:
        """grad with the same elements dropped as by the last `forward`.

        Raises ValueError or TypeError where grad does not fit, RuntimeError without a `forward`
        before.
        """
        _, grad = self._take_saved(grad)
        assert self._seed is not None
        return dropout(grad, None, self._seed, self._stream, self.rate)

    def _operation(self) -> tuple[Any, ...]:
        return ("dropout", self.rate)
