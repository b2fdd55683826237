"""What happens between epochs: callbacks, and what a run has recorded."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from .units import DEAD

if TYPE_CHECKING:
    from .sequential import Sequential

__all__ = ["MONITORS", "Callback", "History", "StopTraining"]

Callback = Callable[["Sequential", "History"], object]

MONITORS = ("loss", "accuracy", "val_loss", "val_accuracy")


class StopTraining(Exception):
    """A callback raises this to end `fit` after the epoch just done."""


class History(dict[str, list[float]]):
    """What `fit` recorded: a list with one number an epoch under each name, also as attributes.

    "loss", "seconds" (validation included) and "lr" (that of the epoch's last step) always;
    "accuracy" with cross-entropy, binary or not; "val_loss" and "val_accuracy" with validation
    data. The training loss is the mean over the epoch, while the parameters changed, and with
    dropout; the validation loss is that after the epoch.

    "dead_units.0" and so on for each Linear before a ReLU or LeakyReLU, by its number in the model:
    the share of its units that were positive on no row of the epoch (`dead_units` has them by that
    number). Values are NaN for epochs before a name was first recorded.

    best_epoch : with early stopping the epoch, 0 for the first, whose parameters were best, else
    None.
    """

    best_epoch: int | None = None

    def __getattr__(self, name: str) -> list[float]:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"expected one of {', '.join(self)}, got {name!r}") from None

    @property
    def epochs(self) -> int:
        """Number of epochs done."""
        return len(self.get("loss", ()))

    def last(self) -> dict[str, float]:
        """The numbers of the last epoch."""
        return {name: values[-1] for name, values in self.items()}

    @property
    def dead_units(self) -> dict[int, list[float]]:
        """The shares of dead units by layer, an epoch each: {0: [0.02, 0.03], 2: [0.1, 0.1]}."""
        numbers = {name: name.removeprefix(DEAD) for name in self if name.startswith(DEAD)}
        return {int(i): self[name] for name, i in numbers.items() if i.isdecimal()}

    def append(self, values: dict[str, float]) -> None:
        """Add an epoch."""
        epochs = self.epochs
        for name, value in values.items():
            self.setdefault(name, [math.nan] * epochs).append(value)

    def line(self) -> str:
        """The last epoch's losses and accuracies in words."""
        last = self.last()
        return ", ".join(f"{name} {last[name]:.4g}" for name in MONITORS if name in last)

    def __repr__(self) -> str:
        if not self.epochs:
            return "History: no epochs"
        seconds = sum(self["seconds"])
        text = f"History: {self.epochs} epochs in {seconds:.3g} s; last: {self.line()}"
        return text if self.best_epoch is None else f"{text}; best epoch: {self.best_epoch}"
