"""What this installation runs on, and how many threads it uses."""

from __future__ import annotations

import sys
from typing import Any, Literal, overload

import numpy as np

from ._checks import as_choice
from ._core.kernels import available_isas, isa
from ._core.threads import available_cpus, get_num_threads, openmp_version, set_num_threads
from ._version import version

__all__ = ["get_num_threads", "set_num_threads", "show_config", "threads"]


class threads:
    """`with threads(n):` runs its block on n threads, and sets the number back afterwards.

    The number is that of the whole process. n : int, at least 1; errors as for `set_num_threads`.
    """

    def __init__(self, n: int) -> None:
        before = get_num_threads()
        set_num_threads(n)  # the compiled module checks n
        set_num_threads(before)
        self._n = n
        self._before: list[int] = []

    def __enter__(self) -> None:
        self._before.append(get_num_threads())
        set_num_threads(self._n)

    def __exit__(self, *_: object) -> None:
        set_num_threads(self._before.pop())


@overload
def show_config(mode: Literal["stdout"] = "stdout") -> None: ...
@overload
def show_config(mode: Literal["dicts"]) -> dict[str, Any]: ...
def show_config(mode: str = "stdout") -> dict[str, Any] | None:
    """Tell version, instruction set, threads, NumPy and its BLAS.

    Parameters
    ----------
    mode : "stdout" or "dicts"
        Whether to print it, or to return it as a dict; as in `numpy.show_config`.

    Raises
    ------
    ValueError, TypeError
        If mode is another.
    """
    as_choice(mode, "mode", ("stdout", "dicts"))
    openmp = openmp_version()
    config = {
        "fastnn": version,
        "instruction set": isa(),
        "available": ", ".join(available_isas()),
        "threads": get_num_threads(),
        "CPUs": available_cpus(),
        "OpenMP": openmp or "none",
        "Python": sys.version.split()[0],
        "NumPy": np.__version__,
        "BLAS of NumPy": _blas(),
    }
    if mode == "dicts":
        return config
    if not openmp:
        config["threads"] = f"{config['threads']} (built without OpenMP)"
    width = max(map(len, config))
    print("\n".join(f"{name:<{width}}  {value}" for name, value in config.items()))
    return None


def _blas() -> str:
    try:
        blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return f"{blas['name']} {blas['version']}"
    except (KeyError, TypeError):
        return "unknown"
