"""Checks of plain arguments. Arrays are checked in fastnn._core.arrays."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from ._core.arrays import as_finite

__all__ = ["as_bool", "as_float", "as_float_dtype", "as_int"]


def as_int(value: Any, name: str, low: int) -> int:
    """An int of at least `low`; bool and float are refused with a TypeError."""
    if isinstance(value, bool) or not hasattr(type(value), "__index__"):
        raise TypeError(f"{name}: expected an integer of at least {low}, got {value!r}")
    number = operator.index(value)
    if number < low:
        raise ValueError(f"{name}: expected an integer of at least {low}, got {number}")
    return number


def as_float(value: Any, name: str, low: float = -math.inf, below: float = math.inf) -> float:
    """A finite float with low <= value < below."""
    number = as_finite(value, name)
    if not low <= number < below:
        limit = f" and below {below:g}" if below < math.inf else ""
        raise ValueError(f"{name}: expected at least {low:g}{limit}, got {number:g}")
    return number


def as_bool(value: Any, name: str) -> bool:
    """True or False; numbers and text are refused with a TypeError."""
    if value is not True and value is not False and not isinstance(value, np.bool_):
        raise TypeError(f"{name}: expected True or False, got {value!r}")
    return bool(value)


def as_float_dtype(dtype: Any) -> np.dtype[Any]:
    """float32 or float64 as a dtype; TypeError for any other."""
    try:
        found = np.dtype(np.void if dtype is None else dtype)
    except TypeError:
        found = np.dtype(np.void)
    if found not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise TypeError(f"dtype: expected float32 or float64, got {dtype!r}")
    return found
