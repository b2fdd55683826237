"""Checkpoints of `fit`: a safetensors file from which a run goes on with the same bits.

It holds the parameters under their names, the optimizer's state, the history, the best epoch's
parameters where early stopping keeps them, and as metadata one JSON text: what the run is
(`identity`), and how far.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ._checks import as_bool, as_int
from .callbacks import History
from .files import load_tensors, save_tensors

if TYPE_CHECKING:
    from .training import Run

__all__ = ["Found", "read", "restore", "write"]

_ENTRY = "fastnn_checkpoint"
_OPTIMIZER, _HISTORY, _BEST = "optimizer.", "history.", "best"

Path = str | os.PathLike[str]


def identity(run: Run) -> dict[str, Any]:
    """What has to be the same for a run to go on, as JSON has it."""
    stopper = run.stopper
    return {
        "layers": [[type(layer).__name__, layer.settings()] for layer in run.model],
        "uint8_scale": run.model.uint8_scale,
        "loss": list(run.loss.spec),
        "optimizer": [type(run.optimizer).__name__, run.optimizer.hyper],
        "rows": len(run.data.X),
        "batch_size": run.batch_size,
        "shuffle": run.shuffle,
        "monitor": None if stopper is None else stopper.monitor,
        "restore_best": None if stopper is None else stopper.rule.restore_best,
    }


def write(path: Path, run: Run) -> None:
    """Save the run as it is after an epoch."""
    import json

    state = run.optimizer.state_dict()
    tensors = dict(run.model.parameters())
    tensors |= {_OPTIMIZER + name: state[name] for name in run.optimizer.state_names()}
    tensors |= {_HISTORY + name: np.array(values) for name, values in run.history.items()}
    how_far: dict[str, Any] = {"seed": run.seed, "t": state["t"], "stopped": run.stopped}
    if run.stopper is not None:
        how_far |= {"best": run.stopper.best, "best_epoch": run.stopper.best_epoch}
        if run.stopper.parameters is not None:
            tensors[_BEST] = run.stopper.parameters
    text = json.dumps({"version": 2, "run": identity(run), "state": how_far})
    save_tensors(path, tensors, {_ENTRY: text})


class Found(NamedTuple):
    """The checked content of a checkpoint."""

    parameters: dict[str, np.ndarray]
    optimizer: dict[str, Any]
    history: History
    seed: int
    stopped: bool
    best: tuple[float, int | None, np.ndarray | None] | None


def read(path: Path, run: Run, any_seed: bool) -> Found:
    """What the checkpoint holds for this run, in which nothing changes.

    any_seed : whether the run may take over the file's seed.

    Raises
    ------
    ValueError
        If the file is not a checkpoint, or one of another run.
    OSError
        If the file cannot be read.
    """
    try:
        tensors, metadata = load_tensors(path)
    except OSError as error:
        raise OSError(error.errno, f"checkpoint: {error.strerror}", error.filename) from None
    except ValueError as error:
        raise ValueError(f"checkpoint: {error}") from None
    try:
        return _found(run, tensors, _parsed(metadata), any_seed)
    except KeyError as error:
        raise ValueError(f"checkpoint: {os.fspath(path)}: {error} is missing") from None
    except (AttributeError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"checkpoint: {os.fspath(path)}: {error}") from None


def restore(run: Run, found: Found) -> None:
    """Set the run, whose optimizer is bound, to where the checkpoint was written."""
    run.optimizer.load_state_dict(found.optimizer)
    run.model._assign(found.parameters)
    run.seed, run.stopped, run.history = found.seed, found.stopped, found.history
    if run.stopper is not None and found.best is not None:
        run.stopper.best, run.stopper.best_epoch, run.stopper.parameters = found.best
        run.history.best_epoch = run.stopper.best_epoch


def _parsed(metadata: dict[str, str]) -> dict[str, Any]:
    import json

    if _ENTRY not in metadata:
        raise ValueError("expected a checkpoint of fit, got another safetensors file")
    content = json.loads(metadata[_ENTRY])
    if not isinstance(content, dict) or content.get("version") != 2:
        raise ValueError("expected a checkpoint of version 2, got another one")
    return content


def _found(
    run: Run, tensors: dict[str, np.ndarray], content: dict[str, Any], any_seed: bool
) -> Found:
    for name, value in identity(run).items():
        if content["run"][name] != value:
            raise ValueError(
                f"{name}: expected {value!r} as in this call, got {content['run'][name]!r}"
            )
    state = content["state"]
    seed, stopped = as_int(state["seed"], "seed", 0, 2**64), as_bool(state["stopped"], "stopped")
    if seed != run.seed and not any_seed:
        raise ValueError("rng: expected the seed that the run began with, got another one")
    history = _history(tensors)
    best = _best(run, tensors, state) if run.stopper is not None else None
    optimizer: dict[str, Any] = {"t": as_int(state["t"], "t", 0, below=2**63)}
    for name in run.optimizer.state_names():
        optimizer[name] = tensors.pop(_OPTIMIZER + name)
        _check_flat(run, optimizer[name], _OPTIMIZER + name)
    return Found(run.model._fitting(tensors), optimizer, history, seed, stopped, best)


def _history(tensors: dict[str, np.ndarray]) -> History:
    """What was recorded; takes its tensors away."""
    history = History()
    for name in [name for name in tensors if name.startswith(_HISTORY)]:
        values = tensors.pop(name)
        if values.ndim != 1 or values.dtype != np.float64:
            raise ValueError(f"{name}: expected float64, one number an epoch")
        history[name.removeprefix(_HISTORY)] = values.tolist()
    if {len(values) for values in history.values()} != {history.epochs}:
        raise ValueError("history: expected the loss and others of one length, got another")
    return history


def _best(
    run: Run, tensors: dict[str, np.ndarray], state: dict[str, Any]
) -> tuple[float, int | None, np.ndarray | None]:
    """What early stopping knows of the best epoch; takes its tensor away."""
    epoch = state["best_epoch"]
    if epoch is not None:
        as_int(epoch, "best_epoch", 0)
    parameters = tensors.pop(_BEST, None)
    if parameters is not None:
        _check_flat(run, parameters, _BEST)
    return float(state["best"]), epoch, parameters


def _check_flat(run: Run, array: np.ndarray, name: str) -> None:
    """That an array can stand beside the model's buffer of parameters."""
    expected = run.model._parameters
    if array.shape != expected.shape or array.dtype != expected.dtype:
        raise ValueError(
            f"{name}: expected {expected.dtype} of shape {expected.shape}, "
            f"got {array.dtype} of shape {array.shape}"
        )
