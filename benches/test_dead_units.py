"""What counting dead units costs: epochs with and without, in turn, on one model.

`pytest benches/test_dead_units.py -s` prints the median of the ratios, on a healthy network and on
one with half of its units dead, where every row of every batch has to be looked at.
"""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

import fastnn
from fastnn._core.trainer import Trainer
from fastnn.units import watched

NETWORKS = [((784, 512, 256, 10), 128, 16), ((784, 32, 10), 32, 64), ((64, 32, 10), 32, 64)]


@pytest.mark.parametrize("half_dead", [False, True], ids=["healthy", "half_dead"])
@pytest.mark.parametrize(("widths", "batch", "batches"), NETWORKS, ids=lambda v: str(v))
def test_counting_dead_units(
    widths: tuple[int, ...],
    batch: int,
    batches: int,
    half_dead: bool,
    request: pytest.FixtureRequest,
) -> None:
    model, epoch = make(widths, batch, batches, half_dead)
    if request.config.getoption("benchmark_disable"):
        epoch(watching=True)
        return
    ratios: list[float] = []
    seconds: dict[bool, list[float]] = {False: [], True: []}
    end = time.perf_counter() + 5
    while time.perf_counter() < end:
        first = len(ratios) % 2 == 0
        for watching in (first, not first):
            seconds[watching].append(epoch(watching))
        ratios.append(seconds[True][-1] / seconds[False][-1])
    low, median, high = np.quantile(ratios, (0.25, 0.5, 0.75))
    step, least = np.median(seconds[False]) / batches, min(seconds[True]) / min(seconds[False])
    print(
        f"\n{'-'.join(map(str, widths))} batch {batch}, {fastnn.get_num_threads()} threads: a step "
        f"of {step * 1e6:.4g} us takes {median - 1:+.2%} (quartiles {low - 1:+.2%} to "
        f"{high - 1:+.2%} of {len(ratios)} rounds; the shortest {least - 1:+.2%})"
    )
    assert least < 1.1, "the shortest epochs: another program may have had a core in the others"
    assert len(model) > 2


def make(widths, batch, batches, half_dead):  # type: ignore[no-untyped-def]
    """A model, and a function that trains an epoch and returns its seconds."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((batch * batches, widths[0])).astype(np.float32)
    y = rng.integers(0, widths[-1], len(X))
    layers = []
    for n_in, n_out in itertools.pairwise(widths):
        layers += [fastnn.Linear(n_in, n_out), fastnn.ReLU()]
    model = fastnn.Sequential(*layers[:-1], rng=0)
    if half_dead:
        for i in watched(model.layers):
            model[i].bias[::2] = -1000
    update = fastnn.Adam(1e-6).bind(model)
    update.lr = 1e-6
    fixed = model._plan, X, y, None, ("cross_entropy",), update, batch, 0
    operations = tuple(watched(model.layers).values())
    trainers = {False: Trainer(*fixed), True: Trainer(*fixed, operations)}

    def epoch(watching: bool) -> float:
        trainer, began = trainers[watching], time.perf_counter()
        trainer.reset()
        for step in range(batches):
            trainer.step(None, step * batch, (step + 1) * batch, step)
        trainer.dead_units()
        return time.perf_counter() - began

    return model, epoch
