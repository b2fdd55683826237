"""`fastnn info`: what this installation runs on."""

import argparse
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Print `fastnn.show_config()`."""
    parser = argparse.ArgumentParser(
        prog="fastnn info", description="Show version, instruction set, threads, BLAS."
    )
    parser.parse_args(argv)
    from ..config import show_config

    show_config()
    return 0
