"""A guard: no values are slow. x86 takes a hundred cycles and more over an operation that
underflows, so kernels keep lanes from it whose result is 0 or does not count. Times of one run are
compared, of values that are common and of some that are not; what is left slow are results that are
subnormal themselves, e^-87 to e^-104 in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

import fastnn
from fastnn.cli.bench import measure

SLACK = 2.0


def compare(usual: Callable[[], object], rare: Callable[[], object]) -> None:
    with fastnn.threads(1):
        times = measure([usual], [rare], 0.2, 5)
    assert min(times[1]) < SLACK * min(times[0])


@pytest.fixture(autouse=True)
def measures(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("benchmark_disable"):
        pytest.skip("a smoke run measures nothing")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("layer", "rare"),
    [
        (fastnn.GELU(), 50.0),
        (fastnn.GELU(), -50.0),
        (fastnn.SiLU(), 1e3),
        (fastnn.SiLU(), -1e3),
        (fastnn.Sigmoid(), 1e3),
        (fastnn.Sigmoid(), -1e3),
        (fastnn.Tanh(), 1e3),
    ],
)
def test_saturated_units(layer: fastnn.GELU, rare: float, dtype: str) -> None:
    x = np.ones((64, 256), dtype)
    compare(partial(layer, x), partial(layer, np.full_like(x, rare)))


@pytest.mark.parametrize("loss", [fastnn.BinaryCrossEntropy(), fastnn.CrossEntropy()])
@pytest.mark.parametrize("rare", [50.0, 1e3])
def test_confident_outputs(loss: fastnn.CrossEntropy, rare: float) -> None:
    z = np.zeros((256, 16), np.float32)
    z[:, 0] = 1
    y: np.ndarray = (z > 0).astype(np.float32)
    if isinstance(loss, fastnn.CrossEntropy):
        y = np.zeros(256, np.int64)
    compare(partial(loss, z, y), partial(loss, z * np.float32(rare), y))


@pytest.mark.parametrize("classes", [2, 10, 15])
def test_rows_that_do_not_fill_a_vector(classes: int) -> None:
    full, part = (np.ones((256, n), np.float32) for n in (16, classes))
    y = np.zeros(256, np.int64)
    compare(partial(fastnn.CrossEntropy(), full, y), partial(fastnn.CrossEntropy(), part, y))


@pytest.mark.parametrize("rare", [1e-20, 0.0])
@pytest.mark.parametrize("optimizer", [fastnn.Adam, fastnn.RMSprop])
def test_tiny_gradients(optimizer: type[fastnn.Adam | fastnn.RMSprop], rare: float) -> None:
    """Their squares are subnormal, and so is what becomes of state where gradients are 0."""
    steps = []
    for size in (1e-3, rare):
        model = fastnn.Sequential(fastnn.Linear(128, 128), rng=0)
        model.forward(np.full((1, 128), size))
        model.backward(np.ones((1, 128)))
        model.gradients()["0.bias"][...] = size
        chosen = optimizer(lr=1e-3)
        chosen.step(model)
        state = {name: np.full_like(value, 1e-40) for name, value in chosen.state_dict().items()}
        if size == 0:
            chosen.load_state_dict({**state, "t": 1})
        steps.append(partial(chosen.step, model))
    compare(*steps)
