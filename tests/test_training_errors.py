"""fit and evaluate on bad input: one exception, before anything has changed."""

from __future__ import annotations

import os
import warnings

import numpy as np
import pytest
from networks import N_IN, M, bits, fit, learnable, network

import fastnn


@pytest.fixture(autouse=True)
def _one_thread(set_threads):
    set_threads(1)


NAN = np.ones((M, N_IN), np.float32)
NAN[7, 3] = np.nan
X0, Y0 = np.ones((M, N_IN), np.float32), np.zeros(M, int)
BAD = [
    ({"X": X0[:, :3]}, ValueError, r"X: expected shape \(m, 20\), got \(150, 3\)"),
    ({"X": X0[0]}, ValueError, r"X: expected shape \(m, 20\), got \(20,\)"),
    ({"X": X0[:0], "y": Y0[:0]}, ValueError, r"X: expected at least one row, got shape \(0, 20\)"),
    ({"X": NAN}, ValueError, "X: expected finite numbers, got nan in row 7"),
    ({"X": X0 * np.inf}, ValueError, "X: expected finite numbers, got inf in row 0"),
    (
        {"X": np.where(np.arange(M)[:, None] == 9, np.float64(-1e300), X0)},
        ValueError,
        "X: expected numbers that float32 can hold, got -1e\\+300 in row 9",
    ),
    ({"X": X0.astype(complex)}, TypeError, "X: expected real numbers"),
    ({"X": X0.astype(object)}, TypeError, "X: expected real numbers"),
    ({"X": X0.astype(">f4")}, TypeError, "X: expected real numbers"),
    ({"X": "X"}, TypeError, "X: expected"),
    ({"X": None}, TypeError, "X: expected"),
    ({"y": Y0[:-1]}, ValueError, r"y: expected shape \(150,\), got \(149,\)"),
    ({"y": Y0 + 4}, ValueError, r"y: expected labels in \[0, 4\), got 4 at index 0"),
    ({"y": Y0 - 1}, ValueError, r"y: expected labels in \[0, 4\), got -1 at index 0"),
    ({"y": Y0 * np.nan}, TypeError, "y: expected integer labels, got dtype float64"),
    ({"y": X0[:, :4] * np.nan, "loss": "mse"}, ValueError, "y: expected finite numbers, got nan"),
    (
        {"y": np.full((M, 4), 1e300), "loss": "mse"},
        ValueError,
        "y: expected numbers that float32 can hold, got 1e\\+300 in row 0",
    ),
    ({"y": X0[:, :3], "loss": "mse"}, ValueError, r"y: expected shape \(150, 4\), got \(150, 3\)"),
    ({"loss": "crossentropy"}, ValueError, "loss: expected one of cross_entropy, "),
    ({"loss": None}, TypeError, "loss: expected a loss such as"),
    ({"optimizer": "adagrad"}, ValueError, "optimizer: expected one of sgd, adam, adamw, rmsprop"),
    ({"optimizer": 0.1}, TypeError, "optimizer: expected an optimizer such as"),
    (
        {"optimizer": fastnn.SGD(lambda step: -1)},
        ValueError,
        r"lr\(0\): expected at least 0, got -1",
    ),
    ({"epochs": 0}, ValueError, "epochs: expected an integer of at least 1, got 0"),
    ({"epochs": 2.0}, TypeError, "epochs: expected an integer of at least 1, got 2.0"),
    ({"batch_size": 0}, ValueError, "batch_size: expected an integer of at least 1, got 0"),
    ({"batch_size": True}, TypeError, "batch_size: expected an integer"),
    ({"shuffle": "yes"}, TypeError, "shuffle: expected True or False"),
    ({"progress": 1}, TypeError, "progress: expected True or False"),
    ({"sample_weight": np.ones(3)}, ValueError, r"sample_weight: expected shape \(150,\)"),
    ({"sample_weight": -np.ones(M)}, ValueError, "sample_weight: expected at least 0"),
    ({"sample_weight": np.zeros(M)}, ValueError, "sample_weight: expected at least one above 0"),
    ({"sample_weight": np.ones(M) * np.nan}, ValueError, "sample_weight: expected finite numbers"),
    ({"validation_data": X0}, TypeError, r"validation_data: expected \(X, y\)"),
    ({"validation_data": (X0,)}, TypeError, r"validation_data: expected \(X, y\).* got 1 items"),
    ({"validation_data": (X0[:, :2], Y0)}, ValueError, r"validation_data: X: expected shape"),
    ({"validation_data": (X0, Y0[:2])}, ValueError, r"validation_data: y: expected shape"),
    ({"validation_data": (X0, Y0, [1])}, ValueError, r"validation_data: sample_weight: expected"),
    ({"early_stopping": 0}, ValueError, "early_stopping: expected an integer of at least 1"),
    ({"early_stopping": "yes"}, TypeError, "early_stopping: expected an integer"),
    (
        {"early_stopping": fastnn.EarlyStopping(monitor="val_loss")},
        ValueError,
        "early_stopping: expected a monitor among loss, accuracy",
    ),
    ({"callbacks": print}, TypeError, "callbacks: expected a list of callables"),
    ({"callbacks": [1]}, TypeError, "callbacks: expected callables, got 1"),
    ({"checkpoint": 5}, TypeError, "checkpoint: expected a path"),
    (
        {"checkpoint": "no/such/folder/x"},
        ValueError,
        "checkpoint: expected a path in a folder that",
    ),
    ({"checkpoint": os.path.dirname(__file__)}, ValueError, "a folder"),
    ({"rng": -1}, ValueError, "rng: expected"),
    ({"rng": "0"}, TypeError, "rng: expected"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD, ids=lambda x: "")
def test_bad_arguments_are_refused_before_anything_changes(change, error, message):
    model = network()
    before = bits(model)
    optimizer, generator = fastnn.Adam(), np.random.default_rng(3)
    state = generator.bit_generator.state
    arguments = {"X": X0, "y": Y0, "optimizer": optimizer, "rng": generator} | change
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(error, match=message):
            fit(model, arguments.pop("X"), arguments.pop("y"), **arguments)
    assert bits(model) == before
    assert model.history is None
    assert generator.bit_generator.state == state
    fit(network(), X0, Y0, optimizer=optimizer)  # it is still free
    fit(model, X0, Y0)


def test_an_optimizer_of_another_model_is_refused():
    X, y = learnable()
    optimizer = fastnn.Adam()
    fit(network(), X, y, optimizer=optimizer)
    with pytest.raises(ValueError, match="optimizer: expected the model that it has served before"):
        fit(network(), X, y, optimizer=optimizer)


def test_evaluate_refuses_bad_arguments():
    model = network()
    for change, message in [
        ({"X": X0[:, :3]}, "X: expected shape"),
        ({"y": Y0 + 9}, "y: expected labels"),
        ({"loss": "mee"}, "loss: expected one of"),
        ({"sample_weight": -np.ones(M)}, "sample_weight: expected at least 0"),
    ]:
        arguments = {"X": X0, "y": Y0, "loss": "cross_entropy"} | change
        with pytest.raises(ValueError, match=message):
            model.evaluate(arguments.pop("X"), arguments.pop("y"), **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patience": 0}, "patience: expected an integer of at least 1"),
        ({"min_delta": -1}, "min_delta: expected at least 0"),
        ({"monitor": "lr"}, "monitor: expected one of loss, accuracy, val_loss, val_accuracy"),
    ],
)
def test_bad_early_stopping_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        fastnn.EarlyStopping(**arguments)
