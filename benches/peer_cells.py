"""What is measured: the cells of each section, and who takes part in it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import peer_dense
import peer_memory
import peer_train

__all__ = ["SECTIONS", "Cell", "cells"]

# What each peer needs to be installed.
MODULES = {
    "fastnn": (),
    "NumPy plain": (),
    "NumPy out=": (),
    "PyTorch": ("torch",),
    "torch.compile": ("torch",),
    "oneDNN": ("torch",),
    "ONNX Runtime": ("onnxruntime", "onnx"),
    "JAX": ("jax",),
    "scikit-learn": ("sklearn",),
}

SECTIONS = {
    "layer": "One fused layer, LeakyReLU(x W' + b), float32, weights owned by the layer",
    "layer64": "The same in float64",
    "linear": "The same layer in float32 on a W (n_out, n_in) that belongs to the caller",
    "predict": "Whole networks, answers, float32",
    "train": "Training: rows gathered, forward, cross-entropy, backward, Adam; a step",
    "init": "Random fills, float32",
    "pointwise": "Pointwise functions and Adam's update, float32",
}


class Cell(NamedTuple):
    """One row. `make` gives the problem, which the makers turn into forms.

    `flops` (a multiply-add is two) and `traffic` (bytes that must move at least) count for one of
    `steps` in a call; `memory` names the limit that traffic meets in a footprint of so many bytes.
    """

    section: str
    name: str
    make: Callable[[], Any]
    makers: Mapping[str, Callable[[Any], Iterator[Any]]]
    flops: float
    traffic: float
    footprint: float
    memory: str
    dtype: str = "float32"
    steps: int = 1
    batch: int = 0  # rows of a training step
    quick: bool = False
    compiled: bool = False  # whether torch.compile takes part without --full


def _products(widths: tuple[int, ...]) -> int:
    return sum(n_in * n_out for n_in, n_out in itertools.pairwise(widths))


def _layer(section: str, m: int, k: int, n: int, **flags: bool) -> Cell:
    dtype = "float64" if section == "layer64" else "float32"
    makers = {
        "layer": peer_dense.OWNED,
        "layer64": peer_dense.FLOAT64,
        "linear": peer_dense.CALLERS,
    }
    nbytes = (m * k + k * n + n + m * n) * (8 if dtype == "float64" else 4)
    name = f"{m}x{k}" if k == n else f"{m}x{k}->{n}"
    make = lambda: peer_dense.Network((k, n), m, dtype, last=True)  # noqa: E731
    sizes = (2 * m * k * n, nbytes, nbytes, "read")
    return Cell(section, name, make, makers[section], *sizes, dtype, **flags)


def _predict(widths: tuple[int, ...], m: int, **flags: bool) -> Cell:
    nbytes = 4 * (_products(widths) + sum(widths[1:]) + m * (widths[0] + widths[-1]))
    name = f"{'-'.join(map(str, widths))}, {m}"
    make = lambda: peer_dense.Network(widths, m, "float32", last=False)  # noqa: E731
    sizes = (2 * m * _products(widths), nbytes, nbytes, "read")
    return Cell("predict", name, make, peer_dense.PREDICT, *sizes, **flags)


def _train(widths: tuple[int, ...], m: int, rows: int, *, uint8: bool = False, **f: bool) -> Cell:
    weights = _products(widths)
    flops = 2 * m * (3 * weights - widths[0] * widths[1])  # the inputs want no gradient
    name = f"{'-'.join(map(str, widths))}, {m}{', uint8' if uint8 else ''}"
    make = lambda: peer_train.Task(widths, m, rows, uint8=uint8)  # noqa: E731
    # The update moves most: four reads and three writes of each parameter.
    sizes = (flops, 28 * weights, 16 * weights, "update")
    makers = peer_train.UINT8 if uint8 else peer_train.MAKERS
    return Cell("train", name, make, makers, *sizes, steps=rows // m, batch=m, **f)


def _fill(name: str, n: int, *, quick: bool = False) -> Cell:
    make = lambda: peer_memory.Fill(name, n)  # noqa: E731
    sizes = (0, 4 * n, 4 * n, "write")
    return Cell("init", f"{name} {n:,}", make, peer_memory.FILL, *sizes, quick=quick)


def _pointwise(name: str, n: int, *, quick: bool = False) -> Cell:
    make = lambda: peer_memory.Pointwise(name, n)  # noqa: E731
    sizes = (0, 8 * n, 8 * n, "copy")
    return Cell("pointwise", f"{name} {n:,}", make, peer_memory.POINTWISE, *sizes, quick=quick)


def _adam(n_in: int, n_out: int, *, quick: bool = False) -> Cell:
    n = n_in * n_out
    make = lambda: peer_memory.Adam(n_in, n_out)  # noqa: E731
    sizes = (0, 28 * n, 16 * n, "update")
    return Cell("pointwise", f"Adam {n:,}", make, peer_memory.ADAM, *sizes, quick=quick)


# Batches by square width, then shapes (m, k, n).
_LAYERS = {
    16: (1, 32, 1024),
    64: (1, 2, 8, 32, 128, 1024, 8192),
    100: (1, 16, 128),
    256: (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024),
    300: (1, 32, 256),
    512: (1, 8, 512),
    784: (1, 8, 64, 256),
    1024: (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024),
    2048: (1, 8, 64, 256, 2048),
    4096: (1, 4, 16, 64, 256),
}
_MORE_LAYERS = ((32, 784, 512), (128, 784, 256), (8192, 128, 128))
_FLOAT64 = (
    (1, 64, 64), (1, 256, 256), (1, 1024, 1024), (8, 256, 256), (8, 512, 512), (32, 64, 64),
    (32, 256, 256), (32, 784, 512), (64, 1024, 1024), (128, 100, 100), (128, 784, 256),
    (256, 256, 256), (512, 512, 512), (1024, 1024, 1024), (8192, 128, 128),
)  # fmt: skip
_CALLERS = (
    (1, 16, 16), (1, 64, 64), (1, 256, 256), (1, 1024, 1024), (1, 4096, 4096), (2, 256, 256),
    (4, 1024, 1024), (8, 256, 256), (8, 512, 512), (16, 1024, 1024), (32, 64, 64), (32, 100, 100),
    (32, 256, 256), (32, 784, 512), (128, 784, 256), (128, 1024, 1024), (256, 300, 300),
    (512, 512, 512), (1024, 1024, 1024), (8192, 128, 128),
)  # fmt: skip
_SMALL, _DIGITS, _LARGE = (17, 64, 64, 6), (64, 32, 10), (784, 512, 256, 10)


def cells() -> list[Cell]:
    """All cells, section by section."""
    shapes = [(m, w, w) for w, batches in _LAYERS.items() for m in batches] + [*_MORE_LAYERS]
    shapes.sort(key=lambda shape: (math.prod(shape[1:]), shape[0]))
    quick = {(1, 64, 64), (32, 256, 256)}
    compiled = {(1, 64, 64), (32, 64, 64), (1, 256, 256), (32, 256, 256)}
    sizes = (4096, 65536, 1048576, 16777216)
    return [
        *(_layer("layer", *shape, quick=shape in quick, compiled=shape in compiled)
          for shape in shapes),
        *(_layer("layer64", *shape, quick=shape in quick) for shape in _FLOAT64),
        *(_layer("linear", *shape, quick=shape in quick) for shape in _CALLERS),
        _predict(_DIGITS, 1, quick=True, compiled=True),
        _predict(_SMALL, 1),
        _predict(_SMALL, 16, compiled=True),
        _predict(_SMALL, 256),
        _predict(_LARGE, 1, compiled=True),
        _predict(_LARGE, 16),
        _predict(_LARGE, 256, compiled=True),
        _predict(_LARGE, 2048),
        _train(_DIGITS, 32, 6400, quick=True),
        _train((784, 32, 10), 32, 12800),
        _train(_LARGE, 32, 12800),
        _train(_LARGE, 128, 12800, compiled=True),
        _train(_LARGE, 128, 12800, uint8=True),
        _train(_LARGE, 512, 12800),
        *(_fill(name, n, quick=n == 1000000) for name in ("uniform", "normal")
          for n in (1000000, 16777216)),
        *(_pointwise("leaky_relu", n, quick=n == 65536) for n in sizes),
        *(_pointwise("leaky_relu_derivative", n, quick=n == 65536) for n in sizes),
        *(_adam(*shape, quick=shape == (128, 128))
          for shape in ((32, 32), (128, 128), (1024, 512), (4096, 2048))),
    ]  # fmt: skip
