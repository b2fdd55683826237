from typing import Any

from numpy.typing import NDArray

class Update:
    lr: float
    t: int
    parameters: NDArray[Any]
    gradients: NDArray[Any]
    state: list[NDArray[Any]]
    def __init__(
        self,
        kind: str,
        parameters: NDArray[Any],
        gradients: NDArray[Any],
        state: list[NDArray[Any]],
        *,
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        nesterov: bool = False,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        decoupled: bool = False,
        alpha: float = 0.99,
    ) -> None: ...
    def apply(self) -> None: ...
