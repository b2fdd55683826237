"""How the verdict names layers, causes and mends."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from .figures import Figures

__all__ = [
    "Finding",
    "as_drawn",
    "cause",
    "excess",
    "layers",
    "to_blame",
    "use",
    "wrong_kind",
]

RECTIFIERS = ("relu", "leaky_relu", "gelu", "silu")


@dataclasses.dataclass(frozen=True)
class Finding:
    """One sentence of a verdict.

    kind : "symmetry", "vanishing", "exploding", "dead", "saturated", "bias", "variance", "inputs",
        "rows", "loss" or "not finite"
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
    """Such as "layer 4", "layers 0 and 2", "layers 2..58"; "layers 4, 20 and 40" if others, which
    are not meant, lie between."""
    numbers = sorted(indices)
    first, last = numbers[0], numbers[-1]
    if first == last:
        return f"layer {first}"
    # Between two Linears that follow each other are an activation and a dropout at most.
    gaps = any(b - a > 3 for a, b in itertools.pairwise(numbers))
    if len(numbers) == 2 or (gaps and len(numbers) <= 5):
        return f"layers {', '.join(map(str, numbers[:-1]))} and {last}"
    return f"{len(numbers)} of layers {first}..{last}" if gaps else f"layers {first}..{last}"


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


def to_blame(passed: Iterable[Figures], small: bool) -> list[Figures]:
    """The layers whose weights are to blame for what was lost, or won, over all that it passed,
    by how far they are off; the one in the middle is typical.

    Those that are off by at least half as much as the worst, in logarithms: all of a uniform
    chain, the one bad layer of thirty.
    """
    worst = sorted(passed, key=excess, reverse=not small)
    sign = -1 if small else 1
    off = [sign * math.log(max(excess(one), 1e-300)) for one in worst]
    return [one for one, by in zip(worst, off, strict=True) if by >= off[0] / 2]


def cause(one: Figures, others: Sequence[Figures] = ()) -> str:
    """In which way the weights' variance is not the one asked for.

    others : the layers of which this is typical
    """
    share = excess(one) ** 2
    wrong, asks = wrong_kind(one), "He" if one.function in RECTIFIERS else "Xavier"
    if wrong == "Xavier":
        loses = "half" if 0.45 < share < 0.55 else f"{1 - share:.0%} of"
        return f"Xavier before {one.activation} loses {loses} the variance per layer"
    if wrong == "He":
        return f"He before {one.activation} has up to {share:.2g} times the variance of Xavier"
    among = f" (typical of {layers([o.index for o in others])})" if len(others) > 1 else ""
    return (
        f"the weights of layer {one.index}{among} have std {one.weight_std:.3g} where {asks} asks "
        f"for {one.asked_std:.3g}"
    )


def use(one: Figures) -> str:
    """The initializer to take."""
    if one.function not in RECTIFIERS:
        return 'use weight_init="xavier_normal"'
    if one.function == "leaky_relu" and one.slope:
        return f'use he_normal with slope {one.slope:g}, which is weight_init="auto"'
    return 'use weight_init="he_normal"'
