"""What is known of each Linear and the activation after it: from its parameters, from theory, and
from a pass of data."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import init
from .._initialization import auto
from ..layers import Activation, Dropout, Layer, Linear, Softmax
from .theory import Moments

if TYPE_CHECKING:
    from ..sequential import Sequential

__all__ = ["Figures", "Theory", "figures_of", "follower", "kind_of", "moments"]

Array = NDArray[Any]


@dataclasses.dataclass
class Theory:
    """What theory predicts of one Linear; None where it does not apply.

    z_mean, z_std : mean and standard deviation of the pre-activations z = W x + b
    y_mean, y_std : the same of the activations y = f(z)
    saturated : share of y where f' is below a tenth of its largest value (tanh, sigmoid)
    grad_std : root mean square of the gradient by z, from that at the last Linear backwards
    """

    z_mean: float | None = None
    z_std: float | None = None
    y_mean: float | None = None
    y_std: float | None = None
    saturated: float | None = None
    grad_std: float | None = None


@dataclasses.dataclass
class Figures:
    """What is known of one Linear, n_in to n_out, and the activation f that its output goes to.

    Always known:

    index : its number in the model, as in `summary()` and in the names of parameters
    layer, activation : such as "Linear(64, 128)" and "LeakyReLU(0.01)" ("" where none follows)
    function, slope : what the kernels know the activation by: "leaky_relu" and 0.01, "identity"
    initialization : how the weight was drawn
    weight_mean, weight_std : of the n_in n_out weights
    asked_std, asked : the standard deviation that He or Xavier ask for with this fan and
        activation, and its formula
    distinct : how many units differ in weights and bias, bit for bit: equal ones do the same to
        the last bit, as every unit is computed in one order, and stay equal where `apart` is False
    apart : whether units that are alike feed the next layer differently, or through dropout
    bias_mean, bias_std : None for a layer without bias

    Measured on the rows that were given, else None:

    z_mean, z_std, y_mean, y_std : over all rows and units, of z = W x + b and y = f(z)
    ratio : z_std over that of the Linear before, for the first over the root mean square of x
    dead, dead_without_bias : units with z <= 0 on every row, and with W x <= 0; before ReLU and
        LeakyReLU
    saturated : share of y (rows and units) where f' is below a tenth of f'(0); tanh and sigmoid
    saturated_units : units for which that is so on every row
    bias_share : the bias's part of the mean square of z: b^2 / (b^2 + (W x)^2), of the means
    grad_std : root mean square of the gradient of the loss by z
    grad_ratio : that over grad_std of the Linear after, from which it comes
    grad_weight_std, grad_bias_std : root mean square of the gradients by weight and bias

    predicted : the same from theory
    """

    index: int
    layer: str
    activation: str
    function: str
    slope: float
    n_in: int
    n_out: int
    initialization: str
    weight_mean: float
    weight_std: float
    asked_std: float
    asked: str
    distinct: int
    apart: bool
    bias_mean: float | None = None
    bias_std: float | None = None
    z_mean: float | None = None
    z_std: float | None = None
    ratio: float | None = None
    y_mean: float | None = None
    y_std: float | None = None
    dead: int | None = None
    dead_without_bias: int | None = None
    saturated: float | None = None
    saturated_units: int | None = None
    bias_share: float | None = None
    grad_std: float | None = None
    grad_ratio: float | None = None
    grad_weight_std: float | None = None
    grad_bias_std: float | None = None
    predicted: Theory = dataclasses.field(default_factory=Theory)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain numbers and strings, with None for what is not known."""
        return dataclasses.asdict(self)


def follower(layers: tuple[Layer, ...], i: int) -> Layer | None:
    """The Activation or Softmax that the output of layer i goes to, dropout aside, or None."""
    for layer in layers[i + 1 :]:
        if not isinstance(layer, Dropout):
            return layer if isinstance(layer, Activation | Softmax) else None
    return None


def kind_of(layer: Layer | None) -> tuple[str, float]:
    """Name and slope of an activation as the kernels know it; no activation is the identity."""
    if isinstance(layer, Activation):
        return layer.name, layer.negative_slope
    return "identity", 0.0


def moments(array: Array | None) -> Moments:
    """Mean and mean square, in float64; of None those of 0."""
    if array is None:
        return Moments(0.0, 0.0)
    with np.errstate(all="ignore"):
        mean = float(array.mean(dtype=np.float64))
        variance = float(np.square(array - np.float64(mean)).mean())
    return Moments(mean, variance + mean * mean)


def figures_of(model: Sequential) -> list[Figures]:
    """What the parameters tell of each Linear."""
    linears = [(i, layer) for i, layer in enumerate(model) if isinstance(layer, Linear)]
    found = []
    for at, (i, layer) in enumerate(linears):
        after = follower(model.layers, i)
        function, slope = kind_of(after)
        weight, bias = layer.weight, layer.bias
        next_weight = linears[at + 1][1].weight if at + 1 < len(linears) else None
        drops = next_weight is not None and any(
            isinstance(other, Dropout) for other in model.layers[i : linears[at + 1][0]]
        )
        distinct, both = _distinct(weight, bias, next_weight)
        w = moments(weight)
        asked_std, asked = _asked(layer, after)
        one = Figures(
            index=i,
            layer=repr(layer).partition(":")[0],
            activation="" if after is None else repr(after).removesuffix("()"),
            function="softmax" if isinstance(after, Softmax) else function,
            slope=slope,
            n_in=layer.in_features,
            n_out=layer.out_features,
            initialization=layer.initialization,
            weight_mean=w.mean,
            weight_std=w.std,
            asked_std=asked_std,
            asked=asked,
            distinct=distinct,
            apart=drops or both > distinct,
        )
        if bias is not None:
            b = moments(bias)
            one.bias_mean, one.bias_std = b.mean, b.std
        found.append(one)
    return found


def _distinct(weight: Array, bias: Array | None, next_weight: Array | None) -> tuple[int, int]:
    """How many units differ in weights and bias, and how many in these or in what they feed."""
    incoming = _rows_as_bytes(weight)
    if bias is not None:
        own = _rows_as_bytes(bias[:, None])
        incoming = [a + b for a, b in zip(incoming, own, strict=True)]
    if next_weight is None:
        return (count := len(set(incoming))), count
    return len(set(incoming)), len(set(zip(incoming, _rows_as_bytes(next_weight.T), strict=True)))


def _rows_as_bytes(matrix: Array) -> list[bytes]:
    """+ 0.0 makes -0.0 the 0.0 that it equals."""
    return [row.tobytes() for row in np.ascontiguousarray(matrix) + 0.0]


def _asked(layer: Linear, after: Layer | None) -> tuple[float, str]:
    """The standard deviation that weight_init="auto" gives, and its formula with these numbers."""
    name, slope = kind_of(after)
    n_in, n_out = layer.in_features, layer.out_features
    if auto(name, slope) is init.xavier_normal:
        return init._xavier_std((n_out, n_in)), f"sqrt(2 / ({n_in} + {n_out}))"
    fan = f"((1 + {slope:g}^2) {n_in})" if slope else str(n_in)
    return init._he_std((n_out, n_in), slope), f"sqrt(2 / {fan})"
