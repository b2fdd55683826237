"""The table that `model.summary()` gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .layers import Linear

if TYPE_CHECKING:
    from .sequential import Sequential

__all__ = ["summarize"]


def summarize(model: Sequential) -> str:
    """A table of layers, output shapes, numbers of parameters and initializations."""
    rows = [("", "layer", "output", "parameters", "initialization")]
    width = "n" if model.n_in is None else str(model.n_in)
    for i, layer in enumerate(model):
        name, size, how = repr(layer), "", ""
        if isinstance(layer, Linear):
            name = repr(layer).partition(":")[0]
            width, size, how = str(layer.out_features), f"{layer.size:,}", layer.initialization
        rows.append((str(i), name, f"(m, {width})", size, how))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [
        f"{row[0]:>{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:<{widths[2]}}  "
        f"{row[3]:>{widths[3]}}  {row[4]}".rstrip()
        for row in rows
    ]
    kilobytes = model.size * model.dtype.itemsize / 1000
    lines.append(f"{model.size:,} parameters, {model.dtype}, {kilobytes:,.1f} kB")
    return "\n".join(lines)
