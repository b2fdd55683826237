"""How a cell is timed: all forms of all peers in turn, round after round, each peer on quiet cores.

The threads of OpenBLAS, OpenMP, XLA and ONNX Runtime spin for a while after their work, and would
take a core from whoever comes next. So before each peer's turn the process waits until its threads
use no time any more; then calls that do not count warm the caches up, then come the samples. The
time of a form in a round is the fastest of its samples, of which every form of a cell has as many;
its time is the median over the rounds.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import statistics
import time
import timeit
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

# Seconds asleep between two looks at the process's clock, the part of them that threads which spin
# may use up, and when to go on all the same.
NAP, BUSY, PATIENCE = 0.004, 0.1, 0.5
WARM_UP, LONG = 2e-3, 0.02  # seconds of warm-up, and from what length on a call needs none
SAMPLES = (2, 8)  # least and most samples of a form in a round
DISTURBED = 0.05  # of the CPUs' time, if other programs take more of it a round is made again
TICKS = 2  # by which the system's count of CPU time may be off
SLOWER = 1.3  # a peer's form that takes so many times as long as its best is not looked at further


class Form(NamedTuple):
    """One way of a peer to do the work of a cell, as a call without arguments.

    `context` is entered around a row of calls. `result` gives the answer if the call returns none.
    """

    peer: str
    variant: str
    call: Callable[[], Any]
    context: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
    result: Callable[[], Any] | None = None

    def answer(self) -> Any:
        """What one call gives."""
        with self.context():
            answer = self.call()
        return answer if self.result is None else self.result()


class Budget(NamedTuple):
    """Rounds, and seconds of samples for a form in a round (calls may be longer)."""

    rounds: int
    burst: float


def settle() -> None:
    """Wait until no thread of this process runs."""
    deadline = time.perf_counter() + PATIENCE
    while time.perf_counter() < deadline:
        used, began = time.process_time(), time.perf_counter()
        time.sleep(NAP)
        if time.process_time() - used < BUSY * (time.perf_counter() - began):
            return


class Others:
    """How much of this process's CPUs other programs take, where the system tells (Linux)."""

    def __init__(self) -> None:
        self.cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
        self.names = {f"cpu{cpu}" for cpu in self.cpus}
        self.share()

    def share(self) -> float:
        """Their part of the CPUs' time since the last call, beyond what the ticks resolve."""
        busy, now, own = self._busy(), time.perf_counter(), time.process_time()
        began = getattr(self, "began", (busy, now, own))
        self.began = busy, now, own
        if not self.cpus or now == began[1]:
            return 0.0
        taken = busy - began[0] - (own - began[2]) - TICKS / os.sysconf("SC_CLK_TCK")
        return max(0.0, taken / (now - began[1]) / len(self.cpus))

    def _busy(self) -> float:
        """Seconds of all programs, and what a hypervisor took for other machines."""
        ticks = 0
        with contextlib.suppress(OSError), open("/proc/stat") as file:
            for line in file:
                name, *fields = line.split()
                if name in self.names:
                    user, nice, system, _, _, irq, softirq, steal = map(int, fields[:8])
                    ticks += user + nice + system + irq + softirq + steal
        return ticks / os.sysconf("SC_CLK_TCK")


class _Timed:
    """A form with its number of calls in a sample, and its times in the rounds."""

    def __init__(self, form: Form, sample: float) -> None:
        self.form, self.timer = form, timeit.Timer(form.call)
        with form.context():
            self.loops, self.taken = _loops(self.timer, sample)
        self.rounds: dict[int, float] = {}

    def run(self, samples: int, number: int) -> None:
        with self.form.context():
            if self.taken < LONG:
                self.timer.timeit(max(1, round(WARM_UP / self.taken)))
            self.rounds[number] = min(self.timer.repeat(samples, self.loops)) / self.loops


def measure(
    forms: Iterable[Form], budget: Budget
) -> tuple[dict[tuple[str, str], list[float]], float]:
    """Seconds of a call in each round by (peer, variant), and how much others disturbed them.

    The order of the peers is another in each round. Forms that are behind another form of the same
    peer after two rounds drop out. Rounds in which other programs took the CPUs are made again, up
    to twice as many in all, and the quietest count.
    """
    peers: dict[str, list[_Timed]] = {}
    for form in forms:
        settle()
        peers.setdefault(form.peer, []).append(_Timed(form, budget.burst / SAMPLES[1]))
    if not peers:
        return {}, 0.0
    taken = sorted(min(timed.taken for timed in group) for group in peers.values())
    samples = min(max(round(budget.burst / taken[len(taken) // 2]), SAMPLES[0]), SAMPLES[1])
    shuffle, others, shares = random.Random(0).shuffle, Others(), []
    racing = {peer: list(group) for peer, group in peers.items()}
    while sum(share <= DISTURBED for share in shares) < budget.rounds > len(shares) / 2:
        order = list(racing)
        shuffle(order)
        others.share()
        for peer in order:
            settle()
            for timed in racing[peer]:
                timed.run(samples, len(shares))
        shares.append(others.share())
        if len(shares) == 2:
            racing = {peer: _fast(group) for peer, group in racing.items()}
    kept = sorted(range(len(shares)), key=shares.__getitem__)[: budget.rounds]
    times = {}
    for timed in itertools.chain(*peers.values()):
        rounds = [timed.rounds[n] for n in kept if n in timed.rounds]
        times[timed.form.peer, timed.form.variant] = rounds or list(timed.rounds.values())
    return times, statistics.fmean(shares[n] for n in kept)


def _fast(group: list[_Timed]) -> list[_Timed]:
    """Those that may be the fastest of one peer's forms."""
    best = min(min(timed.rounds.values()) for timed in group)
    return [timed for timed in group if min(timed.rounds.values()) <= SLOWER * best]


def _loops(timer: timeit.Timer, sample: float) -> tuple[int, float]:
    """Calls that take about `sample` seconds, or one that takes longer, and seconds of a call."""
    timer.timeit(1)  # allocates and compiles, and does not count
    n = 1
    while (taken := timer.timeit(n)) < sample / 2:
        n = max(2 * n, round(n * sample / 2 / max(taken, 1e-9)))
    if taken < LONG:
        taken = min(taken, *timer.repeat(2, n))
    return max(1, round(sample * n / taken)), taken / n
