"""The signal on its way forwards and the gradients on their way back: do they vanish or explode?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from .figures import Figures
from .measure import Batch
from .words import Finding, cause, excess, layers, to_blame, use

__all__ = ["growing", "overflowing", "shrinking"]

_LEAST = 1e-300  # stands for 0, whose logarithm is none


class Way(NamedTuple):
    """The stretch of layers over which the signal, or a gradient, shrinks or grows most."""

    over: tuple[Figures, ...]  # in the order in which they are passed
    steps: tuple[float, ...]  # the logarithm of each one's ratio
    excess: float  # of the weights' standard deviations over those asked for
    end: float  # the value after it
    at: str  # where that is
    backward: bool
    measured: bool

    @property
    def product(self) -> float:
        """Of the ratios over it; 0 and infinity where these are beyond float."""
        log = math.fsum(self.steps)
        return math.exp(log) if abs(log) < 700 else math.inf if log > 0 else 0.0

    @property
    def few(self) -> list[int]:
        """The places of a few layers that do much of it; none where all do their part."""
        total = math.fsum(self.steps)
        shares = [step / total for step in self.steps]
        few = [i for i, share in enumerate(shares) if share >= max(shares) / 2]
        much = math.fsum(shares[i] for i in few) > 0.3
        return few if much and 2 * len(few) <= len(self.steps) else []

    @property
    def alone(self) -> bool:
        """Whether there are such few, and nothing but chance in the others."""
        few = math.fsum(self.steps[i] for i in self.few)
        return few != 0 and few / math.fsum(self.steps) > 0.8

    @property
    def concerned(self) -> list[Figures]:
        """The layers that do it."""
        return [self.over[i] for i in self.few] if self.alone else list(self.over)

    def _told(self, places: Sequence[int]) -> tuple[str, str]:
        """The layers there, and what each multiplies by: their geometric mean."""
        factor = math.exp(math.fsum(self.steps[i] for i in places) / len(places))
        return layers([self.over[i].index for i in places]), f"{factor:.2g}"

    def __str__(self) -> str:
        few, alone = self.few, self.alone
        places = few if alone else range(len(self.over))
        (named, factor), one = self._told(places), len(places) == 1
        verb = "shrink" if self.product < 1 else "grow"
        if self.backward:
            words = f"gradients {verb} by {factor}{'' if one else ' a layer'}"
            words += f" through {named}" * alone
        else:
            words = f"{named} {verb}{'s' * one} by {factor}{'' if one else ' each'}"
        if few and not alone:
            named, factor = self._told(few)
            words += f", {'through ' * self.backward}{named} by {factor}"
        end = f"{'' if self.backward else 'std '}{self.end:.2g} at {self.at}"
        return f"{words}: {end}{'' if self.measured else ' by theory'}"


def shrinking(found: Sequence[Figures], batch: Batch) -> list[Finding]:
    """Signals or gradients that vanish.

    With weights that are too small a hundredth is a problem: SGD is slow from there on, and stands
    still at a thousandth. With the weights that are asked for Adam, which does not see the size of
    a gradient, makes do with much less, but not below its eps, and not under sigmoids: they also
    make the rows alike.
    """
    worst: list[tuple[str, Way]] = []
    for way in _ways(found, batch, -1):
        sigmoid = way.backward and any(one.function == "sigmoid" for one in found[:-1])
        small = way.excess < 0.1
        if way.product < (1e-2 if small else 1e-3 if sigmoid else 1e-8):
            worst.append(("problem", way))
        elif way.product < (0.1 if way.excess < 0.3 else 1e-2):
            worst.append(("note", way))
    return _told("vanishing", worst, found)


def overflowing(found: Sequence[Figures]) -> list[Finding]:
    """A signal that has exceeded what the dtype can hold."""
    beyond = [one.index for one in found if not math.isfinite(one.z_std or 0.0)]
    if not beyond:
        return []
    reason = f"the signal exceeds what the dtype can hold from layer {beyond[0]} on"
    mend = "make the model anew, or scale X"
    if any(excess(layer) > 2 for layer in found):
        blamed = to_blame(found, small=False)
        one = blamed[len(blamed) // 2]
        reason, mend = f"{reason}; {cause(one, blamed)}", use(one)
    return [Finding("exploding", "problem", tuple(beyond), reason, mend)]


def growing(found: Sequence[Figures], batch: Batch) -> list[Finding]:
    """Signals or gradients that explode."""
    worst: list[tuple[str, Way]] = []
    for way in _ways(found, batch, +1):
        large = way.excess > 5
        if way.product > (30 if large else 1e6):
            worst.append(("problem", way))
        elif way.product > (10 if large else 1e3):
            worst.append(("note", way))
    return _told("exploding", worst, found)


def _ways(found: Sequence[Figures], batch: Batch, sign: int) -> Iterator[Way]:
    """Forwards and back: where most is lost (sign -1) or won (+1), if anything is."""
    if len(found) == 1:
        return  # an output layer alone has neither way
    measured = batch.rows > 0
    silent = found[-1].distinct == 1 < found[-1].n_out  # outputs that start alike are no harm
    found = found[:-1] if silent else found
    values = [one.z_std if measured else one.predicted.z_std for one in found]
    stretch = _steepest([batch.x_rms, *values], sign)
    if stretch:
        begin, steps = stretch
        over = tuple(found[begin : begin + len(steps)])
        at = "the output" if over[-1] is found[-1] else f"layer {over[-1].index}"
        yield _way(over, steps, values[begin + len(steps) - 1], at, False, measured)
    measured = found[-1].grad_std is not None
    back = found[::-1]
    values = [one.grad_std if measured else one.predicted.grad_std for one in back]
    stretch = None if silent else _steepest(values, sign)
    if stretch:
        begin, steps = stretch
        end = begin + len(steps)
        # The step from one gradient to the next goes through the weights of the layer it leaves.
        over = tuple(back[begin:end])
        yield _way(over, steps, values[end], f"layer {back[end].index}", True, measured)


def _way(
    over: tuple[Figures, ...],
    steps: tuple[float, ...],
    end: float | None,
    at: str,
    backward: bool,
    measured: bool,
) -> Way:
    off = math.prod(excess(one) for one in over)
    return Way(over, steps, off, end or 0.0, at, backward, measured)


def _steepest(values: Sequence[float | None], sign: int) -> tuple[int, tuple[float, ...]] | None:
    """Where from, and the logarithms of the ratios of each value to the one before, such that
    their product is least (sign -1) or largest (+1).

    Only what is known and finite from the start on counts.
    """
    logs: list[float] = []
    for value in values:
        if value is None or not math.isfinite(value):
            break
        logs.append(math.log(max(value, _LEAST)))
    best, found, begin = 0.0, None, 0  # begin: where it was least so far, times sign
    for end in range(1, len(logs)):
        by = sign * (logs[end] - logs[begin])
        if by < 0:
            begin = end
        elif by > best:
            best, found = by, (begin, end)
    if found is None:
        return None
    begin, end = found
    return begin, tuple(b - a for a, b in pairwise(logs[begin : end + 1]))


def _told(kind: str, worst: list[tuple[str, Way]], found: Sequence[Figures]) -> list[Finding]:
    """One finding for both ways, with the cause that the weights, or else the activations, are."""
    if not worst:
        return []
    level = "problem" if any(level == "problem" for level, _ in worst) else "note"
    ways = [way for _, way in worst]
    indices = sorted({layer.index for way in ways for layer in way.concerned})
    reason = "; ".join(map(str, ways))
    small = kind == "vanishing"
    wrong = min(way.excess for way in ways) < 0.3 if small else max(w.excess for w in ways) > 3
    if wrong:
        passed = {one.index: one for way in ways for one in way.over}.values()
        blamed = to_blame(passed, small)
        one = blamed[len(blamed) // 2]
        reason, mend = f"{reason}; {cause(one, blamed)}", use(one)
    elif small:
        why, mend = _by_activation({one.function for one in found[:-1]})
        reason += why
    else:
        mend = "use wider layers, or fewer"
    return [Finding(kind, level, tuple(indices), reason, mend)]


def _by_activation(functions: set[str]) -> tuple[str, str]:
    """What shrinks a signal or gradient though the weights are as asked."""
    if "sigmoid" in functions:
        return (
            "; the derivative of Sigmoid is at most 1/4",
            'use Tanh, or LeakyReLU with weight_init="auto", or fewer layers',
        )
    if functions & {"gelu", "silu"}:
        return (
            "; GELU and SiLU have slope 1/2 at 0, and small signals lose half their variance",
            "train with Adam, whose steps do not follow a gradient's size, or use fewer layers",
        )
    return "", "use wider layers, or fewer"
