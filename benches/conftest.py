"""What all benches share: the same threads for NumPy's BLAS, and how the form of a case is timed.

`pytest benches` times all cases of `fastnn bench` in all their forms, a group each, and compares
ratios; with `--benchmark-disable` everything runs once. Either way the forms of a case must agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import threadpoolctl
from pytest_benchmark.fixture import BenchmarkFixture

import fastnn
from fastnn.cli.bench_cases import Case

TimeForm = Callable[[Case, str], None]


@pytest.fixture(autouse=True, scope="session")
def _same_threads() -> Iterator[None]:
    with threadpoolctl.threadpool_limits(fastnn.get_num_threads(), user_api="blas"):
        yield


@pytest.fixture
def time_form(benchmark: BenchmarkFixture) -> TimeForm:
    """time_form(case, form): fastnn's best form, NumPy's best ("numpy_out") or its plain one."""

    def run(case: Case, form: str) -> None:
        forms = case.make("float32")
        call = getattr(forms, form)
        if form == "fastnn":
            call = forms.fastnn_out or call
        benchmark.group, benchmark.name = case.name, form
        benchmark.extra_info.update(flops=case.flops, bytes=4 * case.traffic)
        benchmark(call)

    return run
