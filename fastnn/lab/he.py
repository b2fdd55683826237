"""Experiment 6: He against Xavier, for ReLU and Leaky ReLU in 22 and 30 layers."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from .. import drawing
from ..diagnosis import InitComparison, compare_inits
from ..diagnosis.report import Report
from ..layers import Activation, LeakyReLU, ReLU
from ..optimizers import SGD
from ..progress import Progress
from . import chance
from .parts import Claim, Experiment, Picture, Task, between, learns

__all__ = ["Measured", "claims", "experiment", "measure"]

WIDTH, EPOCHS, RATE, MOMENTUM = 96, 14, 0.003, 0.9
DEPTHS = (22, 30)
SLOPE = 0.1
ACTIVATIONS: dict[str, Activation] = {"ReLU": ReLU(), "Leaky ReLU": LeakyReLU(SLOPE)}
XAVIER, HE = "xavier_normal", "auto"  # "auto" is He's, with the true slope


@dataclasses.dataclass
class Measured:
    """By activation and depth."""

    found: dict[tuple[str, int], InitComparison]


def measure(task: Task, seed: int, progress: bool | None = False) -> Measured:
    """Both activations and depths, from both initializations."""
    found = {}
    with Progress(progress, 2 * len(ACTIVATIONS) * len(DEPTHS), unit="network") as bar:
        for name, activation in ACTIVATIONS.items():
            for depth in DEPTHS:
                sizes = [task.X.shape[1]] + [WIDTH] * (depth - 1) + [task.classes]
                found[name, depth] = compare_inits(
                    sizes, task.X, task.y, inits=[XAVIER, HE], activation=activation,
                    epochs=EPOCHS, optimizer=SGD(RATE, momentum=MOMENTUM), progress=False,
                    rng=seed,
                )  # fmt: skip
                bar.say(f"{depth} layers of {name}", 2)
    return Measured(found)


def _kept(report: Report, per_layer: float) -> tuple[float, float, float]:
    """std of z at the last hidden layer over the first one's; between what theory lets it be.

    per_layer : what the mean square is multiplied by in each layer
    """
    first, last = report.layers[0], report.layers[-2]
    steps = len(report.layers) - 2
    s = chance.forward(report.layers)
    # The first layer's fluctuation is part of what is divided by.
    low, high = chance.band(s[-2] + s[0])
    theory = math.sqrt(per_layer) ** steps
    return (last.z_std or 0.0) / (first.z_std or math.nan), theory * low, theory * high


def _begins_later(says: str, epoch: int | None, than: int | None, must: bool) -> Claim:
    """A claim on the epochs in which two networks begin to learn.

    must : whether the later one has to, before training ends
    """
    end = EPOCHS + 1 if epoch is None else epoch
    return Claim(
        says,
        f"not in {EPOCHS} epochs" if epoch is None else f"in epoch {epoch}",
        f"after epoch {than}" + (f", within {EPOCHS}" if must else ", if at all"),
        than is not None and end > than and not (must and epoch is None),
    )


def claims(task: Task, measured: Measured) -> tuple[Claim, ...]:
    """What was measured, judged."""
    made = []
    for (name, depth), comparison in measured.found.items():
        slope = ACTIVATIONS[name].negative_slope
        # He et al. 2015: n Var(w) (1 + a^2) / 2, which He's variance makes 1; Xavier's is 1 / n.
        for init, per_layer, what in (
            (HE, 1.0, "He keeps the signal"),
            (XAVIER, (1 + slope * slope) / 2, "Xavier loses half its variance per layer"),
        ):
            value, low, high = _kept(comparison.reports[init], per_layer)
            made.append(between(f"{name}, {depth} layers: {what}, last std over first",
                                value, low, high))  # fmt: skip
        he, xavier = (task.begins(comparison.curves[init]) for init in (HE, XAVIER))
        made.append(
            learns(f"{name}, {depth} layers learn from He", task, comparison.curves[HE][-1])
        )
        if depth == min(DEPTHS):
            says = f"{name}, {depth} layers begin to learn from Xavier too, but later than from He"
            made.append(_begins_later(says, xavier, he, must=True))
        else:
            fewer = task.begins(measured.found[name, min(DEPTHS)].curves[XAVIER])
            says = (
                f"{name}, {depth} layers from Xavier stand still for longer than {min(DEPTHS)} "
                "from Xavier: they begin to learn"
            )
            made.append(_begins_later(says, xavier, fewer, must=False))
    return tuple(made)


def code(task: Task) -> str:
    """The program to try."""
    return f"""import fastnn
{task.loading}

sizes = [X.shape[1]] + [{WIDTH}] * {max(DEPTHS) - 1} + [y.max() + 1]
found = fastnn.compare_inits(
    sizes, X, y, inits=["xavier_normal", "he_normal"], activation="relu", epochs=5,
    optimizer=fastnn.SGD({RATE}, momentum={MOMENTUM}),
)
print(found)
print(found.reports["xavier_normal"].verdict)
"""


def experiment(task: Task, seed: int, progress: bool | None = False) -> Experiment:
    """The chapter."""
    measured = measure(task, seed, progress)
    report = measured.found["ReLU", 30].reports[XAVIER]
    return Experiment(
        title="He, for ReLU and Leaky ReLU",
        story=(
            "ReLU sets every negative number to zero, half of them all, and with them half of the "
            "signal's mean square. Xavier does not know that: with it a network of ReLUs loses "
            "half the variance in every layer. <b>He</b> initialization (He et al., 2015) draws "
            "weights of twice the variance, which makes up for it exactly.",
            "Leaky ReLU lets a share <i>a</i> of negative numbers pass, so a little less is "
            "needed.",
            "A gradient of the weights is made of a signal, which has come through the layers "
            "below, and of an error, which has come through those above. So from Xavier all of "
            "them are small by the same factor, which halves with every two layers.",
            "This repeats figures 2 and 3 of He's paper: 22 layers learn from both, from He "
            "sooner; from Xavier 30 layers stand still, most draws of them to the end.",
        ),
        formulas=(
            "Var(w) = 2 / ((1 + a²) n_in); for ReLU a = 0, Var(w) = 2 / n_in",
            "variance per layer = n_in · Var(w) · (1 + a²) / 2: 1 from He, (1 + a²) / 2 from "
            "Xavier",
            "through 30 layers of ReLU Xavier leaves 2⁻¹⁴ of the standard deviation; gradients of "
            "the weights are 2⁻¹⁴ of He's too, through 22 layers 2⁻¹⁰",
        ),
        setup=(
            f"Networks of 22 and 30 layers, {WIDTH} units each, on {task.name}: {EPOCHS} epochs "
            f"of gradient descent with learning rate {RATE} and momentum {MOMENTUM}, from Xavier "
            f"and from He, with ReLU and with Leaky ReLU of slope {SLOPE}."
        ),
        claims=claims(task, measured),
        pictures=tuple(
            _picture(task, measured, number, depth, name)
            for number, (name, depth) in enumerate(measured.found)
        ),
        verdict=(
            "What model.report says of 30 layers of ReLU from Xavier, before training:\n"
            f"{report.verdict}"
        ),
        code=code(task),
    )


def _picture(task: Task, measured: Measured, number: int, depth: int, name: str) -> Picture:
    both = depth < max(DEPTHS)
    return Picture(
        f"he-{name.lower().replace(' ', '-')}-{depth}",
        f"Loss by epoch, {depth} layers of {name}: from He it falls at once; from Xavier "
        + ("it falls later." if both else "it stays flat for long."),
        f"{depth} layers of {name} learn "
        + (
            "from both, sooner from He."
            if both
            else f"from He at once; from Xavier they stand still for longer than {min(DEPTHS)} do."
        ),
        lambda: _draw(task, measured.found[name, depth], f"{depth} layers of {name}"),
        tuple(range(4 * number, 4 * number + 4)),
    )


def _draw(task: Task, comparison: InitComparison, title: str) -> Any:
    figure, (axes,) = drawing.figure(*drawing.SMALL)
    for place, (init, name) in enumerate(((HE, "He"), (XAVIER, "Xavier"))):
        axes.plot(comparison.curves[init], label=name, **drawing.style(place))
    drawing.level(axes, task.entropy, "entropy of the labels: nothing learnt")
    axes.set_ylim(0, 2 * task.entropy)
    drawing.dress(axes, title, "epoch", "loss (cross-entropy, nats)")
    drawing.count(axes)
    axes.legend(frameon=False)
    return figure
