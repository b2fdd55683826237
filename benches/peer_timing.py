"""How a cell is timed: all forms of all peers in turn, round after round, each peer on quiet cores.

The threads of OpenBLAS, OpenMP, XLA and ONNX Runtime spin for a while after their work, and would
take a core from whoever comes next. So before each turn the process waits until its threads use no
time any more; then calls that do not count warm the caches up, then come the samples. The time of a
form in a turn is the fastest of its samples, of which every form of a cell has as many.

A machine that is shared is slower at times, for seconds or minutes. So fastnn has a turn before and
after each other's: what counts is how many times as long another takes as fastnn beside it, and of
that the median over the rounds.
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
from operator import truediv
from typing import Any, NamedTuple

# Seconds asleep between two looks at the process's clock, the part of them that threads which spin
# may use up, and when to go on all the same.
NAP, BUSY, PATIENCE = 0.004, 0.1, 0.5
WARM_UP, LONG = 2e-3, 0.02  # seconds of warm-up, and from what length on a call needs none
SAMPLES = (1, 8)  # least and most samples of a form in a round
DISTURBED = 0.05  # of the CPUs' time, if other programs take more of it a round is made again
TICKS = 2  # by which the system's count of CPU time may be off
# A form that takes so many times as long as its peer's best is not looked at further, nor is a peer
# that takes so many times as long as the best one.
SLOWER, HOPELESS = 1.3, 2.0


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


class Measured(NamedTuple):
    """Seconds of a call of one form in each round, and of fastnn's beside it."""

    peer: str
    variant: str
    seconds: list[float]
    beside: list[float]

    @property
    def ratios(self) -> list[float]:
        """How many times as long as fastnn it took."""
        return [*map(truediv, self.seconds, self.beside)]

    @property
    def ratio(self) -> float:
        """The median of these."""
        return statistics.median(self.ratios)


def fastest(forms: Iterable[dict[str, Any]]) -> dict[str, Measured]:
    """Each peer's form of the least ratio, from the records of a run; the fastest peer first."""
    best: dict[str, Measured] = {}
    for form in sorted((Measured(**form) for form in forms), key=lambda form: form.ratio):
        best.setdefault(form.peer, form)
    return best


class _Timed:
    """A form with its number of calls in a sample, and what it took in the rounds."""

    def __init__(self, form: Form, sample: float) -> None:
        self.form, self.timer = form, timeit.Timer(form.call)
        with form.context():
            self.loops, self.taken = _loops(self.timer, sample)
        self.rounds: dict[int, tuple[float, float]] = {}

    def run(self, samples: int) -> float:
        with self.form.context():
            if self.taken < LONG:
                self.timer.timeit(max(1, round(WARM_UP / self.taken)))
            return min(self.timer.repeat(samples, self.loops)) / self.loops

    def measured(self, numbers: Iterable[int]) -> Measured:
        """Of these rounds, or of those that there are."""
        pairs = [self.rounds[n] for n in numbers if n in self.rounds] or list(self.rounds.values())
        seconds, beside = map(list, zip(*pairs, strict=True))
        return Measured(self.form.peer, self.form.variant, seconds, beside)


def measure(ours: Form, forms: Iterable[Form], budget: Budget) -> tuple[list[Measured], float]:
    """What our form and those of the peers took, and how much others disturbed them.

    The order of the peers is another in each round. Forms that are far behind after two rounds drop
    out. Rounds in which other programs took the CPUs are made again, up to twice as many in all,
    and the quietest count.
    """
    peers: dict[str, list[_Timed]] = {}
    for form in (ours, *forms):
        settle()
        peers.setdefault(form.peer, []).append(_Timed(form, budget.burst / SAMPLES[1]))
    taken = sorted(min(timed.taken for timed in group) for group in peers.values())
    samples = min(max(round(budget.burst / taken[len(taken) // 2]), SAMPLES[0]), SAMPLES[1])
    shuffle, others, shares = random.Random(0).shuffle, Others(), []
    (first,) = peers.pop(ours.peer)
    racing = list(peers.values())
    while sum(share <= DISTURBED for share in shares) < budget.rounds > len(shares) / 2:
        shuffle(racing)
        others.share()
        _round(first, racing, samples, len(shares))
        shares.append(others.share())
        if len(shares) == 2:
            racing = _fast(racing)
    kept = sorted(range(len(shares)), key=shares.__getitem__)[: budget.rounds]
    measured = [timed.measured(kept) for timed in itertools.chain([first], *peers.values())]
    return measured, statistics.fmean(shares[n] for n in kept)


def _round(ours: _Timed, racing: list[list[_Timed]], samples: int, number: int) -> None:
    """A turn of each peer, and one of ours before and after it."""
    settle()
    turns = [ours.run(samples)]
    for group in racing:
        settle()
        seconds = [timed.run(samples) for timed in group]
        settle()
        turns.append(ours.run(samples))
        for timed, value in zip(group, seconds, strict=True):
            timed.rounds[number] = value, (turns[-2] + turns[-1]) / 2
    ours.rounds[number] = (statistics.median(turns),) * 2


def _fast(racing: list[list[_Timed]]) -> list[list[_Timed]]:
    """Peers that may be the fastest, each with the forms that may be its fastest.

    What a form can do is its best round; what others have to keep up with is a form's worst.
    """

    def ratios(timed: _Timed) -> list[float]:
        return [value / beside for value, beside in timed.rounds.values()]

    def bar(group: Iterable[_Timed]) -> float:
        return min((max(ratios(timed)) for timed in group), default=0.0)

    best = bar(itertools.chain(*racing))
    return [
        [timed for timed in group if min(ratios(timed)) <= SLOWER * bar(group)]
        for group in racing
        if min(min(ratios(timed)) for timed in group) <= HOPELESS * best
    ]


def _loops(timer: timeit.Timer, sample: float) -> tuple[int, float]:
    """Calls that take about `sample` seconds, or one that takes longer, and seconds of a call."""
    timer.timeit(1)  # allocates and compiles, and does not count
    n = 1
    while (taken := timer.timeit(n)) < sample / 2:
        n = max(2 * n, round(n * sample / 2 / max(taken, 1e-9)))
    if taken < LONG:
        taken = min(taken, *timer.repeat(2, n))
    return max(1, round(sample * n / taken)), taken / n
