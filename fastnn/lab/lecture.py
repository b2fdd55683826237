"""Experiment 4: the 5-4-3 network of the lecture, with all its numbers."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import drawing, init
from ..layers import LeakyReLU, Linear
from ..sequential import Sequential
from .parts import Claim, Experiment, Picture, Task

__all__ = ["Measured", "claims", "experiment", "measure"]

Array = NDArray[Any]

N_IN, N_HIDDEN, N_OUT, SLOPE = 5, 4, 3, 0.01
DRAWS = 2000

# Initializer, the variance that the lecture gives W1 of shape (4, 5), E w^4 / (E w^2)^2.
DRAWN: dict[str, tuple[float, float]] = {
    "uniform": (0.2**2 / 12, 1.8),
    "normal": (0.01**2, 3.0),
    "xavier_normal": (2 / (N_IN + N_HIDDEN), 3.0),
    "xavier_uniform": (2 / (N_IN + N_HIDDEN), 1.8),
    "he_normal": (2 / N_IN, 3.0),
    "he_uniform": (2 / N_IN, 1.8),
}
NAMES = {"uniform": "uniform(-0.1, 0.1)", "normal": "normal(0, 0.01)"}


@dataclasses.dataclass
class Measured:
    """The network's parameters and what it makes of one input x: z1 = W1 x + b1, h = f(z1),
    z2 = W2 h + b2, as fastnn computes them; and the variances of W1 over DRAWS draws."""

    weights: tuple[Array, Array]
    biases: tuple[Array, Array]
    x: Array
    z1: Array
    h: Array
    z2: Array
    size: int
    variances: dict[str, float]


def measure(seed: int) -> Measured:
    """One network, and many draws of its first matrix."""
    model = Sequential(
        Linear(N_IN, N_HIDDEN, bias_init="uniform"),
        LeakyReLU(SLOPE),
        Linear(N_HIDDEN, N_OUT, bias_init="uniform"),
        rng=seed,
    )
    first, activation, second = model
    assert isinstance(first, Linear)
    assert isinstance(second, Linear)
    assert first.bias is not None
    assert second.bias is not None
    x = np.array([1.0, -0.5, -2.0, 0.25, 1.0], np.float32)
    z1 = first(x)
    variances = {}
    for name in DRAWN:
        draw = getattr(init, name)
        # As one matrix of many rows it would have another fan_out, and Xavier another variance.
        draws = [draw((N_HIDDEN, N_IN), rng=seed, stream=i) for i in range(DRAWS)]
        variances[name] = float(np.square(draws, dtype=np.float64).mean())
    return Measured(
        (np.array(first.weight), np.array(second.weight)),
        (np.array(first.bias), np.array(second.bias)),
        x, z1, activation(z1), model.predict(x), model.size, variances,
    )  # fmt: skip


def claims(found: Measured) -> tuple[Claim, ...]:
    """What was measured, judged."""
    shapes = " and ".join(str(weight.shape) for weight in found.weights)
    off, allowed = _by_hand(found)
    made = [
        Claim(
            "The weights of a 5-4-3 network have shapes (outputs, inputs)",
            f"{shapes}, {found.size} parameters with the biases",
            "(4, 5) and (3, 4), 4·5 + 4 + 3·4 + 3 = 39",
            [weight.shape for weight in found.weights] == [(4, 5), (3, 4)] and found.size == 39,
        ),
        Claim(
            "Its answer is W2 f(W1 x + b1) + b2, as worked out by hand",
            f"differs by {off:.1g}",
            f"at most {allowed:.1g}, the rounding of float32",
            off <= allowed,
        ),
    ]
    for name, (variance, kurtosis) in DRAWN.items():
        # The standard error of a mean of squares of N numbers.
        error = math.sqrt((kurtosis - 1) / (DRAWS * N_HIDDEN * N_IN))
        got = found.variances[name]
        made.append(
            Claim(
                f"{NAMES.get(name, name)} draws W1 with the lecture's variance",
                f"{got:.4g} over {DRAWS:,} draws",
                f"{variance:.4g} ± {4 * error:.1%}",
                abs(got / variance - 1) < 4 * error,
            )
        )
    return tuple(made)


def _by_hand(found: Measured) -> tuple[float, float]:
    """How far the answer is from one in float64, and how far rounding lets it be.

    (k + 2) eps (|x| |W| + |b|) for each layer, the first one's carried on by the second's weights.
    """
    (w1, w2), (b1, b2) = found.weights, found.biases
    x, eps = found.x.astype(np.float64), float(np.finfo(np.float32).eps)
    w1, w2, b1, b2 = (array.astype(np.float64) for array in (w1, w2, b1, b2))
    z1 = w1 @ x + b1
    h = np.where(z1 > 0, z1, SLOPE * z1)
    z2 = w2 @ h + b2
    first = (N_IN + 3) * eps * (abs(w1) @ abs(x) + abs(b1))
    second = abs(w2) @ first + (N_HIDDEN + 2) * eps * (abs(w2) @ abs(h) + abs(b2))
    return float(abs(found.z2 - z2).max()), float(second.max())


def code(task: Task) -> str:
    """The program to try."""
    return """import fastnn

model = fastnn.Sequential(fastnn.Linear(5, 4), fastnn.LeakyReLU(0.01), fastnn.Linear(4, 3))
print(model.summary())
print(model[0].weight)  # 4 rows, a unit each, of 5 columns
print(model.predict([1.0, -0.5, -2.0, 0.25, 1.0]))
"""


def experiment(task: Task, seed: int, progress: bool | None = False) -> Experiment:
    """The chapter. It takes no time that progress would be worth showing."""
    found = measure(seed)
    return Experiment(
        title="The 5-4-3 network",
        story=(
            "Five inputs, four hidden units, three outputs: small enough to see every number. A "
            "layer's weights are a matrix with a row for each of its units and a column for each "
            "of its inputs.",
            "The initializers of the lecture differ in one number only, the <b>variance</b> of "
            "the weights that they draw. Here it is measured, over many draws of the first matrix.",
        ),
        formulas=(
            "z₁ = W₁ x + b₁, h = f(z₁), z₂ = W₂ h + b₂",
            "f(z) = z if z > 0, else 0.01 z",
            "Xavier: variance 2 / (n_in + n_out) = 2 / 9 for W₁",
            "He: variance 2 / n_in = 2 / 5 for W₁",
        ),
        setup=(
            "One network, its weights drawn by He and Xavier as fastnn does of itself, its biases "
            f"from ±0.1, and one input; and {DRAWS:,} draws of W₁ from each initializer."
        ),
        claims=claims(found),
        pictures=(
            Picture(
                "lecture-network",
                "The network as a drawing: five input nodes, four hidden, three output nodes with "
                "their values, joined by lines; the wider a line the larger the weight, dashed "
                "where it is negative.",
                "Every weight is one line: 20 from inputs to hidden units, 12 from these to the "
                "outputs.",
                lambda: _draw_network(found),
                (0, 1),
            ),
            Picture(
                "lecture-variance",
                "Variance of each initializer on a logarithmic axis, measured dots inside rings of "
                "theory: normal(0, 0.01) 0.0001, uniform 0.0033, both Xavier 0.22, both He 0.4.",
                "The initializers differ in variance by a factor of 4,000; normal and uniform "
                "forms of one formula have the same.",
                lambda: _draw_variances(found),
                tuple(range(2, 8)),
            ),
        ),
        numbers=_as_text(found),
        code=code(task),
    )


def _as_text(found: Measured) -> str:
    (w1, w2), (b1, b2) = found.weights, found.biases
    parts = {
        "W1, shape (4, 5)": w1, "b1": b1, "W2, shape (3, 4)": w2, "b2": b2, "x": found.x,
        "z1 = W1 x + b1": found.z1, "h = f(z1)": found.h, "z2 = W2 h + b2": found.z2,
    }  # fmt: skip
    lines = []
    for name, array in parts.items():
        rows = np.atleast_2d(array)
        for i, row in enumerate(rows):
            lines.append(f"{name if i == 0 else '':17}" + "".join(f"{v:9.4f}" for v in row))
    return "\n".join(lines)


def _draw_network(found: Measured) -> Any:
    figure, (axes,) = drawing.figure(4.6, 3.9)
    layers = [found.x, found.h, found.z2]
    places = [
        [(column, (len(values) - 1) / 2 - i) for i in range(len(values))]
        for column, values in enumerate(layers)
    ]
    for column, weight in enumerate(found.weights):
        for j, row in enumerate(weight):
            for i, w in enumerate(row):
                (x0, y0), (x1, y1) = places[column][i], places[column + 1][j]
                axes.plot(
                    [x0, x1], [y0, y1], color="black" if w > 0 else "#d55e00",
                    linestyle="-" if w > 0 else "--", linewidth=0.2 + 3 * abs(w), zorder=1,
                )  # fmt: skip
    for column, values in enumerate(layers):
        for (x, y), value in zip(places[column], values, strict=True):
            axes.scatter([x], [y], s=900, color="white", edgecolor="black", zorder=2)
            axes.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=9, zorder=3)
    for column, name in enumerate(("inputs x", "hidden h", "outputs z₂")):
        axes.text(column, -2.75, name, ha="center")
    axes.set_title("The 5-4-3 network and one input", fontsize=11)
    axes.set_xlim(-0.3, 2.3)
    axes.set_ylim(-3, 2.5)
    axes.axis("off")
    for label, color, dash in (("weight > 0", "black", "-"), ("weight < 0", "#d55e00", "--")):
        axes.plot([], [], color=color, linestyle=dash, label=label)
    axes.legend(frameon=False, loc="upper right", fontsize=9)
    return figure


def _draw_variances(found: Measured) -> Any:
    figure, (axes,) = drawing.figure(*drawing.SMALL)
    names = list(DRAWN)
    heights = range(len(names))
    theory = [DRAWN[name][0] for name in names]
    axes.plot(theory, heights, "o", markersize=12, color="#d55e00", markerfacecolor="none",
              label="theory")  # fmt: skip
    axes.plot([found.variances[n] for n in names], heights, "ko", markersize=4, label="measured")
    axes.set_xscale("log")
    axes.set_xlim(3e-5, 2)
    axes.set_yticks(list(heights), [NAMES.get(name, name) for name in names])
    drawing.dress(axes, f"W₁ over {DRAWS:,} draws", "variance of the weights", "")
    axes.legend(frameon=False, loc="lower right")
    return figure
