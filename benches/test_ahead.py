"""A guard: no case may be slower than plain NumPy. It compares times of one run, taken in turn, and
never seconds with a file, so it holds on any machine. Both work on one thread: a team waits for its
last member, so another program that takes a core would decide. A case fails after three tries.
"""

import pytest
import threadpoolctl

import fastnn
from fastnn.cli.bench import measure
from fastnn.cli.bench_cases import CASES, Case

SLACK = 0.85  # what noise may make of equal times


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "_"))
def test_not_slower_than_plain_numpy(case: Case, request: pytest.FixtureRequest) -> None:
    if request.config.getoption("benchmark_disable"):
        pytest.skip("a smoke run measures nothing")
    forms = case.make("float32")
    ratios = []
    with fastnn.threads(1), threadpoolctl.threadpool_limits(1, user_api="blas"):
        for seconds in (0.1, 0.3, 1.0):
            ours, theirs = measure([forms.fastnn], [forms.numpy], seconds, 5)
            ratios.append(min(theirs) / min(ours))
            if ratios[-1] >= SLACK:
                return
    pytest.fail(f"{case.name}: plain NumPy takes {ratios} of fastnn's time")
