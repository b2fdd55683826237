"""Losses on the raw outputs of a model: numerically stable, and with their gradient.

A loss is called as ``value, grad = loss(y, target)``: the mean over the rows of y, and its
derivative by y, which is what `model.backward` takes. `fit` and `evaluate` take a loss or its
name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ._checks import as_float
from ._core.arrays import as_array, as_labels, as_real
from ._core.losses import loss_and_grad
from ._core.pointwise import sums_are_finite

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[Any]

__all__ = ["MAE", "MSE", "BinaryCrossEntropy", "CrossEntropy", "Huber", "Loss", "as_loss"]


class Loss:
    """What all losses have in common: `loss(y, target, sample_weight)`.

    `spec` is what the compiled modules know the loss by.
    """

    spec: tuple[Any, ...]

    def __call__(
        self, y: ArrayLike, target: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> tuple[float, Array]:
        """The mean of w_i l_i over the rows i of y, and its derivative by y.

        Parameters
        ----------
        y : array_like, shape (m, n), float32 or float64
            Raw outputs of a model, at least one row.
        target : array_like
            See the class.
        sample_weight : array_like, shape (m,), optional
            w, at least 0, taken as it is; 1 where not given.

        Returns
        -------
        value : float
        grad : ndarray, of y's shape and dtype

        Raises
        ------
        ValueError, TypeError
            If a shape or dtype does not fit, or a target or weight is not one.
        """
        y = as_real(y, "y")
        if y.ndim != 2 or y.size == 0:
            raise ValueError(f"y: expected shape (m, n) with at least one row, got {y.shape}")
        rows, columns = y.shape
        targets = self.targets(target, "target", rows, columns, y.dtype)
        weights = None
        if sample_weight is not None:
            weights = as_weights(sample_weight, "sample_weight", rows, y.dtype)
        value, grad = loss_and_grad(self.spec, y, targets, weights, True)
        assert grad is not None
        return value, grad

    def targets(
        self, target: ArrayLike, name: str, rows: int, columns: int, dtype: np.dtype[Any]
    ) -> Array:
        """The checked target for outputs of shape (rows, columns), for the compiled modules."""
        array = as_array(target, name)
        if columns == 1 and array.ndim == 1:
            array = array.reshape(-1, 1)
        if array.shape != (rows, columns):
            also = f" or ({rows},)" if columns == 1 else ""
            raise ValueError(f"{name}: expected shape ({rows}, {columns}){also}, got {array.shape}")
        if array.dtype != np.float64:
            array = as_real(array, name, dtype)
        check_finite(array, name, dtype)  # before what is too large becomes infinite
        return as_real(array, name, dtype)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{value:g}' for value in self.spec[1:])})"


class CrossEntropy(Loss):
    """l = log(sum_j e^(y_j)) - y_label: softmax and negative log likelihood in one.

    target : integer labels, shape (m,), each in [0, n). The softmax is part of the loss: a model
    that is trained with it ends with a Linear layer. Source: Bishop 2006, section 4.3.4.
    """

    spec = ("cross_entropy",)

    def targets(
        self, target: ArrayLike, name: str, rows: int, columns: int, dtype: np.dtype[Any]
    ) -> Array:
        if columns == 1:
            raise ValueError(
                "loss: cross_entropy needs an output for each class, got one output; "
                "binary_cross_entropy takes one"
            )
        return as_labels(target, name, rows, columns)


class BinaryCrossEntropy(Loss):
    """l = max(y, 0) - y t + log(1 + e^-|y|), the mean over the n outputs of a row.

    target : t in [0, 1], shape (m, n), or (m,) for one output. The sigmoid is part of the loss: a
    model that is trained with it ends with a Linear layer. Source: Bishop 2006, section 4.3.2.
    """

    spec = ("bce",)

    def targets(
        self, target: ArrayLike, name: str, rows: int, columns: int, dtype: np.dtype[Any]
    ) -> Array:
        array = super().targets(target, name, rows, columns, dtype)
        wrong = (array < 0) | (array > 1)
        if wrong.any():
            row = int(wrong.any(axis=1).argmax())
            raise ValueError(
                f"{name}: expected values in [0, 1], got {array[row][wrong[row]][0]:g} in row {row}"
            )
        return array


class MSE(Loss):
    """l = (y - t)^2, the mean over the n outputs of a row.

    target : t, finite, shape (m, n), or (m,) for one output. Source: Bishop 2006, section 3.1.1.
    """

    spec = ("mse",)


class MAE(Loss):
    """l = |y - t|, the mean over the n outputs of a row; the derivative at y = t is 0.

    target : t, finite, shape (m, n), or (m,) for one output. Source: Goodfellow, Bengio, Courville
    2016, section 6.2.1.
    """

    spec = ("mae",)


class Huber(Loss):
    """l = d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2), d = y - t; mean over a row.

    target : t, finite, shape (m, n), or (m,) for one output. delta : above 0, in the units of t.
    Raises ValueError or TypeError where delta is not such a number. Source: Huber 1964.
    """

    def __init__(self, delta: float = 1.0) -> None:
        delta = as_float(delta, "delta")
        if delta <= 0:
            raise ValueError(f"delta: expected a number above 0, got {delta:g}")
        self.spec = ("huber", delta)

    @property
    def delta(self) -> float:
        """Where the square ends and the straight line begins."""
        delta: float = self.spec[1]
        return delta


NAMES: dict[str, type[Loss]] = {
    "cross_entropy": CrossEntropy,
    "binary_cross_entropy": BinaryCrossEntropy,
    "mse": MSE,
    "mae": MAE,
    "huber": Huber,
}


def as_loss(loss: Any) -> Loss:
    """A loss from one or its name; ValueError for an unknown name, else TypeError."""
    if isinstance(loss, Loss):
        return loss
    if isinstance(loss, str):
        if loss not in NAMES:
            raise ValueError(f"loss: expected one of {', '.join(NAMES)}, got {loss!r}")
        return NAMES[loss]()
    raise TypeError(f"loss: expected a loss such as CrossEntropy(), or its name, got {loss!r}")


def check_finite(array: Array, name: str, dtype: np.dtype[Any]) -> None:
    """ValueError that names the first row with NaN, infinity, or what is infinite in dtype."""
    if array.dtype == dtype and array.flags.c_contiguous and sums_are_finite(array):
        return
    limit = min(float(np.finfo(array.dtype).max), float(np.finfo(dtype).max))
    with np.errstate(invalid="ignore"):
        if -limit <= array.min() and array.max() <= limit:  # needs no memory; false for NaN
            return
    for begin in range(0, len(array), 1024):
        part = array[begin : begin + 1024]
        fits = np.abs(part) <= limit
        if not fits.all():
            rows = fits.reshape(len(fits), -1)
            row = int(rows.all(axis=1).argmin())
            value = part[row].reshape(-1)[rows[row].argmin()]
            expected = f"numbers that {dtype} can hold" if np.isfinite(value) else "finite numbers"
            raise ValueError(f"{name}: expected {expected}, got {value} in row {begin + row}")


def as_weights(weight: ArrayLike, name: str, rows: int, dtype: np.dtype[Any]) -> Array:
    """Sample weights as a new array of shape (rows,): finite, at least 0, not all 0 in dtype."""
    array = as_real(weight, name, np.float64)
    if array.shape != (rows,):
        raise ValueError(f"{name}: expected shape ({rows},), got {array.shape}")
    check_finite(array, name, dtype)
    if array.min() < 0:
        row = int(array.argmin())
        raise ValueError(f"{name}: expected at least 0, got {array[row]:g} in row {row}")
    if not array.any():
        raise ValueError(f"{name}: expected at least one above 0, got zeros only")
    result = array.astype(dtype)
    if not result.any():
        raise ValueError(
            f"{name}: expected a number that {dtype} can tell from 0, got at most {array.max():g}"
        )
    return result
