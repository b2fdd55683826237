"""The figure that `Report.plot` writes. Needs matplotlib."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

from .figures import Figures

if TYPE_CHECKING:
    from .report import Report

__all__ = ["draw"]

_MEASURED = {"color": "black", "marker": "o", "linestyle": "-", "markersize": 4}
_THEORY = {
    "color": "tab:orange",
    "marker": "s",
    "linestyle": "--",
    "markersize": 6,
    "markerfacecolor": "none",
}


def draw(report: Report, path: str | os.PathLike[str]) -> None:
    """Signal, gradients and units by layer, told apart by dash, marker and hatch too."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            'plot: expected matplotlib, which is not installed: pip install "fastnn-cpu[plot]"'
        ) from error
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    figure.suptitle(_title(report), fontsize=11)
    signal, gradients, units = figure.subplots(1, 3)
    layers = report.layers
    _lines(
        signal,
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
    for axes in (signal, gradients, units):
        axes.set_xlabel("layer (number in the model)")
        every = max(1, math.ceil(len(layers) / 12))
        places = range(0, len(layers), every)
        axes.set_xticks(list(places), [str(layers[i].index) for i in places])
        axes.set_xlim(-0.6, len(layers) - 0.4)
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


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
    axes.set_title(title, fontsize=10)
    axes.set_ylabel(label)
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
    axes.set_title("Units", fontsize=10)
    axes.set_ylabel("share (%)")
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
