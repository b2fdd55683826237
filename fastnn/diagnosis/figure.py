"""The figures that `Report.plot` and `InitComparison.plot` write. Need matplotlib."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

from .. import drawing
from .figures import Figures

if TYPE_CHECKING:
    from .compare import InitComparison
    from .report import Report

__all__ = ["draw", "draw_comparison"]

_MEASURED = drawing.STYLES[0] | {"markersize": 4}
_THEORY = drawing.STYLES[1] | {"markersize": 6, "markerfacecolor": "none"}
_LAYER = "layer (number in the model)"


def draw(report: Report, path: str | os.PathLike[str]) -> None:
    """Signal, gradients and units by layer, told apart by dash, marker and hatch too."""
    figure, (signals, gradients, units) = drawing.figure(12, 4.2, columns=3)
    figure.suptitle(_title(report), fontsize=11)
    layers = report.layers
    _lines(
        signals,
        [one.z_std for one in layers],
        [one.predicted.z_std for one in layers],
        "Pre-activations z = W x + b",
        "standard deviation of z (units of X)",
    )
    unit = "relative to the last layer" if report.loss is None else "units of the loss"
    _lines(
        gradients,
        [one.grad_std for one in layers],
        [one.predicted.grad_std for one in layers],
        "Gradients of the loss by z",
        f"root mean square of dL/dz\n({unit})",
    )
    _units(units, report)
    for axes in (signals, gradients, units):
        _number_layers(axes, [one.index for one in layers])
    drawing.save(figure, path)


def _number_layers(axes: Any, numbers: list[int]) -> None:
    places = range(0, len(numbers), drawing.step(numbers))
    axes.set_xticks(list(places), [str(numbers[i]) for i in places])
    axes.set_xlim(-0.6, len(numbers) - 0.4)


def _title(report: Report) -> str:
    rows = report.batch.rows
    what = f"measured on {rows:,} row{'s' if rows > 1 else ''}" if rows else "by theory alone"
    n = len(report.problems)
    state = f"{n} problem{'s' if n > 1 else ''}" if n else "healthy"
    return f"Report on {len(report.layers)} layers, {what}: {state}"


def _lines(
    axes: Any, measured: list[float | None], predicted: list[float | None], title: str, label: str
) -> None:
    """Both by layer, on a logarithmic axis; what is 0, infinite or unknown is left out."""
    drawing.dress(axes, title, _LAYER, label)
    drawn: list[float] = []
    for values, name, style in ((predicted, "theory", _THEORY), (measured, "measured", _MEASURED)):
        kept = [
            (i, value)
            for i, value in enumerate(values)
            if value is not None and 0 < value < math.inf
        ]
        if kept:
            axes.plot(*zip(*kept, strict=True), label=name, **style)
            drawn += [value for _, value in kept]
    if not drawn:
        axes.text(0.5, 0.5, "all zero, or unknown", ha="center", transform=axes.transAxes)
        axes.set_yticks([])
        return
    axes.set_yscale("log")
    # At least two decades, so that chance does not look like a trend.
    middle = math.sqrt(min(drawn)) * math.sqrt(max(drawn))
    axes.set_ylim(min(min(drawn) / 1.5, middle / 10), max(max(drawn) * 1.5, middle * 10))
    axes.legend(frameon=False)


def _units(axes: Any, report: Report) -> None:
    """Shares of units that do not work, as bars side by side."""
    drawing.dress(axes, "Units", _LAYER, "share (%)")
    kinds: list[tuple[str, list[float | None], str, str]] = [
        ("copies", [100 * (1 - one.distinct / one.n_out) for one in report.layers], "white", "///"),
        ("dead", [_percent(one.dead, one.n_out) for one in report.layers], "black", ""),
        (
            "saturated",
            [_saturated(one) for one in report.layers],
            "0.75",
            "",
        ),
    ]
    shown = [kind for kind in kinds if any(value is not None for value in kind[1])]
    width = 0.8 / len(shown)
    for at, (name, values, color, hatch) in enumerate(shown):
        places = [i - 0.4 + width * (at + 0.5) for i in range(len(values))]
        heights = [value or 0.0 for value in values]
        axes.bar(
            places, heights, width, label=name, color=color, hatch=hatch, edgecolor="black", lw=0.5
        )
    axes.set_ylim(0, 120)  # with room for the legend
    axes.set_yticks(range(0, 101, 20))
    axes.legend(frameon=False, ncols=len(shown), loc="upper center")


def _saturated(one: Figures) -> float | None:
    share = one.predicted.saturated if one.saturated is None else one.saturated
    return None if share is None else 100 * share


def _percent(part: int | None, whole: int) -> float | None:
    return None if part is None else 100 * part / whole


def draw_comparison(comparison: InitComparison, path: str | os.PathLike[str]) -> None:
    """The losses by epoch, and what reached each layer before training."""
    figure, (losses, signals) = drawing.figure(11, 4.6, columns=2)
    figure.suptitle(comparison.title, fontsize=11)
    many = len(comparison.reports)
    for place, (name, report) in enumerate(comparison.reports.items()):
        style = drawing.style(place) | {"markersize": 5}
        curve = [_drawable(value) for value in comparison.curves[name]]
        diverged = not math.isfinite(comparison.curves[name][-1])
        # Markers take turns, so that curves which coincide can be told apart.
        every = (place, many) if len(curve) > 2 * many and not diverged else None
        label = f"{name} (diverged)" if diverged else name
        losses.plot(curve, markevery=every, label=label, **style)
        signals.plot([_drawable(one.z_std) for one in report.layers], **style)
    drawing.dress(losses, "Training", "epoch (0: before training)", "loss (mean over the epoch)")
    drawing.dress(
        signals,
        "Signal before training",
        _LAYER,
        "standard deviation of z = W x + b\n(units of X; what is zero or infinite is left out)",
    )
    signals.set_yscale("log")
    _number_layers(signals, [one.index for one in report.layers])
    drawing.count(losses)
    starts = [curve[0] for curve in comparison.curves.values() if curve[0] > 0]
    if starts and max(starts) > 10 * min(starts):
        losses.set_yscale("log")
    figure.legend(*losses.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    drawing.save(figure, path)


def _drawable(value: float | None) -> float:
    """NaN, which leaves a gap, for what a logarithmic axis has no place for."""
    return value if value is not None and 0 < value < math.inf else math.nan
