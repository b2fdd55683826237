from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

def as_array(obj: Any, name: str) -> NDArray[Any]: ...
def as_real(obj: Any, name: str, dtype: DTypeLike | None = None) -> NDArray[Any]: ...
def as_labels(obj: Any, name: str, rows: int | None, classes: int) -> NDArray[np.int64]: ...
def check_out(
    out: Any,
    name: str,
    shape: tuple[int, ...],
    dtype: DTypeLike,
    *inputs: Any,
    same: Any = None,
) -> NDArray[Any]: ...
def as_finite(value: Any, name: str) -> float: ...

class Buffer:
    def __init__(self) -> None: ...
