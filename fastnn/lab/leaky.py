"""Experiment 7: Leaky ReLU against ReLU: dead units, and how they come back."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import drawing
from .._core.pointwise import leaky_relu, leaky_relu_derivative
from ..layers import Activation, LeakyReLU, Linear, ReLU
from ..optimizers import SGD
from ..progress import Progress
from ..sequential import Sequential
from ..units import TOO_MANY
from .parts import Claim, Experiment, Picture, Task, between
from .passes import keep

__all__ = ["Measured", "claims", "experiment", "measure"]

Array = NDArray[Any]

WIDTH, ALPHA = 64, 0.01
HIGH, KILLING = 1.0, 2  # learning rate for 64 inputs, and for how many epochs
LOW, AFTER = 0.1, 30
SLOPES = {"ReLU": 0.0, "Leaky ReLU, a = 0.01": 0.01, "Leaky ReLU, a = 0.1": 0.1}


@dataclasses.dataclass
class Course:
    """A network that goes on from the one with dead units: its losses, its dead units (a share by
    epoch, and which they were at the end), and which of their weights have changed or have a
    gradient at the start."""

    losses: list[float]
    dead: list[float]
    still_dead: Array
    changed: Array
    with_gradient: Array


@dataclasses.dataclass
class Measured:
    """grid, f, derivative: of both functions. killing: the shares of dead units under the high
    learning rate, from before it. dead: which units were dead then. courses: by activation."""

    grid: Array
    f: dict[str, Array]
    derivative: dict[str, Array]
    killing: list[float]
    gentle: list[float]
    dead: Array
    courses: dict[str, Course]


def measure(task: Task, seed: int, progress: bool | None = False) -> Measured:
    """A network whose units are killed, and what becomes of it."""
    grid = np.linspace(-3, 3, 601)
    grid[300] = 0.0
    f = {name: leaky_relu(grid, slope) for name, slope in SLOPES.items()}
    derivative = {name: leaky_relu_derivative(grid, slope) for name, slope in SLOPES.items()}
    high, low = rates(task)
    courses = {}
    with Progress(progress, 2 + len(SLOPES), unit="network") as bar:
        sick, killing = _trained(task, _network(task, ReLU(), seed), high, KILLING, seed)
        bar.say(f"ReLU, learning rate {high:.2g}")
        _, gentle = _trained(task, _network(task, ReLU(), seed), low, KILLING, seed)
        bar.say(f"ReLU, learning rate {low:.2g}")
        dead = _dead(sick, task)
        for name, slope in SLOPES.items():
            after = LeakyReLU(slope) if slope else ReLU()
            courses[name] = _course(task, sick, after, dead, seed)
            bar.say(f"{name}, afterwards")
    return Measured(grid, f, derivative, killing, gentle, dead, courses)


def rates(task: Task) -> tuple[float, float]:
    """The high and the low learning rate: steps of the same length, whatever the number of inputs.

    A gradient is as long as the inputs, whose length is the root of their number.
    """
    factor = math.sqrt(64 / task.X.shape[1])
    return HIGH * factor, LOW * factor


def _network(task: Task, activation: Activation, seed: int) -> Sequential:
    n_in = task.X.shape[1]
    return Sequential(Linear(n_in, WIDTH), activation, Linear(WIDTH, task.classes), rng=seed)


def _dead(model: Sequential, task: Task) -> Array:
    """Which hidden units are positive on no row."""
    dead: Array = np.logical_and.reduce(model[0](task.X) <= 0, axis=0)
    return dead


def _trained(
    task: Task, model: Sequential, rate: float, epochs: int, seed: int
) -> tuple[Sequential, list[float]]:
    """The model after that, and the share of its dead units before and after each epoch."""
    shares = [float(_dead(model, task).mean())]
    model.fit(
        task.X, task.y, loss="cross_entropy", optimizer=SGD(rate), epochs=epochs, progress=False,
        rng=seed, callbacks=[lambda trained, _: shares.append(_dead(trained, task).mean())],
    )  # fmt: skip
    return model, shares


def _course(task: Task, sick: Sequential, activation: Activation, dead: Array, seed: int) -> Course:
    model = _network(task, activation, seed)
    model.load_state_dict(sick.state_dict())
    first = model[0]
    assert isinstance(first, Linear)
    keep(model, task.X, task.y)  # which leaves the gradients of all rows
    with_gradient = np.logical_or.reduce(first.grad_weight != 0, axis=1)
    before = first.weight.copy()
    losses = [model.evaluate(task.X, task.y, loss="cross_entropy")["loss"]]
    model, shares = _trained(task, model, rates(task)[1], AFTER, seed)
    assert model.history is not None
    losses += model.history.loss
    changed = np.logical_or.reduce(first.weight != before, axis=1)
    return Course(losses, shares, dead & _dead(model, task), changed, with_gradient)


def claims(task: Task, found: Measured) -> tuple[Claim, ...]:
    """What was measured, judged."""
    x = found.grid
    name = "Leaky ReLU, a = 0.01"
    wrong = np.count_nonzero(found.f[name] != np.where(x > 0, x, ALPHA * x))
    wrong += np.count_nonzero(found.derivative[name] != np.where(x > 0, 1, ALPHA))
    n = int(found.dead.sum())
    relu, leaky, steep = (found.courses[one] for one in SLOPES)
    moved = int((relu.changed & found.dead).sum())
    back = {one: n - int(course.still_dead.sum()) for one, course in found.courses.items()}
    learns = int((leaky.with_gradient & found.dead).sum())
    learnt = {one: task.learnt(course.losses[-1]) for one, course in found.courses.items()}
    return (
        Claim(
            "f(x) = x and f'(x) = 1 if x > 0, else f(x) = 0.01 x and f'(x) = 0.01",
            f"{wrong} of {2 * len(x)} values differ, x = 0 among them",
            "none",
            wrong == 0,
        ),
        between(
            f"A learning rate of {rates(task)[0]:.2g} kills most ReLU units: share dead after "
            f"{KILLING} epochs",
            found.killing[-1], max(TOO_MANY, found.gentle[-1]), 1,
        ),
        Claim(
            "Dead ReLU units have no gradient and never come back",
            f"of {n} dead units {moved} have changed a weight after {AFTER} epochs, "
            f"{back['ReLU']} are back",
            "exactly 0",
            moved == 0 == back["ReLU"],
        ),
        Claim(
            "Under Leaky ReLU the same units have a gradient",
            f"{learns} of {n}",
            "all",
            learns == n,
        ),
        Claim(
            "And some come back",
            ", ".join(f"{one}: {count} of {n}" for one, count in back.items() if SLOPES[one]),
            "more than 0 (a = 0.1)",
            back["Leaky ReLU, a = 0.1"] > 0,
        ),
        between(
            "The same network then learns more with Leaky ReLU (a = 0.1) than with ReLU, "
            f"{learnt['ReLU']:.3f}: share explained",
            task.learnt(steep.losses[-1]), learnt["ReLU"], 1,
        ),
    )  # fmt: skip


def code(task: Task) -> str:
    """The program to try."""
    return f"""import fastnn
{task.loading}

n_in, n_out = X.shape[1], y.max() + 1
model = fastnn.Sequential(
    fastnn.Linear(n_in, {WIDTH}), fastnn.ReLU(), fastnn.Linear({WIDTH}, n_out)
)
history = model.fit(
    X, y, loss="cross_entropy", optimizer=fastnn.SGD(3.0), epochs=3, monitor_units=True
)  # which warns when units die
print(history.dead_units)  # their share by layer and epoch
"""


def experiment(task: Task, seed: int, progress: bool | None = False) -> Experiment:
    """The chapter."""
    found = measure(task, seed, progress)
    high, low = rates(task)
    return Experiment(
        title="Leaky ReLU against ReLU",
        story=(
            "Where its input is negative, ReLU answers 0 and its derivative is 0. A unit that is "
            "negative for every row of the data passes nothing on and learns nothing: it is "
            "<b>dead</b>, for good. One step that is too large can do that.",
            "<b>Leaky ReLU</b> leaves a small slope <i>a</i> there. The same unit then still has a "
            "gradient, and can find its way back.",
        ),
        formulas=(
            "f(x) = x if x > 0, else a x (ReLU: a = 0; fastnn's default: a = 0.01)",
            "f'(x) = 1 if x > 0, else a (so at 0 it is a)",
        ),
        setup=(
            f"A network with {WIDTH} ReLU units learns {task.name} with learning rate {high:.2g} "
            f"for {KILLING} epochs, far too high. Then that very network goes on with learning "
            f"rate {low:.2g} for {AFTER} epochs: once with ReLU, twice with Leaky ReLU in its "
            "place."
        ),
        claims=claims(task, found),
        pictures=(
            Picture(
                "leaky-functions",
                "Two panels. Above, the functions: both rise along y = x on the right; on the left "
                "ReLU is zero, Leaky ReLU a line of small slope. Below, their derivatives: 1 on "
                "the right, on the left 0 and the slope.",
                "On the left ReLU has no slope to learn from, Leaky ReLU a small one (drawn with "
                "a = 0.1).",
                lambda: _draw_functions(found),
                (0,),
            ),
            Picture(
                "leaky-dead",
                "Share of dead units by epoch. Within two epochs of the high learning rate it "
                "rises to nearly all. Then with ReLU it stays there; with Leaky ReLU of slope 0.01 "
                "it falls a little, with slope 0.1 much more.",
                "A high learning rate kills ReLU units for good; Leaky ReLU brings some back, the "
                "more the larger its slope.",
                lambda: _draw_dead(task, found),
                (1, 2, 4),
            ),
            Picture(
                "leaky-loss",
                "Loss by epoch after the units have died: it falls slowly with ReLU, faster with "
                "Leaky ReLU of slope 0.01, fastest with 0.1.",
                "The network with dead units learns again once it is given Leaky ReLU.",
                lambda: _draw_loss(task, found),
                (3, 5),
            ),
        ),
        code=code(task),
    )


def _draw_functions(found: Measured) -> Any:
    figure, panels = drawing.figure(4.6, 4.6, 2, sharex=True)
    for axes, curves, title in (
        (panels[0], found.f, "f(x)"),
        (panels[1], found.derivative, "derivative f'(x)"),
    ):
        for place, name in enumerate(("ReLU", "Leaky ReLU, a = 0.1")):
            values = np.array(curves[name])
            if curves is found.derivative:
                values[300] = math.nan  # the jump is no line
            look = drawing.style(place)
            axes.plot(found.grid, values, label=name, markevery=(40 + 40 * place, 80), **look)
        drawing.dress(axes, title, "", title)
    panels[0].legend(frameon=False, loc="upper left")
    panels[1].set_ylim(-0.1, 1.3)
    panels[1].set_xlabel("input x")
    return figure


def _draw_dead(task: Task, found: Measured) -> Any:
    figure, (axes,) = drawing.figure(*drawing.SMALL)
    high, low = rates(task)
    for place, (name, course) in enumerate(found.courses.items()):
        shares = 100 * np.array([*found.killing[:-1], *course.dead])
        axes.plot(shares, label=name, markevery=(3 + place, 4), **drawing.style(place))
    axes.axvline(KILLING, color="0.5", linewidth=0.8)
    axes.annotate(
        f"learning rate {high:.2g}, then {low:.2g}", (KILLING, 4), (6, 0), fontsize=9,
        textcoords="offset points",
    )  # fmt: skip
    axes.set_ylim(0, 105)
    drawing.dress(axes, "Dead units", "epoch", "share of dead units (%)")
    drawing.count(axes)
    axes.legend(frameon=False, fontsize=9, loc="lower right", bbox_to_anchor=(1, 0.1))
    return figure


def _draw_loss(task: Task, found: Measured) -> Any:
    figure, (axes,) = drawing.figure(*drawing.SMALL)
    for place, (name, course) in enumerate(found.courses.items()):
        epochs = range(KILLING, KILLING + len(course.losses))
        axes.plot(epochs, course.losses, label=name, markevery=(place, 4), **drawing.style(place))
    drawing.level(axes, task.entropy, "entropy of the labels: nothing learnt")
    axes.set_ylim(0, 2 * task.entropy)
    drawing.dress(axes, "Learning after units have died", "epoch", "loss (cross-entropy, nats)")
    axes.legend(frameon=False, fontsize=9)
    return figure
