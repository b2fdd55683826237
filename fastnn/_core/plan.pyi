from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

class Scratch:
    def __init__(self) -> None: ...

class Plan:
    dtype: np.dtype[Any]
    parameters: NDArray[Any]
    gradients: NDArray[Any] | None
    n_in: int
    n_out: int
    uint8_scale: float
    def __init__(
        self,
        ops: list[tuple[Any, ...]],
        n_in: int,
        dtype: DTypeLike,
        parameters: NDArray[Any],
        gradients: NDArray[Any] | None,
        uint8_scale: float,
    ) -> None: ...
    def set_gradients(self, gradients: NDArray[Any]) -> None: ...
    def predict(self, x: ArrayLike, out: NDArray[Any] | None = None) -> NDArray[Any]: ...
    def forward(
        self, x: ArrayLike, seed: int = 0, step: int = 0, training: bool = True
    ) -> NDArray[Any]: ...
    def backward(self, grad: ArrayLike, want_grad_x: bool = True) -> NDArray[Any] | None: ...
