"""The child of peers.py: measures cells on the CPUs and threads that its environment gives it.

`python peer_run.py OPTIONS FILE`: OPTIONS is a JSON object, FILE takes a JSON line for the machine,
for each cell as it is done, and for the limits, so that a crash loses nothing that was measured.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import itertools
import json
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from peer_cells import MODULES, Cell, cells
from peer_timing import DISTURBED, Budget, Form, fastest, measure, settle

from fastnn._core.kernels import isa
from fastnn._core.threads import get_num_threads, openmp_version
from fastnn._version import version
from fastnn.cli.bench import Limits, _blas_limit, _cpu, _time

RECORDED = ("section", "name", "dtype", "flops", "traffic", "batch")
BUDGETS = {"quick": Budget(2, 2e-3), "standard": Budget(5, 0.01), "full": Budget(9, 0.02)}


def installed(peer: str) -> bool:
    """Whether the peer's modules are there."""
    return all(importlib.util.find_spec(module) for module in MODULES[peer])


class Ceiling:
    """The limits of this machine on these threads, measured in this run."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._limits: dict[str, Limits] = {}
        self._bandwidths: dict[tuple[str, str, float], float] = {}

    def _of(self, dtype: str) -> Limits:
        if dtype not in self._limits:
            self._limits[dtype] = Limits(dtype, self.threads)
        return self._limits[dtype]

    def bandwidth(self, dtype: str, kind: str, nbytes: float) -> float:
        """Bytes a second; looked at again each time, and the best is kept."""
        key = dtype, kind, nbytes
        settle()
        seen = self._of(dtype).bandwidth(kind, nbytes)
        self._bandwidths[key] = max(seen, self._bandwidths.get(key, 0.0))
        return self._bandwidths[key]

    def seconds(self, cell: Cell) -> tuple[float, str]:
        """The least time that one of the cell's steps can take, and what says so."""
        traffic = cell.traffic / self.bandwidth(cell.dtype, cell.memory, cell.footprint)
        limits = self._of(cell.dtype)
        limits.look()
        arithmetic = cell.flops / limits.flops
        return max(arithmetic, traffic), "FMA" if arithmetic > traffic else cell.memory

    def summary(self) -> dict[str, Any]:
        """FLOP/s and bytes a second, for the roofline."""
        levels = {
            name: self.bandwidth("float32", "read", nbytes)
            for name, nbytes in footprints(self.threads).items()
        }
        flops = {dtype: limits.flops for dtype, limits in self._limits.items()}
        return {"flops": flops, "read": levels}


def footprints(threads: int) -> dict[str, int]:
    """Bytes of all threads together that live in L2, in L3 and in memory."""
    l2, l3 = 1 << 20, 32 << 20
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        with contextlib.suppress(OSError, ValueError):
            level = (index / "level").read_text().strip()
            kib = int((index / "size").read_text().strip().removesuffix("K"))
            l2, l3 = (kib << 10 if level == "2" else l2), (kib << 10 if level == "3" else l3)
    return {"L2": threads * l2 // 2, "L3": l3 // 2, "memory": min(8 * l3, 1 << 28)}


def run_cell(cell: Cell, options: dict[str, Any], ceiling: Ceiling, budget: Budget) -> Any:
    """Check and time all forms; the record of the cell."""
    problem, compiles = cell.make(), not options["quick"]
    forms: list[Form] = []
    failed: dict[str, list[str]] = {}
    for peer in cell.makers:
        if peer not in options["peers"]:
            continue
        if peer == "torch.compile" and not (options["full"] or (cell.compiled and compiles)):
            continue
        try:
            for made in cell.makers[peer](problem):
                if complaint := problem.check(made):
                    failed.setdefault(peer, []).append(complaint)
                else:
                    forms.append(problem.timed(made) if hasattr(problem, "timed") else made)
        except Exception as error:  # a peer's own; the run goes on and tells it
            first = next(iter(str(error).splitlines()), "")
            failed.setdefault(peer, []).append(f"{type(error).__name__}: {first}"[:200])
    measured, disturbed = [], 0.0
    ours = next((form for form in forms if form.peer == "fastnn"), None)
    if ours is not None:
        theirs = [form for form in forms if form.peer != "fastnn"]
        measured, disturbed = measure(ours, theirs, budget)
    limit, limited_by = ceiling.seconds(cell)
    return {
        **{name: getattr(cell, name) for name in RECORDED},
        "threads": ceiling.threads,
        "limit": limit,
        "limited_by": limited_by,
        "failed": failed,
        "disturbed": disturbed,
        "forms": [
            form._replace(
                seconds=[t / cell.steps for t in form.seconds],
                beside=[t / cell.steps for t in form.beside],
            )._asdict()
            for form in measured
        ],
    }


def line(record: dict[str, Any]) -> str:
    """What is said of a cell when it is done."""
    text = f"{record['threads']} | {record['section']:<9} {record['name']:<27}"
    best = fastest(record["forms"])
    if ours := best.pop("fastnn", None):
        seconds = statistics.median(ours.seconds)
        text += f" {_time(seconds):>8}"
        text += f"  {record['limit'] / seconds:4.0%} of {record['limited_by']:<6}"
        for peer, form in best.items():
            text += f"  {peer} {form.ratio:.2f}"
    if record["disturbed"] > DISTURBED:
        text += f"  (others took {record['disturbed']:.0%})"
    if record["failed"]:
        text += "  FAILED: " + ", ".join(record["failed"])
    return text


def machine(options: dict[str, Any], blas: str) -> dict[str, Any]:
    names = ["numpy", "torch", "onnxruntime", "onnx", "jax", "jaxlib", "scikit-learn", "scipy"]
    versions = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    return {
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "fastnn": version,
        "isa": isa(),
        "openmp": openmp_version(),
        "threads": get_num_threads(),
        "blas": blas,
        "versions": versions,
        "missing": [peer for peer in MODULES if not installed(peer)],
        "peers": options["peers"],
        "load": load,
        "date": time.strftime("%Y-%m-%d"),
    }


def chosen(options: dict[str, Any]) -> Iterator[Cell]:
    """The cells that the options ask for."""
    for cell in cells():
        if options["quick"] and not cell.quick and not options["cells"]:
            continue
        named = f"{cell.section} {cell.name}"
        if cell.section in options["only"] and (
            not options["cells"] or any(part in named for part in options["cells"])
        ):
            yield cell


def _set_up(modules: set[str], threads: int) -> None:
    """What some libraries must be told before their first work."""
    if "torch" in modules:
        import torch

        torch.set_num_threads(threads)
    if "jax" in modules:
        import jax

        # With a thread of its own that only hands the work on, a small layer takes JAX three times
        # as long.
        jax.config.update("jax_cpu_enable_async_dispatch", False)


def main() -> None:
    options, path = json.loads(sys.argv[1]), sys.argv[2]
    warnings.simplefilter("ignore")  # the peers' own; what matters to us is checked
    options["peers"] = [peer for peer in options["peers"] if installed(peer)]
    threads = int(os.environ["OMP_NUM_THREADS"])
    _set_up(set(itertools.chain(*(MODULES[peer] for peer in options["peers"]))), threads)
    kind = next((name for name in ("quick", "full") if options[name]), "standard")
    budget = BUDGETS[kind]._replace(rounds=options["rounds"] or BUDGETS[kind].rounds)
    ceiling = Ceiling(threads)
    np.seterr(all="ignore")
    with _blas_limit(threads) as blas, open(path, "w", encoding="utf-8") as file:

        def write(**content: Any) -> None:
            print(json.dumps(content), file=file, flush=True)

        write(machine=machine(options, blas))
        for cell in chosen(options):
            record = run_cell(cell, options, ceiling, budget)
            write(cell=record)
            print(line(record), flush=True)
        write(limits=ceiling.summary())


if __name__ == "__main__":
    main()
