"""How a cell is timed: all forms of all peers in turn, round after round, each peer on quiet cores.

The threads of OpenBLAS, OpenMP, XLA and ONNX Runtime spin for a while after their work, and would
take a core from whoever comes next. So before each peer's turn the process waits until its threads
use no time any more; then calls that do not count warm the caches up, then come the samples. The
time of a form in a round is the fastest of its samples, of which every form of a cell has as many;
its time is the median over the rounds.
"""

from __future__ import annotations

import contextlib
import random
import time
import timeit
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

# Seconds asleep between two looks at the process's clock, the part of them that threads which spin
# may use up, and when to go on all the same.
NAP, BUSY, PATIENCE = 0.004, 0.1, 0.5
WARM_UP, LONG = 2e-3, 0.02  # seconds of warm-up, and from what length on a call needs none
SAMPLES = (2, 8)  # least and most samples of a form in a round
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


class _Timed:
    """A form with its number of calls in a sample, and its times."""

    def __init__(self, form: Form, sample: float) -> None:
        self.form, self.timer = form, timeit.Timer(form.call)
        with form.context():
            self.loops, self.taken = _loops(self.timer, sample)
        self.rounds: list[float] = []

    def run(self, samples: int) -> None:
        with self.form.context():
            if self.taken < LONG:
                self.timer.timeit(max(1, round(WARM_UP / self.taken)))
            self.rounds.append(min(self.timer.repeat(samples, self.loops)) / self.loops)


def measure(forms: Iterable[Form], budget: Budget) -> dict[tuple[str, str], list[float]]:
    """Seconds of a call in each round, by (peer, variant).

    The order of the peers is another in each round. Forms that are behind another form of the same
    peer after two rounds drop out.
    """
    peers: dict[str, list[_Timed]] = {}
    for form in forms:
        settle()
        peers.setdefault(form.peer, []).append(_Timed(form, budget.burst / SAMPLES[1]))
    if not peers:
        return {}
    taken = sorted(min(timed.taken for timed in group) for group in peers.values())
    samples = min(max(round(budget.burst / taken[len(taken) // 2]), SAMPLES[0]), SAMPLES[1])
    racing = {peer: list(group) for peer, group in peers.items()}
    shuffle = random.Random(0).shuffle
    for _ in range(budget.rounds):
        order = list(racing)
        shuffle(order)
        for peer in order:
            settle()
            for timed in racing[peer]:
                timed.run(samples)
            if len(racing[peer][0].rounds) == 2:
                best = min(min(timed.rounds) for timed in racing[peer])
                racing[peer] = [t for t in racing[peer] if min(t.rounds) <= SLOWER * best]
    every = (timed for group in peers.values() for timed in group)
    return {(timed.form.peer, timed.form.variant): timed.rounds for timed in every}


def _loops(timer: timeit.Timer, sample: float) -> tuple[int, float]:
    """Calls that take about `sample` seconds, or one that takes longer, and seconds of a call."""
    timer.timeit(1)  # allocates and compiles, and does not count
    n = 1
    while (taken := timer.timeit(n)) < sample / 2:
        n = max(2 * n, round(n * sample / 2 / max(taken, 1e-9)))
    if taken < LONG:
        taken = min(taken, *timer.repeat(2, n))
    return max(1, round(sample * n / taken)), taken / n
