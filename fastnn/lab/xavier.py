"""Experiment 5: Xavier for tanh and sigmoid, against too small and too large variance."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np

from .. import drawing, init
from ..diagnosis import InitComparison, compare_inits
from ..diagnosis.compare import Init
from ..diagnosis.report import Report
from ..diagnosis.theory import SATURATING
from ..layers import Activation, Linear, Sigmoid, Tanh
from ..optimizers import SGD
from ..progress import Progress
from ..sequential import Sequential
from . import chance
from .parts import Claim, Experiment, Picture, Task, between, learns, learns_nothing
from .passes import Kept, keep

__all__ = ["Measured", "claims", "experiment", "measure"]

WIDTH, ROWS, EPOCHS = 128, 500, 12
TANH_DEPTH, SIGMOID_DEPTH = 20, 5  # hidden layers
TANH = {"too small": 1 / 3, "Xavier": 1.0, "too large": 3.0}  # times Xavier's standard deviation
SIGMOID = {"too small": 1 / 20, "Xavier": 1.0, "too large": 20.0}
TANH_RATE, SIGMOID_RATE = 0.02, 0.1


@dataclasses.dataclass
class Measured:
    """By start, for tanh and for sigmoid: reports and kept arrays of deep networks before training,
    and the losses of training: tanh in the same network, sigmoid in one hidden layer."""

    reports: dict[str, dict[str, Report]]
    kept: dict[str, dict[str, list[Kept]]]
    tanh: InitComparison
    sigmoid: InitComparison


def measure(task: Task, seed: int, progress: bool | None = False) -> Measured:
    """Deep networks before training, and the trainings."""
    reports: dict[str, dict[str, Report]] = {}
    kept: dict[str, dict[str, list[Kept]]] = {}
    X, y = task.X[:ROWS], task.y[:ROWS]
    plans = (Tanh, TANH_DEPTH, TANH, TANH_RATE), (Sigmoid, SIGMOID_DEPTH, SIGMOID, SIGMOID_RATE)
    trained = []
    with Progress(progress, 2 * (len(TANH) + len(SIGMOID)), unit="network") as bar:
        for activation, depth, gains, rate in plans:
            name = activation.name
            reports[name], kept[name] = {}, {}
            for start, how in _inits(gains).items():
                model = _network(task, depth, how, activation, seed)
                reports[name][start] = model.report(X, y)
                kept[name][start] = keep(model, X, y)
                bar.say(f"{depth} layers of {name}, {start}")
            hidden = depth if activation is Tanh else 1
            trained.append(compare_inits(
                [task.X.shape[1]] + [WIDTH] * hidden + [task.classes], task.X, task.y,
                inits=_inits(gains), activation=name, epochs=EPOCHS, optimizer=SGD(rate),
                progress=False, rng=seed,
            ))  # fmt: skip
            bar.say(f"{hidden} of {name}, trained", len(gains))
    return Measured(reports, kept, *trained)


def _inits(gains: dict[str, float]) -> dict[str, Init]:
    return {name: functools.partial(init.xavier_normal, gain=gain) for name, gain in gains.items()}


def _network(
    task: Task, depth: int, how: Init, activation: type[Activation], seed: int
) -> Sequential:
    layers: list[Linear | Activation] = []
    for n_in in [task.X.shape[1]] + [WIDTH] * (depth - 1):
        layers += [Linear(n_in, WIDTH, weight_init=how), activation()]
    return Sequential(*layers, Linear(WIDTH, task.classes, weight_init=how), rng=seed)


def _signal(says: str, report: Report) -> Claim:
    """z at the last hidden layer."""
    last = report.layers[-2]
    low, high = chance.band(chance.forward(report.layers)[-2])
    predicted = last.predicted.z_std or math.nan
    return between(says, last.z_std or 0.0, predicted * low, predicted * high)


def _gradient(says: str, report: Report) -> Claim:
    """The gradient at the first layer over that at the last hidden one."""
    first, last = report.layers[0], report.layers[-2]
    s = chance.backward(report.layers)
    low, high = chance.band(s[0] - s[-2])
    measured = (first.grad_std or 0.0) / (last.grad_std or math.nan)
    theory = (first.predicted.grad_std or 0.0) / (last.predicted.grad_std or math.nan)
    return between(says, measured, theory * low, theory * high)


def _saturated(says: str, report: Report) -> Claim:
    """The share of saturated activations, the mean over the hidden layers.

    Its chance is that of the units, whose n are on one side or the other, and of z's size, on which
    the share depends with the slope 2 t density(t), t the limit over that size. The layers' sizes
    may all deviate alike, their units do not.
    """
    hidden = report.layers[:-1]
    measured = float(np.mean([one.saturated or 0.0 for one in hidden]))
    theory = float(np.mean([one.predicted.saturated or 0.0 for one in hidden]))
    units = sizes = 0.0
    for one, s in zip(hidden, chance.forward(report.layers), strict=False):
        share = one.predicted.saturated or 0.0
        t = SATURATING[one.function] / (one.predicted.z_std or math.inf)
        slope = 2 * t * math.exp(-t * t / 2) / math.sqrt(2 * math.pi)
        units += share * (1 - share) / one.n_out
        sizes += slope**2 * s / 4
    reach = chance.SIGMAS * math.sqrt(units / len(hidden) ** 2 + sizes / len(hidden))
    return between(says, measured, max(0.0, theory - reach), min(1.0, theory + reach))


def claims(task: Task, found: Measured) -> tuple[Claim, ...]:
    """What was measured, judged."""
    tanh, sigmoid = found.reports["tanh"], found.reports["sigmoid"]
    losses = {name: curve[-1] for name, curve in found.tanh.curves.items()}
    shallow = {name: task.learnt(curve[-1]) for name, curve in found.sigmoid.curves.items()}
    told = ", ".join(f"{name} {share:.1%}" for name, share in shallow.items())
    deep = f"{TANH_DEPTH} layers of tanh"
    return (
        _signal(f"{deep}, too small: the signal vanishes, std of z at the end", tanh["too small"]),
        _gradient(
            f"{deep}, too small: gradients vanish, first layer over last", tanh["too small"]
        ),
        _signal(f"{deep}, Xavier: the signal survives, std of z at the end", tanh["Xavier"]),
        _gradient(f"{deep}, Xavier: gradients survive, first layer over last", tanh["Xavier"]),
        _saturated(f"{deep}, too large: share of saturated activations", tanh["too large"]),
        _gradient(
            f"{deep}, too large: gradients explode, first layer over last", tanh["too large"]
        ),
        learns(f"{deep} learn from Xavier", task, losses["Xavier"]),
        learns_nothing(f"{deep} learn nothing from too small weights", task, losses["too small"]),
        between(f"{deep} learn less from too large ones than from Xavier: share explained",
                task.learnt(losses["too large"]), -math.inf, task.learnt(losses["Xavier"])),
        _saturated(
            f"{SIGMOID_DEPTH} layers of sigmoid, too large: share of saturated activations",
            sigmoid["too large"],
        ),
        Claim(
            "One layer of sigmoid learns most from Xavier: share of the entropy explained",
            told,
            "Xavier first",
            shallow["Xavier"] == max(shallow.values()),
        ),
        _gradient(
            f"{SIGMOID_DEPTH} layers of sigmoid lose their gradients even from Xavier: first over "
            "last",
            sigmoid["Xavier"],
        ),
    )  # fmt: skip


def code(task: Task) -> str:
    """The program to try."""
    return f"""import functools

import fastnn
{task.loading}

inits = {{"Xavier": "xavier_normal",
         "too large": functools.partial(fastnn.init.xavier_normal, gain=3)}}
sizes = [X.shape[1]] + [64] * 10 + [y.max() + 1]
print(fastnn.compare_inits(sizes, X, y, inits=inits, activation="tanh", epochs=5))
"""


def experiment(task: Task, seed: int, progress: bool | None = False) -> Experiment:
    """The chapter."""
    found = measure(task, seed, progress)
    return Experiment(
        title="Xavier, for tanh and sigmoid",
        story=(
            "Near zero tanh hardly changes its input. So a layer keeps the signal if the variance "
            "of its weights is 1 / n_in, and the gradient on its way back if it is 1 / n_out. "
            "<b>Xavier</b> initialization (Glorot and Bengio, 2010) takes the middle.",
            "With less, signal and gradients vanish. With more, tanh and sigmoid are pushed to "
            "their flat ends: they <b>saturate</b>, and in a deep network gradients explode.",
            "Sigmoid has a flaw that no variance mends: its derivative is at most 1/4, so a stack "
            "of sigmoids loses the gradient layer by layer, Xavier or not.",
        ),
        formulas=(
            "Var(w) = 2 / (n_in + n_out)",
            "E z² of the next layer = n_in · Var(w) · E f(z)²",
            "E g² of the layer before = n_out · Var(w) · E f'(z)² · E g², with g = dL/dz",
            "saturated: f'(z) below a tenth of f'(0)",
        ),
        setup=(
            f"Networks of {WIDTH} units a layer on {task.name}: {TANH_DEPTH} layers of tanh with a "
            f"third, once and three times Xavier's standard deviation, {SIGMOID_DEPTH} of sigmoid "
            f"with a twentieth, once and twenty times. Histograms before training, on {ROWS} "
            f"images; then {EPOCHS} epochs of gradient descent, for sigmoid with one hidden layer."
        ),
        claims=claims(task, found),
        pictures=_pictures(task, found),
        code=code(task),
    )


def _pictures(task: Task, found: Measured) -> tuple[Picture, ...]:
    return (
        Picture(
            "xavier-tanh-activations",
            "Three panels of histograms of tanh activations in layers 1, 5, 10, 15 and 20. Too "
            "small: narrower from layer to layer, soon a spike at zero. Xavier: wide in all "
            "layers. Too large: piled up at -1 and 1.",
            "With Xavier the activations stay spread out in all layers; too small they shrink to "
            "zero, too large they pile up at the flat ends.",
            lambda: _draw_activations(found, "tanh", (0, 4, 9, 14, 19)),
            (0, 2, 4),
        ),
        Picture(
            "xavier-tanh-gradients",
            "Three panels of histograms of the gradients' size, logarithmic. Too small: the first "
            "layers' lie many powers of ten to the left. Xavier: all on top of each other. Too "
            "large: the first layers' lie to the right.",
            "On their way back gradients vanish, survive or explode; they survive with Xavier.",
            lambda: _draw_gradients(found, "tanh", (0, 4, 9, 14, 19)),
            (1, 3, 5),
        ),
        Picture(
            "xavier-sigmoid-activations",
            "Three panels of histograms of sigmoid activations in layers 1, 3 and 5. Too small: a "
            "spike at one half. Xavier: a bell around one half. Too large: piled up at 0 and 1.",
            "Sigmoid too saturates where the variance is too large.",
            lambda: _draw_activations(found, "sigmoid", (0, 2, 4)),
            (9,),
        ),
        Picture(
            "xavier-sigmoid-gradients",
            "Three panels of histograms of the gradients' size under sigmoid, logarithmic: too "
            "small and Xavier, the first layer's lie to the left of the last one's.",
            "Under sigmoid gradients vanish even with Xavier: the derivative is at most 1/4.",
            lambda: _draw_gradients(found, "sigmoid", (0, 2, 4)),
            (11,),
        ),
        Picture(
            "xavier-tanh-loss",
            "Loss by epoch of 20 layers of tanh: from Xavier it falls towards zero, from too small "
            "and from too large weights it stays at the entropy of the labels or above.",
            "Of three variances only Xavier's lets 20 layers of tanh learn.",
            lambda: _draw_loss(task, found.tanh, f"{TANH_DEPTH} layers of tanh"),
            (6, 7, 8),
        ),
        Picture(
            "xavier-sigmoid-loss",
            "Loss by epoch of one hidden layer of sigmoid: Xavier is lowest at the end; too small "
            "starts late, too large starts high and lags behind.",
            "With one hidden layer of sigmoid, too, Xavier learns most.",
            lambda: _draw_loss(task, found.sigmoid, "One hidden layer of sigmoid"),
            (10,),
        ),
    )


def _histograms(
    found: Measured, function: str, layers: tuple[int, ...], title: str, x: str,
    values: Any, bins: Any,
) -> Any:  # fmt: skip
    """One panel a start, one line a layer, each line the shares of its values by bin."""
    starts = found.kept[function]
    gains = TANH if function == "tanh" else SIGMOID
    figure, panels = drawing.figure(4.6, 6.0, len(starts), sharex=True)
    for axes, (start, kept) in zip(panels, starts.items(), strict=True):
        for place, layer in enumerate(layers):
            counts, edges = np.histogram(values(kept[layer]), bins)
            share = 100 * counts / counts.sum()
            axes.plot(
                (edges[1:] + edges[:-1]) / 2, share, label=f"layer {layer + 1}", markersize=4,
                markevery=(2 * place, 2 * len(layers)), **drawing.style(place),
            )  # fmt: skip
        name = start if gains[start] == 1 else f"{start}: {gains[start]:.2g} × Xavier's std"
        drawing.dress(axes, name, "", "share (%)")
        axes.set_ylim(bottom=0)
    panels[-1].set_xlabel(x)
    figure.suptitle(title, fontsize=11)
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    return figure


def _draw_activations(found: Measured, function: str, layers: tuple[int, ...]) -> Any:
    low = -1.0 if function == "tanh" else 0.0
    return _histograms(
        found, function, layers, f"Activations of {function}, before training",
        f"activation {function}(z)", lambda kept: kept.y, np.linspace(low, 1, 41),
    )  # fmt: skip


def _draw_gradients(found: Measured, function: str, layers: tuple[int, ...]) -> Any:
    def logs(kept: Kept) -> Any:
        sizes = np.abs(kept.grad.astype(np.float64))
        return np.log10(sizes[sizes > 0])

    everything = [logs(k[layer]) for k in found.kept[function].values() for layer in layers]
    high = math.ceil(max(one.max() for one in everything))
    low = max(high - 18, math.floor(min(np.quantile(one, 0.02) for one in everything)))
    return _histograms(
        found, function, layers, f"Gradients under {function}, before training",
        "size of dL/dz, as a power of ten", logs, np.linspace(low, high, 61),
    )  # fmt: skip


def _draw_loss(task: Task, comparison: InitComparison, title: str) -> Any:
    figure, (axes,) = drawing.figure(*drawing.SMALL)
    for place, (name, curve) in enumerate(comparison.curves.items()):
        axes.plot(curve, label=name, **drawing.style(place))
    drawing.level(axes, task.entropy, "entropy of the labels: nothing learnt")
    axes.set_ylim(0, 2 * task.entropy)
    drawing.dress(axes, title, "epoch", "loss (cross-entropy, nats)")
    drawing.count(axes)
    axes.legend(frameon=False)
    return figure
