"""The `fastnn` command, which is also `python -m fastnn`: picks a command and runs its module.

Each command is a module of this folder with `main(argv) -> int`, imported when it is asked for.
"""

import importlib
import os
import sys
from collections.abc import Callable, Sequence

__all__ = ["main", "positive", "seed"]

COMMANDS = {
    "demo": "train a network on real handwritten digits, or on MNIST-like files",
    "lab": "why a network learns: eight experiments, with a page to read",
    "bench": "time each kernel against plain NumPy on this machine",
    "info": "show version, instruction set, threads, NumPy and its BLAS",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 well, 1 failed, 2 wrong usage, 130 Ctrl-C."""
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        if argv and argv[0] in COMMANDS:
            command = importlib.import_module(f"{__name__}.{argv[0]}")
            status: int = command.main(argv[1:])
        else:
            status = _help(argv)
        if sys.stdout is not None:  # closed by who started this
            sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader has gone, as in `fastnn demo | head`: nothing more to say, nor at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # of the output: the commands tell of their own files
        print(f"fastnn: error: {error}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MemoryError as error:
        print(f"fastnn: error: not enough memory: {error}", file=sys.stderr)
        return 1


def positive(limit: int | None = None) -> Callable[[str], int]:
    """What argparse reads a whole number from 1 to `limit` with."""
    import argparse

    wanted = "of at least 1" if limit is None else f"from 1 to {limit}"

    def whole(text: str) -> int:
        number = int(text) if text.isdecimal() else 0
        if number < 1 or (limit is not None and number > limit):
            raise argparse.ArgumentTypeError(f"expected a whole number {wanted}, got {text!r}")
        return number

    return whole


def seed(text: str) -> int:
    """What argparse reads a seed with: a whole number of at least 0."""
    import argparse

    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0, got {text!r}")
    return int(text)


def _help(argv: list[str]) -> int:
    import argparse

    from .._version import version

    lines = [f"  {name:<8}{text}" for name, text in COMMANDS.items()]
    parser = argparse.ArgumentParser(
        prog="fastnn",
        usage="fastnn [-h] [--version] command ...",
        description="Fully-connected neural networks on the CPU.",
        epilog="commands:\n" + "\n".join(lines) + "\n\n'fastnn command -h' tells its options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"fastnn {version}")
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    options = parser.parse_args(argv[:1])
    if options.command is not None:
        parser.error(f"unknown command {options.command!r}: expected one of {', '.join(COMMANDS)}")
    parser.print_help()
    return 0
