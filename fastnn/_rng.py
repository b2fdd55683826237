"""Where randomness comes from: `rng=` as SPEC 7 of Scientific Python has it, down to one seed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from numpy.random import BitGenerator, Generator, SeedSequence

    RNG: TypeAlias = int | SeedSequence | BitGenerator | Generator | None

_EXPECTED = "None, a non-negative integer, a SeedSequence, a BitGenerator or a Generator"


def stream_seed(rng: RNG = None) -> int:
    """One 64-bit seed drawn from `numpy.random.default_rng(rng)`; for None a fresh one.

    A Generator or BitGenerator is advanced, so that using it twice gives different seeds; an
    integer or a SeedSequence gives the same seed each time.

    Raises
    ------
    TypeError, ValueError
        If rng is none of these, or a negative integer.
    """
    check_rng(rng)
    if rng is None:  # a generator for one number takes as long as some steps of a small network
        return int.from_bytes(os.urandom(8), "little")

    from numpy import uint64
    from numpy.random import default_rng

    generator = default_rng(rng)
    return int(generator.integers(0, 2**64 - 1, dtype=uint64, endpoint=True))


def check_rng(rng: RNG) -> None:
    """TypeError or ValueError for what is none of these: default_rng takes more, and crashes on
    some of it (numpy.matrix)."""
    if rng is None:
        return
    from numpy import integer
    from numpy.random import BitGenerator, Generator, SeedSequence

    if isinstance(rng, int | integer) and not isinstance(rng, bool):
        if rng < 0:
            raise ValueError(f"rng: expected {_EXPECTED}, got {rng!r}")
    elif not isinstance(rng, SeedSequence | BitGenerator | Generator):
        raise TypeError(f"rng: expected {_EXPECTED}, got {rng!r}")


@contextlib.contextmanager
def rewinding(*rngs: RNG) -> Iterator[None]:
    """Sets these back to where they were, as far as they advance, if the block raises."""
    from numpy.random import BitGenerator

    sources = [getattr(rng, "bit_generator", rng) for rng in rngs]
    states = [(source, source.state) for source in sources if isinstance(source, BitGenerator)]
    try:
        yield
    except BaseException:
        for source, state in states:
            source.state = state
        raise
