"""`fastnn demo`: trains a classifier on real images, and tells what it did and how fast.

Without options it takes the handwritten digits that ship with the package and holds a fifth of
them out; with --data DIR the four IDX files of MNIST, Fashion-MNIST and the like. The same training
in plain NumPy runs beside it, epoch by epoch in turn, so that both meet the same machine.
"""

import argparse
import itertools
import math
import os
import time
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

import numpy as np

from ..config import get_num_threads, set_num_threads
from ..data import load_digits, load_idx
from ..drawing import require
from ..layers import LeakyReLU, Linear
from ..losses import CrossEntropy
from ..optimizers import Adam
from ..schedules import linear
from ..sequential import Sequential as Network
from ..training import History
from . import positive, seed
from .plain_numpy import PlainNetwork

LEARNING_RATE = 1e-3
SLOPE = 0.01
COMPARE_SECONDS, ROUNDS = 4.0, 10  # how much is timed, at most: epochs under 0.4 s get 5 rounds
PAUSE = 0.12  # seconds in which the threads of the one that ran before go to sleep
WIDTH = 79  # characters in a line
INK = " .:-=+*#%@"


class Task(NamedTuple):
    """Images (uint8, one a row; times `scale` in [0, 1]) and labels, to learn from and to test."""

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
    if options.plot is not None:
        _check_plot(options.plot)
    if options.save is not None:
        _check_file("--save", options.save)
    task = _read(options)
    if options.threads is not None:
        set_num_threads(options.threads)
    _run(task, options)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastnn demo",
        description="Train on the embedded handwritten digits, or on the IDX files of --data.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--data", metavar="DIR", help="folder with the four IDX files of MNIST or Fashion-MNIST")
    add("--hidden", type=_widths, metavar="N,N,...", help="units of each hidden layer")
    add("--epochs", type=positive(), metavar="N", help="passes over the training images")
    add("--batch-size", type=positive(), metavar="N", help="images in a minibatch")
    add(
        "--seed",
        type=seed,
        default=0,
        metavar="N",
        help="of the weights and the order of the images (default 0)",
    )
    add(
        "--threads",
        type=positive(1024),
        metavar="N",
        help="threads to use (default: one for each CPU)",
    )
    add("--plot", metavar="FILE", help="draw loss and accuracy to a .png, .pdf or .svg file")
    add("--save", metavar="FILE", help="write the trained model to a .safetensors file")
    return parser


def _widths(text: str) -> list[int]:
    return [positive()(part.strip()) for part in text.split(",")]


def _fail(message: object) -> NoReturn:
    raise SystemExit(f"fastnn demo: error: {message}")


def _check_file(option: str, path: str) -> None:
    """That the path is of a file in a folder that there is."""
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        _fail(f"{option}: no such folder: {folder}")
    if not os.path.basename(path) or os.path.isdir(path):
        _fail(f"{option}: expected the name of a file, got {path!r}")


def _check_plot(path: str) -> None:
    _check_file("--plot", path)
    if not path.lower().endswith((".png", ".pdf", ".svg")):
        _fail(f"--plot: expected a file name ending in .png, .pdf or .svg, got {path!r}")
    try:
        require("--plot")
    except ImportError as error:
        _fail(error)


def _read(options: argparse.Namespace) -> Task:
    """The task, with the defaults for its size filled in to the options."""
    if options.data is None:
        images, labels = load_digits()
        train, test = _split(labels)
        task = Task(
            "handwritten digits (UCI)",
            images[train], labels[train], images[test], labels[test], (8, 8), 1 / 16,
        )  # fmt: skip
        defaults = {"hidden": [256, 128], "epochs": 30, "batch_size": 32}
    else:
        try:
            name = os.path.basename(os.path.abspath(options.data))
            task = Task(name, *load_idx(options.data), 1 / 255)
        except (OSError, ValueError) as error:
            _fail(f"--data: {error}")
        if not task.y.any():
            _fail(f"--data: expected labels of several classes, got only 0 in {options.data}")
        defaults = {"hidden": [512, 256], "epochs": 10, "batch_size": 128}
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return task


def _split(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices to learn from and to hold out: of each class every fifth image, from the first on."""
    held_out = np.concatenate([np.flatnonzero(labels == c)[::5] for c in np.unique(labels)])
    return np.setdiff1d(np.arange(len(labels)), held_out), np.sort(held_out)


def _network(task: Task, options: argparse.Namespace) -> Network:
    classes = int(max(task.y.max(), task.y_test.max())) + 1
    widths = [task.x.shape[1], *options.hidden, classes]
    layers: list[Linear | LeakyReLU] = []
    for n_in, n_out in itertools.pairwise(widths):
        layers += [Linear(n_in, n_out), LeakyReLU(SLOPE)]
    return Network(*layers[:-1], rng=options.seed, uint8_scale=task.scale)


def _run(task: Task, options: argparse.Namespace) -> None:
    model = _network(task, options)
    rows, columns = task.shape
    print(f"Data: {task.name}")
    print(
        f"{len(task.y):,} images to learn from and {len(task.y_test):,} held out, "
        f"{rows} x {columns} pixels, {len(np.unique(task.y))} classes\n"
    )
    print(model.summary())
    print(
        f"\nTraining: {options.epochs} epochs in minibatches of {options.batch_size}, "
        f"cross-entropy, Adam,\nlearning rate {LEARNING_RATE:g} falling to 0\n"
    )
    history = _train(model, task, options)
    _answers(model, task)
    _compare(task, options)
    if options.plot:
        from .figure import draw

        try:
            draw(history, f"{task.name}: {_shape(model)}", options.plot)
        except OSError as error:
            _fail(f"--plot: {error}")
        print(f"Loss and accuracy: {options.plot}")
    if options.save:
        try:
            model.save(options.save)
        except OSError as error:
            _fail(f"--save: {error}")
        print(f"Trained model: {options.save}")


def _train(model: Network, task: Task, options: argparse.Namespace) -> History:
    steps = options.epochs * math.ceil(len(task.y) / options.batch_size)
    every = math.ceil(options.epochs / 10)

    def report(_: Network, history: History) -> None:
        epoch, last = history.epochs, history.last()
        if epoch in (1, options.epochs) or epoch % every == 0:
            print(
                f"{epoch:5}  {last['loss']:9.4f}  {last['accuracy']:8.2%}  "
                f"{last['val_loss']:13.4f}  {last['val_accuracy']:17.2%}  {last['seconds']:9.3f}",
                flush=True,
            )

    print("epoch       loss  accuracy  held-out loss  held-out accuracy    seconds")
    return model.fit(
        task.x,
        task.y,
        loss=CrossEntropy(),
        optimizer=Adam(lr=linear(LEARNING_RATE, steps)),
        epochs=options.epochs,
        batch_size=options.batch_size,
        validation_data=(task.x_test, task.y_test),
        callbacks=[report],
        progress=False,
        rng=options.seed,
    )


def _answers(model: Network, task: Task) -> None:
    """Accuracy on the held-out images, and a few of them drawn with their answers."""
    z = model.predict(task.x_test).astype(np.float64)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    answer = p.argmax(axis=1)
    right = answer == task.y_test
    print(
        f"\nHeld-out images: {right.sum():,} of {len(right):,} right, "
        f"accuracy {right.mean():.2%}.\nSome of them, with the answer and its probability:\n"
    )
    # The first of some classes, and the surest of the mistakes.
    shown = [int(np.flatnonzero(task.y_test == c)[0]) for c in np.unique(task.y_test)]
    wrong = np.flatnonzero(~right)
    if len(wrong):
        shown.insert(2, int(wrong[p[wrong].max(axis=1).argmax()]))
    width = min(2 * task.shape[1], 24)
    pictures = []
    for i in shown[: (WIDTH + 3) // (width + 3)]:
        verdict = f"{answer[i]} ({p[i].max():.1%})"
        verdict += "" if right[i] else f", is {task.y_test[i]}"
        image = task.x_test[i].reshape(task.shape) * task.scale
        pictures.append([*draw_text(image, width), f"{verdict:<{width}}"])
    for line in zip(*pictures, strict=True):
        print("   ".join(line).rstrip())
    print()


def draw_text(image: np.ndarray, width: int) -> list[str]:
    """An image of values 0 to 1 as lines of text, each character the mean of an area."""
    rows = max(1, round(width / 2 * image.shape[0] / image.shape[1]))  # a character is 1 x 2
    ink = _resample(_resample(image, rows).T, width).T
    levels = np.clip((ink * len(INK)).astype(int), 0, len(INK) - 1)
    return ["".join(INK[level] for level in line) for line in levels]


def _resample(image: np.ndarray, n: int) -> np.ndarray:
    """The means of n equal parts of the rows."""
    total = np.concatenate([np.zeros((1, image.shape[1])), np.cumsum(image, axis=0)])
    edges = np.linspace(0, len(image), n + 1)
    at = [np.interp(edges, np.arange(len(total)), column) for column in total.T]
    return np.diff(np.array(at).T, axis=0) * (n / len(image))


def _compare(task: Task, options: argparse.Namespace) -> None:
    """Times epochs of the same training here and in plain NumPy, in turn; prints the best."""
    model = _network(task, options)
    parameters = model.parameters()
    plain = PlainNetwork(
        [value.T for name, value in parameters.items() if name.endswith("weight")],
        [value for name, value in parameters.items() if name.endswith("bias")],
        min(options.batch_size, len(task.y)),
        negative_slope=SLOPE,
        lr=LEARNING_RATE,
    )
    rng = np.random.default_rng(options.seed)
    loss, optimizer = CrossEntropy(), Adam(lr=LEARNING_RATE)
    ours: list[float] = []
    theirs: list[float] = []
    while len(ours) < ROUNDS and sum(ours) + sum(theirs) < COMPARE_SECONDS:
        time.sleep(PAUSE)
        start = time.perf_counter()
        model.fit(
            task.x,
            task.y,
            loss=loss,
            optimizer=optimizer,
            epochs=1,
            batch_size=options.batch_size,
            progress=False,
            rng=rng,
        )
        ours.append(time.perf_counter() - start)
        time.sleep(PAUSE)
        start = time.perf_counter()
        plain.epoch(task.x, task.y, task.scale, rng.permutation(len(task.y)))
        theirs.append(time.perf_counter() - start)
    here, there = min(ours), min(theirs)
    print(f"Time per epoch, the best of {len(ours)} of each in turn ({_threads()}):")
    print(f"  fastnn       {here * 1e3:8.1f} ms")
    print(f"  plain NumPy  {there * 1e3:8.1f} ms, {there / here:.1f} times as long\n")


def _threads() -> str:
    n = get_num_threads()
    return f"fastnn on {n} thread{'s' if n > 1 else ''}"


def _shape(model: Network) -> str:
    dense = [layer for layer in model.layers if isinstance(layer, Linear)]
    widths = [dense[0].in_features] + [layer.out_features for layer in dense]
    return "-".join(str(n) for n in widths)
