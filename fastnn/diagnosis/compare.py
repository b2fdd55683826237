"""`compare_inits`: one network from several initializations, trained on the same batches."""

from __future__ import annotations

import copy
import html
import itertools
import math
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .._checks import as_bool, as_float, as_float_dtype, as_int
from .._initialization import Initialization, describe
from .._rng import rewinding, stream_seed
from ..layers import GELU, Activation, LeakyReLU, Linear, ReLU, Sigmoid, SiLU, Tanh
from ..optimizers import Optimizer, as_optimizer
from ..progress import Progress
from ..sequential import Sequential
from .report import Report
from .tables import aligned, html_table

if TYPE_CHECKING:
    from .._rng import RNG
    from ..callbacks import History
    from ..losses import Loss

__all__ = ["DEFAULT_INITS", "InitComparison", "compare_inits"]

Init: TypeAlias = str | Callable[..., NDArray[Any]]

DEFAULT_INITS = ("zeros", "uniform", "normal", "xavier_normal", "he_normal")  # the lecture's

_ACTIVATIONS: dict[str, type[Activation]] = {
    "leaky_relu": LeakyReLU,
    "relu": ReLU,
    "tanh": Tanh,
    "sigmoid": Sigmoid,
    "gelu": GELU,
    "silu": SiLU,
}

_HEADS = [
    ("initialization", True),
    ("std of z, first layer", False),
    ("std of z, output", False),
    ("loss before", False),
    ("after", False),
    ("accuracy", False),
    ("verdict before training", True),
]


class InitComparison:
    """What became of one network from several initializations; `print` shows it as a table.

    All are dicts by the initializations' names, in the order in which they were given.

    models : of Sequential, trained
    reports : of Report, from before training
    histories : of History
    """

    def __init__(
        self,
        models: dict[str, Sequential],
        reports: dict[str, Report],
        histories: dict[str, History],
        title: str,
    ) -> None:
        self.models, self.reports, self.histories = models, reports, histories
        self.title = title

    @property
    def curves(self) -> dict[str, list[float]]:
        """By name the loss before training, then its mean over each epoch: epochs + 1 numbers."""
        return {
            name: [_loss(self.reports[name]), *history.loss]
            for name, history in self.histories.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """By name the curves, the other numbers of the history, and the report before training."""
        return {
            name: {
                "curve": self.curves[name],
                "history": {key: list(values) for key, values in history.items()},
                "report": self.reports[name].to_dict(),
            }
            for name, history in self.histories.items()
        }

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw the losses by epoch, and the signal by layer before training, to an image file.

        Raises
        ------
        ImportError
            If matplotlib is missing: ``pip install "fastnn-cpu[plot]"``.
        ValueError, OSError
            If the file's ending is not one that matplotlib knows, or it cannot be written.
        """
        from .figure import draw_comparison

        draw_comparison(self, path)

    def _rows(self) -> list[list[str]]:
        rows = []
        for name, history in self.histories.items():
            report, last = self.reports[name], history.last()
            found = report.findings
            accuracy = last.get("accuracy")
            rows.append([
                name,
                f"{report.layers[0].z_std:.3g}",
                f"{report.layers[-1].z_std:.3g}",
                f"{_loss(report):.4g}",
                f"{last['loss']:.4g}",
                "" if accuracy is None else f"{accuracy:.1%}",
                f"{found[0].level}: {found[0].kind}" if found else "healthy",
            ])  # fmt: skip
        return rows

    def __str__(self) -> str:
        return "\n".join([self.title, "", *aligned(_HEADS, self._rows())])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        title = html.escape(self.title)
        return f"<div><p><b>{title}</b></p>{html_table(_HEADS, self._rows())}</div>"


def compare_inits(
    layer_sizes: Sequence[int],
    X: ArrayLike,
    y: ArrayLike,
    *,
    inits: Iterable[Init] | Mapping[str, Init] = DEFAULT_INITS,
    activation: Activation | str = "leaky_relu",
    epochs: int = 10,
    batch_size: int = 32,
    loss: Loss | str | None = None,
    optimizer: Optimizer | str = "sgd",
    bias: bool = True,
    dtype: DTypeLike = "float32",
    uint8_scale: float = 1 / 255,
    progress: bool | None = None,
    rng: RNG = None,
) -> InitComparison:
    """Train the same network from each initialization, on the same batches in the same order.

    Parameters
    ----------
    layer_sizes : sequence of int
        Such as (64, 32, 10): inputs, units of each hidden layer, outputs.
    X, y : array_like
        As for `fit`.
    inits : iterable or dict
        What the weights of all layers are drawn with: names of `fastnn.init`, "auto", or callables
        as `Linear` takes them; a dict gives each a name of one's own. Biases start at zero.
    activation : Activation or str
        After each hidden layer: "leaky_relu", "relu", "tanh", "sigmoid", "gelu", "silu", or a layer
        such as ``LeakyReLU(0.2)``, of which each place gets a copy.
    epochs, batch_size : int
        At least 1.
    loss : Loss or its name, optional
        None: cross-entropy where y has one number a row for several outputs, else MSE.
    optimizer : Optimizer or its name
        Each network gets a copy of it; it must have made no step.
    bias : bool
        Whether the layers have one.
    dtype, uint8_scale : as for `Linear` and `Sequential`
    progress : bool, optional
        As for `fit`, over the epochs of all networks.
    rng : None, int, SeedSequence, BitGenerator or Generator
        Where the weights and the order of the rows come from: the same for each network, so that
        two initializations of one distribution differ in size alone.

    Returns
    -------
    InitComparison
        With models, reports from before training, histories and curves, and `plot`.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit, before anything is trained.
    """
    sizes = _sizes(layer_sizes)
    kinds = _inits(inits, sizes)
    between = _activation(activation)
    epochs, batch_size = as_int(epochs, "epochs", 1), as_int(batch_size, "batch_size", 1)
    bias, scale = as_bool(bias, "bias"), as_float(uint8_scale, "uint8_scale")
    the_dtype, the_optimizer = as_float_dtype(dtype), as_optimizer(optimizer)
    if progress is not None:
        as_bool(progress, "progress")
    if the_optimizer.t:
        raise ValueError(f"optimizer: expected one that is new, got one of {the_optimizer.t} steps")
    models, reports = {}, {}
    with rewinding(rng):
        seed = stream_seed(rng)
        for name, how in kinds.items():
            layers = _layers(sizes, how, between, bias, the_dtype)
            models[name] = Sequential(*layers, rng=seed, uint8_scale=scale)
            reports[name] = models[name].report(X, y, loss)
    the_loss = reports[next(iter(reports))].loss
    assert the_loss is not None
    histories = {}
    with Progress(progress, epochs * len(models), unit="epoch") as bar:
        for name, model in models.items():

            def tell(_: Sequential, history: History, name: str = name) -> None:
                bar.say(f"{name}: epoch {history.epochs}/{epochs}: {history.line()}")

            with warnings.catch_warnings():
                # A loss that grows without bound is one of the answers, and the table tells it.
                warnings.filterwarnings("ignore", "the loss became", RuntimeWarning)
                histories[name] = model.fit(
                    X, y, loss=the_loss, optimizer=copy.deepcopy(the_optimizer), epochs=epochs,
                    batch_size=batch_size, callbacks=[tell], progress=False, rng=seed,
                )  # fmt: skip
    return InitComparison(models, reports, histories, _title(sizes, between, the_optimizer, epochs))


def _loss(report: Report) -> float:
    return math.nan if report.batch.loss is None else report.batch.loss


def _title(sizes: Sequence[int], between: Activation, optimizer: Optimizer, epochs: int) -> str:
    network = "-".join(map(str, sizes))
    if len(sizes) > 6:
        network = f"{sizes[0]}-{sizes[1]}-...-{sizes[-1]} of {len(sizes) - 1} layers"
    many = "epoch" if epochs == 1 else "epochs"
    return f"{network}, {repr(between).removesuffix('()')}: {epochs} {many} of {optimizer!r}"


def _sizes(layer_sizes: Sequence[int]) -> tuple[int, ...]:
    try:
        sizes = tuple(layer_sizes)
    except TypeError:
        raise TypeError(f"layer_sizes: expected (64, 32, 10) or so, got {layer_sizes!r}") from None
    if len(sizes) < 2:
        raise ValueError(f"layer_sizes: expected inputs and outputs at least, got {layer_sizes!r}")
    return tuple(as_int(size, "layer_sizes", 1) for size in sizes)


def _inits(inits: Iterable[Init] | Mapping[str, Init], sizes: tuple[int, ...]) -> dict[str, Init]:
    """By name; a callable without one goes by what `summary` would call it."""
    if isinstance(inits, str) or not isinstance(inits, Iterable):
        raise TypeError(f"inits: expected a list or dict of initializers, got {inits!r}")
    named: list[tuple[Any, Init]]
    if isinstance(inits, Mapping):
        named = list(inits.items())
    else:
        shape = sizes[1], sizes[0]
        named = [(describe(one, shape) if callable(one) else one, one) for one in inits]
    if not named:
        raise ValueError("inits: expected at least one initializer, got none")
    for name, one in named:
        if not isinstance(name, str):
            raise TypeError(f"inits: expected names or callables, got {name!r}")
        if not (isinstance(one, str) or callable(one)):
            raise TypeError(f"inits: expected a name or a callable for {name!r}, got {one!r}")
        if one != "auto":
            Initialization(one, "inits", (1, 1), np.dtype(np.float32))
    found = dict(named)
    if len(found) < len(named):
        names = [name for name, _ in named]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"inits: expected each name once, got {twice!r} twice (a dict names them)")
    return found


def _activation(given: Activation | str) -> Activation:
    if isinstance(given, Activation):
        return given
    if not isinstance(given, str):
        raise TypeError(f"activation: expected a name or a layer such as ReLU(), got {given!r}")
    if given not in _ACTIVATIONS:
        names = ", ".join(_ACTIVATIONS)
        raise ValueError(f"activation: expected one of {names}, got {given!r}")
    return _ACTIVATIONS[given]()


def _layers(
    sizes: Sequence[int], how: Init, between: Activation, bias: bool, dtype: np.dtype[Any]
) -> list[Linear | Activation]:
    layers: list[Linear | Activation] = []
    for n_in, n_out in itertools.pairwise(sizes):
        layers += [Linear(n_in, n_out, bias, weight_init=how, dtype=dtype), copy.copy(between)]
    return layers[:-1]
