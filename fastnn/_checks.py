"""Checks of plain arguments. Arrays are checked in fastnn._core.arrays."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from ._core.arrays import as_finite

__all__ = ["as_bool", "as_choice", "as_float", "as_float_dtype", "as_int", "as_path"]


def as_int(value: Any, name: str, low: int, below: float = math.inf) -> int:
    """An int with low <= value < below; bool, float and arrays are refused with a TypeError."""
    expected = f"{name}: expected an integer of at least {low}"
    if isinstance(value, bool) or not hasattr(type(value), "__index__"):
        raise TypeError(f"{expected}, got {value!r}")
    try:
        number = operator.index(value)
    except TypeError:  # an array with axes, say
        raise TypeError(f"{expected}, got {type(value).__name__}") from None
    if not low <= number < below:
        limit = f" and below {below:g}" if number >= below else ""
        got = number if abs(number) < 10**30 else f"one of {number.bit_length()} bits"
        raise ValueError(f"{expected}{limit}, got {got}")
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


def as_choice(value: Any, name: str, choices: Iterable[str]) -> str:
    """One of these names; ValueError for another text, TypeError for what is no text."""
    if isinstance(value, str) and value in choices:
        return value
    error = ValueError if isinstance(value, str) else TypeError
    raise error(f"{name}: expected one of {', '.join(choices)}, got {value!r}")


def as_path(value: Any, name: str) -> str:
    """The text of a path; TypeError for what is none."""
    path = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(path, str):
        raise TypeError(f"{name}: expected a path, got {value!r}")
    if "\0" in path:
        raise ValueError(f"{name}: expected a path, got {path!r}")
    return path


def as_float_dtype(dtype: Any) -> np.dtype[Any]:
    """float32 or float64 as a dtype; TypeError for any other."""
    try:
        found = np.dtype(np.void if dtype is None else dtype)
    except (TypeError, ValueError):  # ValueError: odd text, what has a `dtype` that is none
        found = np.dtype(np.void)
    if found not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise TypeError(f"dtype: expected float32 or float64, got {dtype!r}")
    return found
