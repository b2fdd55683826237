"""Experiment 1: what a bias is for."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import drawing
from .._core.pointwise import act
from ..layers import LeakyReLU, Linear
from ..optimizers import SGD
from ..sequential import Sequential
from .parts import Claim, Experiment, Picture, Task, between

__all__ = ["Measured", "claims", "experiment", "measure"]

Array = NDArray[Any]

WEIGHT, BIASES = 2.0, (-3.0, 0.0, 3.0)
M, B = 1.5, 1.0  # the line to be learnt
TARGET = 2.0  # what a network shall answer to zeros


@dataclasses.dataclass
class Measured:
    """grid, curves: of sigmoid(w x + b) by b. x, y: of the line; fits: (slope, intercept, loss) of
    the fit with and without bias; zeros: the answers to zeros with and without."""

    grid: Array
    curves: dict[float, Array]
    x: Array
    y: Array
    fits: dict[bool, tuple[float, float, float]]
    zeros: dict[bool, Array]


def measure(seed: int) -> Measured:
    """All in float64, so that rounding is out of sight."""
    grid = np.linspace(-4, 4, 801)
    curves = {b: act("sigmoid", WEIGHT * grid + b) for b in BIASES}
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 2, 64)
    y = M * x + B
    fits = {}
    for bias in (True, False):
        model = Sequential(Linear(1, 1, bias, dtype="float64"), rng=seed)
        # All rows in each step: plain gradient descent, which goes to the one best line.
        history = model.fit(
            x[:, None], y, loss="mse", optimizer=SGD(0.3), epochs=1500, batch_size=64,
            progress=False, rng=seed,
        )  # fmt: skip
        layer = model[0]
        assert isinstance(layer, Linear)
        intercept = 0.0 if layer.bias is None else float(layer.bias[0])
        fits[bias] = float(layer.weight[0, 0]), intercept, history.loss[-1]
    zeros = {bias: _answer_to_zeros(bias, seed) for bias in (True, False)}
    return Measured(grid, curves, x, y, fits, zeros)


def _answer_to_zeros(bias: bool, seed: int) -> Array:
    """Of a 3-8-2 network that was trained to answer TARGET to them."""
    model = Sequential(
        Linear(3, 8, bias, dtype="float64"), LeakyReLU(), Linear(8, 2, bias, dtype="float64"),
        rng=seed,
    )  # fmt: skip
    # Each step leaves 0.7 of the error of the last bias: 0.7^200 is far below rounding.
    model.fit(
        np.zeros((1, 3)), np.full((1, 2), TARGET), loss="mse", optimizer=SGD(0.3), epochs=200,
        progress=False, rng=seed,
    )  # fmt: skip
    return model.predict(np.zeros(3))


def claims(found: Measured) -> tuple[Claim, ...]:
    """What was measured, judged."""
    step = found.grid[1] - found.grid[0]
    # Where a curve passes one half, by linear interpolation; its second derivative times step^2
    # bounds the error, far below a step.
    middles = {b: float(np.interp(0.5, curve, found.grid)) for b, curve in found.curves.items()}
    off = max(abs(middle + b / WEIGHT) for b, middle in middles.items())
    x, y = found.x, found.y
    # Least squares through the origin: the slope is E xy / E x^2, and what remains the rest.
    best = (x * y).mean() / (x * x).mean()
    rest = float(np.square(y - best * x).mean())
    slope, intercept, loss = found.fits[True]
    told = "; ".join(f"{middle:.2f} for b = {b:g}" for b, middle in middles.items())
    without = float(np.abs(found.zeros[False]).max())
    answer = float(np.abs(found.zeros[True] - TARGET).max())
    return (
        Claim(
            "A bias b moves the activation sideways by −b / w",
            f"sigmoid(2 x + b) is 1/2 at x = {told}".replace("-", "−"),
            f"x = −b / 2, to {step:.2g}",
            off <= step,
        ),
        Claim(
            "Without bias the answer to zeros is zero, however long it is trained",
            f"{without:g}",
            "exactly 0",
            without == 0,
        ),
        between(
            f"With bias it learns to answer {TARGET:g} to zeros: the error is",
            answer, 0, 1e-12,
        ),
        Claim(
            f"With bias a line's m = {M:g} and b = {B:g} are found",
            f"m = {slope:.6f}, b = {intercept:.6f}, mean square error {loss:.1g}",
            "exact, to rounding",
            abs(slope - M) + abs(intercept - B) < 1e-9 and loss < 1e-18,
        ),
        between(
            "Without bias the mean square error stays at that of the best line through the origin",
            found.fits[False][2], rest * (1 - 1e-9), rest * (1 + 1e-9),
        ),
    )  # fmt: skip


def code(task: Task) -> str:
    """The program to try."""
    return """import fastnn

x, y = [[0.0], [1.0], [2.0]], [1.0, 2.5, 4.0]  # y = 1.5 x + 1
for bias in (False, True):
    model = fastnn.Sequential(fastnn.Linear(1, 1, bias=bias))
    model.fit(x, y, loss="mse", optimizer=fastnn.SGD(0.1), epochs=500, batch_size=3)
    print(bias, model.predict([[0.0], [2.0]]).ravel().round(3))  # without bias 0 at x = 0
"""


def experiment(task: Task, seed: int, progress: bool | None = False) -> Experiment:
    """The chapter. It takes no time that progress would be worth showing."""
    found = measure(seed)
    return Experiment(
        title="Bias",
        story=(
            "A unit multiplies each input by a weight and adds the products up. The <b>bias</b> is "
            "one more number that it adds, whatever the inputs are: the intercept <i>b</i> of the "
            "line <i>y = m x + b</i>. Without it every line must pass through the origin.",
            "It does two things. It moves the activation sideways, so that a unit can switch on at "
            "any threshold. And it lets the network answer when every input is zero.",
        ),
        formulas=("y = f(w x + b)", "f(w x + b) = f(w (x + b / w)): f, moved by −b / w"),
        setup=(
            "A sigmoid with weight 2 and three biases; the answer of 3-8-2 networks to zeros, "
            f"trained to say {TARGET:g}; and a line y = {M:g} x + {B:g}, learnt by gradient "
            "descent with and without bias."
        ),
        claims=claims(found),
        pictures=(
            Picture(
                "bias-shift",
                "Three S-shaped curves of equal form, side by side: with bias 3 to the left, 0 in "
                "the middle, -3 to the right; each crosses one half at minus b over 2.",
                "The bias moves the curve sideways and leaves its form alone.",
                lambda: _draw_shift(found),
                (0,),
            ),
            Picture(
                "bias-line",
                "Points on a rising line that meets the vertical axis at 1. The fit with bias goes "
                "through all of them, the fit without bias starts at the origin and is too steep.",
                "Only with a bias does the line leave the origin and fit the points.",
                lambda: _draw_line(found),
                (3, 4),
            ),
        ),
        code=code(task),
    )


def _draw_shift(found: Measured) -> Any:
    figure, (axes,) = drawing.figure(*drawing.SMALL)
    for place, (b, curve) in enumerate(found.curves.items()):
        axes.plot(
            found.grid, curve, label=f"b = {b:g}", markevery=(50 + 20 * place, 100),
            **drawing.style(place),
        )  # fmt: skip
    axes.axhline(0.5, color="0.5", linewidth=0.8)
    drawing.dress(axes, "sigmoid(2 x + b) for three biases", "input x", "activation")
    axes.legend(frameon=False, loc="upper left")
    return figure


def _draw_line(found: Measured) -> Any:
    figure, (axes,) = drawing.figure(*drawing.SMALL)
    ends = np.array([0.0, 2.1])
    axes.plot(found.x, found.y, "o", color="0.65", markersize=5, label="points to learn")
    for place, (bias, (slope, intercept, _)) in enumerate(found.fits.items()):
        label = "with bias" if bias else "without bias"
        look = drawing.style(place) | {"marker": ""}
        axes.plot(ends, slope * ends + intercept, label=label, **look)
    axes.set_ylim(bottom=-0.2)
    drawing.dress(axes, f"Learning y = {M:g} x + {B:g}", "input x", "output y")
    axes.legend(frameon=False)
    return figure
