"""Experiment 2: zero weights, and any other equal ones."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import drawing, init
from ..diagnosis.compare import Init
from ..layers import LeakyReLU, Linear
from ..optimizers import SGD
from ..progress import Progress
from ..sequential import Sequential
from .chance import SIGMAS
from .parts import Claim, Experiment, Picture, Task, between

__all__ = ["Measured", "claims", "experiment", "measure"]

Array = NDArray[Any]

UNITS, EQUAL = 32, 0.02
EPOCHS, RATE, BATCH = 15, 0.05, 32
# As many equal units, and one unit with weights sqrt(UNITS) times as large: see `formulas`.
STARTS: dict[str, tuple[int, Init, bool]] = {
    "zero, no bias": (UNITS, "zeros", False),
    "zero, with bias": (UNITS, "zeros", True),
    "equal": (UNITS, functools.partial(init.constant, value=EQUAL), True),
    "one unit": (1, functools.partial(init.constant, value=EQUAL * math.sqrt(UNITS)), True),
    "random ±0.1": (UNITS, "uniform", True),
}


@dataclasses.dataclass
class Measured:
    """By start: the loss before training and after each epoch, and the weights at the end."""

    losses: dict[str, list[float]]
    weights: dict[str, list[Array]]


def measure(task: Task, seed: int, progress: bool | None = False) -> Measured:
    """In float64, so that two trainings can be told equal."""
    losses: dict[str, list[float]] = {}
    weights: dict[str, list[Array]] = {}
    with Progress(progress, len(STARTS), unit="network") as bar:
        for name, (units, how, bias) in STARTS.items():
            model = Sequential(*_layers(task.X.shape[1], units, task.classes, how, bias), rng=seed)
            losses[name] = _train(task, model, seed)
            weights[name] = [layer.weight.copy() for layer in model if isinstance(layer, Linear)]
            bar.say(name)
    return Measured(losses, weights)


def _train(task: Task, model: Sequential, seed: int) -> list[float]:
    """The losses before training and after each epoch, on all images."""

    def loss() -> float:
        return model.evaluate(task.X, task.y, loss="cross_entropy")["loss"]

    losses = [loss()]
    model.fit(
        task.X, task.y, loss="cross_entropy", optimizer=SGD(RATE), epochs=EPOCHS, batch_size=BATCH,
        callbacks=[lambda *_: losses.append(loss())], progress=False, rng=seed,
    )  # fmt: skip
    return losses


def _layers(
    n_in: int, units: int, n_out: int, how: Init, bias: bool
) -> tuple[Linear, LeakyReLU, Linear]:
    return (
        Linear(n_in, units, bias, weight_init=how, dtype="float64"),
        LeakyReLU(),
        Linear(units, n_out, bias, weight_init=how, dtype="float64"),
    )


def claims(task: Task, found: Measured) -> tuple[Claim, ...]:
    """What was measured, judged."""
    end = {name: losses[-1] for name, losses in found.losses.items()}
    zero = sum(
        int(np.count_nonzero(weight))
        for name in ("zero, no bias", "zero, with bias")
        for weight in found.weights[name]
    )
    chance = math.log(task.classes)
    stuck = max(abs(loss - chance) for loss in found.losses["zero, no bias"])
    rows = {name: len(np.unique(weights[0], axis=0)) for name, weights in found.weights.items()}
    sizes = np.linalg.svd(found.weights["equal"][0], compute_uv=False)
    apart = max(
        abs(a / b - 1) for a, b in zip(found.losses["equal"], found.losses["one unit"], strict=True)
    )
    return (
        Claim(
            "Zero weights never change, with or without bias",
            f"{zero} of {sum(w.size for w in found.weights['zero, with bias'])} differ from 0 "
            f"after {EPOCHS} epochs",
            "exactly 0",
            zero == 0,
        ),
        Claim(
            "Without bias the loss stays where it starts, at ln of the number of classes",
            f"off by {stuck:.1g} at most",
            f"ln {task.classes} = {chance:.4f}, to rounding",
            stuck < 1e-12,
        ),
        between(
            "With bias it only learns how frequent each class is: the loss is",
            end["zero, with bias"], task.entropy * (1 - 1e-12), chance + _noise(task),
        ),
        Claim(
            f"{UNITS} units with equal weights stay identical: the weight matrix has rank 1",
            f"{rows['equal']} distinct unit, second singular value {sizes[1] / sizes[0]:.1g} of "
            "the first",
            "1 unit, rank 1",
            rows["equal"] == 1 and sizes[1] < 1e-13 * sizes[0],
        ),
        Claim(
            f"{UNITS} equal units learn what one unit learns, and no more",
            f"their losses differ by {apart:.1g}",
            "0, to rounding",
            apart < 1e-9,
        ),
        Claim(
            "Random weights break the symmetry",
            f"{rows['random ±0.1']} distinct units",
            f"{UNITS}",
            rows["random ±0.1"] == UNITS,
        ),
        between(
            "And they learn more than equal ones: the share of the labels' entropy explained is",
            task.learnt(end["random ±0.1"]), max(task.luck, task.learnt(end["equal"])), 1,
        ),
    )  # fmt: skip


def _noise(task: Task) -> float:
    """What the steps' noise adds to the loss of a network of which only the last bias learns.

    It starts at ln(classes) and descends to the entropy, in a convex valley whose curvature is H,
    the covariance of the labels. A batch's gradient has the covariance H / BATCH, so the bias
    comes to waver with the covariance RATE / (2 BATCH) (of Ornstein and Uhlenbeck's process), and
    the loss is above its least by a mean of RATE / (4 BATCH) trace H: a sum of (classes - 1)
    squares of normal numbers, whose standard deviation is sqrt(2 / (classes - 1)) of it.
    """
    p = np.bincount(task.y) / len(task.y)
    mean = RATE / (4 * BATCH) * float(1 - (p * p).sum())
    return mean * (1 + SIGMAS * math.sqrt(2 / (task.classes - 1)))


def code(task: Task) -> str:
    """The program to try."""
    return f"""import fastnn
{task.loading}

n_in, n_out = X.shape[1], y.max() + 1
model = fastnn.Sequential(
    fastnn.Linear(n_in, {UNITS}, weight_init="zeros"), fastnn.LeakyReLU(),
    fastnn.Linear({UNITS}, n_out),
)
print(model.report(X, y).verdict)  # ... units are identical: zero weights ...
"""


def experiment(task: Task, seed: int, progress: bool | None = False) -> Experiment:
    """The chapter."""
    found = measure(task, seed, progress)
    return Experiment(
        title="Zero weights",
        story=(
            "If all weights are zero, every hidden unit says zero, and no error finds its way back "
            "to them: nothing but the last bias can change. It learns how frequent each answer is, "
            "and stops there.",
            "Any other equal weights are hardly better. All units of a layer see the same inputs, "
            "compute the same, receive the same blame for the error and change alike. Many units "
            "stay copies of one: <b>symmetry</b>. Only a random start breaks it.",
        ),
        formulas=(
            "gradient of the weights of unit j = error at unit j × inputs: equal units, equal "
            "gradients",
            f"n equal units = one unit with weights √n times as large (here n = {UNITS}): "
            "n v f(w x) = (√n v) f(√n w x)",
            "loss of a network that ignores its inputs ≥ entropy of the labels "
            f"(here {task.entropy:.4f})",
        ),
        setup=(
            f"A {task.X.shape[1]}-{UNITS}-{task.classes} network with Leaky ReLU, {EPOCHS} epochs "
            f"of gradient descent (learning rate {RATE}) on {task.name}, from four starts; and the "
            "same with a single hidden unit. In float64, to tell equal from nearly equal."
        ),
        claims=claims(task, found),
        pictures=(
            Picture(
                "zeros-loss",
                "Loss by epoch. Zero weights: a flat line at the entropy of the labels. Equal "
                "weights and a single unit: one and the same curve, a little lower. Random "
                "weights: falls far below.",
                "From zero weights the loss stalls; equal units do what one unit does; random ones "
                "learn.",
                lambda: _draw_losses(task, found),
                (1, 2, 4, 6),
            ),
            Picture(
                "zeros-units",
                "Two rows of small grey images, the weights of six hidden units. Above, from equal "
                "weights: six times the same image. Below, from random weights: six different "
                "ones.",
                "After training from equal weights all units look for the same pattern; from "
                "random weights each for its own.",
                lambda: _draw_units(task, found),
                (3, 5),
            ),
        ),
        code=code(task),
    )


def _draw_losses(task: Task, found: Measured) -> Any:
    figure, (axes,) = drawing.figure(*drawing.SMALL)
    labels = {"equal": f"{UNITS} equal units", "one unit": "one unit"}
    for place, (name, losses) in enumerate(found.losses.items()):
        axes.plot(
            losses, label=labels.get(name, name), markevery=(place, len(found.losses)),
            **drawing.style(place),
        )  # fmt: skip
    axes.set_ylim(0, 1.25 * task.entropy)
    drawing.dress(axes, "Learning from equal weights", "epoch", "loss (cross-entropy, nats)")
    drawing.count(axes)
    axes.legend(frameon=False, fontsize=9, loc="center right", bbox_to_anchor=(1, 0.36))
    return figure


def _draw_units(task: Task, found: Measured) -> Any:
    shown = 6
    figure, panels = drawing.figure(4.6, 2.3, 2, shown)
    figure.suptitle("Weights of six hidden units", fontsize=11)
    for row, name in enumerate(("equal", "random ±0.1")):
        for unit in range(shown):
            axes = panels[row * shown + unit]
            axes.imshow(found.weights[name][0][unit].reshape(task.shape), cmap="gray")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_xlabel(f"unit {unit + 1}", fontsize=8)
        panels[row * shown].set_ylabel(name.partition(" ")[0])
    return figure
