"""Verdicts beside what training then does: where the limits of `fastnn.diagnosis` come from.

`pytest benches/test_verdict.py -s` trains networks of 64 units a layer on the digits, 15 epochs by
SGD with momentum (the better of two learning rates) and by Adam, and prints a line each: what was
lost on the way forwards and back before training, the accuracy that came of it, and the verdict.
"""

from __future__ import annotations

import warnings

import pytest

import fastnn

CASES = [
    (fastnn.ReLU, "auto"),
    (fastnn.ReLU, "xavier_normal"),
    (fastnn.ReLU, "uniform"),
    (fastnn.Tanh, "auto"),
    (fastnn.Tanh, "he_normal"),
    (fastnn.Tanh, "uniform"),
    (fastnn.Sigmoid, "auto"),
    (fastnn.GELU, "auto"),
    (fastnn.SiLU, "auto"),
]
HOW = [(fastnn.SGD, 0.1), (fastnn.SGD, 0.01), (fastnn.Adam, 0.001)]


@pytest.mark.parametrize(("activation", "init"), CASES)
def test_verdicts(activation: type[fastnn.ReLU], init: str, request: pytest.FixtureRequest) -> None:
    X, y = fastnn.data.load_digits()
    smoke = request.config.getoption("benchmark_disable")
    for depth in (1,) if smoke else (1, 3, 5, 8, 12, 20, 30):
        reached = []
        for optimizer, lr in HOW:
            model = network(activation, init, depth)
            report = model.report(X, y)
            options = {"momentum": 0.9} if optimizer is fastnn.SGD else {}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that the loss grows without bound is an answer
                history = model.fit(
                    X, y, loss="cross_entropy", optimizer=optimizer(lr, **options),
                    epochs=1 if smoke else 15, rng=0,
                )  # fmt: skip
            reached.append(max(history.accuracy))
        first, last = report.layers[0], report.layers[-1]
        print(
            f"\n{activation.__name__:7} {init:13} {depth:2} layers: "
            f"z {last.z_std / report.batch.x_rms:7.1e}, dL/dz {first.grad_std / last.grad_std:7.1e}"
            f"; SGD {max(reached[:2]):.3f}, Adam {reached[2]:.3f}; "
            + ("healthy" if not report.findings else report.findings[0].level),
            end="",
        )
        if depth == 1:
            assert report.healthy
            assert smoke or min(reached[0], reached[2]) > 0.9


def network(activation: type[fastnn.ReLU], init: str, depth: int) -> fastnn.Sequential:
    layers: list[fastnn.Linear | fastnn.ReLU] = []
    for n_in in (64,) + (64,) * (depth - 1):
        layers += [fastnn.Linear(n_in, 64, weight_init=init), activation()]
    return fastnn.Sequential(*layers, fastnn.Linear(64, 10), rng=0, uint8_scale=1 / 16)
