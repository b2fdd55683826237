"""Experiment 8: the signal through 50 layers from each initialization, measured against theory."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import drawing, init
from ..diagnosis.compare import Init
from ..diagnosis.report import Report
from ..layers import Activation, LeakyReLU, Linear, Tanh
from ..progress import Progress
from ..sequential import Sequential
from . import chance
from .parts import Claim, Experiment, Picture, Task

__all__ = ["Measured", "claims", "experiment", "measure"]

DEPTH, WIDTH, ROWS, DRAWS, SLOPE = 50, 128, 64, 3, 0.01
ACTIVATIONS: dict[str, Activation] = {"Leaky ReLU": LeakyReLU(SLOPE), "tanh": Tanh()}
INITS: dict[str, Init] = {
    "zeros": "zeros",
    "uniform(-0.1, 0.1)": "uniform",
    "normal(0, 0.01)": "normal",
    "Xavier": "xavier_normal",
    "He": functools.partial(init.he_normal, negative_slope=SLOPE),
    "normal(0, 0.3)": functools.partial(init.normal, std=0.3),
}
TINY = 1e-300  # stands for zero, whose logarithm is none


@dataclasses.dataclass
class Measured:
    """By activation and initialization: DRAWS reports of networks before training."""

    reports: dict[str, dict[str, list[Report]]]


def measure(task: Task, seed: int, progress: bool | None = False) -> Measured:
    """Reports of fresh networks; nothing is trained."""
    reports: dict[str, dict[str, list[Report]]] = {}
    X, y = task.X[:ROWS], task.y[:ROWS]
    networks = len(ACTIVATIONS) * (1 + (len(INITS) - 1) * DRAWS)
    with Progress(progress, networks, unit="network") as bar:
        for name, activation in ACTIVATIONS.items():
            reports[name] = {}
            for place, (start, how) in enumerate(INITS.items()):
                draws = 1 if start == "zeros" else DRAWS
                # Other seeds for each: one luck for all would make one claim of them.
                first = 1000 * place + seed * DRAWS
                reports[name][start] = [
                    _network(task, how, activation, first + draw).report(X, y)
                    for draw in range(draws)
                ]
                bar.say(f"{name}, {start}", draws)
    return Measured(reports)


def _network(task: Task, how: Init, activation: Activation, seed: int) -> Sequential:
    layers: list[Linear | Activation] = []
    # In float64: float32 takes numbers below 1e-38 for zero, where a ReLU has another derivative.
    for n_in in [task.X.shape[1]] + [WIDTH] * (DEPTH - 1):
        layers += [Linear(n_in, WIDTH, weight_init=how, dtype="float64"), copy.copy(activation)]
    return Sequential(*layers, Linear(WIDTH, task.classes, dtype="float64"), rng=seed)


@dataclasses.dataclass
class Way:
    """A signal or gradient by layer, the geometric mean over the draws."""

    measured: NDArray[np.float64]
    theory: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @property
    def holds(self) -> bool:
        """Whether each layer is where chance lets it be."""
        return bool(((self.low <= self.measured) & (self.measured <= self.high)).all())

    def farthest(self) -> tuple[float, float]:
        """By what factor the layer is off that goes farthest for what chance allows it, and that.

        Chance allows more below the theory than above.
        """
        off = np.log(self.measured / self.theory)
        allowed = np.where(off > 0, np.log(self.high / self.theory), np.log(self.theory / self.low))
        off = np.abs(off)
        # The layer that the others are relative to is off by nothing, and may be by nothing.
        worst = int((off / np.maximum(allowed, 1e-12)).argmax())
        return math.exp(off[worst]), math.exp(allowed[worst])


def signal(reports: list[Report]) -> Way:
    """std of z of the hidden layers."""
    pairs = [[(one.z_std, one.predicted.z_std) for one in r.layers[:-1]] for r in reports]
    return _way(pairs, chance.forward(reports[0].layers)[:-1])


def gradient(reports: list[Report]) -> Way:
    """Root mean square of the gradient by z of the hidden layers, over that of the last of them."""
    pairs = [[(one.grad_std, one.predicted.grad_std) for one in r.layers[:-1]] for r in reports]
    s = chance.backward(reports[0].layers)[:-1]
    return _way(pairs, [one - s[-1] for one in s], relative=True)


def _way(
    networks: list[list[tuple[float | None, float | None]]],
    chances: list[float],
    relative: bool = False,
) -> Way:
    """Of pairs of measured and predicted by layer, for each draw; relative: to the last layer."""
    logs = np.log([
        [[max(value or 0.0, TINY) for value in pair] for pair in pairs] for pairs in networks
    ])  # fmt: skip
    if relative:
        logs = logs - logs[:, -1:]
    measured, theory = np.exp(logs.mean(axis=0)).T
    bands = np.array([chance.band(s, len(networks)) for s in chances])
    return Way(measured, theory, theory * bands[:, 0], theory * bands[:, 1])


def claims(found: Measured) -> tuple[Claim, ...]:
    """What was measured, judged."""
    made = []
    for name, starts in found.reports.items():
        for start, reports in starts.items():
            if start == "zeros":
                stds = [one.z_std for one in reports[0].layers]
                made.append(
                    Claim(
                        f"{name}, {start}: no signal in any of {DEPTH} layers",
                        f"largest std {max(std or 0.0 for std in stds):g}",
                        "exactly 0",
                        not any(stds),
                    )
                )
                continue
            for what, way in (("signal", signal(reports)), ("gradient", gradient(reports))):
                off, allowed = way.farthest()
                end = -1 if what == "signal" else 0
                made.append(
                    Claim(
                        f"{name}, {start}: the {what} of {DEPTH} layers is as predicted",
                        f"{way.measured[end]:.2g} at the end; where it is farthest off, a factor "
                        f"{off:.2f}",
                        f"{way.theory[end]:.2g}; there chance allows a factor {allowed:.2f}",
                        way.holds,
                    )
                )
    return tuple(made)


def code(task: Task) -> str:
    """The program to try."""
    return f"""import fastnn

layers = []
for _ in range({DEPTH}):
    layers += [fastnn.Linear({WIDTH}, {WIDTH}, weight_init="xavier_normal"), fastnn.LeakyReLU()]
model = fastnn.Sequential(*layers, fastnn.Linear({WIDTH}, 10))
print(fastnn.predict_signal(model))  # a line of these figures, for any model, without data
"""


def experiment(task: Task, seed: int, progress: bool | None = False) -> Experiment:
    """The chapter."""
    found = measure(task, seed, progress)
    made = claims(found)
    each = len(made) // 2
    return Experiment(
        title="Fifty layers",
        story=(
            "Depth is the test. What a layer does to the signal it does again in the next one: "
            "after fifty layers a factor of 0.7 has become a fifty-millionth, a factor of 1.4 "
            "twenty million. Only an initialization whose factor is 1 lets a deep network begin.",
            "The points below are measured, on images that run through networks of fifty layers; "
            "the lines are worked out beforehand, from the formulas alone.",
        ),
        formulas=(
            "E z² of a layer = n_in · Var(w) · E f(z)² of the layer before",
            "E g² of a layer = n_out · Var(w) · E f'(z)² · E g² of the layer after",
            "one draw of the weights differs from the mean by chance: the variance of log E z² "
            "grows by about 5 / n per layer of n ReLU units",
        ),
        setup=(
            f"Networks of {DEPTH} layers of {WIDTH} units, {ROWS} images of {task.name}, before "
            f"training; the geometric mean of {DRAWS} draws. A typical draw lies somewhat below "
            "the mean of all draws, which few large ones pull up."
        ),
        claims=made,
        pictures=(
            Picture(
                "depth-leaky-relu",
                "Standard deviation of z by layer, logarithmic, under Leaky ReLU. He: level. "
                "Xavier: falls to a thirty-millionth. uniform(-0.1, 0.1) falls faster, "
                "normal(0, 0.01) fastest, normal(0, 0.3) rises. Points lie on the lines of theory.",
                "Under Leaky ReLU He alone carries the signal through 50 layers.",
                lambda: _draw(
                    found,
                    "Leaky ReLU",
                    signal,
                    "Signal under Leaky ReLU",
                    "standard deviation of z",
                ),
                tuple(range(0, each)),
            ),
            Picture(
                "depth-leaky-relu-gradients",
                "Size of the gradients by layer, over that at the last layer, logarithmic, under "
                "Leaky ReLU: towards the first layer level from He, falling from Xavier and the "
                "small ones, rising from normal(0, 0.3).",
                "Gradients on their way back do what the signal does: He alone keeps them.",
                lambda: _draw(
                    found,
                    "Leaky ReLU",
                    gradient,
                    "Gradients under Leaky ReLU",
                    "dL/dz, over the last layer's",
                ),
                tuple(range(0, each)),
            ),
            Picture(
                "depth-tanh",
                "Standard deviation of z by layer, logarithmic, under tanh. Xavier falls slowly to "
                "a tenth; He and normal(0, 0.3) stay level, as tanh holds them down; the small "
                "ones fall.",
                "Under tanh Xavier carries the signal on, slowly shrinking; larger weights "
                "saturate and stay.",
                lambda: _draw(
                    found, "tanh", signal, "Signal under tanh", "standard deviation of z"
                ),
                tuple(range(each, 2 * each)),
            ),
            Picture(
                "depth-tanh-gradients",
                "Size of the gradients by layer, over that at the last layer, logarithmic, under "
                "tanh: nearly level from Xavier, rising towards the first layer from He and "
                "steeply from normal(0, 0.3), falling from the small ones.",
                "What is hidden in the signal shows in the gradients: under tanh they explode from "
                "weights larger than Xavier's.",
                lambda: _draw(
                    found, "tanh", gradient, "Gradients under tanh", "dL/dz, over the last layer's"
                ),
                tuple(range(each, 2 * each)),
            ),
        ),
        code=code(task),
    )


def _draw(found: Measured, name: str, of: Any, title: str, label: str) -> Any:
    figure, (axes,) = drawing.figure(4.6, 4.0)
    for place, (start, reports) in enumerate(found.reports[name].items()):
        if start == "zeros":
            continue
        way, look = of(reports), drawing.style(place)
        layers = np.arange(1, DEPTH + 1)
        axes.plot(layers, way.theory, **look | {"marker": ""})
        points = look | {"linestyle": "", "markersize": 5}
        axes.plot(layers, way.measured, markevery=(place, 5), **points)
        axes.plot([], [], label=start, **look)
    axes.set_yscale("log")
    # What leaves the frame does so in a straight line.
    axes.set_ylim((1e-24, 1e20) if name == "Leaky ReLU" else (1e-15, 1e10))
    drawing.dress(axes, title, "layer (lines: theory, points: measured)", label)
    figure.legend(loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    return figure
