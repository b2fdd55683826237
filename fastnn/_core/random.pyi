from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

def uniform_fill(
    out: NDArray[np.floating[Any]],
    seed: int,
    stream: int,
    low: float,
    high: float,
    start: int = 0,
) -> None: ...
def normal_fill(
    out: NDArray[np.floating[Any]],
    seed: int,
    stream: int,
    mean: float,
    std: float,
    start: int = 0,
) -> None: ...
def truncated_normal_fill(
    out: NDArray[np.floating[Any]],
    seed: int,
    stream: int,
    mean: float,
    std: float,
    low: float,
    high: float,
    start: int = 0,
) -> None: ...
def bits_fill(out: NDArray[np.uint32], seed: int, stream: int, start: int = 0) -> None: ...
def dropout(
    x: ArrayLike,
    out: NDArray[np.floating[Any]] | None,
    seed: int,
    stream: int,
    rate: float,
    start: int = 0,
) -> NDArray[np.floating[Any]]: ...
