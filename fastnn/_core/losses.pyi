from typing import Any

import numpy as np
from numpy.typing import NDArray

def loss_and_grad(
    spec: tuple[Any, ...],
    z: NDArray[np.floating[Any]],
    targets: NDArray[Any],
    weights: NDArray[np.floating[Any]] | None,
    want_grad: bool,
) -> tuple[float, NDArray[np.floating[Any]] | None]: ...
