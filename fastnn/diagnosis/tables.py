"""A report as text and as HTML: the same tables of the same cells."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from .figures import Figures
from .words import Finding

__all__ = ["aligned", "as_html", "as_text", "html_table"]

Cell = Callable[[Figures], object]


class Column(NamedTuple):
    head: str
    cell: Cell
    left: bool = False  # words go to the left, numbers to the right


def _number(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _share(part: int | None, whole: int) -> str:
    return "" if part is None else f"{part / whole:.0%}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _asked(one: Figures) -> str:
    return f"{one.asked_std:.3g} = {one.asked}"


_INDEX = Column("", lambda one: one.index)
_WEIGHTS = (
    _INDEX,
    Column("layer", lambda one: ", ".join(filter(None, (one.layer, one.activation))), True),
    Column("initialization", lambda one: one.initialization, True),
    Column("std", lambda one: one.weight_std),
    Column("asked for", _asked, True),
)
_SIGNAL = (
    _INDEX,
    Column("z mean", lambda one: one.z_mean),
    Column("z std", lambda one: one.z_std),
    Column("theory", lambda one: one.predicted.z_std),
    Column("ratio", lambda one: one.ratio),
    Column("y mean", lambda one: one.y_mean),
    Column("y std", lambda one: one.y_std),
    Column("theory", lambda one: one.predicted.y_std),
    Column("dL/dz", lambda one: one.grad_std),
    Column("theory", lambda one: one.predicted.grad_std),
    Column("ratio", lambda one: one.grad_ratio),
    Column("dL/dW", lambda one: one.grad_weight_std),
)
_PREDICTED = (
    _INDEX,
    Column("z mean", lambda one: one.predicted.z_mean),
    Column("z std", lambda one: one.predicted.z_std),
    Column("y mean", lambda one: one.predicted.y_mean),
    Column("y std", lambda one: one.predicted.y_std),
    Column("saturated", lambda one: _percent(one.predicted.saturated)),
    Column("dL/dz", lambda one: one.predicted.grad_std),
)
_UNITS = (
    _INDEX,
    Column("units", lambda one: one.n_out),
    Column("distinct", lambda one: one.distinct),
    Column("dead", lambda one: _share(one.dead, one.n_out)),
    Column("dead without bias", lambda one: _share(one.dead_without_bias, one.n_out)),
    Column("saturated", lambda one: _percent(one.saturated)),
    Column("always saturated", lambda one: _share(one.saturated_units, one.n_out)),
    Column("bias mean", lambda one: one.bias_mean),
    Column("bias std", lambda one: one.bias_std),
    Column("bias share", lambda one: _percent(one.bias_share)),
)

_SIGNAL_TITLE = (
    "signal: z = W x + b, y = f(z), root mean squares of gradients; "
    "ratio: z to the layer before, dL/dz to the one after"
)
_MEASURED = (("weights", _WEIGHTS), (_SIGNAL_TITLE, _SIGNAL), ("units", _UNITS))
_THEORY = (
    ("weights", _WEIGHTS),
    ("signal by theory: z = W x + b, y = f(z); dL/dz relative to the last", _PREDICTED),
    ("units", _UNITS),
)


def _filled(
    columns: Sequence[Column], layers: Sequence[Figures]
) -> tuple[list[Column], list[list[str]]]:
    """The columns that hold something, and their rows. "theory" goes with what it predicts."""
    cells = [[_number(column.cell(one)) for one in layers] for column in columns]
    kept = [
        i
        for i, column in enumerate(columns)
        if any(cells[i]) and not (column.head == "theory" and not any(cells[i - 1]))
    ]
    return [columns[i] for i in kept], [[cells[i][j] for i in kept] for j in range(len(layers))]


def _tables(
    layers: Sequence[Figures], measured: bool
) -> Iterable[tuple[str, list[Column], list[list[str]]]]:
    for title, columns in _MEASURED if measured else _THEORY:
        yield title, *_filled(columns, layers)


def as_text(
    title: str, layers: Sequence[Figures], findings: Sequence[Finding], verdict: str, measured: bool
) -> str:
    lines = [title]
    for name, columns, rows in _tables(layers, measured):
        lines += ["", name, *aligned(_heads(columns), rows)]
    lines += ["", verdict]
    lines += [f"  {one.level}: {one}" for one in findings]
    return "\n".join(lines)


def as_html(
    title: str, layers: Sequence[Figures], findings: Sequence[Finding], verdict: str, measured: bool
) -> str:
    parts = [f"<div><p><b>{html.escape(title)}</b></p>"]
    for name, columns, rows in _tables(layers, measured):
        parts += [f"<p>{html.escape(name)}</p>", html_table(_heads(columns), rows)]
    parts.append(f"<p><b>{html.escape(verdict)}</b></p><ul>")
    parts += [f"<li><b>{one.level}</b>: {html.escape(str(one))}</li>" for one in findings]
    parts.append("</ul></div>")
    return "\n".join(parts)


def _heads(columns: Sequence[Column]) -> list[tuple[str, bool]]:
    return [(column.head, column.left) for column in columns]


def aligned(heads: Sequence[tuple[str, bool]], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a text table; a head is a column's name, and whether it goes to the left."""
    lines = []
    widths = [max(len(name), *(len(row[i]) for row in rows)) for i, (name, _) in enumerate(heads)]
    for row in [[name for name, _ in heads], *rows]:
        padded = [
            text.ljust(width) if left else text.rjust(width)
            for text, width, (_, left) in zip(row, widths, heads, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return lines


def html_table(heads: Sequence[tuple[str, bool]], rows: Sequence[Sequence[str]]) -> str:
    """The same in HTML, its text escaped."""
    sides = ["left" if left else "right" for _, left in heads]
    parts = ["<table><thead>", _row("th", [name for name, _ in heads], sides), "</thead><tbody>"]
    parts += [_row("td", row, sides) for row in rows]
    return "\n".join([*parts, "</tbody></table>"])


def _row(tag: str, cells: Sequence[str], sides: Sequence[str]) -> str:
    inner = "".join(
        f'<{tag} style="text-align: {side}; padding: 0 0.5em">{html.escape(cell)}</{tag}>'
        for cell, side in zip(cells, sides, strict=True)
    )
    return f"<tr>{inner}</tr>"
