"""The progress of what takes long, on stderr: a tqdm bar where tqdm is installed, else lines."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

__all__ = ["Progress"]

_PATIENCE = 2.0  # seconds of work before anything is shown unasked
_INTERVAL = 0.1  # seconds between two looks of the bar


class Progress:
    """Counts steps and shows them.

    wanted : True, False, or None: on a terminal, after two seconds
    total, done : steps of the whole run, and those done before it was resumed
    unit : what a step is
    """

    def __init__(self, wanted: bool | None, total: int, done: int = 0, unit: str = "step") -> None:
        self.total, self.done, self.unit = total, done, unit
        self.shown = bool(wanted) or (wanted is None and _is_terminal())
        self._next = time.perf_counter() + (0.0 if wanted else _PATIENCE)
        self._bar: Any = None
        self._plain = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.update(self.done - self._bar.n)
            self._bar.close()

    def step(self, n: int = 1) -> None:
        """So many steps more; called only where `shown`."""
        self.done += n
        now = time.perf_counter()
        if now < self._next:
            return
        self._next = now + _INTERVAL
        if self._bar is None and not self._plain:
            self._open()
        if self._bar is not None:
            self._bar.update(self.done - self._bar.n)

    def line(self, text: str) -> None:
        """What has come of the steps so far, such as an epoch's loss."""
        if self._bar is not None:
            self._bar.set_postfix_str(text)
        elif self._plain:
            print(text, file=sys.stderr, flush=True)

    def say(self, text: str, n: int = 1) -> None:
        """So many steps more, and what they were."""
        if self.shown:
            self.step(n)
            self.line(text if self._bar else f"{self.done}/{self.total} {self.unit}s: {text}")

    def _open(self) -> None:
        try:
            from tqdm import tqdm
        except ImportError:
            self._plain = True
            return
        # The steps before this one were done in this run or the one resumed: count them at once.
        self._bar = tqdm(total=self.total, unit=self.unit, file=sys.stderr, dynamic_ncols=True)


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()
