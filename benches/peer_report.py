"""The tables of a run of peers.py, in Markdown, and the files that hold them."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from peer_cells import MODULES, SECTIONS
from peer_timing import DISTURBED, fastest

from fastnn.cli.bench import _digits, _time

# The rows of the short table.
SHORT = (
    ("layer", "1x64", "8x512", "1x1024", "32x64", "32x256", "32x784->512", "128x784->256",
     "512x512", "1024x1024", "2048x2048", "8192x128", "1x4096"),
    ("linear", "1x256", "32x256", "128x784->256", "1024x1024"),
    ("predict", "17-64-64-6, 1", "17-64-64-6, 16", "784-512-256-10, 1", "784-512-256-10, 256"),
    ("train", "64-32-10, 32", "784-32-10, 32", "784-512-256-10, 32", "784-512-256-10, 128",
     "784-512-256-10, 512"),
    ("init", "uniform 1,000,000", "normal 1,000,000"),
    ("pointwise", "leaky_relu 65,536", "Adam 524,288"),
)  # fmt: skip
EPOCH = 60_000  # rows, as many as MNIST and Fashion-MNIST have
NOTES = """\
fastnn's time is that of a call (for training of one step), the median over the rounds. The number
under each peer is how many times as long it takes, in the best of its forms, as fastnn just before
and after it: the median over the rounds, and of the first two alone if it was twice behind another
then. The spread is the interquartile range of the best peer's number in parts of the median, with
an (!) if other programs took more than 5 % of the CPUs all the same. The limit is the longer of
arithmetic at the multiply-add peak and memory traffic at the bandwidth of as much memory, both
measured in the same run. Cells are batch x width, or batch x n_in->n_out, or the
widths of a network and the rows of a batch. scikit-learn has no LeakyReLU and works with ReLU."""


class Row(NamedTuple):
    """A cell as measured: seconds of fastnn, and how many times as long each peer takes."""

    section: str
    name: str
    threads: int
    seconds: float
    peers: dict[str, float]
    spread: float
    flops: float
    traffic: float
    share: float
    limited_by: str
    disturbed: float
    batch: int

    @property
    def best(self) -> str:
        """The fastest peer's name, empty if there is none."""
        return min(self.peers, key=self.peers.__getitem__, default="")

    @property
    def ratio(self) -> float:
        """The fastest peer's time over fastnn's: below 1 fastnn is not the fastest."""
        return min(self.peers.values(), default=math.nan)

    @property
    def rate(self) -> str:
        if self.batch:
            return f"{_digits(EPOCH / self.batch * self.seconds)} s"
        if self.flops:
            return f"{_digits(self.flops / self.seconds / 1e9)} GFLOP/s"
        return f"{_digits(self.traffic / self.seconds / 1e9)} GB/s"


def rows(part: dict[str, Any]) -> list[Row]:
    """The cells of one number of threads that fastnn took part in."""
    found = []
    for cell in part["cells"]:
        best = fastest(cell["forms"])
        if "fastnn" not in best:
            continue
        ours = statistics.median(best.pop("fastnn").seconds)
        spread = _spread(next(iter(best.values())).ratios) if best else math.nan
        found.append(
            Row(
                cell["section"], cell["name"], part["threads"], ours,
                {peer: form.ratio for peer, form in best.items()}, spread, cell["flops"],
                cell["traffic"], cell["limit"] / ours, cell["limited_by"], cell["disturbed"],
                cell["batch"],
            )
        )  # fmt: skip
    return found


def _spread(values: Sequence[float]) -> float:
    if len(values) < 2:
        return math.nan
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / middle


def write(run: dict[str, Any], folder: Path) -> list[str]:
    """Write all files; their names."""
    parts = [rows(part) for part in run["runs"]]
    texts = {"peers.md": table(run, parts), "peers_short.md": short_table(run, parts)}
    texts["peers.json"] = json.dumps(run)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    print("\n".join(summary(part) for part in parts))
    try:
        import peer_plots
    except ImportError:
        print("No plots: matplotlib is not installed (the extra `plot`).")
        return list(texts)
    return [*texts, *peer_plots.draw(run["runs"], parts, folder)]


def header(run: dict[str, Any]) -> str:
    """The machine, the versions and the command."""
    machine: dict[str, Any] = next((p["machine"] for p in run["runs"] if p["machine"]), {})
    versions = ", ".join(f"{name} {v}" for name, v in machine.get("versions", {}).items())
    lines = [
        f"- machine: {machine.get('cpu')}, {machine.get('cpus')} CPUs, {machine.get('system')}",
        f"- fastnn {machine.get('fastnn')}, {machine.get('isa')} kernels; "
        f"Python {machine.get('python')}; {versions}",
        *(_limits(part) for part in run["runs"] if part["limits"]),
        f"- {machine.get('date')}, `{run['command']}`",
    ]
    if machine.get("missing"):
        lines.append(f"- not installed here: {', '.join(machine['missing'])}")
    for part in run["runs"]:
        if part["status"]:
            lines.append(
                f"- the run on {thread_count(part['threads'])} BROKE OFF: rows are missing"
            )
    return "\n".join(lines)


def _limits(part: dict[str, Any]) -> str:
    flops, read = part["limits"]["flops"], part["limits"]["read"]
    rates = [f"{value / 1e9:.0f} GFLOP/s {dtype}" for dtype, value in flops.items()]
    rates += [f"{value / 1e9:.0f} GB/s read in {level}" for level, value in read.items()]
    return (
        f"- at most, on {thread_count(part['threads'])}: {', '.join(rates)}; "
        f"BLAS of NumPy: {part['machine']['blas']}"
    )


def thread_count(n: int) -> str:
    return f"{n} thread{'s' * (n > 1)}"


def table(run: dict[str, Any], parts: list[list[Row]]) -> str:
    """peers.md."""
    text = ["# fastnn and its peers", header(run), NOTES]
    for part, measured in zip(run["runs"], parts, strict=True):
        threads = part["threads"]
        for section, title in SECTIONS.items():
            mine = [row for row in measured if row.section == section]
            if mine:
                text.append(f"## {title}: {thread_count(threads)}")
                text += [_section(mine), _sentence(mine)]
        if complaints := [
            f"- {cell['section']} {cell['name']}: {peer}: {'; '.join(reasons)}"
            for cell in part["cells"]
            for peer, reasons in cell["failed"].items()
        ]:
            text += [f"## Not measured on {thread_count(threads)}", "\n".join(complaints)]
    return "\n\n".join(text) + "\n"


def _section(measured: list[Row]) -> str:
    peers = [peer for peer in MODULES if any(peer in row.peers for row in measured)]
    rate = f"{EPOCH:,} rows" if measured[0].batch else "rate"
    lines = [
        "| cell | fastnn | " + " | ".join([*peers, "best peer", rate]) + " | limit | spread |",
        "|---|---|" + "---|" * (len(peers) + 4),
    ]
    for row in measured:
        ratios = [
            "" if peer not in row.peers
            else f"**{_digits(row.peers[peer])}**" if peer == row.best
            else _digits(row.peers[peer])
            for peer in peers
        ]  # fmt: skip
        noise = f"{row.spread:.0%}" + (" (!)" if row.disturbed > DISTURBED else "")
        lines.append(
            f"| {row.name} | {_time(row.seconds)} | "
            + " | ".join([*ratios, _best(row), row.rate])
            + f" | {row.share:.0%} {row.limited_by} | {noise} |"
        )
    return "\n".join(lines)


def _best(row: Row) -> str:
    if not row.peers:
        return ""
    return f"{row.best} {_ratio(row)}" + (" **SLOWER**" if row.ratio < 1 else "")


def _ratio(row: Row) -> str:
    """Three digits, and never 1.00 for what is below 1."""
    return f"{row.ratio:.4f}" if 0.995 <= row.ratio < 1 else _digits(row.ratio)


def _sentence(measured: list[Row]) -> str:
    """How often fastnn is the fastest, by how much, and where it is not."""
    compared = [row for row in measured if row.peers]
    if not compared:
        return "No peer took part."
    mean = math.exp(statistics.fmean(math.log(row.ratio) for row in compared))
    least = min(compared, key=lambda row: row.ratio)
    lost = [row for row in compared if row.ratio < 1]
    text = (
        f"The best peer takes {_digits(mean)} times as long as fastnn in the geometric mean of "
        f"{len(compared)} cells, {_ratio(least)} times in the least ({least.name}). "
    )
    if not lost:
        return text + "fastnn is the fastest in all of them."
    names = "; ".join(f"{row.name} ({row.best} {_ratio(row)})" for row in lost)
    return f"{text}fastnn is not the fastest in {len(lost)}: {names}."


def summary(measured: list[Row]) -> str:
    """A line for each section."""
    lines = []
    for section in SECTIONS:
        mine = [row for row in measured if row.section == section]
        if mine:
            lines.append(f"{mine[0].threads} | {section}: {_sentence(mine)}")
    return "\n".join(lines)


def short_table(run: dict[str, Any], parts: list[list[Row]]) -> str:
    """peers_short.md: a row for each of the main cells, all numbers of threads side by side."""
    found = [{(row.section, row.name): row for row in part} for part in parts]
    titles = []
    for part in run["runs"]:
        titles += [thread_count(part["threads"]), "best peer"]
    lines = [
        "| | " + " | ".join([*titles, "share of the limit"]) + " |",
        "|---|" + "---|" * (len(titles) + 1),
    ]
    for section, *names in SHORT:
        for name in names:
            cells = [rows.get((section, name)) for rows in found]
            if all(cell is None for cell in cells):
                continue
            text = [
                part for row in cells
                for part in (("", "") if row is None else (_time(row.seconds), _best(row)))
            ]  # fmt: skip
            last = next(row for row in reversed(cells) if row is not None)
            share = f"{last.share:.0%} {last.limited_by}"
            lines.append(f"| {section} {name} | " + " | ".join([*text, share]) + " |")
    return "\n".join([*lines, "", header(run)]) + "\n"
