"""Learning rates as functions of the step, for the `lr` of an optimizer.

Each is a small object that is called with the step (an int, 0 for the first; a batch is a step)
and gives the learning rate. They can be pickled, printed and compared; any other callable will do
as well. Arguments that are no such numbers raise ValueError or TypeError, a step that is no integer
of at least 0 too.

    steps = epochs * math.ceil(len(X) / batch_size)
    Adam(lr=cosine(1e-3, steps, warmup=steps // 20))
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ._checks import as_float, as_int

__all__ = ["constant", "cosine", "exponential", "linear", "step_decay"]


@dataclass(frozen=True)
class constant:
    """lr, reached from 0 along a straight line in the first `warmup` steps.

    Raises ValueError or TypeError where lr or warmup is no such number, at least 0.
    """

    lr: float
    warmup: int = 0

    def __post_init__(self) -> None:
        as_float(self.lr, "lr", 0.0)
        as_int(self.warmup, "warmup", 0)

    def __call__(self, step: int) -> float:
        return self.lr * _warm(_checked(step), self.warmup)


@dataclass(frozen=True)
class _Falling:
    """From 0 to lr in the first `warmup` of `steps` steps, then down to `final` and there on."""

    lr: float
    steps: int
    warmup: int = 0
    final: float = 0.0

    def __post_init__(self) -> None:
        as_float(self.lr, "lr", 0.0)
        as_float(self.final, "final", 0.0)
        as_int(self.steps, "steps", 1)
        if as_int(self.warmup, "warmup", 0) >= self.steps:
            raise ValueError(f"warmup: expected fewer than steps = {self.steps}, got {self.warmup}")

    def __call__(self, step: int) -> float:
        step = _checked(step)
        if step < self.warmup:
            return self.lr * _warm(step, self.warmup)
        done = min(1.0, (step - self.warmup) / (self.steps - self.warmup))
        return self.final + (self.lr - self.final) * self._left(done)

    def _left(self, done: float) -> float:
        raise NotImplementedError


class linear(_Falling):
    """From lr to `final` along a straight line, after `warmup` of the `steps` steps up to lr.

    Raises ValueError or TypeError where lr, final or warmup is no such number, at least 0, or steps
    no more than warmup.
    """

    def _left(self, done: float) -> float:
        return 1.0 - done


class cosine(_Falling):
    """From lr to `final` along half a cosine, after `warmup` of the `steps` steps up to lr.

    Errors as for `linear` (ValueError, TypeError). Source: Loshchilov & Hutter 2017, without
    restarts.
    """

    def _left(self, done: float) -> float:
        return 0.5 * (1.0 + math.cos(math.pi * done))


@dataclass(frozen=True)
class exponential:
    """lr * factor^(step / every): smoothly, `factor` times as much after `every` steps.

    Raises ValueError or TypeError where lr or factor is no number of at least 0, or every no
    integer of at least 1.
    """

    lr: float
    factor: float
    every: int = 1

    def __post_init__(self) -> None:
        as_float(self.lr, "lr", 0.0)
        as_float(self.factor, "factor", 0.0)
        as_int(self.every, "every", 1)

    def __call__(self, step: int) -> float:
        return self._at(_checked(step) / self.every)

    def _at(self, exponent: float) -> float:
        try:
            return float(self.lr * self.factor**exponent)
        except OverflowError:  # which the optimizer refuses by name
            return math.inf


class step_decay(exponential):
    """lr * factor^(step // every): in jumps, `factor` times as much after each `every` steps.

    Errors as for `exponential` (ValueError, TypeError).
    """

    def __call__(self, step: int) -> float:
        return self._at(_checked(step) // self.every)


def _checked(step: int) -> int:
    return as_int(step, "step", 0, below=2**63)


def _warm(step: int, warmup: int) -> float:
    return min(1.0, (step + 1) / warmup) if warmup else 1.0
