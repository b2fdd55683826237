"""`fastnn lab`: the lecture in eight experiments, with a page to read."""

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

from . import seed


def main(argv: Sequence[str] | None = None) -> int:
    """Run the lab; returns the exit status: 0 if every claim holds, else 1."""
    options = _parser().parse_args(argv)
    from ..lab.parts import read
    from ..lab.run import PAGE, Unwritable, run

    began = time.perf_counter()
    try:
        task = read(options.data)
    except (OSError, ValueError) as error:
        _fail(f"--data: {error}")
    if not options.out:
        _fail("--out: expected a folder, got ''")
    rows, columns = task.shape
    try:
        done = run(task, options.out, options.seed, _say, _command(options), options.progress)
    except ImportError as error:
        _fail(error)
    except Unwritable as error:
        _fail(f"--out: cannot write to {options.out}: {error}")
    claims = [claim for one in done for claim in one.claims]
    held = sum(claim.holds for claim in claims)
    _say(
        f"\n{held} of {len(claims)} claims hold ({task.name}, {len(task.y):,} images of {rows} x "
        f"{columns} pixels, seed {options.seed}), {time.perf_counter() - began:.0f} s."
    )
    _say(f"The page to read: {os.path.join(options.out, PAGE)}")
    return 0 if held == len(claims) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastnn lab",
        description=(
            "Eight experiments on bias, initialization and Leaky ReLU: what theory claims, what "
            "is measured, and whether the claim holds. Prints a line per claim and writes a page "
            "with figures. Takes about a minute. The exit status is 1 if a claim fails."
        ),
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--out", metavar="DIR", default="fastnn-lab", help="folder to write (default fastnn-lab)")
    add(
        "--data",
        metavar="DIR",
        help="folder with the four IDX files of MNIST or Fashion-MNIST, of whose training images "
        "1,800 are taken (default: the digits that ship with fastnn)",
    )
    add("--seed", type=seed, default=0, metavar="N", help="of all random numbers (default 0)")
    add(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="within each experiment, on stderr: always or never (default: on a terminal, where it "
        "takes more than 2 seconds)",
    )
    return parser


def _command(options: argparse.Namespace) -> str:
    words = ["fastnn", "lab"]
    if options.data is not None:
        words += ["--data", options.data]
    if options.seed:
        words += ["--seed", str(options.seed)]
    return shlex.join(words)


def _say(text: str) -> None:
    if sys.stdout is None:  # closed by who started this
        return
    code = sys.stdout.encoding or "utf-8"
    # A terminal that knows no ± shows a ? in its place.
    print(text.encode(code, "replace").decode(code), flush=True)


def _fail(message: object) -> NoReturn:
    raise SystemExit(f"fastnn lab: error: {message}")
