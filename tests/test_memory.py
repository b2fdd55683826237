"""How much memory a training run takes beyond its data."""

import itertools
import tracemalloc

import numpy as np
import pytest

import fastnn


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize(("widths", "batch"), [((784, 512, 256, 10), 128), ((512, 2048, 10), 512)])
def test_training_takes_four_times_the_parameters_and_twice_the_activations(
    widths, batch, n_threads, set_threads, rng
):
    set_threads(n_threads)
    X = rng.random((4 * batch, widths[0]), dtype=np.float32)
    y = rng.integers(0, widths[-1], len(X))
    parameters = 4 * sum((n_in + 1) * n_out for n_in, n_out in itertools.pairwise(widths))
    activations = 4 * batch * sum(widths)
    tracemalloc.start()
    try:
        model = fastnn.Sequential(
            *(
                layer
                for n_in, n_out in itertools.pairwise(widths)
                for layer in (fastnn.Linear(n_in, n_out), fastnn.LeakyReLU(0.01))
            ),
            rng=0,
        )
        model.fit(
            X, y, loss="cross_entropy", optimizer="adam", epochs=2, batch_size=batch,
            progress=False, rng=0,
        )  # fmt: skip
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 4 * parameters < peak < 4 * parameters + 2 * activations + (16 << 20)
