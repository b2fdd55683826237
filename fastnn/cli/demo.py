"""`fastnn demo`: trains a classifier on real images, and tells what it did and how fast.

Without options it takes the handwritten digits that ship with the package and holds a fifth of them
out; with --data DIR the four IDX files of MNIST, Fashion-MNIST and the like. The same training in plain
NumPy runs beside it, epoch by epoch in turn, so that both meet the same machine.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

import numpy as np

WIDTH = 79
HELD_OUT = 0.2
LEARNING_RATE = 1e-3
INK = " .:-=+*#%@"


class Task(NamedTuple):
    """Images (uint8, one a row, times `scale` about [0, 1]) and labels, to learn from and to check on."""

    name: str
    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    shape: tuple[int, int]
    scale: float


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit status."""
    options = _parser().parse_args(argv)
    if options.plot:
        _check_plot(options.plot)
    if options.save:
        _check_folder("--save", options.save)
    task = _read(options)
    if options.threads is not None:
        from ..config import set_num_threads

        set_num_threads(options.threads)
    _run(task, options)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastnn demo",
        description="Train a network on the embedded handwritten digits, or on the IDX files of --data.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--data", metavar="DIR", help="folder with the four IDX files of MNIST or Fashion-MNIST")
    add("--hidden", type=_widths, metavar="N,N,...", help="units of each hidden layer")
    add("--epochs", type=_positive, metavar="N", help="passes over the training images")
    add("--batch-size", type=_positive, metavar="N", help="images in a minibatch")
    add("--seed", type=_seed, default=0, metavar="N", help="of split, weights, shuffling (default 0)")
    add("--threads", type=_positive, metavar="N", help="threads to use (default: the CPUs there are)")
    add("--plot", metavar="FILE", help="draw loss and accuracy to a .png, .pdf or .svg file")
    add("--save", metavar="FILE", help="write the trained model to a .safetensors file")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0, got {text!r}")
    return int(text)


def _widths(text: str) -> list[int]:
    return [_positive(part.strip()) for part in text.split(",")]


def _fail(message: object) -> NoReturn:
    raise SystemExit(f"fastnn demo: error: {message}")


def _check_folder(option: str, path: str) -> None:
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        _fail(f"{option}: no such folder: {folder}")


def _check_plot(path: str) -> None:
    _check_folder("--plot", path)
    if not path.lower().endswith((".png", ".pdf", ".svg")):
        _fail(f"--plot: expected a file name ending in .png, .pdf or .svg, got {path!r}")
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        _fail('--plot needs matplotlib: pip install "fastnn-cpu[plot]"')


def _read(options: argparse.Namespace) -> Task:
    """The task, with the defaults for its size filled in to the options."""
    from ..data import load_digits, load_idx

    if options.data is None:
        images, labels = load_digits()
        train, test = _split(labels, options.seed)
        task = Task(
            "handwritten digits (UCI)",
            images[train], labels[train], images[test], labels[test], (8, 8), 1 / 16,
        )  # fmt: skip
        defaults = {"hidden": [256, 128], "epochs": 30, "batch_size": 32}
    else:
        try:
            task = Task(options.data, *load_idx(options.data), 1 / 255)
        except (OSError, ValueError) as error:
            _fail(f"--data: {error}")
        defaults = {"hidden": [512, 256], "epochs": 10, "batch_size": 128}
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return task


def _split(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of training and held-out images, a fifth of each class held out."""
    rng = np.random.default_rng(seed)
    test = np.concatenate(
        [
            rng.permutation(rows)[: round(HELD_OUT * len(rows))]
            for rows in (np.flatnonzero(labels == c) for c in np.unique(labels))
        ]
    )
    return np.setdiff1d(np.arange(len(labels)), test), np.sort(test)


def _network(task: Task, options: argparse.Namespace) -> Sequential:
    classes = int(max(task.y.max(), task.y_test.max())) + 1
    widths = [task.x.shape[1], *options.hidden, classes]
    layers: list[Layer] = []
    for n_in, n_out in zip(widths, widths[1:], strict=False):
        layers += [Linear(n_in, n_out), LeakyReLU()]
    return Sequential(*layers[:-1], rng=options.seed, uint8_scale=task.scale)


def _run(task: Task, options: argparse.Namespace) -> None:
    model = _network(task, options)
    untrained = [p.copy() for p in model.state_dict().values()]
    print(f"Data: {task.name}: {len(task.y):,} images to learn from, {len(task.y_test):,} held out,")
    print(f"of {task.shape[0]} x {task.shape[1]} pixels, in {len(np.unique(task.y))} classes.\n")
    print(model.summary())
    print(
        f"\nTraining: cross-entropy, Adam, learning rate {LEARNING_RATE:g} falling to 0, "
        f"{options.epochs} epochs of minibatches\nof {options.batch_size}, seed {options.seed}.\n"
    )
    history = _train(model, task, options)
    correct = _answers(model, task)
    _compare(task, options, untrained)
"""The same network"""
