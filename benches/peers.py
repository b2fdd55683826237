"""fastnn against each installed peer, side by side in one run: `python benches/peers.py`.

For one thread and for all CPUs a child process measures every cell: fastnn, NumPy, PyTorch, oneDNN
with prepacked weights, ONNX Runtime, JAX and scikit-learn, as far as they are installed, each in
its best form, on the same CPUs with as many threads. Answers are compared before anything is timed.
Then the forms take turns; the limits of the machine are measured in the same run. peer_timing.py
tells how, peer_cells.py what. The folder of --out gets

    peers.md            all cells with all peers; where fastnn is not the fastest says so
    peers_short.md      one row for each of the main cells
    peers_ratios_N.png  the best peer's time over fastnn's, a bar for each cell, on N threads
    peers_roofline_N.png  FLOP/s over arithmetic intensity, with the limits
    peers.json          every time of every form

It needs the extras `bench` and `plot`; the peers are installed apart, as many as one wishes:
`pip install torch jax onnxruntime onnx scikit-learn`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import peer_report
from peer_cells import MODULES, SECTIONS

from fastnn._core.threads import available_cpus
from fastnn.cli import positive
from fastnn.cli.bench import BLAS_VARIABLES

HERE = Path(__file__).resolve().parent


def main() -> None:
    options = _parser().parse_args()
    if options.render:
        run = json.loads(Path(options.render).read_text(encoding="utf-8"))
        forms = [form for part in run["runs"] for cell in part["cells"] for form in cell["forms"]]
        if not all("beside" in form for form in forms):
            raise SystemExit("peers.py: error: --render: expected a peers.json of this version")
    else:
        run = _measure(options)
    if not any(part["cells"] for part in run["runs"]):
        raise SystemExit("peers.py: error: no cell was measured; --only and --cells choose them")
    options.out.mkdir(parents=True, exist_ok=True)
    for name in peer_report.write(run, options.out):
        print(f"wrote {options.out / name}")
    if any(part["status"] for part in run["runs"]):
        raise SystemExit("peers.py: error: a measuring process broke off; the tables say which")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Measure fastnn against each installed peer.", allow_abbrev=False
    )
    add = parser.add_argument
    add("--only", action="append", default=[], metavar="SECTION,...",
        help=f"sections: {', '.join(SECTIONS)}")  # fmt: skip
    add("--cells", action="append", default=[], metavar="TEXT",
        help='part of "section name", such as "train 784"; may be given again')  # fmt: skip
    add("--peers", metavar="TEXT,...", help="peers with one of these in their name; fastnn always")
    add("--threads", metavar="N,...", help="numbers of threads (default: 1 and all CPUs)")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--quick", action="store_true", help="few cells and rounds: a smoke test")
    how.add_argument("--full", action="store_true",
        help="more rounds, and torch.compile wherever it can take part")  # fmt: skip
    add(
        "--rounds",
        type=positive(100),
        default=0,
        metavar="N",
        help="rounds over all forms of a cell",
    )
    add("--out", type=Path, default=HERE / "results", metavar="DIR",
        help="folder of the tables and plots (default: benches/results)")  # fmt: skip
    add("--render", metavar="FILE", help="measure nothing; tables and plots of a peers.json")
    return parser


def _split(given: list[str]) -> list[str]:
    return [part.strip() for text in given for part in text.split(",") if part.strip()]


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    only = _split(options.only) or list(SECTIONS)
    if unknown := set(only) - set(SECTIONS):
        raise SystemExit(f"peers.py: error: --only: expected some of {', '.join(SECTIONS)}, "
                         f"got {', '.join(sorted(unknown))}")  # fmt: skip
    wanted = _split([options.peers or ""])
    peers = [
        peer for peer in MODULES
        if not wanted or peer == "fastnn" or any(w.lower() in peer.lower() for w in wanted)
    ]  # fmt: skip
    settings = {
        "peers": peers, "only": only, "cells": options.cells, "rounds": options.rounds,
        "quick": options.quick, "full": options.full,
    }  # fmt: skip
    dropped = [f"{name}={os.environ[name]}" for name in BLAS_VARIABLES if os.environ.get(name)]
    if dropped:
        print(f"The environment sets {' and '.join(dropped)}, which can slow NumPy: left out here.")
    runs = [_child(settings, threads) for threads in _threads(options.threads)]
    words = ["python", "benches/peers.py", *sys.argv[1:]]
    if "--out" in words:  # says nothing of what was measured
        place = words.index("--out")
        del words[place : place + 2]
    return {"command": " ".join(words), "runs": runs}


def _threads(text: str | None) -> list[int]:
    most = available_cpus()
    if text is None:
        return sorted({1, most})
    numbers = [int(part) if part.isdecimal() else 0 for part in text.split(",")]
    if not all(1 <= n <= most for n in numbers):
        raise SystemExit(f"peers.py: error: --threads: expected 1 to {most}, got {text}")
    return numbers


def _child(settings: dict[str, Any], threads: int) -> dict[str, Any]:
    """Measure on so many threads, in a process whose libraries find no more CPUs than that."""
    environment = {name: value for name, value in os.environ.items() if name not in BLAS_VARIABLES}
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        environment[name] = str(threads)
    environment["JAX_PLATFORMS"] = "cpu"
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cells"
        path.touch()
        environment["TORCHINDUCTOR_CACHE_DIR"] = folder
        command = [sys.executable, str(HERE / "peer_run.py"), json.dumps(settings), str(path)]
        try:
            if cpus is not None:  # the child inherits it; XLA makes a thread for each CPU it finds
                os.sched_setaffinity(0, sorted(cpus)[-threads:])
            status = subprocess.call(command, env=environment)
        finally:
            if cpus is not None:
                os.sched_setaffinity(0, cpus)
        lines = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    result: dict[str, Any] = {"threads": threads, "status": status, "machine": {}, "limits": {}}
    result["cells"] = [line["cell"] for line in lines if "cell" in line]
    for line in lines:
        result |= {name: value for name, value in line.items() if name != "cell"}
    if status:
        print(f"The measuring process on {threads} threads ended with status {status}.")
    return result


if __name__ == "__main__":
    main()
