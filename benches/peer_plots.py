"""The plots of a run of peers.py: ratios as bars, and the roofline. Needs matplotlib.

Both read in black and white: where fastnn is not the fastest the bar is hatched, points to the left
and says so; in the roofline markers differ by shape and filling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from peer_cells import SECTIONS
from peer_report import SHORT, Row, thread_count

COLUMN = 45  # bars in a column, at most
WON = "#9ecae1"
HEADINGS = {
    "layer": "fused layer, its own weights",
    "layer64": "fused layer, float64",
    "linear": "fused layer, the caller's weights",
    "predict": "network, answers",
    "train": "network, training steps",
    "init": "random fills",
    "pointwise": "pointwise functions, Adam",
}
# In the roofline, and there the cells that are told by name.
NAMED = {
    "layer": ("1x64", "1x1024", "1x4096", "8x512", "32x256", "512x512", "2048x2048"),
    "predict": (),
    "train": ("64-32-10, 32",),
}
LEVELS = {"L2": ":", "L3": "--", "memory": "-."}


def draw(runs: list[dict[str, Any]], parts: list[list[Row]], folder: Path) -> list[str]:
    """Write all plots; their names."""
    names = []
    for part, measured in zip(runs, parts, strict=True):
        compared = [row for row in measured if row.peers]
        if not compared:
            continue
        n = part["threads"]
        names.append(f"peers_ratios_{n}.png")
        ratios([compared], str(folder / names[-1]))
        if part["limits"] and any(row.section in NAMED for row in compared):
            names.append(f"peers_roofline_{n}.png")
            roofline(part, compared, str(folder / names[-1]))
    main = {(section, name) for section, *rest in SHORT for name in rest}
    short = [[r for r in part if r.peers and (r.section, r.name) in main] for part in parts]
    if any(short):
        names.append("peers_short.png")
        ratios([part for part in short if part], str(folder / names[-1]))
    return names


def ratios(parts: list[list[Row]], path: str) -> None:
    """Bars on a logarithmic scale that begin at 1, one for each cell; parts side by side."""
    columns = [column for part in parts for column in _columns(part)]
    rows = [row for part in parts for row in part]
    low = 0.8 * min(1.0, *(row.ratio for row in rows))
    high = 1.2 * max(1.5, *(row.ratio for row in rows))
    tallest = max(map(len, columns))
    figure = Figure(figsize=(5.2 * len(columns), 1.4 + 0.21 * tallest), layout="constrained")
    panels = figure.subplots(1, len(columns), squeeze=False)[0]
    for axes, entries in zip(panels, columns, strict=True):
        _bars(axes, entries, low, high, tallest)
    lost = sum(row.ratio < 1 for row in rows)
    threads = " and ".join(dict.fromkeys(thread_count(row.threads) for row in rows))
    figure.suptitle(
        f"Time of the fastest other library over fastnn's, {threads}\n"
        f"fastnn is the fastest in {len(rows) - lost} of {len(rows)} cells"
        + (f", slower in {lost} (hatched, to the left of 1)" if lost else "")
    )
    figure.savefig(path, dpi=110)


def _columns(part: Sequence[Row]) -> list[list[Row | str]]:
    """Rows with a heading before each section, in columns of about the same height."""
    entries: list[Row | str] = []
    for section in SECTIONS:
        mine = [row for row in part if row.section == section]
        if mine:
            entries += [f"{HEADINGS[section]}, {thread_count(mine[0].threads)}", *mine]
    count = math.ceil(len(entries) / COLUMN)
    height = math.ceil((len(entries) + count - 1) / count)  # headings are repeated
    columns: list[list[Row | str]] = []
    heading = ""
    for entry in entries:
        if not columns or len(columns[-1]) >= height:
            columns.append([] if isinstance(entry, str) or not heading else [heading])
        heading = entry if isinstance(entry, str) else heading
        columns[-1].append(entry)
    return columns


def _bars(axes: Axes, entries: Sequence[Row | str], low: float, high: float, tallest: int) -> None:
    axes.set_xscale("log")
    axes.set_xlim(low, high * (high / low) ** 0.55)  # space for the labels
    axes.set_ylim(tallest - 0.4, -0.6)
    labels = []
    for y, entry in enumerate(entries):
        if isinstance(entry, str):
            labels.append("")
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
            axes.text(low, y, entry, va="center", weight="bold", fontsize=8.5, bbox=box)
            continue
        lost = entry.ratio < 1
        labels.append(entry.name)
        axes.barh(
            y, entry.ratio - 1, left=1, height=0.7, color="white" if lost else WON,
            edgecolor="black", linewidth=0.6, hatch="//////" if lost else None,
        )  # fmt: skip
        text = f"{entry.ratio:.3g} {entry.best}" + (" IS FASTER" if lost else "")
        axes.text(
            max(entry.ratio, 1) * 1.04, y, text, va="center", ha="left", fontsize=7.5,
            weight="bold" if lost else "normal",
        )  # fmt: skip
    axes.set_yticks(range(len(labels)), labels, fontsize=7.5)
    axes.tick_params(axis="y", length=0)
    axes.axvline(1, color="black", linewidth=1.2)
    ticks = [t for t in (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20, 50) if low <= t <= high]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks], fontsize=8)
    axes.set_xticks([], minor=True)
    axes.grid(axis="x", color="0.88", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_xlabel("best peer's time / fastnn's time (log scale)", fontsize=8)


def roofline(part: dict[str, Any], measured: Sequence[Row], path: str) -> None:
    """GFLOP/s over FLOP a byte of the traffic that cannot be avoided, float32."""
    mine = [row for row in measured if row.section in NAMED]
    peak, read = part["limits"]["flops"]["float32"] / 1e9, part["limits"]["read"]
    figure = Figure(figsize=(9.5, 6.2), layout="constrained")
    axes = figure.subplots()
    xs = [row.flops / row.traffic for row in mine]
    left, right = min([*xs, 0.3]) / 1.5, max([*xs, 100]) * 2
    _roofs(axes, peak, {level: value / 1e9 for level, value in read.items()}, left, right)
    for x, row in zip(xs, mine, strict=True):
        ours, theirs = (row.flops / t / 1e9 for t in (row.seconds, row.seconds * row.ratio))
        axes.plot([x, x], [theirs, ours], color="0.75", linewidth=0.8, zorder=1)
        axes.plot(x, theirs, "o", mfc="white", mec="0.35", markersize=4.5, zorder=2)
        lost = row.ratio < 1
        axes.plot(
            x, ours, "X" if lost else "^", color="black" if lost else "#d95f02", markersize=6,
            mec="black", mew=0.5, zorder=3,
        )  # fmt: skip
        if row.name in NAMED[row.section]:
            _name(axes, f"{row.section} {row.name}", x, ours, peak)
    axes.plot([], [], "^", color="#d95f02", mec="black", mew=0.5, label="fastnn, the fastest")
    if any(row.ratio < 1 for row in mine):
        axes.plot([], [], "X", color="black", label="fastnn, not the fastest")
    axes.plot([], [], "o", mfc="white", mec="0.35", label="best peer")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(left, right)
    slowest = min(row.flops / row.seconds / max(1, row.ratio) / 1e9 for row in mine)
    axes.set_ylim(slowest / 1.6, peak * 2)
    axes.set_xlabel("FLOP per byte that must be read or written")
    axes.set_ylabel("GFLOP/s")
    axes.set_title(
        f"{part['machine']['cpu']}, {thread_count(part['threads'])}, float32: layers, networks, "
        "training steps",
        fontsize=11,
    )
    axes.grid(color="0.92", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(path, dpi=130)


def _name(axes: Axes, name: str, x: float, y: float, peak: float) -> None:
    """Beside the point, or where points are many above the roof."""
    if x < 3:
        axes.annotate(name, (x, y), (7, -3), textcoords="offset points", fontsize=7.5)
        return
    line = {"arrowstyle": "-", "color": "0.4", "linewidth": 0.7}
    above = y > peak / 2
    at = (x, 1.35 * peak) if above else (1.2 * x, y / 2)
    axes.annotate(name, (x, y), at, fontsize=7.5, ha="center" if above else "left", arrowprops=line)


def _roofs(axes: Axes, peak: float, read: dict[str, float], left: float, right: float) -> None:
    """The limits: min(peak, intensity * bandwidth) for each level of memory."""
    for level, bandwidth in read.items():
        ridge = peak / bandwidth
        axes.plot(
            [left, ridge], [left * bandwidth, peak], linestyle=LEVELS[level], color="black",
            linewidth=1, label=f"read in {level}: {bandwidth:.0f} GB/s",
        )  # fmt: skip
    first = peak / max(read.values())
    axes.plot(
        [first, right], [peak, peak], "k-", linewidth=1.4,
        label=f"multiply-adds: {peak:.0f} GFLOP/s",
    )  # fmt: skip
