"""Experiment 3: small random weights, uniform(-0.1, 0.1) and normal(0, 0.01)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import drawing
from ..diagnosis import InitComparison, compare_inits
from ..diagnosis.report import Report
from ..layers import LeakyReLU, Linear
from ..optimizers import SGD
from ..progress import Progress
from ..sequential import Sequential
from . import chance
from .parts import Claim, Experiment, Picture, Task, between, learns, learns_nothing, number

__all__ = ["Measured", "claims", "critical", "experiment", "growth", "measure"]

Array = NDArray[Any]

VARIANCE = 0.2**2 / 12  # of uniform(-0.1, 0.1): (high - low)^2 / 12 = 1 / 300
SLOPES = {"linear": 1.0, "Leaky ReLU, a = 0.01": 0.01, "Leaky ReLU, a = 0.5": 0.5}
STEPS = (0.5, 0.5**0.5, 1.0, 2**0.5, 2.0)  # widths, in parts of the critical one
SWEEP_LAYERS, SWEEP_DRAWS, SWEEP_ROWS = 8, 4, 32

NARROW, DEEP, WIDE, WIDE_LAYERS = 64, 20, 1200, 10
EPOCHS, RATE = 12, 0.05
INITS = ("uniform", "normal")


def critical(slope: float) -> float:
    """The fan_in at which layers of uniform(-0.1, 0.1) neither shrink nor grow the signal.

    A layer multiplies the mean square of z by fan_in Var(w) (1 + a^2) / 2 (He et al. 2015).
    """
    return 2 / (VARIANCE * (1 + slope * slope))


@dataclasses.dataclass
class Measured:
    """sweep: by slope, of each width the mean over draws of the logarithm of a layer's growth.
    shallow, deep: networks with 1 and DEEP hidden layers. wide: one that is wider than critical."""

    sweep: dict[str, tuple[list[int], list[float]]]
    shallow: InitComparison
    deep: InitComparison
    wide: InitComparison


def growth(slope: float, width: int, seed: int) -> float:
    """log of std of z by that of the layer before, the mean over the layers of one network."""
    layers: list[Linear | LeakyReLU] = []
    for _ in range(SWEEP_LAYERS):
        layers += [Linear(width, width, False, weight_init="uniform"), LeakyReLU(slope)]
    x = np.random.default_rng(seed).standard_normal((SWEEP_ROWS, width)).astype(np.float32)
    stds = []
    for layer in Sequential(*layers, rng=seed):
        x = layer(x)
        if isinstance(layer, Linear):
            stds.append(float(x.std(dtype=np.float64)))
    return math.log(stds[-1] / stds[0]) / (len(stds) - 1)


def measure(task: Task, seed: int, progress: bool | None = False) -> Measured:
    """The sweep over widths, then three networks trained."""
    draws = range(seed * SWEEP_DRAWS, (seed + 1) * SWEEP_DRAWS)
    n_in, out = task.X.shape[1], task.classes
    with Progress(progress, len(SLOPES) * len(STEPS) + 5, unit="network") as bar:

        def grown(name: str, slope: float, width: int) -> float:
            mean = float(np.mean([growth(slope, width, draw) for draw in draws]))
            bar.say(f"{SWEEP_LAYERS} layers of {width}, {name}")
            return mean

        def trained(hidden: int, width: int, inits: tuple[str, ...], rows: int) -> InitComparison:
            found = compare_inits(
                [n_in] + [width] * hidden + [out], task.X[:rows], task.y[:rows], inits=inits,
                epochs=EPOCHS if rows == len(task.y) else 2, optimizer=SGD(RATE), progress=False,
                rng=seed,
            )  # fmt: skip
            bar.say(f"{hidden} hidden layers of {width}, trained", len(inits))
            return found

        sweep = {}
        for name, slope in SLOPES.items():
            widths = [round(critical(slope) * step) for step in STEPS]
            sweep[name] = widths, [grown(name, slope, width) for width in widths]
        return Measured(
            sweep,
            trained(1, NARROW, INITS, len(task.y)),
            trained(DEEP, NARROW, INITS, len(task.y)),
            trained(WIDE_LAYERS, WIDE, INITS[:1], min(256, len(task.y) - 1)),
        )


def _sweep_chance(slope: float, width: float) -> tuple[float, float]:
    """Standard deviation, and shift downwards, of the logarithm of a layer's growth.

    S of `chance`: each layer's fluctuation, and that of the two ends which are compared.
    """
    kurtosis = 6 * (1 + slope**4) / (1 + slope * slope) ** 2 - 1
    s = ((SWEEP_LAYERS - 1) * kurtosis + 4) / width
    return math.sqrt(s / SWEEP_DRAWS) / 2 / (SWEEP_LAYERS - 1), s / 4 / (SWEEP_LAYERS - 1)


def _crossing(widths: list[int], logs: list[float]) -> float:
    """The width at which a layer's growth is 1, between those that were measured."""
    return math.exp(float(np.interp(0.0, logs, np.log(widths))))


def _on_theory(says: str, report: Report) -> Claim:
    """That z at the output has the size that theory predicts, by chance's leave."""
    last = report.layers[-1]
    predicted = last.predicted.z_std or math.nan
    low, high = chance.band(chance.forward(report.layers)[-1])
    return between(says, last.z_std or 0.0, predicted * low, predicted * high)


def claims(task: Task, found: Measured) -> tuple[Claim, ...]:
    """What was measured, judged."""
    made = []
    for name, slope in SLOPES.items():
        widths, logs = found.sweep[name]
        n = critical(slope)
        std, shift = _sweep_chance(slope, n * STEPS[1])  # the nearest below, where chance is more
        # log growth is half of log n: an error there is twice as large here.
        reach, shift = 2 * chance.SIGMAS * std, 2 * shift
        made.append(
            between(
                f"±0.1 is critical at fan_in {n:.0f} ({name})", _crossing(widths, logs),
                n * math.exp(-reach), n * math.exp(reach + shift),
            )
        )  # fmt: skip
    uniform, normal = INITS
    shallow = found.shallow.curves
    for init in INITS:
        name = "±0.1" if init == uniform else "normal(0, 0.01)"
        made.append(
            learns(f"With one hidden layer {name} works, it learns", task, shallow[init][-1])
        )
    deep, wide = found.deep, found.wide
    made += [
        _on_theory(f"Through {DEEP} layers of {NARROW} ±0.1 vanishes: std of z at the output",
                   deep.reports[uniform]),
        _on_theory(f"Through {DEEP} layers of {NARROW} normal(0, 0.01) vanishes: std of z",
                   deep.reports[normal]),
        learns_nothing(f"{DEEP} layers from either learn nothing", task,
                       min(deep.curves[init][-1] for init in INITS)),
        _on_theory(f"Through {WIDE_LAYERS} layers of {WIDE} ±0.1 explodes: std of z at the output",
                   wide.reports[uniform]),
        _diverges(task, wide),
    ]  # fmt: skip
    return tuple(made)


def _diverges(task: Task, wide: InitComparison) -> Claim:
    first, *_, last = wide.curves[INITS[0]]
    return Claim(
        f"{WIDE_LAYERS} layers of {WIDE} from ±0.1 diverge",
        f"the loss starts at {number(first)} and becomes {number(last)}",
        f"above {task.entropy:.3g}, or not a number",
        first > task.entropy and not last < task.entropy,
    )


def code(task: Task) -> str:
    """The program to try."""
    return f"""import fastnn
{task.loading}

sizes = [X.shape[1]] + [{NARROW}] * {DEEP} + [y.max() + 1]
print(fastnn.compare_inits(sizes, X, y, inits=["uniform", "normal", "he_normal"], epochs=5))
"""


def experiment(task: Task, seed: int, progress: bool | None = False) -> Experiment:
    """The chapter."""
    found = measure(task, seed, progress)
    verdict = found.deep.reports[INITS[0]].verdict
    return Experiment(
        title="Small random weights",
        story=(
            "The plain remedy for symmetry is to draw every weight at random, from "
            "uniform(-0.1, 0.1) or from a small Gaussian. With one hidden layer that works.",
            "But each layer multiplies the signal by a factor that depends on the number of its "
            "inputs, its <b>fan-in</b>. Below 1 the signal dies out from layer to layer, and with "
            "it the gradient: it <b>vanishes</b>. Above 1 both <b>explode</b>. There is exactly "
            "one fan-in at which ±0.1 keeps the signal as it is, and no network has it in every "
            "layer.",
        ),
        formulas=(
            "variance of uniform(-0.1, 0.1) = 0.2² / 12 = 1 / 300",
            "growth of the mean square per layer = fan_in · variance · (1 + a²) / 2, with the "
            "slope a of Leaky ReLU (linear: a = 1)",
            "growth = 1 if fan_in = 600 / (1 + a²): 300 for a linear layer, 600 for a near 0",
            "normal(0, 0.01): fan_in = 20,000",
        ),
        setup=(
            f"Stacks of {SWEEP_LAYERS} layers, five widths around the critical one, "
            f"{SWEEP_DRAWS} draws each. Then networks with Leaky ReLU on {task.name}, by gradient "
            f"descent with learning rate {RATE}: one hidden layer of {NARROW} units, {DEEP} layers "
            f"of {NARROW}, {WIDE_LAYERS} layers of {WIDE}."
        ),
        claims=claims(task, found),
        pictures=(
            Picture(
                "small-critical",
                "Growth per layer against fan-in, both logarithmic: three rising straight lines "
                "with measured points on them, which cross 1 at 300 (linear), 480 (a = 0.5) and "
                "600 (a = 0.01).",
                "±0.1 keeps the signal at one fan-in only: 300 for linear layers, 600 / (1 + a²) "
                "for Leaky ReLU.",
                lambda: _draw_critical(found),
                (0, 1, 2),
            ),
            Picture(
                "small-signal",
                "Standard deviation of z by layer, logarithmic. With 64 units it falls in a "
                "straight line from ±0.1 and much faster from the Gaussian; with 1200 units it "
                "rises.",
                "The same ±0.1 vanishes in narrow layers and explodes in wide ones.",
                lambda: _draw_signal(found),
                (5, 6, 8),
            ),
            Picture(
                "small-loss",
                "Loss by epoch. One hidden layer: falls, from ±0.1 sooner than from the Gaussian. "
                f"{DEEP} layers: two flat lines on top of each other. The wide network starts far "
                "above and is gone after the first epoch.",
                "What works with one hidden layer learns nothing in a deep network.",
                lambda: _draw_loss(task, found),
                (3, 4, 7, 9),
            ),
        ),
        verdict=(
            f"What model.report says of the {DEEP} layers from ±0.1, before training:\n{verdict}"
        ),
        code=code(task),
    )


def _draw_critical(found: Measured) -> Any:
    figure, (axes,) = drawing.figure(*drawing.SMALL)
    axes.axhline(1, color="0.5", linewidth=0.8)
    for place, (name, (widths, logs)) in enumerate(found.sweep.items()):
        look = drawing.style(place)
        line = np.sqrt(np.array(widths) / critical(SLOPES[name]))
        axes.plot(widths, line, **look | {"marker": ""})
        axes.plot(widths, np.exp(logs), **look | {"linestyle": ""}, label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    ticks = [150, 300, 600, 1200]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_yticks([0.7, 1, 1.4], ["0.7", "1", "1.4"])
    axes.minorticks_off()
    drawing.dress(
        axes, "One layer of uniform(-0.1, 0.1)", "fan_in (units of the layer before)",
        "growth of std of z per layer",
    )  # fmt: skip
    axes.legend(frameon=False, fontsize=9, title="points: measured; lines: theory",
                title_fontsize=9)  # fmt: skip
    return figure


def _draw_signal(found: Measured) -> Any:
    figure, (axes,) = drawing.figure(*drawing.SMALL)
    uniform, normal = INITS
    for place, (name, report) in enumerate(
        {
            f"±0.1, {WIDE} units": found.wide.reports[uniform],
            f"±0.1, {NARROW} units": found.deep.reports[uniform],
            f"normal(0, 0.01), {NARROW} units": found.deep.reports[normal],
        }.items()
    ):
        stds = [one.z_std for one in report.layers]
        axes.plot(range(1, len(stds) + 1), stds, label=name, markersize=4, **drawing.style(place))
    axes.set_yscale("log")
    drawing.dress(axes, "Signal by layer, before training", "layer", "standard deviation of z")
    drawing.count(axes)
    axes.legend(frameon=False, fontsize=9)
    return figure


def _draw_loss(task: Task, found: Measured) -> Any:
    figure, (axes,) = drawing.figure(*drawing.SMALL)
    curves = {
        "±0.1, 1 hidden layer": found.shallow.curves["uniform"],
        "normal(0, 0.01), 1 hidden layer": found.shallow.curves["normal"],
        f"±0.1, {DEEP} layers": found.deep.curves["uniform"],
        f"normal(0, 0.01), {DEEP} layers": found.deep.curves["normal"],
    }
    for place, (name, curve) in enumerate(curves.items()):
        axes.plot(curve, label=name, markevery=(place, len(curves)), **drawing.style(place))
    start = found.wide.curves["uniform"][0]
    axes.plot([0], [start], label=f"±0.1, {WIDE_LAYERS} layers of {WIDE}", **drawing.style(5))
    axes.annotate("then not a number", (0.3, start), fontsize=9, va="center")
    axes.set_yscale("log")
    drawing.dress(axes, "Learning from small random weights", "epoch", "loss (cross-entropy, nats)")
    drawing.count(axes)
    axes.legend(frameon=False, fontsize=9, loc="upper right", bbox_to_anchor=(1, 0.93))
    return figure
