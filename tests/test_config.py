"""show_config, threads(n), the public names, and what an import costs."""

from __future__ import annotations

import doctest
import os
import re

import numpy as np
import pytest

import fastnn
from fastnn._core import kernels, threads


def test_show_config_prints_what_it_returns(capsys):
    config = fastnn.show_config("dicts")
    assert config["fastnn"] == fastnn.__version__
    assert config["instruction set"] == kernels.isa()
    assert config["available"] == ", ".join(kernels.available_isas())
    assert config["threads"] == fastnn.get_num_threads()
    assert config["NumPy"] == np.__version__
    assert fastnn.show_config() is None
    printed = [line.split("  ", 1) for line in capsys.readouterr().out.splitlines()]
    serial = "" if threads.openmp_version() else " (built without OpenMP)"
    assert {name.strip(): value.strip() for name, value in printed} == {
        name: f"{value}{serial if name == 'threads' else ''}" for name, value in config.items()
    }
    with pytest.raises(ValueError, match="mode: expected one of stdout, dicts, got 'json'"):
        fastnn.show_config("json")


def test_threads_sets_the_number_for_a_block(set_threads, granted):
    set_threads(2)
    block = fastnn.threads(3)
    assert fastnn.get_num_threads() == granted(2)
    with block:
        assert fastnn.get_num_threads() == granted(3)
        with fastnn.threads(1), block:
            assert fastnn.get_num_threads() == granted(3)
        assert fastnn.get_num_threads() == granted(3)
    with pytest.raises(ArithmeticError), fastnn.threads(5):
        raise ArithmeticError
    assert fastnn.get_num_threads() == granted(2)


@pytest.mark.parametrize(
    ("n", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)]
)
def test_threads_refuses_other_numbers(n, error, set_threads, granted):
    set_threads(2)
    with pytest.raises(error, match="n: expected"):
        fastnn.threads(n)
    assert fastnn.get_num_threads() == granted(2)


@pytest.mark.skipif(threads.openmp_version() > 0, reason="built with OpenMP")
def test_a_serial_build_says_so(capsys, set_threads):
    set_threads(3)
    fastnn.show_config()
    printed = capsys.readouterr().out
    assert re.search(r"^threads +1 \(built without OpenMP\)$", printed, re.MULTILINE)
    assert fastnn.show_config("dicts")["OpenMP"] == "none"


def test_all_names_what_there_is():
    for name in fastnn.__all__:
        assert getattr(fastnn, name) is not None
    assert len(set(fastnn.__all__)) == len(fastnn.__all__)
    assert set(fastnn.__all__) <= set(dir(fastnn))


def test_the_example_of_the_package_is_right():
    assert doctest.testmod(fastnn).attempted > 0
    assert doctest.testmod(fastnn).failed == 0


def test_an_import_brings_in_little(python):
    done = python(
        "import sys, numpy; before = set(sys.modules); import fastnn;"
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    heavy = {"argparse", "json", "gzip", "zlib", "tempfile", "tqdm", "matplotlib", "safetensors"}
    heavy |= {"random", "subprocess", "logging", "concurrent", "multiprocessing", "asyncio"}
    heavy |= {"copy", "dataclasses", "threading"}  # a third of the import's time, once
    assert done.returncode == 0, done.stderr
    assert "fastnn" in done.stdout.split()
    assert not heavy & set(done.stdout.split())


def test_an_import_adds_little_to_numpys(python):
    """An eighth to a fifth was seen; the quickest of some, as other work only adds."""
    code = (
        "from time import perf_counter as now; begin = now(); import numpy; middle = now();"
        "import fastnn; print(middle - begin, now() - middle)"
    )
    # With what the first run compiled: a Python that may keep nothing would compile it each time.
    runs = [python(code, PYTHONDONTWRITEBYTECODE="") for _ in range(5)]
    times = [[float(part) for part in run.stdout.split()] for run in runs]
    numpys, ours = (min(column) for column in zip(*times, strict=True))
    assert ours < 0.4 * numpys


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_module_that_would_end_the_process_is_told_from_one_that_raises(tmp_path, python):
    """What an import does on a CPU that NumPy's wheels do not run on."""
    (tmp_path / "deadly.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    (tmp_path / "failing.py").write_text("raise RuntimeError")
    code = "from fastnn._baseline import dies; print(dies('deadly'), dies('failing'), dies('csv'))"
    done = python(code, PYTHONPATH=str(tmp_path), PYTHONWARNINGS="ignore::DeprecationWarning")
    assert done.stdout == "True False False\n", done.stderr
