"""fastnn: fully-connected neural networks on the CPU.

>>> import fastnn
>>> X, y = fastnn.data.load_digits()
>>> model = fastnn.Sequential(
...     fastnn.Linear(64, 32),
...     fastnn.LeakyReLU(0.01),
...     fastnn.Linear(32, 10),
...     rng=0,
...     uint8_scale=1 / 16,
... )
>>> history = model.fit(X, y, loss="cross_entropy", optimizer="adam", rng=0)
>>> model.predict(X).shape
(1797, 10)
"""

from typing import TYPE_CHECKING, Any

from ._baseline import check_cpu

check_cpu()  # before anything imports NumPy

# ruff: noqa: E402
from . import data, init
from ._core.linear import linear, linear_backward
from ._core.pointwise import leaky_relu, leaky_relu_derivative
from ._version import version as __version__
from .callbacks import History, StopTraining
from .config import get_num_threads, set_num_threads, show_config, threads
from .files import load
from .layers import (
    GELU,
    Dropout,
    LeakyReLU,
    Linear,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Tanh,
)
from .losses import MAE, MSE, BinaryCrossEntropy, CrossEntropy, Huber
from .optimizers import SGD, Adam, AdamW, RMSprop
from .sequential import Sequential

if TYPE_CHECKING:
    from . import schedules
    from .diagnosis import InitComparison, Report, compare_inits, predict_signal
    from .stopping import EarlyStopping

__all__ = [
    "GELU",
    "MAE",
    "MSE",
    "SGD",
    "Adam",
    "AdamW",
    "BinaryCrossEntropy",
    "CrossEntropy",
    "Dropout",
    "EarlyStopping",
    "History",
    "Huber",
    "InitComparison",
    "LeakyReLU",
    "Linear",
    "RMSprop",
    "ReLU",
    "Report",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "StopTraining",
    "Tanh",
    "__version__",
    "compare_inits",
    "data",
    "get_num_threads",
    "init",
    "leaky_relu",
    "leaky_relu_derivative",
    "linear",
    "linear_backward",
    "load",
    "predict_signal",
    "schedules",
    "set_num_threads",
    "show_config",
    "threads",
]

# Imported when first used.
_LATER = dict.fromkeys(("InitComparison", "Report", "compare_inits", "predict_signal"), "diagnosis")
_LATER |= {"EarlyStopping": "stopping", "schedules": "schedules"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module = import_module(f".{_LATER[name]}", __name__)
    value = globals()[name] = module if name == _LATER[name] else getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
