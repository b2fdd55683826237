from collections.abc import Iterable
from typing import Any

from numpy.typing import NDArray

from fastnn._core.plan import Plan
from fastnn._core.updates import Update

class Trainer:
    loss_sum: float
    correct: int
    rows: int
    def __init__(
        self,
        plan: Plan,
        X: NDArray[Any],
        targets: NDArray[Any],
        weights: NDArray[Any] | None,
        loss: tuple[Any, ...],
        update: Update,
        batch_size: int,
        seed: int,
        watched: Iterable[int] = (),
    ) -> None: ...
    def reset(self) -> None: ...
    def dead_units(self) -> list[int]: ...
    def step(self, index: NDArray[Any] | None, start: int, stop: int, step: int) -> None: ...
    def evaluate(
        self, X: NDArray[Any], targets: NDArray[Any], weights: NDArray[Any] | None
    ) -> tuple[float, int, int]: ...
