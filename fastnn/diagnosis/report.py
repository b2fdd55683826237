"""`Sequential.report` and `predict_signal`: the tables, the verdict and the figure of a model."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._checks import as_float
from .._core.arrays import as_array
from ..losses import MSE, CrossEntropy, Loss, as_loss
from ..training import check_inputs, doubled
from .figures import Figures, figures_of
from .measure import Batch, measure
from .prediction import predict
from .tables import as_html, as_text
from .theory import Moments
from .verdict import judge
from .words import Finding

if TYPE_CHECKING:
    from ..sequential import Sequential

__all__ = ["Report", "predict_signal", "report"]

Array = NDArray[Any]


class Report:
    """What is known of a model's layers, and a verdict; `print(report)` shows it as tables.

    layers : tuple of Figures
        One for each Linear with the activation after it; `Figures` tells what each number is.
    batch : Batch
        What is known of the rows: how many, how many features vary, mean and root mean square, and
        the loss. No rows where theory alone speaks.
    loss : Loss or None
        The one whose gradients were measured.
    findings : tuple of Finding
        The verdict: each with its kind, its level ("problem" or "note"), the numbers of the layers,
        the reason and the mend; problems first.

    Numbers are float64; counts are of units, shares lie in [0, 1]. Layers are numbered as in
    `summary()`.
    """

    def __init__(
        self,
        layers: tuple[Figures, ...],
        batch: Batch,
        loss: Loss | None,
        findings: tuple[Finding, ...],
    ) -> None:
        self.layers, self.batch, self.loss, self.findings = layers, batch, loss, findings

    @property
    def problems(self) -> tuple[Finding, ...]:
        """The findings that keep the network from learning."""
        return tuple(one for one in self.findings if one.level == "problem")

    @property
    def notes(self) -> tuple[Finding, ...]:
        """The findings that it can live with, and what the rows cannot tell."""
        return tuple(one for one in self.findings if one.level == "note")

    @property
    def healthy(self) -> bool:
        """Whether there is no problem."""
        return not self.problems

    @property
    def verdict(self) -> str:
        """The findings in words, a line each, under a line that counts them."""
        return "\n".join([self._headline(), *(f"  {one.level}: {one}" for one in self.findings)])

    def _headline(self) -> str:
        n = len(self.problems)
        if n:
            return f"verdict: {n} problem{'s' if n > 1 else ''}"
        return "verdict: healthy" + (", by theory" if not self.batch.rows else "")

    def _title(self) -> str:
        batch = self.batch
        if not batch.rows:
            inputs = f"inputs of mean {batch.x_mean:.3g} and root mean square {batch.x_rms:.3g}"
            return f"What theory predicts for {inputs}, dropout off"
        rows = f"{batch.rows:,} row{'s' if batch.rows > 1 else ''} of {batch.features} features"
        text = f"Report on {rows} (root mean square {batch.x_rms:.3g}), dropout off"
        return text if self.loss is None else f"{text}; {self.loss!r}: {batch.loss:.4g}"

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain dicts, lists, numbers and strings; None for what is not known."""
        import dataclasses

        return {
            "batch": dataclasses.asdict(self.batch),
            "loss": None if self.loss is None else list(self.loss.spec),
            "layers": [one.to_dict() for one in self.layers],
            "healthy": self.healthy,
            "findings": [one.to_dict() for one in self.findings],
        }

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw signal, gradients and units by layer to an image file, such as "report.png".

        Raises
        ------
        ImportError
            If matplotlib is missing: ``pip install "fastnn-cpu[plot]"``.
        ValueError, OSError
            If the file's ending is not one that matplotlib knows, or it cannot be written.
        """
        from .figure import draw

        draw(self, path)

    def __str__(self) -> str:
        return as_text(
            self._title(), self.layers, self.findings, self._headline(), self.batch.rows > 0
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return as_html(
            self._title(), self.layers, self.findings, self._headline(), self.batch.rows > 0
        )


def report(
    model: Sequential, X: ArrayLike, y: ArrayLike | None = None, loss: Loss | str | None = None
) -> Report:
    """One forward and, with y, one backward pass that tell why the model learns or does not.

    Nothing is trained, and nothing of the model changes. The figures are those of the first
    training step on these rows, with dropout off, beside what theory predicts for them.

    Parameters
    ----------
    X : array_like, shape (m, n_in)
        As for `fit`; some hundred rows of the training data do. All rows that are given count.
    y : array_like, optional
        As for `fit`: with it there are gradients.
    loss : Loss or its name, optional
        For y. None: cross-entropy where y has one number a row for several outputs, else MSE.

    Returns
    -------
    Report

    Raises
    ------
    ValueError, TypeError
        If X is empty, has NaN, infinity or another width, y does not fit the loss, or the model
        has no Linear.

    Sources: He et al. 2015, Glorot & Bengio 2010, Poole et al. 2016, Schoenholz et al. 2017.
    """
    inputs = check_inputs(model, X)
    the_loss = targets = None
    if y is not None:
        the_loss = _loss_for(model, y) if loss is None else as_loss(loss)
        assert model.n_out is not None
        targets = the_loss.targets(y, "y", len(inputs), model.n_out, model.dtype)
    elif loss is not None:
        raise ValueError("loss: expected y with it, got None for y")
    found = figures_of(model)
    batch = measure(model, found, inputs, targets, None if the_loss is None else the_loss.spec)
    predict(model, found, Moments(batch.x_mean, batch.x_rms**2), found[-1].grad_std)
    twice = ""
    if the_loss is not None and doubled(model, the_loss):
        twice = f"{the_loss!r} takes raw outputs, but the model ends with {model[-1]!r}"
    return Report(tuple(found), batch, the_loss, judge(found, batch, twice))


def predict_signal(model: Sequential, *, mean: float = 0.0, std: float = 1.0) -> Report:
    """What theory alone tells of a model, for inputs that nobody has seen yet.

    The recursion of `fastnn.diagnosis.theory` from layer to layer, with the mean and the variance
    of the model's own weights and biases. A report on data shows the same, for that data's mean
    square, beside what was measured.

    Parameters
    ----------
    mean, std : float
        Of the inputs, over all features.

    Returns
    -------
    Report
        With `predicted` of each layer, gradients relative to that at the last Linear, and the
        verdict from these.

    Raises
    ------
    ValueError, TypeError
        If the model has no Linear, or mean or std is not a finite number, or std negative.
    """
    mean, std = as_float(mean, "mean"), as_float(std, "std", 0.0)
    if model.n_in is None:
        raise ValueError("model: expected at least one Linear layer, got none")
    found = figures_of(model)
    predict(model, found, Moments(mean, mean * mean + std * std), None)
    rms = float(np.hypot(mean, std))
    batch = Batch(rows=0, features=model.n_in, varying=0, x_mean=mean, x_rms=rms)
    return Report(tuple(found), batch, None, judge(found, batch))


def _loss_for(model: Sequential, y: ArrayLike) -> Loss:
    """What y's shape leaves open: one number a row for several outputs is a label."""
    labels = as_array(y, "y").ndim == 1 and model.n_out != 1
    return CrossEntropy() if labels else MSE()
