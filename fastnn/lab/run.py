"""Runs the experiments one after the other, says what came of them, writes figures and page."""

from __future__ import annotations

import io
import os
import time
import warnings
from collections.abc import Callable

from .. import drawing
from ..config import threads
from ..files import write_atomically
from . import bias, depth, he, leaky, lecture, small, xavier, zeros
from .page import page
from .parts import Experiment, Task

__all__ = ["EXPERIMENTS", "PAGE", "Unwritable", "run"]

EXPERIMENTS: dict[str, Callable[[Task, int, bool | None], Experiment]] = {
    "Bias": bias.experiment,
    "Zero weights": zeros.experiment,
    "Small random weights": small.experiment,
    "The 5-4-3 network": lecture.experiment,
    "Xavier, for tanh and sigmoid": xavier.experiment,
    "He, for ReLU and Leaky ReLU": he.experiment,
    "Leaky ReLU against ReLU": leaky.experiment,
    "Fifty layers": depth.experiment,
}
PAGE = "index.html"


class Unwritable(Exception):
    """The folder cannot be made or written; the message tells why."""


def run(
    task: Task,
    out: str,
    seed: int,
    say: Callable[[str], object],
    command: str,
    progress: bool | None = False,
) -> list[Experiment]:
    """All eight; their figures as PNG files and the page in the folder `out`.

    say : is given each line as it is known
    command : that made the page, for the page
    progress : whether to show it within each experiment, as for `fit`

    Raises ImportError without matplotlib, and Unwritable, both before anything is computed; and
    Unwritable if a file cannot be written later.
    """
    drawing.require("figures")
    _check_folder(out)
    done, images = [], {}
    for number, (title, experiment) in enumerate(EXPERIMENTS.items(), 1):
        began = time.perf_counter()
        say(f"\n{number}/{len(EXPERIMENTS)}  {title}")
        # One thread: steps this small gain little from more, and lose much to a busy neighbour.
        with warnings.catch_warnings(), threads(1):
            # Some of the networks are meant to diverge, and the claims tell it.
            warnings.filterwarnings("ignore", "the loss became", RuntimeWarning)
            one = experiment(task, seed, progress)
        for claim in one.claims:
            say(f"  {claim}")
        for text in filter(None, (one.numbers, one.verdict)):
            say("\n" + "\n".join(f"    {line}" for line in text.splitlines()) + "\n")
        for picture in one.pictures:
            png = io.BytesIO()
            drawing.save(picture.draw(), png, dpi=180)
            images[picture.name] = png.getvalue()
            _write(os.path.join(out, f"{picture.name}.png"), images[picture.name])
        done.append(one)
        say(f"  {time.perf_counter() - began:.1f} s")
    text = page(task, done, images, command)
    _write(os.path.join(out, PAGE), text.encode("utf-8"))
    return done


def _write(path: str, data: bytes) -> None:
    try:
        write_atomically(path, [data])
    except OSError as error:
        raise Unwritable(error.strerror or str(error)) from error


def _check_folder(out: str) -> None:
    probe = os.path.join(out, f".{os.urandom(8).hex()}.part")
    try:
        os.makedirs(out, exist_ok=True)
        with open(probe, "wb"):
            pass
        os.unlink(probe)
    except OSError as error:
        raise Unwritable(error.strerror or str(error)) from error
