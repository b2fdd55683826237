"""Fixtures that the tests of every kernel share: all instruction sets, several numbers of threads,
a fresh interpreter, progress with and without tqdm."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from fastnn._core import kernels, threads

DTYPES = ("float32", "float64")


@pytest.fixture(params=kernels.available_isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test on each instruction set that this CPU has."""
    before = kernels.isa()
    kernels.set_isa(request.param)
    yield request.param
    kernels.set_isa(before)


@pytest.fixture(params=(1, 2, 5) if threads.openmp_version() else (1,), ids=lambda n: f"threads{n}")
def n_threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Runs the test with 1, 2 and 5 threads, whatever the number of CPUs; a serial build has 1."""
    before = threads.get_num_threads()
    threads.set_num_threads(request.param)
    yield request.param
    threads.set_num_threads(before)


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    """set_num_threads, undone after the test."""
    before = threads.get_num_threads()
    yield threads.set_num_threads
    threads.set_num_threads(before)


@pytest.fixture
def granted() -> Callable[[int], int]:
    """How many threads there are after n were asked for: n, and 1 in a build without OpenMP."""
    return lambda n: n if threads.openmp_version() else 1


@pytest.fixture(params=DTYPES)
def dtype(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20131)


@pytest.fixture
def heeds_sigint() -> Iterator[None]:
    """What a shell runs in the background ignores SIGINT, and so would the processes it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs code in a fresh interpreter: python(code, FASTNN_ISA="avx2", ...)."""

    def run(code: str, **env: str) -> subprocess.CompletedProcess[str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("FASTNN_", "OMP_"))}
        return subprocess.run(
            [sys.executable, "-P", "-c", code],
            env={**clean, **env},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture(params=[False, True], ids=["lines", "tqdm"])
def with_tqdm(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether tqdm draws the progress, where it is installed; without it plain lines do."""
    if request.param:
        pytest.importorskip("tqdm")
    else:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    return bool(request.param)
