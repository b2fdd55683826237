"""What the lab is made of: the data, claims, figures, experiments."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data import load_digits, load_idx

__all__ = [
    "ODDS",
    "Claim",
    "Experiment",
    "Picture",
    "Task",
    "between",
    "learns",
    "learns_nothing",
    "number",
    "read",
]

Array = NDArray[Any]

ROWS = 1800  # of a larger data set, so that the lab stays within its two minutes
ODDS = 16_000  # to one: what lies beyond is not taken for luck; four standard deviations are that


@dataclasses.dataclass(frozen=True)
class Task:
    """Images to learn.

    X : float32, shape (m, n), each row scaled to a mean square of 1, which the formulas begin with
    y : int64, shape (m,), labels from 0 on
    loading : the lines of a program that reads such images, as X and y
    """

    name: str
    X: Array
    y: Array
    shape: tuple[int, int]
    of: int  # how many images there are in all
    loading: str

    @property
    def classes(self) -> int:
        """Number of outputs that it takes."""
        return int(self.y.max()) + 1

    @property
    def entropy(self) -> float:
        """Of the labels, in nats: the least loss of an output that does not depend on the image.

        That is Gibbs' inequality: the mean of -log q(y) is least for q the labels' own frequencies.
        """
        p = np.bincount(self.y) / len(self.y)
        p = p[p > 0]
        return -float((p * np.log(p)).sum())

    def learnt(self, loss: float) -> float:
        """The share of that entropy which a network with this loss explains; below 0: none."""
        return 1 - loss / self.entropy

    @property
    def luck(self) -> float:
        """The largest share that is put down to luck: ln(ODDS) nats over all m images.

        Let answers q know nothing of the labels but how frequent each is, p. Then the mean of
        q(y) / p(y) over y drawn from p is 1, and so is that of its product over all images; by
        Markov's inequality the product is above ODDS once in ODDS times at most. Its logarithm is
        m times what q gains on the entropy.
        """
        return math.log(ODDS) / (len(self.y) * self.entropy)

    def begins(self, losses: Sequence[float]) -> int | None:
        """The first epoch whose loss is below what luck allows, or None.

        losses : before training, then of each epoch
        """
        epochs = enumerate(losses[1:], 1)
        return next((epoch for epoch, loss in epochs if self.learnt(loss) > self.luck), None)


def read(folder: str | os.PathLike[str] | None = None) -> Task:
    """The digits that ship with the package, or the training images of a folder of IDX files.

    Raises OSError or ValueError, naming the file, if it cannot be read or has less than two classes
    of images that are not blank.
    """
    if folder is None:
        (images, labels), shape, name = load_digits(), (8, 8), "handwritten digits"
        loading = "from fastnn.data import load_digits\n\nX, y = load_digits()\nX = X / 16"
    else:
        images, labels, _, _, shape = load_idx(folder)
        name = os.path.basename(os.path.abspath(folder))
        loading = (
            f"from fastnn.data import load_idx\n\nX, y, *_ = load_idx({os.fspath(folder)!r})\n"
            f"X, y = X[:{ROWS}] / 255, y[:{ROWS}]"
        )
    of = len(labels)
    kept = np.flatnonzero(images.any(axis=1))
    kept = (
        kept[np.linspace(0, len(kept) - 1, min(ROWS, len(kept))).astype(int)] if len(kept) else kept
    )
    X, y = images[kept].astype(np.float32), labels[kept]
    if len(np.unique(y)) < 2:
        raise ValueError(f"{name}: expected images of at least two classes that are not blank")
    X /= np.sqrt(np.square(X).mean(axis=1, keepdims=True))
    return Task(name, X, y, shape, of, loading)


@dataclasses.dataclass(frozen=True)
class Claim:
    """One sentence of the lecture, and what became of it.

    says : the claim in plain words
    measured, expected : what was found, and what theory lets it be
    holds : whether the one is within the other
    """

    says: str
    measured: str
    expected: str
    holds: bool

    def __str__(self) -> str:
        verdict = "holds" if self.holds else "FAILS"
        return f"{verdict}  {self.says}: {self.measured} (expected: {self.expected})"


def number(value: float) -> str:
    """As a reader likes it: four digits, fewer of what is far from 1."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.4g}"
    return f"{value:.2g}" if math.isfinite(value) else "not a number"


def between(says: str, value: float, low: float, high: float, unit: str = "") -> Claim:
    """A claim on one number."""
    unit = f" {unit}" if unit else ""
    if math.isinf(high):
        limits = f"at least {number(low)}"
    elif math.isinf(low):
        limits = f"at most {number(high)}"
    else:
        limits = f"{number(low)} to {number(high)}"
    return Claim(says, number(value) + unit, limits + unit, low <= value <= high)


def learns(says: str, task: Task, loss: float) -> Claim:
    """A claim that a network with this loss has learnt something."""
    share = task.learnt(loss)
    return Claim(
        says, f"{share:.1%} of the entropy explained", f"more than luck's {task.luck:.2%}",
        share > task.luck,
    )  # fmt: skip


def learns_nothing(says: str, task: Task, loss: float) -> Claim:
    """A claim that it has not."""
    share = task.learnt(loss)
    return Claim(
        says, f"{share:.2%} of the entropy explained", f"at most luck's {task.luck:.2%}",
        share <= task.luck,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure of the page.

    name : of its file, without ending
    alt : what it shows, for who cannot see it
    caption : its conclusion, which the claims of these numbers bear out
    draw : makes the matplotlib figure
    """

    name: str
    alt: str
    caption: str
    draw: Callable[[], Any]
    claims: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One chapter of the page.

    story : in plain words, a paragraph each
    formulas : a line each
    setup : what was measured, and how
    claims, pictures : the results
    numbers : more results to print, as lines whose columns are aligned
    verdict : what `model.report` says of one of the networks
    code : a program, complete, to try it oneself
    """

    title: str
    story: tuple[str, ...]
    formulas: tuple[str, ...]
    setup: str
    claims: tuple[Claim, ...]
    pictures: tuple[Picture, ...]
    numbers: str = ""
    verdict: str = ""
    code: str = ""

    def bears_out(self, picture: Picture) -> bool:
        """Whether the claims that its caption rests on hold."""
        return all(self.claims[i].holds for i in picture.claims)
