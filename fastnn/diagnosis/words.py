"""How the verdict names layers, causes and mends."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from .figures import Figures

__all__ = ["Finding", "as_drawn", "cause", "excess", "layers", "use", "wrong_kind"]

RECTIFIERS = ("relu", "leaky_relu", "gelu", "silu")


@dataclasses.dataclass(frozen=True)
class Finding:
    """One sentence of a verdict.

    kind : "symmetry", "vanishing", "exploding", "dead", "saturated", "variance", "inputs", "rows",
        "loss" or "not finite"
    level : "problem" or "note"
    layers : the numbers of the Linears concerned
    reason, mend : in words; mend may be ""
    """

    kind: str
    level: str
    layers: tuple[int, ...]
    reason: str
    mend: str = ""

    def __str__(self) -> str:
        return f"{self.reason}; {self.mend}" if self.mend else self.reason

    def to_dict(self) -> dict[str, Any]:
        """The five fields; the numbers of the layers as a list."""
        return dataclasses.asdict(self) | {"layers": list(self.layers)}


def layers(indices: Sequence[int]) -> str:
    """Such as "layer 4", "layers 0 and 2", "layers 2..58"."""
    first, last = min(indices), max(indices)
    if first == last:
        return f"layer {first}"
    return f"layers {first} and {last}" if len(indices) == 2 else f"layers {first}..{last}"


def excess(one: Figures) -> float:
    """The weights' standard deviation over the one asked for, but for the chance of a draw."""
    std = _aim(one)
    return (one.weight_std if std is None else std) / one.asked_std


def as_drawn(one: Figures) -> bool:
    """Whether the weights still have the standard deviation that their initializer aims at."""
    return _aim(one) is not None


def _aim(one: Figures) -> float | None:
    """That standard deviation, or None where the weights have another one."""
    found = re.search(r"std (\S+)$", one.initialization)
    if found is None:
        return None
    aim, size = float(found[1]), one.n_in * one.n_out
    # The standard error of a standard deviation is 1 / sqrt(2 size) of it; 3 digits are told.
    return aim if abs(one.weight_std - aim) < (0.01 + 3 / size**0.5) * aim else None


def wrong_kind(one: Figures) -> str:
    """Xavier, too small before what asks for He; He, too large before what asks for Xavier; or "".

    With a gain or slope of one's own either may be wrong the other way round.
    """
    name = one.initialization.partition("_")[0]
    if not as_drawn(one):
        return ""
    if name == "xavier" and one.function in RECTIFIERS and excess(one) < 1:
        return "Xavier"
    return "He" if name == "he" and one.function in ("tanh", "sigmoid") and excess(one) > 1 else ""


def cause(one: Figures) -> str:
    """In which way the weights' variance is not the one asked for."""
    share = excess(one) ** 2
    wrong, asks = wrong_kind(one), "He" if one.function in RECTIFIERS else "Xavier"
    if wrong == "Xavier":
        loses = "half" if 0.45 < share < 0.55 else f"{1 - share:.0%} of"
        return f"Xavier before {one.activation} loses {loses} the variance per layer"
    if wrong == "He":
        return f"He before {one.activation} has up to {share:.2g} times the variance of Xavier"
    return (
        f"the weights of layer {one.index} have std {one.weight_std:.3g} where {asks} asks for "
        f"{one.asked_std:.3g}"
    )


def use(one: Figures) -> str:
    """The initializer to take."""
    if one.function not in RECTIFIERS:
        return 'use weight_init="xavier_normal"'
    if one.function == "leaky_relu" and one.slope:
        return f'use he_normal with slope {one.slope:g}, which is weight_init="auto"'
    return 'use weight_init="he_normal"'
