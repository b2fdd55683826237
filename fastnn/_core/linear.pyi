from typing import Any

from numpy.typing import ArrayLike, NDArray

def linear(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    negative_slope: float | None = None,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]: ...
def linear_backward(
    grad_y: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike,
    *,
    y: ArrayLike | None = None,
    negative_slope: float | None = None,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]: ...
