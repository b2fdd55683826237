"""Verdicts beside what training then does: where the limits of `fastnn.diagnosis` come from.

`pytest benches/test_verdict.py -s` trains networks of 64 units a layer on the digits, 15 epochs by
SGD with momentum (at two learning rates) and by Adam, and prints a line each: what was lost on the
way forwards and back before training, or what the biases are of z, the accuracy that came of it,
and the verdict.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

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
    smoke = request.config.getoption("benchmark_disable")
    for depth in (1,) if smoke else (1, 3, 5, 8, 12, 20, 30):
        report, reached = trained(lambda depth=depth: network(activation, init, depth), smoke)
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


@pytest.mark.parametrize("activation", [fastnn.ReLU, fastnn.LeakyReLU, fastnn.GELU])
def test_biases(activation: type[fastnn.ReLU], request: pytest.FixtureRequest) -> None:
    """From which size on a bias that all units of the second layer have is in the way."""
    smoke = request.config.getoption("benchmark_disable")
    for value in (0.0,) if smoke else (0.0, 1.0, 2.0, 4.0, 8.0, 16.0):

        def make(value: float = value) -> fastnn.Sequential:
            model = network(activation, "auto", 3)
            model[2].bias[...] = value
            return model

        report, reached = trained(make, smoke)
        print(
            f"\n{activation.__name__:9} bias {value:4g}: {report.layers[1].bias_share:.1%} of z^2; "
            f"SGD {reached[0]:.3f} and {reached[1]:.3f}, Adam {reached[2]:.3f}; "
            + ("healthy" if not report.findings else str(report.findings[0])),
            end="",
        )
        assert value or report.healthy


def trained(
    make: Callable[[], fastnn.Sequential], smoke: bool
) -> tuple[fastnn.diagnosis.Report, list[float]]:
    """The report before training, and the accuracies that were reached in each way of HOW."""
    X, y = fastnn.data.load_digits()
    reached = []
    for optimizer, lr in HOW:
        model = make()
        report = model.report(X, y)
        options = {"momentum": 0.9} if optimizer is fastnn.SGD else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the loss grows without bound is an answer
            history = model.fit(
                X, y, loss="cross_entropy", optimizer=optimizer(lr, **options),
                epochs=1 if smoke else 15, rng=0,
            )  # fmt: skip
        reached.append(max(history.accuracy))
    return report, reached


def network(activation: type[fastnn.ReLU], init: str, depth: int) -> fastnn.Sequential:
    layers: list[fastnn.Linear | fastnn.ReLU] = []
    for n_in in (64,) + (64,) * (depth - 1):
        layers += [fastnn.Linear(n_in, 64, weight_init=init), activation()]
    return fastnn.Sequential(*layers, fastnn.Linear(64, 10), rng=0, uint8_scale=1 / 16)
