"""Says so where NumPy would take the process down: its wheels need x86-64-v2.

fastnn itself runs on any x86-64, and so does a NumPy that was built for it. So on a CPU without
x86-64-v2, and on no other, NumPy is tried in a child first.
"""

from __future__ import annotations

import os
import sys

from ._core.kernels import runs_numpy_wheels


def dies(module: str) -> bool:
    """Whether the import of a module ends a process; an exception does not."""
    child = os.fork()
    if child == 0:
        try:
            __import__(module)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def check_cpu() -> None:
    """Raises ImportError instead of dying of an illegal instruction."""
    if runs_numpy_wheels() or "numpy" in sys.modules or not hasattr(os, "fork"):
        return
    if dies("numpy"):
        raise ImportError(
            "fastnn needs NumPy, and the installed NumPy does not run on this CPU: it lacks "
            "x86-64-v2 (SSE4.2, POPCNT). A NumPy built for it does: pip install --no-binary numpy "
            "numpy -Csetup-args=-Dcpu-baseline=sse2"
        )
