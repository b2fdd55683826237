"""The flat buffers of layers, models and optimizers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LINE", "flat_zeros"]

LINE = 64  # bytes: a cache line, and the widest vector
_PAGE = 4096  # bytes after which addresses agree in what caches and stores under way go by
_APART = 13 * LINE  # bytes between the places of two buffers in a page: five of them are far apart


def flat_zeros(size: int, dtype: np.dtype[Any], place: int) -> NDArray[Any]:
    """Zeros (size,) of float32 or float64 that begin at a cache line.

    place : which of the buffers that one pass goes through side by side. Each has its own part of a
        page, for elements of one index in all of them would otherwise meet in one set of a cache.
    """
    memory = np.zeros(size * dtype.itemsize + _PAGE, np.uint8)
    start = (place * _APART - memory.ctypes.data) % _PAGE
    return memory[start : start + size * dtype.itemsize].view(dtype.type)
