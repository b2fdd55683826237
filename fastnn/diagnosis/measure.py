"""One pass of data through a model, forwards and, with a loss, backwards, in chunks of rows.

The layers' own kernels do the work in the model's dtype; mean, variance and counts are taken of
their results in float64 and added up over the chunks, so the memory does not grow with the number
of rows. Nothing of the model changes: no gradient, no random state, no pending forward pass.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .._core.linear import linear_backward
from .._core.losses import loss_and_grad
from .._core.pointwise import act_grad, softmax_grad
from ..layers import Activation, Dropout, Layer, Linear, Softmax
from .figures import Figures, follower, kind_of
from .theory import SATURATING, Moments

if TYPE_CHECKING:
    from ..sequential import Sequential

__all__ = ["Batch", "measure"]

Array = NDArray[Any]

_CHUNK = 1 << 22  # elements of all activations of a chunk of rows


@dataclasses.dataclass
class Batch:
    """What is known of the rows themselves.

    rows, features : of X
    varying : how many features are not the same in all rows
    x_mean, x_rms : mean and root mean square of X, uint8 scaled
    loss : mean over the rows, None without y
    constant : the loss of answering with the mean of y for every row; None for labels
    labels : whether y has classes
    """

    rows: int
    features: int
    varying: int
    x_mean: float
    x_rms: float
    loss: float | None = None
    constant: float | None = None
    labels: bool = False


class Spread:
    """Mean and variance of numbers that come in pieces (Chan, Golub, LeVeque 1983)."""

    def __init__(self) -> None:
        self.n, self.mean, self.squares = 0, 0.0, 0.0  # squares: sum of (x - mean)^2

    def add(self, values: Array) -> None:
        with np.errstate(all="ignore"):  # what overflowed shows as inf or NaN
            mean = np.mean(values, dtype=np.float64)
            squares = np.square(values - mean).sum()
            if np.isnan(squares) and not np.isnan(values).any():
                squares = np.float64(np.inf)
            n = self.n + values.size
            shift = mean - self.mean
            self.mean += float(shift * (values.size / n))
            self.squares += float(squares + shift * shift * (self.n * values.size / n))
        self.n = n

    @property
    def std(self) -> float:
        return math.sqrt(self.squares / self.n)

    @property
    def moments(self) -> Moments:
        return Moments(self.mean, self.squares / self.n + self.mean**2)


class Watch:
    """What is counted of one Linear and its activation f, over all rows."""

    def __init__(self, layer: Linear, after: Layer | None, backward: bool) -> None:
        self.layer, self.after, self.name = layer, after, kind_of(after)[0]
        self.z, self.y = Spread(), Spread()
        units = layer.out_features
        self.positive = np.zeros(units, bool)
        self.positive_without_bias = np.zeros(units, bool)
        self.saturated, self.always = 0, np.ones(units, bool)
        self.squares_without_bias = 0.0
        self.grad_squares = 0.0
        self.grad_weight = np.zeros(layer.weight.shape) if backward else None
        self.grad_bias = np.zeros(units) if backward else None

    def see(self, z: Array) -> None:
        """The pre-activations of a chunk."""
        self.z.add(z)
        bias = self.layer.bias
        with np.errstate(all="ignore"):
            without = z if bias is None else z - bias.astype(np.float64)
            self.squares_without_bias += float(np.square(without, dtype=np.float64).sum())
        if self.name in ("relu", "leaky_relu"):
            self.positive |= (z > 0).any(axis=0)
            self.positive_without_bias |= (without > 0).any(axis=0)
        elif self.name in SATURATING:
            beyond = np.abs(z) > SATURATING[self.name]
            self.saturated += int(np.count_nonzero(beyond))
            self.always &= beyond.all(axis=0)

    def see_gradient(self, grad: Array, grad_weight: Array, grad_bias: Array) -> None:
        """The gradients of a chunk, by z, weight and bias."""
        assert self.grad_weight is not None
        assert self.grad_bias is not None
        with np.errstate(all="ignore"):
            self.grad_squares += float(np.square(grad, dtype=np.float64).sum())
            self.grad_weight += grad_weight
            self.grad_bias += grad_bias

    def tell(self, one: Figures, batch: Batch) -> None:
        """Write what was counted into the layer's figures."""
        one.z_mean, one.z_std = self.z.mean, self.z.std
        y = self.y if self.y.n else self.z
        one.y_mean, one.y_std = y.mean, y.std
        many = batch.varying > 0
        if self.name in ("relu", "leaky_relu") and many:
            one.dead = int(np.count_nonzero(~self.positive))
            one.dead_without_bias = int(np.count_nonzero(~self.positive_without_bias))
        if self.name in SATURATING:
            one.saturated = self.saturated / self.z.n
            one.saturated_units = int(np.count_nonzero(self.always)) if many else None
        if self.layer.bias is not None:
            with np.errstate(all="ignore"):
                squares = batch.rows * float(np.square(self.layer.bias, dtype=np.float64).sum())
                total = squares + self.squares_without_bias
            one.bias_share = squares / total if total > 0 else 0.0
        if self.grad_weight is not None and self.grad_bias is not None:
            one.grad_std = math.sqrt(self.grad_squares / self.z.n)
            one.grad_weight_std = _rms(self.grad_weight)
            one.grad_bias_std = None if self.layer.bias is None else _rms(self.grad_bias)


def measure(
    model: Sequential,
    found: list[Figures],
    X: Array,
    targets: Array | None,
    spec: tuple[Any, ...] | None,
) -> Batch:
    """Fill in the measured part of the figures.

    X : (m, n_in), checked, of the model's dtype, another float dtype, or uint8
    targets, spec : as `loss_and_grad` takes them, or None for a forward pass alone
    """
    watches = {
        i: Watch(layer, follower(model.layers, i), backward=spec is not None)
        for i, layer in enumerate(model)
        if isinstance(layer, Linear)
    }
    inputs, varying = Spread(), np.zeros(X.shape[1], bool)
    rows = len(X)
    width = X.shape[1] + sum(one.n_out for one in found)
    step = max(1, _CHUNK // width)
    loss = 0.0
    for begin in range(0, rows, step):
        part = X[begin : begin + step]
        varying |= (part != X[0]).any(axis=0)
        x = part.astype(model.dtype, copy=False)
        if part.dtype == np.uint8:
            x = x * model.dtype.type(model.uint8_scale)
        inputs.add(x)
        values = _forward(model, x, watches)
        if spec is None:
            continue
        assert targets is not None
        value, grad = loss_and_grad(spec, values[-1], targets[begin : begin + step], None, True)
        assert grad is not None
        loss += value * (len(x) / rows)
        # The gradient of the mean over all rows, not over the chunk's.
        _backward(model, values, grad * model.dtype.type(len(x) / rows), watches)
    batch = Batch(
        rows=rows,
        features=X.shape[1],
        varying=int(np.count_nonzero(varying)),
        x_mean=inputs.mean,
        x_rms=math.sqrt(inputs.moments.square),
        loss=None if spec is None else loss,
        labels=spec == ("cross_entropy",),
    )
    if spec is not None and targets is not None and not batch.labels:
        mean = targets.mean(axis=0, dtype=np.float64).astype(targets.dtype)
        always = np.ascontiguousarray(np.broadcast_to(mean, targets.shape))
        batch.constant = loss_and_grad(spec, always, targets, None, False)[0]
    for one in found:
        watches[one.index].tell(one, batch)
    _set_ratios(found, batch)
    return batch


def _forward(model: Sequential, x: Array, watches: dict[int, Watch]) -> list[Array]:
    """x and the output of each layer, dropout off."""
    values = [x]
    source: Watch | None = None
    for i, layer in enumerate(model):
        x = x if isinstance(layer, Dropout) else layer(x)
        values.append(x)
        if isinstance(layer, Linear):
            source = watches[i]
            source.see(x)
        elif source is not None and layer is source.after:
            source.y.add(x)
    return values


def _backward(model: Sequential, values: list[Array], grad: Array, watch: dict[int, Watch]) -> None:
    for i in range(len(model) - 1, -1, -1):
        layer, x, y = model[i], values[i], values[i + 1]
        if isinstance(layer, Linear):
            grad_x, grad_weight, grad_bias = linear_backward(grad, x, layer.weight)
            watch[i].see_gradient(grad, grad_weight, grad_bias)
            grad = grad_x
        elif isinstance(layer, Activation):
            saved = x if layer._needs_input() else y
            grad = act_grad(layer.name, saved, grad, layer.negative_slope)
        elif isinstance(layer, Softmax):
            grad = softmax_grad(y, grad)


def _set_ratios(found: list[Figures], batch: Batch) -> None:
    before: float | None = batch.x_rms
    for one in found:
        one.ratio = _ratio(one.z_std, before)
        before = one.z_std
    after: float | None = None
    for one in reversed(found):
        one.grad_ratio = _ratio(one.grad_std, after)
        after = one.grad_std


def _ratio(value: float | None, to: float | None) -> float | None:
    if value is None or to is None or to == 0 or not (math.isfinite(value) and math.isfinite(to)):
        return None
    return value / to


def _rms(array: Array) -> float:
    with np.errstate(all="ignore"):
        return math.sqrt(float(np.square(array, dtype=np.float64).mean()))
