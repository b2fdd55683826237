"""Training: `Sequential.fit` and `Sequential.evaluate`.

All arguments are checked first. Then a step is one call into the compiled trainer: rows gathered,
forward, loss, backward and update. Which rows it takes is a function of (seed, epoch), which
elements dropout drops one of (seed, step), so a run that was cut off goes on with the same bits.
"""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ._checks import as_bool, as_int, as_path
from ._core.arrays import as_array, as_real
from ._core.trainer import Trainer
from ._core.updates import Update
from ._rng import rewinding, stream_seed
from .callbacks import Callback, History, StopTraining
from .layers import Linear, Sigmoid, Softmax
from .losses import BinaryCrossEntropy, CrossEntropy, Loss, as_loss, as_weights, check_finite
from .optimizers import Optimizer, as_optimizer
from .progress import Progress
from .units import DEAD, warn_of_dead, watched

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from ._rng import RNG
    from .sequential import Sequential
    from .stopping import EarlyStopping, Stopper

    Array = NDArray[Any]

__all__ = ["DROPOUT", "History", "evaluate", "fit"]


# Masks come from another key than the values drawn from the same seed.
DROPOUT = 0x9E3779B97F4A7C15


def fit(
    model: Sequential,
    X: ArrayLike,
    y: ArrayLike,
    *,
    loss: Loss | str,
    optimizer: Optimizer | str,
    epochs: int = 10,
    batch_size: int = 32,
    validation_data: tuple[ArrayLike, ...] | None = None,
    shuffle: bool = True,
    sample_weight: ArrayLike | None = None,
    early_stopping: EarlyStopping | int | None = None,
    callbacks: Iterable[Callback] = (),
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    monitor_units: bool = False,
    rng: RNG = None,
) -> History:
    """Train on minibatches; a model that was trained before goes on from where it is.

    Parameters
    ----------
    X : array_like, shape (m, n_in)
        Finite numbers. float32, float64 and uint8 are read where they are, and must not change
        meanwhile; others are converted once. uint8 is multiplied by the model's `uint8_scale`.
    y : array_like
        Integer labels of shape (m,) for cross-entropy; else (m, n_out), or (m,) for one output.
    loss : Loss or "cross_entropy", "binary_cross_entropy", "mse", "mae", "huber"
    optimizer : Optimizer or "sgd", "adam", "adamw", "rmsprop"
        A name makes a new one. One that has served this model goes on with its state and schedule.
    epochs : int
        At least 1: how often all rows are seen, with a checkpoint counted from the run's beginning.
    batch_size : int
        At least 1. The last batch of an epoch may be shorter.
    validation_data : (X, y) or (X, y, sample_weight), optional
        Evaluated after each epoch.
    shuffle : bool
        Whether each epoch takes the rows in an order of its own.
    sample_weight : array_like, shape (m,), optional
        At least 0; scaled to a mean of 1.
    early_stopping : EarlyStopping or int, optional
        An int is a patience. The best epoch's parameters are restored at the end.
    callbacks : iterable of callables
        Each is called after each epoch as ``callback(model, history)``, with that epoch as the
        history's last; to end training there it raises `fastnn.StopTraining`.
    checkpoint : path, optional
        A file that is written, whole or not at all, after each epoch. Where it exists, `fit` goes
        on from it, and ends with the same bits as if never stopped; the other arguments but
        `epochs` must be the same.
    progress : bool, optional
        True: always shown, with tqdm where it is installed, else a line an epoch, on stderr. False:
        never. None: on a terminal, after 2 seconds.
    monitor_units : bool, optional
        Whether to warn when units die. `history.dead_units` has their share in any case.
    rng : None, int, SeedSequence, BitGenerator or Generator
        Where the order of the rows and dropout come from.

    Returns
    -------
    History
        Also kept as `model.history`, and there after an exception too.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; nothing has changed then.
    OSError
        If the checkpoint cannot be read or written.
    RuntimeError
        If the model is being trained in another thread.
    KeyboardInterrupt
        From Ctrl-C, after the step under way; the model is as that step left it, ready for use.

    Warns
    -----
    RuntimeWarning
        Once, if the loss is no longer finite.
    UserWarning
        If the model ends with a Softmax or Sigmoid that the loss has in itself; with
        `monitor_units` once, after the first epoch in which more than half of the units before a
        ReLU were positive on no row.

    Notes
    -----
    The parameters have the same bits for any number of threads.
    """
    with model._claim:
        with rewinding(rng):
            the_loss, the_optimizer = as_loss(loss), as_optimizer(optimizer)
            data = _check_data(model, the_loss, X, y, sample_weight)
            epochs, batch_size = as_int(epochs, "epochs", 1), as_int(batch_size, "batch_size", 1)
            shuffle = as_bool(shuffle, "shuffle")
            validation = None
            if validation_data is not None:
                validation = _check_validation(model, the_loss, validation_data)
            stopper = _check_early_stopping(early_stopping, the_loss, validation is not None)
            functions = _check_callbacks(callbacks)
            if progress is not None:
                as_bool(progress, "progress")
            monitor_units = as_bool(monitor_units, "monitor_units")
            if checkpoint is not None:
                _check_checkpoint(checkpoint)
            the_optimizer.lr_at(the_optimizer.t)
            seed = stream_seed(rng)
            _warn_of_double(model, the_loss)
            run = Run(
                model, the_loss, the_optimizer, data, validation, batch_size, shuffle, stopper, seed
            )
            run.begin(checkpoint, any_seed=rng is None)
            run.monitor_units = monitor_units
        return run.go(epochs, functions, checkpoint, progress)


def evaluate(
    model: Sequential,
    X: ArrayLike,
    y: ArrayLike,
    *,
    loss: Loss | str,
    sample_weight: ArrayLike | None = None,
) -> dict[str, float]:
    """The mean loss over the rows of X, dropout off.

    Parameters
    ----------
    X, y, loss, sample_weight : as for `fit`

    Returns
    -------
    dict
        "loss", and "accuracy" (weights do not count there): with cross-entropy, the part of the
        rows whose largest output is that of their label; with binary cross-entropy, the part of the
        outputs that are above 0 where the target is above 1/2, and not above 0 where it is not.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit.
    """
    the_loss = as_loss(loss)
    data = _check_data(model, the_loss, X, y, sample_weight)
    _warn_of_double(model, the_loss)
    nothing = Update("sgd", model._parameters, model._parameters, [], lr=0.0)  # never applied
    trainer = _trainer(model, the_loss, data, nothing, 1, 0)
    return _evaluated(trainer, the_loss, data, model.n_out)


class Data(NamedTuple):
    """Checked arrays, as the compiled trainer takes them."""

    X: Array
    targets: Array
    weights: Array | None


class Run:
    """One call of `fit`: what it trains with, and how far it is."""

    def __init__(
        self,
        model: Sequential,
        loss: Loss,
        optimizer: Optimizer,
        data: Data,
        validation: Data | None,
        batch_size: int,
        shuffle: bool,
        stopper: Stopper | None,
        seed: int,
    ) -> None:
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.data, self.validation = data, validation
        self.batch_size, self.shuffle, self.stopper, self.seed = batch_size, shuffle, stopper, seed
        self.update: Update | None = None
        self.history = History()
        self.stopped = False
        self.watched = watched(model.layers)
        self.monitor_units = False

    def begin(self, checkpoint: str | os.PathLike[str] | None, any_seed: bool) -> None:
        """Bind the optimizer, and go to where the checkpoint is if the file exists."""
        if checkpoint is None or not os.path.exists(checkpoint):
            self.update = self.optimizer.bind(self.model)
            return
        from .checkpoint import read, restore

        found = read(checkpoint, self, any_seed)
        self.update = self.optimizer.bind(self.model)
        restore(self, found)

    @property
    def batches(self) -> int:
        """Number of steps of an epoch."""
        return -(-len(self.data.X) // self.batch_size)

    def go(
        self,
        epochs: int,
        callbacks: tuple[Callback, ...],
        checkpoint: str | os.PathLike[str] | None,
        progress: bool | None,
    ) -> History:
        """All epochs that are left."""
        batch_size = min(self.batch_size, len(self.data.X))
        seed = self.seed ^ DROPOUT
        update = self.update
        assert update is not None
        operations = tuple(self.watched.values())
        trainer = _trainer(self.model, self.loss, self.data, update, batch_size, seed, operations)
        history = self.model.history = self.history
        with Progress(progress, epochs * self.batches, history.epochs * self.batches) as bar:
            while history.epochs < epochs and not self.stopped:
                history.append(self.epoch(trainer, update, history.epochs, bar))
                if bar.shown:
                    bar.line(f"epoch {history.epochs}/{epochs}: {history.line()}")
                self.after_epoch(callbacks)
                if checkpoint is not None:
                    from .checkpoint import write

                    write(checkpoint, self)
        if self.stopper is not None and self.stopper.parameters is not None:
            self.model._parameters[...] = self.stopper.parameters
        return history

    def epoch(
        self, trainer: Trainer, update: Update, epoch: int, bar: Progress
    ) -> dict[str, float]:
        """Every row once; what the history keeps of it."""
        began = time.perf_counter()
        m, batch_size = len(self.data.X), self.batch_size
        optimizer = self.optimizer
        order = None
        if self.shuffle:
            order = np.random.default_rng([self.seed, epoch]).permutation(m)
        scheduled = callable(optimizer.lr)
        update.lr = optimizer.lr_at(update.t)
        step = epoch * self.batches
        trainer.reset()
        for begin in range(0, m, batch_size):
            if scheduled:
                update.lr = optimizer.lr_at(update.t)
            trainer.step(order, begin, min(begin + batch_size, m), step)
            step += 1
            if bar.shown:
                bar.step()
        values = _named(self.loss, trainer.loss_sum, trainer.correct, m, self.model.n_out)
        dead = self.dead(trainer)
        if not math.isfinite(values["loss"]):
            self.warn_of_loss(values["loss"], epoch, update.lr)
        if self.validation is not None:
            measured = _evaluated(trainer, self.loss, self.validation, self.model.n_out)
            values |= {f"val_{name}": value for name, value in measured.items()}
        return values | dead | {"lr": update.lr, "seconds": time.perf_counter() - began}

    def dead(self, trainer: Trainer) -> dict[str, float]:
        """The shares of units that were positive on no row of the epoch."""
        shares = {}
        for i, count in zip(self.watched, trainer.dead_units(), strict=True):
            layer = self.model[i]
            assert isinstance(layer, Linear)
            shares[f"{DEAD}{i}"] = count / layer.out_features
        return shares

    def after_epoch(self, callbacks: tuple[Callback, ...]) -> None:
        """Early stopping, the watch over units, and callbacks; sets `stopped`."""
        epochs = self.history.epochs
        if self.monitor_units:
            shares = {i: self.history[f"{DEAD}{i}"][-1] for i in self.watched}
            self.monitor_units = not warn_of_dead(self.model.layers, shares, epochs, stacklevel=4)
        if self.stopper is not None:
            self.stopper.see(epochs - 1, self.history.last(), self.model._parameters)
            self.history.best_epoch = self.stopper.best_epoch
            self.stopped = self.stopper.stops(epochs)
        try:
            for callback in callbacks:
                callback(self.model, self.history)
        except StopTraining:
            self.stopped = True

    def warn_of_loss(self, loss: float, epoch: int, lr: float) -> None:
        if all(math.isfinite(value) for value in self.history.get("loss", ())):
            warnings.warn(
                f"the loss became {loss} in epoch {epoch + 1}: the parameters have grown without "
                f"bound; a learning rate below {lr:g} may help",
                RuntimeWarning,
                stacklevel=5,
            )


def _trainer(
    model: Sequential,
    loss: Loss,
    data: Data,
    update: Update,
    batch_size: int,
    seed: int,
    watched: tuple[int, ...] = (),
) -> Trainer:
    plan = model._plan
    assert plan is not None
    arrays = data.X, data.targets, data.weights
    return Trainer(plan, *arrays, loss.spec, update, batch_size, seed, watched)


def _named(
    loss: Loss, loss_sum: float, correct: int, rows: int, columns: int | None
) -> dict[str, float]:
    values = {"loss": loss_sum / rows}
    if isinstance(loss, CrossEntropy):
        values["accuracy"] = correct / rows
    elif isinstance(loss, BinaryCrossEntropy) and columns is not None:
        values["accuracy"] = correct / (rows * columns)
    return values


def _evaluated(trainer: Trainer, loss: Loss, data: Data, columns: int | None) -> dict[str, float]:
    return _named(loss, *trainer.evaluate(data.X, data.targets, data.weights), columns)


def _check_data(
    model: Sequential,
    loss: Loss,
    X: ArrayLike,
    y: ArrayLike,
    sample_weight: ArrayLike | None,
    of: str = "",
) -> Data:
    """The arrays as the trainer takes them; `of` goes before their names in errors."""
    inputs = check_inputs(model, X, of)
    rows = len(inputs)
    assert model.n_out is not None
    targets = loss.targets(y, f"{of}y", rows, model.n_out, model.dtype)
    weights = None
    if sample_weight is not None:
        weights = as_weights(sample_weight, f"{of}sample_weight", rows, np.dtype(np.float64))
        weights /= weights.max()  # now their sum can neither overflow nor vanish
        weights = (weights * (rows / weights.sum())).astype(model.dtype)
    return Data(inputs, targets, weights)


def check_inputs(model: Sequential, X: ArrayLike, of: str = "") -> Array:
    """X as the trainer takes it: finite rows of the model's width, float32, float64 or uint8."""
    if model.n_in is None:
        raise ValueError("model: expected at least one Linear layer, got none")
    inputs = as_array(X, f"{of}X")
    if inputs.dtype.char not in "fdB" or not inputs.dtype.isnative:
        inputs = as_real(inputs, f"{of}X", model.dtype)
    if inputs.ndim != 2 or inputs.shape[1] != model.n_in:
        raise ValueError(f"{of}X: expected shape (m, {model.n_in}), got {inputs.shape}")
    if len(inputs) == 0:
        raise ValueError(f"{of}X: expected at least one row, got shape {inputs.shape}")
    inputs = np.require(inputs, requirements=["C", "A"])
    if inputs.dtype != np.uint8:
        check_finite(inputs, f"{of}X", model.dtype)
    return inputs


def _check_validation(model: Sequential, loss: Loss, given: Any) -> Data:
    if not isinstance(given, tuple | list) or len(given) not in (2, 3):
        raise TypeError(
            "validation_data: expected (X, y) or (X, y, sample_weight), got "
            + (f"{len(given)} items" if isinstance(given, tuple | list) else type(given).__name__)
        )
    weight = given[2] if len(given) == 3 else None
    return _check_data(model, loss, given[0], given[1], weight, "validation_data: ")


def _check_early_stopping(given: Any, loss: Loss, validated: bool) -> Stopper | None:
    if given is None:
        return None
    from .stopping import EarlyStopping, Stopper

    if not isinstance(given, EarlyStopping):
        given = EarlyStopping(as_int(given, "early_stopping", 1))
    recorded = list(_named(loss, 0.0, 0, 1, 1))
    if validated:
        recorded += [f"val_{name}" for name in recorded]
    return Stopper(given, tuple(recorded))


def _check_callbacks(callbacks: Any) -> tuple[Callback, ...]:
    try:
        functions = tuple(callbacks)
    except TypeError:
        raise TypeError(f"callbacks: expected a list of callables, got {callbacks!r}") from None
    for function in functions:
        if not callable(function):
            raise TypeError(f"callbacks: expected callables, got {function!r}")
    return functions


def _check_checkpoint(path: Any) -> None:
    """That the end of the first epoch will not be the first to tell that it cannot be written."""
    folder = os.path.dirname(os.path.abspath(as_path(path, "checkpoint")))
    if not os.path.isdir(folder):
        raise ValueError(f"checkpoint: expected a path in a folder that exists, got {path!r}")


def doubled(model: Sequential, loss: Loss) -> bool:
    """Whether the model ends with what the loss has in itself."""
    last = model.layers[-1]
    return (isinstance(loss, CrossEntropy) and isinstance(last, Softmax)) or (
        isinstance(loss, BinaryCrossEntropy) and isinstance(last, Sigmoid)
    )


def _warn_of_double(model: Sequential, loss: Loss) -> None:
    if doubled(model, loss):
        last = model.layers[-1]
        warnings.warn(
            f"{loss!r} takes raw outputs and applies the {last!r} itself, but the model ends with "
            f"one: leave it out to train, and apply it to what predict returns",
            UserWarning,
            stacklevel=3,
        )
