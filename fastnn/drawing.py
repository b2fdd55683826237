"""How every figure of the library looks. Needs matplotlib.

Lines differ by dash and marker and areas by hatch as well as by colour, so that a figure reads in
black and white too; the frame is open, the grid pale, and the text large enough for a phone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, BinaryIO

__all__ = [
    "SMALL",
    "STYLES",
    "count",
    "dress",
    "figure",
    "level",
    "require",
    "save",
    "step",
    "style",
]

_MISSING = 'expected matplotlib, which is not installed: pip install "fastnn-cpu[plot]"'

# Okabe & Ito's colours, which the colour-blind tell apart, from dark to light.
STYLES: tuple[dict[str, Any], ...] = (
    {"color": "black", "linestyle": "-", "marker": "o"},
    {"color": "#d55e00", "linestyle": "--", "marker": "s", "markerfacecolor": "white"},
    {"color": "#0072b2", "linestyle": "-.", "marker": "^"},
    {"color": "#009e73", "linestyle": ":", "marker": "D", "markerfacecolor": "white"},
    {"color": "#cc79a7", "linestyle": (0, (9, 2, 1, 2, 1, 2)), "marker": "v"},
    {"color": "#7a5f00", "linestyle": (0, (12, 4)), "marker": "x"},
    {"color": "#56b4e9", "linestyle": (0, (3, 1, 1, 1)), "marker": "P"},
    {"color": "0.45", "linestyle": (0, (1, 3)), "marker": "*"},
)


SMALL = 4.6, 3.5  # inches of a figure with one panel, legible on a phone's width


def require(what: str) -> None:
    """ImportError that names the mend, where matplotlib is missing."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ImportError(f"{what}: {_MISSING}") from error


def figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Any, list[Any]]:
    """A figure of that size in inches, and its panels row by row. It belongs to no window."""
    require("plot")
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout="constrained")
    panels = made.subplots(rows, columns, squeeze=False, **options)
    return made, list(panels.flat)


def dress(axes: Any, title: str, x: str, y: str) -> None:
    """What every panel has: a title, labels, an open frame, a pale grid under the curves."""
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def count(axes: Any) -> None:
    """The horizontal axis counts: epochs, layers."""
    axes.xaxis.get_major_locator().set_params(integer=True)


def level(axes: Any, y: float, text: str) -> None:
    """A thin line at y, and what it means above it."""
    axes.axhline(y, color="0.5", linewidth=0.8, zorder=1)
    axes.annotate(
        text, (0.99, y), (0, 6), xycoords=("axes fraction", "data"), textcoords="offset points",
        fontsize=8, color="0.3", ha="right", va="bottom",
    )  # fmt: skip


def style(place: int) -> dict[str, Any]:
    """How the curve in that place looks, beside the others."""
    return dict(STYLES[place % len(STYLES)])


def step(points: Sequence[object], most: int = 12) -> int:
    """Every how many points a curve gets a marker, so that it has at most about that many."""
    return max(1, -(-len(points) // most))


def save(made: Any, path: str | os.PathLike[str] | BinaryIO, dpi: int = 150) -> None:
    """Write it, in the format that the file's ending names; to an open file as PNG."""
    made.savefig(path, dpi=dpi)
