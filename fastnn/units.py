"""Dead units while training: which of a model's layers are watched, and when to speak up."""

from __future__ import annotations

import warnings

from .layers import Activation, Dropout, Layer, Linear

__all__ = ["DEAD", "TOO_MANY", "warn_of_dead", "watched"]

DEAD = "dead_units."  # with the number of a Linear, the name of its shares in a History
TOO_MANY = 0.5  # in right networks up to a half are dead at the start, and fewer every epoch


def watched(layers: tuple[Layer, ...]) -> dict[int, int]:
    """The Linears whose outputs go, dropout aside, to a ReLU or LeakyReLU.

    Returns
    -------
    dict : the Linear's number in the model, and the number in the model's plan of the operation
        whose output, or for a negative slope whose input, tells by its sign whether a unit is dead.
    """
    found: dict[int, int] = {}
    operation, source = -1, None
    for i, layer in enumerate(layers):
        # The plan has an activation right after a Linear as part of it.
        fused = isinstance(layer, Activation) and i > 0 and isinstance(layers[i - 1], Linear)
        operation += not fused
        if isinstance(layer, Linear):
            source = i
        elif not isinstance(layer, Dropout):
            if source is not None and _rectifies(layer):
                found[source] = operation
            source = None
    return found


def warn_of_dead(
    layers: tuple[Layer, ...], shares: dict[int, float], epoch: int, stacklevel: int
) -> bool:
    """Warn if more than half of a ReLU's units were dead in an epoch; whether it did.

    shares : of each watched Linear, by its number
    """
    sick = []
    for i, share in shares.items():
        after = next(layer for layer in layers[i + 1 :] if not isinstance(layer, Dropout))
        # A LeakyReLU's unit goes on learning, at its slope's pace.
        if share > TOO_MANY and not getattr(after, "negative_slope", 0.0):
            sick.append((share, i))
    if not sick:
        return False
    share, i = max(sick)
    layer = layers[i]
    assert isinstance(layer, Linear)
    others = len(sick) - 1
    also = "" if not others else f" (and more than half in {others} other{'s' * (others > 1)})"
    warnings.warn(
        f"{share:.0%} of the {layer.out_features} units of layer {i} are dead{also}: positive on "
        f"no row of epoch {epoch}, so that ReLU passes nothing of them on, and they do "
        f"not learn; a lower learning rate, LeakyReLU in place of ReLU, or He initialization "
        f'(weight_init="auto") may keep them alive',
        UserWarning,
        stacklevel=stacklevel + 1,
    )
    return True


def _rectifies(layer: Layer) -> bool:
    return isinstance(layer, Activation) and layer.name in ("relu", "leaky_relu")
