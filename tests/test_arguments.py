"""Every argument of every public function, class and method, replaced by what it is not: it is
taken, or there is one exception that names an argument, what was expected and what came."""

from __future__ import annotations

import inspect
import math
import re

import numpy as np
import pytest

import fastnn
from fastnn import init, schedules


class Useless:
    """Converts to nothing, and says so in ways of its own."""

    def __array__(self, dtype=None, copy=None):
        return "no"

    def __len__(self):
        return 2

    def __getitem__(self, index):
        raise IndexError


def read_only(x):
    x.flags.writeable = False
    return x


ODD = {
    "None": None,
    "text": "text",
    "surrogate": "\udcff",
    "NUL": "a\0b",
    "bytes": b"abc",
    "zero": 0,
    "negative": -1,
    "fraction": 1.5,
    "NaN": math.nan,
    "infinity": math.inf,
    "huge": 2**70,
    "beyond float": 10**400,
    "bool": True,
    "imaginary": 1j,
    "list": [1, 2],
    "ragged": [[1.0], [1.0, 2.0]],
    "dict": {"a": 1},
    "module": np,
    "class": dict,
    "useless": Useless(),
    "object": np.array([[1.0, None, 2.0]] * 4),
    "complex": np.ones((4, 3), complex),
    "big-endian": np.ones((4, 3), ">f4"),
    "integers": np.ones((4, 3), int),
    "no axes": np.zeros((), "f4"),
    "one axis": np.ones(3, "f4"),
    "three axes": np.ones((2, 2, 3), "f4"),
    "other width": np.ones((4, 5), "f4"),
    "no rows": np.ones((0, 3), "f4"),
    "no columns": np.ones((4, 0), "f4"),
    "other dtype": np.ones((4, 3)),
    "NaN inside": np.full((4, 3), np.nan, "f4"),
    "large": np.full((4, 3), 1e300),
    "masked": np.ma.masked_array(np.ones((4, 3), "f4"), True),
    "structured": np.zeros(4, "f4,f4"),
    "dates": np.zeros((4, 3), "M8[D]"),
    "read-only": read_only(np.ones((4, 3), "f4")),
    "matrix": np.ones((4, 3), "f4").view(np.matrix),
    "labels too large": np.array([0, 1, 2, 3]),
    "labels below 0": np.array([0, 1, 2, -1]),
}

X = np.random.default_rng(0).standard_normal((4, 3)).astype("f4")
LABELS = np.array([0, 1, 2, 0])


def network():
    return fastnn.Sequential(
        fastnn.Linear(3, 5), fastnn.LeakyReLU(), fastnn.Dropout(0.1), fastnn.Linear(5, 3), rng=0
    )


def after_forward(layer):
    layer.forward(X)
    return layer


def assigned(owner, name):
    return lambda **value: setattr(owner(), name, value[name])


def defaults(function, **given):
    """The arguments of a call, by name: its defaults, and those given."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: given.get(p.name, p.default) for p in parameters}


FIT = {
    "loss": "cross_entropy", "optimizer": "adam", "epochs": 1, "batch_size": 2, "y": LABELS,
    "validation_data": (X, LABELS), "sample_weight": np.ones(4), "early_stopping": 2, "rng": 0,
}  # fmt: skip
LAYERS = [
    lambda: fastnn.Linear(3, 3), fastnn.LeakyReLU, fastnn.ReLU, fastnn.Tanh, fastnn.Sigmoid,
    fastnn.GELU, fastnn.SiLU, fastnn.Softmax, fastnn.Dropout,
]  # fmt: skip
STATE = {"t": 1, "mean": np.zeros(3), "square": np.zeros(3)}

# What is called, and a function that makes good arguments for it.
CALLS = {
    "linear": (
        fastnn.linear,
        lambda: defaults(fastnn.linear, x=X, weight=X[:3], negative_slope=0.1, out=X.copy()),
    ),
    "linear_backward": (
        fastnn.linear_backward,
        lambda: {"grad_y": X, "x": X, "weight": X[:3], "y": X, "negative_slope": 0.1},
    ),
    "leaky_relu": (fastnn.leaky_relu, lambda: {"x": X, "negative_slope": 0.1, "out": X.copy()}),
    "leaky_relu_derivative": (
        fastnn.leaky_relu_derivative,
        lambda: {"x": X, "negative_slope": 0.1, "out": X.copy()},
    ),
    "Sequential": (
        lambda layer, **options: fastnn.Sequential(fastnn.Linear(3, 2), layer, **options),
        lambda: {"layer": fastnn.ReLU(), "rng": 0, "uint8_scale": 1.0},
    ),
    "predict": (lambda **a: network().predict(**a), lambda: {"x": X, "out": X.copy()}),
    "forward": (lambda **a: network().forward(**a), lambda: {"x": X, "training": True}),
    "backward": (
        lambda **a: after_forward(network()).backward(**a),
        lambda: {"grad": X, "want_grad_x": True},
    ),
    "fit": (
        lambda **a: network().fit(**a),
        lambda: defaults(network().fit, X=X, **FIT),
    ),
    "fit MSE": (
        lambda **a: network().fit(**a),
        lambda: {"X": X, "y": X, "loss": "mse", "optimizer": "sgd", "epochs": 1},
    ),
    "evaluate": (
        lambda **a: network().evaluate(**a),
        lambda: {"X": X, "y": LABELS, "loss": "cross_entropy", "sample_weight": np.ones(4)},
    ),
    "load_state_dict": (
        lambda **a: network().load_state_dict(**a),
        lambda: {"state": network().state_dict()},
    ),
    "a weight": (
        lambda **a: network().load_state_dict(network().state_dict() | {"0.weight": a["weight"]}),
        lambda: {"weight": np.ones((5, 3))},
    ),
    "weight": (assigned(lambda: network()[0], "weight"), lambda: {"weight": np.ones((5, 3))}),
    "bias": (assigned(lambda: network()[0], "bias"), lambda: {"bias": np.ones(5)}),
    "lr": (assigned(fastnn.Adam, "lr"), lambda: {"lr": 0.1}),
    "optimizer.step": (lambda **a: fastnn.Adam().step(**a), lambda: {"model": network()}),
    "optimizer.load_state_dict": (
        lambda **a: fastnn.Adam().load_state_dict(**a),
        lambda: {"state": STATE},
    ),
    "optimizer's state": (
        lambda **a: fastnn.Adam().load_state_dict(STATE | a),
        lambda: dict(STATE),
    ),
    "set_num_threads": (fastnn.set_num_threads, lambda: {"n": fastnn.get_num_threads()}),
    "threads": (fastnn.threads, lambda: {"n": 2}),
    "show_config": (fastnn.show_config, lambda: {"mode": "dicts"}),
    "calculate_gain": (
        init.calculate_gain,
        lambda: {"nonlinearity": "leaky_relu", "negative_slope": 0.1},
    ),
    "save": (lambda **a: network().save(**a), lambda: {"path": "model"}),
    "load": (fastnn.load, lambda: {"path": "model"}),
    "load_idx": (fastnn.data.load_idx, lambda: {"directory": "nowhere"}),
    "a schedule": (schedules.cosine(0.1, 9), lambda: {"step": 1}),
    "an exponential schedule": (schedules.exponential(0.1, 0.5), lambda: {"step": 1}),
}  # fmt: skip
for kind in (
    fastnn.Linear, fastnn.LeakyReLU, fastnn.Dropout, fastnn.Huber, fastnn.SGD, fastnn.Adam,
    fastnn.AdamW, fastnn.RMSprop, fastnn.EarlyStopping, schedules.constant, schedules.linear,
    schedules.cosine, schedules.exponential, schedules.step_decay,
):  # fmt: skip
    required = {"in_features": 3, "out_features": 2, "lr": 0.1, "steps": 9, "factor": 0.5}
    CALLS[kind.__name__] = kind, lambda kind=kind, given=required: defaults(kind, **given)
for loss in (
    fastnn.CrossEntropy(), fastnn.BinaryCrossEntropy(), fastnn.MSE(), fastnn.MAE(), fastnn.Huber()
):  # fmt: skip
    target = LABELS if isinstance(loss, fastnn.CrossEntropy) else np.full((4, 3), 0.5)
    CALLS[repr(loss)] = (
        loss, lambda target=target: {"y": X, "target": target, "sample_weight": np.ones(4)},
    )  # fmt: skip
for layer in LAYERS:
    name = type(layer()).__name__
    CALLS[f"{name}()"] = lambda x, layer=layer: layer()(x), lambda: {"x": X}
    CALLS[f"{name}.forward"] = lambda x, layer=layer: layer().forward(x), lambda: {"x": X}
    CALLS[f"{name}.backward"] = (
        lambda grad, layer=layer: after_forward(layer()).backward(grad), lambda: {"grad": X},
    )  # fmt: skip
for name in sorted(set(init.__all__) - {"calculate_gain"}):
    function = getattr(init, name)
    CALLS[f"init.{name}"] = (
        function,
        lambda f=function: defaults(f, shape=(4, 3), value=0.5, rng=0, out=X.copy()),
    )

# These train for ever, or tell of their progress as they are asked to.
WANTED = {("epochs", "huge"), ("epochs", "beyond float"), ("progress", "bool")}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("call", CALLS)
def test_odd_arguments_are_taken_or_refused_by_name(
    call, tmp_path, monkeypatch, capsys, set_threads
):
    monkeypatch.chdir(tmp_path)
    set_threads(2)
    function, good = CALLS[call]
    refused = 0
    for argument in good():
        for odd, value in ODD.items():
            if (argument, odd) in WANTED:
                continue
            arguments = good() | {argument: value}
            what = f"{call}({argument}={odd})"
            try:
                function(**arguments)
            except FileNotFoundError:
                assert argument in ("path", "directory"), what
            except (TypeError, ValueError) as error:
                refused += 1
                assert ": expected" in str(error), f"{what}: {error}"
                # A mismatch may be told of the other argument.
                names = "|".join([*arguments, "layer 1"])
                assert re.search(rf"\b({names})\b.{{0,20}}: expected", str(error)), what
    assert refused > 0
    assert capsys.readouterr() == ("", "")
