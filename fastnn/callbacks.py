"""What happens between epochs: early stopping, callbacks, and what a run has recorded."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ._checks import as_bool, as_choice, as_float, as_int
from .units import DEAD

if TYPE_CHECKING:
    from .sequential import Sequential

__all__ = ["Callback", "EarlyStopping", "History", "StopTraining", "Stopper"]

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


@dataclass(frozen=True)
class EarlyStopping:
    """End training when the monitored number has not become better for `patience` epochs.

    Parameters
    ----------
    patience : int
        At least 1.
    min_delta : float
        By how much it has to become better to count, at least 0.
    monitor : "val_loss", "val_accuracy", "loss", "accuracy" or None
        None: the validation loss, or without validation data the training loss.
    restore_best : bool
        Whether the model has the best epoch's parameters at the end of `fit`, also where the epochs
        ran out first; an exception leaves those of the last step.

    Raises
    ------
    ValueError, TypeError
        If an argument is not such a one.
    """

    patience: int = 5
    min_delta: float = 0.0
    monitor: str | None = None
    restore_best: bool = True

    def __post_init__(self) -> None:
        as_int(self.patience, "patience", 1)
        as_float(self.min_delta, "min_delta", 0.0)
        as_bool(self.restore_best, "restore_best")
        if self.monitor is not None:
            as_choice(self.monitor, "monitor", MONITORS)


class Stopper:
    """One run's early stopping: what was best so far, and for how long."""

    def __init__(self, rule: EarlyStopping, recorded: tuple[str, ...]) -> None:
        self.rule = rule
        self.monitor = rule.monitor or ("val_loss" if "val_loss" in recorded else "loss")
        if self.monitor not in recorded:
            raise ValueError(
                f"early_stopping: expected a monitor among {', '.join(recorded)}, which this run "
                f"records, got {self.monitor!r}"
            )
        self.best = math.inf  # negated for accuracies: less is better
        self.best_epoch: int | None = None
        self.parameters: NDArray[Any] | None = None  # those of the best epoch

    def see(self, epoch: int, values: dict[str, float], parameters: NDArray[Any]) -> None:
        """Take note of an epoch."""
        value = values[self.monitor]
        if self.monitor.endswith("accuracy"):
            value = -value
        if value < self.best - self.rule.min_delta or (
            self.best_epoch is None and not math.isnan(value)
        ):
            self.best, self.best_epoch = value, epoch
            if self.rule.restore_best:
                self.parameters = np.array(parameters)

    def stops(self, epochs_done: int) -> bool:
        """Whether training ends here."""
        since = -1 if self.best_epoch is None else self.best_epoch
        return epochs_done - 1 - since >= self.rule.patience
