"""One pass forwards and one back, layer by layer, with everything kept: what histograms are of."""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import ArrayLike, NDArray

from ..layers import Activation, Linear
from ..losses import CrossEntropy
from ..sequential import Sequential

__all__ = ["Kept", "keep"]

Array = NDArray[Any]


class Kept(NamedTuple):
    """Of a Linear: its pre-activations, activations and the gradients of the loss by the former,
    each of shape (m, n_out)."""

    z: Array
    y: Array
    grad: Array


def keep(model: Sequential, X: ArrayLike, labels: ArrayLike) -> list[Kept]:
    """For each Linear of a model of Linears and activations, under cross-entropy."""
    outputs = []
    x = X
    for layer in model:
        x = layer.forward(x)
        outputs.append(x)
    _, grad = CrossEntropy()(outputs[-1], labels)
    grads: list[Array] = []
    for layer in reversed(model.layers):
        grads.append(grad)
        grad = layer.backward(grad)
    grads.reverse()
    kept = []
    for i, layer in enumerate(model):
        if isinstance(layer, Linear):
            after = i + 1 < len(model) and isinstance(model[i + 1], Activation)
            kept.append(Kept(outputs[i], outputs[i + 1] if after else outputs[i], grads[i]))
    return kept
