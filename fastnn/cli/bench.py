"""`fastnn bench`: each kernel against plain NumPy and against what this machine can do at most.

All forms of a case are timed in turn, round after round, so that each meets the same machine; the
ratios are medians over the rounds, which hold where seconds drift. The limits are measured in the
same run: the arithmetic peak by multiply-adds in registers, and for each case the bandwidth of a
bare loop over as much memory. A case can take no less than the longer of its arithmetic and its
traffic at these rates (Williams, Waterman, Patterson 2009, "Roofline").
"""

import argparse
import contextlib
import os
import platform
import statistics
import textwrap
import time
import timeit
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._core.kernels import isa
from .._core.limits import Probe
from .._core.threads import available_cpus, get_num_threads, openmp_version
from .._version import version
from ..config import threads as thread_limit
from . import positive
from .bench_cases import CASES, Case, Form

__all__ = ["main", "measure"]

# Seconds of timing for one case, rounds over its forms; samples of a form in a round, each of them
# long enough for the clock.
SECONDS, ROUNDS = 0.6, 9
QUICK_SECONDS, QUICK_ROUNDS = 0.06, 3
SAMPLES, SHORTEST = 8, 1e-4
LONGEST = 0.1  # seconds of search for one limit
# Threads of OpenMP and of OpenBLAS that wait for work spin for a while, and take a core from who
# comes next. So where both use threads, each begins after a rest, with calls that do not count.
REST, WARM_UP = 0.12, 1e-3
# OpenBLAS takes its kernels and its blocking from these, where they are set.
BLAS_VARIABLES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


class Row(NamedTuple):
    """One case as measured: median seconds (fastnn's of its form with `out=`, if it has one),
    NumPy's time over that of fastnn's like form, operations or bytes a second, share of limit."""

    name: str
    fastnn: float
    numpy: float
    numpy_out: float
    ratio: float
    ratio_out: float
    rate: float
    unit: str
    limit: float
    limited_by: str


class Limits:
    """What the threads can do at most together, the best of all that was seen."""

    def __init__(self, dtype: str, threads: int) -> None:
        self.dtype, self.threads = dtype, threads
        self._arithmetic = Probe(dtype, threads, 0)
        self.flops = 0.0
        self.look()

    def look(self) -> None:
        """Measure the arithmetic peak once more."""
        self.flops = max(self.flops, self._best(self._arithmetic, "fma", 2e8))

    def bandwidth(self, kind: str, nbytes: float) -> float:
        """Bytes a second, read and written, in a footprint of nbytes."""
        probe = Probe(self.dtype, self.threads, round(nbytes))
        # Writes that pass by the cache are the faster ones where the footprint exceeds it.
        kinds = (kind, f"stream_{kind}") if kind in ("write", "copy") else (kind,)
        return max(self._best(probe, each, 1e8) for each in kinds)

    def _best(self, probe: Probe, what: str, amount: float) -> float:
        """The best rate of several runs, more of them while the best two are apart."""
        deadline = time.perf_counter() + LONGEST
        rates: list[float] = []
        while len(rates) < 8 or (rates[-2] < 0.95 * rates[-1] and time.perf_counter() < deadline):
            rates = sorted([*rates, self._rate(probe, what, amount)])
        return rates[-1]

    def _rate(self, probe: Probe, what: str, amount: float) -> float:
        """Of one run of about `amount` for each thread: some hundred microseconds and more."""
        rounds = max(1, round(amount * self.threads / probe.run(what, 1)))
        start = time.perf_counter()
        done = probe.run(what, rounds)
        return done / (time.perf_counter() - start)


def measure(
    ours: Sequence[Form], theirs: Sequence[Form], seconds: float, rounds: int, *, rest: bool = False
) -> list[list[float]]:
    """Seconds of a call, of each form in each round, as the fastest of a few samples in a row: what
    other programs take from this one at times does not count. Shape (forms, rounds), with fewer
    rounds, but three, where they take too long."""
    timers = [timeit.Timer(form) for form in (*ours, *theirs)]
    sample = max(SHORTEST, seconds / (len(timers) * rounds * SAMPLES))
    loops = [_loops(timer, sample) for timer in timers]
    times: list[list[float]] = [[] for _ in timers]
    deadline = time.perf_counter() + 2 * seconds
    for done in range(rounds):
        if done >= 3 and time.perf_counter() > deadline:
            break
        for i, (timer, (n, taken)) in enumerate(zip(timers, loops, strict=True)):
            if rest and i in (0, len(ours)):
                time.sleep(REST)
                timer.timeit(max(1, round(n * WARM_UP / taken)))
            samples = min(SAMPLES, max(1, round(SAMPLES * sample / taken)))
            times[i].append(min(timer.repeat(samples, n)) / n)
    return times


def _loops(timer: timeit.Timer, sample: float) -> tuple[int, float]:
    """Calls that take about `sample` seconds, or one that takes longer, and what they take."""
    timer.timeit(1)  # allocates, and does not count
    n = 1
    while (taken := min(timer.repeat(2, n))) < sample / 2:
        n = max(2 * n, round(n * sample / 2 / taken))
    return n, taken


def run_case(case: Case, dtype: str, limits: Limits, seconds: float, rounds: int) -> Row:
    """Time one case and the limit that it meets."""
    forms = case.make(dtype)
    ours = [form for form in (forms.fastnn, forms.fastnn_out) if form is not None]
    nbytes = case.footprint * np.dtype(dtype).itemsize
    bandwidth = limits.bandwidth(case.memory, nbytes)
    rest = limits.threads > 1 and case.flops > 0
    times = measure(ours, (forms.numpy, forms.numpy_out), seconds, rounds, rest=rest)
    bandwidth = max(bandwidth, limits.bandwidth(case.memory, nbytes))
    limits.look()
    moved = case.traffic * np.dtype(dtype).itemsize
    arithmetic, traffic = case.flops / limits.flops, moved / bandwidth
    best, plain, out = (statistics.median(t) for t in times[-3:])
    return Row(
        name=case.name,
        fastnn=best,
        numpy=plain,
        numpy_out=out,
        ratio=_median_ratio(times[-2], times[0]),
        ratio_out=_median_ratio(times[-1], times[-3]),
        rate=(case.flops or moved) / best,
        unit="GFLOP/s" if case.flops else "GB/s",
        limit=max(arithmetic, traffic) / best,
        limited_by="FMA" if arithmetic > traffic else case.memory,
    )


def _median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benches and print their table; returns the exit status."""
    options = _parser().parse_args(argv)
    if options.json and not os.path.isdir(os.path.dirname(options.json) or "."):
        raise SystemExit(f"fastnn bench: error: --json: no such folder: {options.json}")
    cases = [
        case
        for case in CASES
        if options.dtype in case.dtypes and any(part in case.name for part in options.only or [""])
    ]
    if not cases:
        names = ", ".join(dict.fromkeys(case.name.split()[0] for case in CASES))
        raise SystemExit(f"fastnn bench: error: --only: expected part of a name, as in {names}")
    budget = (QUICK_SECONDS, QUICK_ROUNDS) if options.quick else (SECONDS, ROUNDS)
    threads = options.threads or get_num_threads()
    with thread_limit(threads), _blas_limit(threads) as blas:
        threads = get_num_threads()
        limits = Limits(options.dtype, threads)
        machine = _machine(options.dtype, threads, blas)
        print("\n".join(f"{name:<16}{value}" for name, value in machine.items()))
        _warn()
        print(_HEADER)
        rows = []
        for case in cases:
            rows.append(run_case(case, options.dtype, limits, *budget))
            print(_line(rows[-1]), flush=True)
        print(_closing(rows, limits))
    if options.json:
        _write(options.json, machine, rows)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastnn bench",
        description="Time each kernel against plain NumPy and against the limits of this machine.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="a few seconds in all, and rougher")
    add("--threads", type=positive(1024), metavar="N", help="threads of fastnn and of NumPy's BLAS")
    add("--dtype", choices=("float32", "float64"), default="float32")
    add("--only", action="append", default=[], metavar="TEXT",
        help="cases whose name has this in it, such as linear; may be given again")  # fmt: skip
    add("--json", metavar="FILE", help="write what was measured to a file, in seconds")
    return parser


@contextlib.contextmanager
def _blas_limit(threads: int) -> Iterator[str]:
    """NumPy's BLAS on as many threads, and what it is; threadpoolctl knows, NumPy does not."""
    try:
        import threadpoolctl
    except ImportError:
        yield "threads and kernel unknown: threadpoolctl is not installed"
        return
    with threadpoolctl.threadpool_limits(threads, user_api="blas"):
        found = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
        described = (
            f"{pool['internal_api']} {pool['version']}, {pool.get('architecture', '?')} kernels, "
            f"threads: {pool['num_threads']}"
            for pool in found
        )
        yield "; ".join(described) or "its threads cannot be limited"


def _machine(dtype: str, threads: int, blas: str) -> dict[str, str]:
    return {
        "Machine": f"{_cpu()}, {os.cpu_count()} CPUs",
        "fastnn": f"{version}, {isa()}, {dtype}, threads: {threads}, "
        f"OpenMP {openmp_version() or 'missing'}",
        "NumPy": f"{np.__version__}, Python {platform.python_version()}",
        "BLAS of NumPy": blas,
    }


def _cpu() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _warn() -> None:
    found = [f"{name}={os.environ[name]}" for name in BLAS_VARIABLES if os.environ.get(name)]
    if found:
        text = (
            f"Warning: the environment sets {' and '.join(found)}, which can slow NumPy's BLAS and "
            f"make fastnn look better than it is. Better: env -u {' -u '.join(BLAS_VARIABLES)} "
            "fastnn bench"
        )
        print("", *textwrap.wrap(text, 100), sep="\n")
    cpus = available_cpus()
    if hasattr(os, "getloadavg") and (load := os.getloadavg()[0]) > cpus / 2:
        print(
            f"\nNote: other programs run too (load {load:.1f} on {cpus} CPUs): times will scatter."
        )


_HEADER = f"""
{"":<28} {"median time of a call":^29} {"NumPy/fastnn":<12} {"":13} share of limit
{"":<28} {"fastnn":>9} {"NumPy":>9} {"out=":>9} {"plain":>5} {"out=":>6} {"rate":>7}"""


def _line(row: Row) -> str:
    times = " ".join(f"{_time(t):>9}" for t in (row.fastnn, row.numpy, row.numpy_out))
    # Marked where fastnn is not ahead.
    ratios = " ".join(f"{_digits(r):>5}{' <'[r <= 1]}" for r in (row.ratio, row.ratio_out))
    rate = f"{_digits(row.rate / 1e9):>5} {row.unit:<7}"
    return f"{row.name:<28} {times} {ratios} {rate} {row.limit:>4.0%} {row.limited_by}"


def _time(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * scale >= 1:
            return f"{_digits(seconds * scale)} {unit}"
    return f"{_digits(seconds * 1e9)} ns"


def _digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


def _closing(rows: Sequence[Row], limits: Limits) -> str:
    threads = f"{limits.threads} threads" if limits.threads > 1 else "1 thread"
    notes = [
        "NumPy plain: new arrays, np.where(z > 0, z, a * z) on x @ W.T + b. NumPy out=: its best "
        "form, nothing allocated. Each is compared with fastnn's like form; the time shown of "
        "fastnn is that with out=, where it takes one.",
        "Limit: the longer of arithmetic and memory traffic, at the rates that bare loops on "
        f"{threads} reached meanwhile: {limits.flops / 1e9:.0f} GFLOP/s from registers, and as "
        "much memory read, written, copied or updated.",
        _ahead("plain NumPy", {row.name: row.ratio for row in rows}),
        _ahead("NumPy with out=", {row.name: row.ratio_out for row in rows}),
    ]
    return "\n".join(["", *(textwrap.fill(note, 100) for note in notes)])


def _ahead(of: str, ratios: dict[str, float]) -> str:
    behind = [name for name, ratio in ratios.items() if ratio <= 1]
    text = f"Ahead of {of} in {len(ratios) - len(behind)} of {len(ratios)} rows"
    return text + (f"; not ahead (<): {'; '.join(behind)}." if behind else ".")


def _write(path: str, machine: dict[str, str], rows: Sequence[Row]) -> None:
    import json

    content: dict[str, Any] = {"machine": machine, "rows": [row._asdict() for row in rows]}
    try:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
    except OSError as error:
        raise SystemExit(f"fastnn bench: error: --json: {error}") from None
