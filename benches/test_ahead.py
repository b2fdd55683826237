"""A guard: no case may be slower than plain NumPy. It compares times of one run, taken in turn, and
never seconds with a file, so it holds on any machine. A case fails after three tries."""

from __future__ import annotations

import statistics

import pytest

import fastnn
from fastnn.cli.bench import measure
from fastnn.cli.bench_cases import CASES, Case

SLACK = 0.85  # what noise may make of equal times


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "_"))
def test_not_slower_than_plain_numpy(case: Case, request: pytest.FixtureRequest) -> None:
    if request.config.getoption("benchmark_disable"):
        pytest.skip("a smoke run measures nothing")
    forms = case.make("float32")
    rest = fastnn.get_num_threads() > 1 and case.flops > 0
    ratios = []
    for seconds in (0.1, 0.3, 1.0):
        ours, theirs = measure([forms.fastnn], [forms.numpy], seconds, 5, rest=rest)
        ratios.append(statistics.median(b / a for a, b in zip(ours, theirs, strict=True)))
        if ratios[-1] >= SLACK:
            return
    pytest.fail(f"{case.name}: plain NumPy takes {ratios} of fastnn's time")
