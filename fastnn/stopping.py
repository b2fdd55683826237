"""Early stopping. Imported when first used, as a dataclass is slow to make."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._checks import as_bool, as_choice, as_float, as_int
from .callbacks import MONITORS

__all__ = ["EarlyStopping", "Stopper"]


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
