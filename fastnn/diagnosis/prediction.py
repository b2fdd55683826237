"""The theory of `theory.py` applied to a model: what it predicts of each layer, without data."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..layers import Activation, Dropout, Layer, Linear, Softmax
from . import theory
from .figures import Figures, Theory, kind_of, moments
from .theory import Moments

if TYPE_CHECKING:
    from ..sequential import Sequential

__all__ = ["predict"]


def predict(model: Sequential, found: list[Figures], x: Moments, grad: float | None) -> None:
    """Set `predicted` of each Linear's figures, for inputs with these moments.

    grad : the root mean square of the gradient by the last Linear's outputs, or None, and the
        others are relative to it.
    """
    for one in found:
        one.predicted = Theory()
    reached = _forward(model, found, x)
    _backward(model, found, reached, 1.0 if grad is None else grad)


def _forward(model: Sequential, found: list[Figures], x: Moments) -> list[Moments | None]:
    """Sets z_*, y_* and saturated; returns the moments of each Linear's z."""
    state: Moments | None = x
    source: Figures | None = None  # the Linear whose outputs `state` is, until an activation comes
    before: Figures | None = None
    reached: list[Moments | None] = []
    rest = iter(found)
    for layer in model:
        if isinstance(layer, Linear):
            source = next(rest)
            weight, bias = moments(layer.weight), moments(layer.bias)
            if state is not None and not (before is not None and _alike(before)):
                state = _finite(theory.after_linear(state, weight, bias, layer.in_features))
            else:
                state = None
            reached.append(state)
            if state is not None:
                told = source.predicted
                told.z_mean, told.z_std = told.y_mean, told.y_std = state.mean, state.std
            before = source
        elif isinstance(layer, Activation) and source is not None and state is not None:
            told = source.predicted
            told.saturated = theory.saturation(layer.name, state)
            state = _finite(theory.transformed(*kind_of(layer), state))
            told.y_mean, told.y_std = (None, None) if state is None else (state.mean, state.std)
            source = None
        elif not isinstance(layer, Dropout):
            state = None
            if source is not None:
                source.predicted.y_mean = source.predicted.y_std = None
            source = None
    return reached


def _backward(
    model: Sequential, found: list[Figures], reached: list[Moments | None], grad: float
) -> None:
    """Sets grad_std, from the last Linear to the first."""
    found[-1].predicted.grad_std = grad
    square = grad * grad
    for at in range(len(found) - 1, 0, -1):
        one, before, z = found[at], found[at - 1], reached[at - 1]
        between = [
            layer
            for layer in model.layers[before.index + 1 : one.index]
            if not isinstance(layer, Dropout)
        ]
        if z is None or _alike(one) or not _known(between):
            return
        name, slope = kind_of(between[0] if between else None)
        weight = moments(model.layers[one.index].weight)  # type: ignore[attr-defined]
        square *= one.n_out * weight.square * theory.gain(name, slope, z)
        if not math.isfinite(square):
            return
        before.predicted.grad_std = math.sqrt(square)


def _known(between: list[Layer]) -> bool:
    """Whether the theory goes through what lies between two Linears."""
    return len(between) <= 1 and not any(isinstance(layer, Softmax) for layer in between)


def _alike(one: Figures) -> bool:
    """Whether all units are the same, so that what is summed over them is not independent."""
    return one.distinct == 1 < one.n_out and (one.weight_std > 0 or one.weight_mean != 0)


def _finite(found: Moments) -> Moments | None:
    return found if all(map(math.isfinite, found)) else None
