"""Dead units while training: what the History counts, and when `monitor_units` warns."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest
from networks import N_IN, bits, fit, learnable, network

import fastnn
from fastnn import checkpoint as files
from fastnn._core.trainer import Trainer
from fastnn.units import watched


@pytest.fixture
def data():
    return learnable()


def relu(x):
    return np.maximum(x, 0)


def share_never_positive(*blocks):
    """The share of columns that no block has a positive number in."""
    positive = np.any([(block > 0).any(axis=0) for block in blocks], axis=0)
    return np.count_nonzero(~positive) / len(positive)


def sick(width=32, bias=-30.0, activation=fastnn.ReLU):
    """Half of the units of layer 0 are dead."""
    model = fastnn.Sequential(
        fastnn.Linear(N_IN, width), activation(), fastnn.Linear(width, 4), rng=0
    )
    model[0].bias[: width // 2] = bias
    return model


def test_shares_follow_the_parameters_from_step_to_step(isa, n_threads, dtype, data):
    """Against activations recomputed before every step of a loop of one's own."""
    X, y = data

    def build():
        model = fastnn.Sequential(
            fastnn.Linear(N_IN, 37, dtype=dtype), fastnn.ReLU(),
            fastnn.Linear(37, 70, dtype=dtype), fastnn.LeakyReLU(0.1),
            fastnn.Linear(70, 4, dtype=dtype), rng=3,
        )  # fmt: skip
        model[0].bias[...] = np.linspace(-5, 0.5, 37)
        model[2].bias[...] = np.linspace(-3, 0.5, 70)
        return model

    history = fit(
        build(), X, y, optimizer=fastnn.Adam(0.03), batch_size=32, shuffle=False, epochs=3
    )
    model, loss, optimizer = build(), fastnn.CrossEntropy(), fastnn.Adam(0.03)
    for epoch in range(3):
        first, second = [], []
        for begin in range(0, len(X), 32):
            rows = X[begin : begin + 32].astype(dtype)
            first.append(model[0](rows))
            second.append(model[2](relu(first[-1])))
            _, grad = loss(model.forward(rows), y[begin : begin + 32])
            model.backward(grad)
            optimizer.step(model)
        assert history["dead_units.0"][epoch] == share_never_positive(*first)
        assert history["dead_units.2"][epoch] == share_never_positive(*second)
    assert history.dead_units == {0: history["dead_units.0"], 2: history["dead_units.2"]}
    assert 0 < history.dead_units[0][0] < 1
    assert 0 < history.dead_units[2][0] < 1


@pytest.mark.parametrize("slope", [0.3, -0.3])
def test_the_sign_of_the_preactivation_counts(data, slope):
    """Under a negative slope the output is positive where the unit is not."""
    X, y = data
    model = sick(activation=lambda: fastnn.LeakyReLU(slope))
    history = fit(model, X, y, optimizer=fastnn.SGD(0.0), epochs=1)
    assert history.dead_units == {0: [share_never_positive(model[0](X))]}
    assert history.dead_units[0] == [0.5]


def test_which_layers_are_watched():
    a, b, c, d = (fastnn.Linear(3, 3) for _ in range(4))
    model = fastnn.Sequential(
        fastnn.ReLU(), a, fastnn.Dropout(0.5), fastnn.ReLU(), b, fastnn.Tanh(), fastnn.ReLU(),
        c, fastnn.LeakyReLU(), d, fastnn.Softmax(), fastnn.ReLU(),
    )  # fmt: skip
    # Operations: ReLU, a, Dropout, ReLU, b with Tanh, ReLU, c with LeakyReLU, ...
    assert watched(model.layers) == {1: 3, 7: 6}


def test_dropout_kills_nobody(data):
    """Units are looked at where the activation is, before the dropout that follows."""
    X, y = data
    model = network(fastnn.Dropout(0.9))
    history = fit(model, X, y, optimizer=fastnn.SGD(0.0), epochs=2, batch_size=150)
    assert history.dead_units == {0: [share_never_positive(model[0](X))] * 2}
    between = fastnn.Sequential(
        fastnn.Linear(N_IN, 8), fastnn.Dropout(0.5), fastnn.ReLU(), fastnn.Linear(8, 4), rng=0
    )
    between[0].bias[:2] = -100
    assert fit(between, X, y, optimizer=fastnn.SGD(0.0), epochs=1).dead_units == {0: [0.25]}


def test_nan_is_not_positive(data):
    X, y = data
    model = sick()
    model[0].weight[16:20] = np.nan
    with pytest.warns(RuntimeWarning, match="the loss became nan"):
        history = fit(model, X, y, optimizer=fastnn.SGD(0.0), epochs=1)
    assert history.dead_units == {0: [20 / 32]}


def test_counting_changes_nothing_else(data):
    """The parameters have the bits of a trainer that watches nobody."""
    X, y = data
    watching, other = network(), network()
    fit(watching, X, y, epochs=1, shuffle=False)
    update = fastnn.Adam().bind(other)
    update.lr = fastnn.Adam().lr_at(0)
    trainer = Trainer(
        other._plan, X, y.astype(np.int64), None, fastnn.CrossEntropy().spec, update, 32, 0
    )
    for begin in range(0, len(X), 32):
        trainer.step(None, begin, min(begin + 32, len(X)), 0)
    assert trainer.dead_units() == []
    assert bits(watching) == bits(other)


@pytest.mark.parametrize("wrong", [(1,), (-1,), (9,)])
def test_only_rectifiers_can_be_watched(data, wrong):
    X, y = data
    model = network()
    update = fastnn.SGD().bind(model)
    with pytest.raises(ValueError, match="watched: expected an operation with a ReLU"):
        Trainer(model._plan, X, y, None, ("cross_entropy",), update, 32, 0, wrong)


def test_the_history_goes_into_json_and_checkpoints(data, tmp_path):
    X, y = data
    whole = fit(sick(), X, y, epochs=5)
    path = tmp_path / "run"
    fit(sick(), X, y, epochs=2, checkpoint=path)
    resumed = fit(sick(), X, y, epochs=5, checkpoint=path)
    assert json.loads(json.dumps(whole))["dead_units.0"] == whole["dead_units.0"]
    assert whole.dead_units == resumed.dead_units
    assert len(whole.dead_units[0]) == 5


def test_a_checkpoint_without_the_shares_goes_on(data, tmp_path, monkeypatch):
    """Epochs before they were recorded have NaN, so that all lists have one length."""
    X, y = data
    path = tmp_path / "run"
    write = files.write

    def write_less(path, run):
        del run.history["dead_units.0"]
        write(path, run)

    with monkeypatch.context() as patched:
        patched.setattr(files, "write", write_less)
        fit(network(), X, y, epochs=1, checkpoint=path)
    fit(network(), X, y, epochs=2, checkpoint=path)
    history = fit(network(), X, y, epochs=3, checkpoint=path)
    shares = history.dead_units[0]
    assert len(shares) == 3
    assert math.isnan(shares[0])
    assert not math.isnan(shares[1] + shares[2])


def test_monitor_units_warns_once_and_names_the_mend(data):
    X, y = data
    model = sick()
    model[0].bias[:20] = -30
    with pytest.warns(UserWarning, match="lower learning rate, LeakyReLU") as seen:
        fit(model, X, y, epochs=4, monitor_units=True)
    assert len(seen) == 1
    text = str(seen[0].message)
    assert text.startswith("62% of the 32 units of layer 0 are dead: positive on no row of epoch 1")
    assert "He initialization" in text
    assert seen[0].filename.endswith("networks.py"), "where fit was called"


def test_monitor_units_tells_the_worst_layer(data):
    X, y = data
    model = fastnn.Sequential(
        fastnn.Linear(N_IN, 8), fastnn.ReLU(), fastnn.Linear(8, 8), fastnn.ReLU(),
        fastnn.Linear(8, 4), rng=0,
    )  # fmt: skip
    model[0].bias[:5] = -50
    model[2].bias[:] = -500
    with pytest.warns(UserWarning, match=r"100% .* of layer 2 are dead \(and more .* 1 other\)"):
        fit(model, X, y, epochs=1, monitor_units=True)


def test_monitor_units_warns_when_units_die_in_training(data):
    """A learning rate that throws the biases far below 0."""
    X, y = np.abs(data[0]), data[1]
    model = fastnn.Sequential(fastnn.Linear(N_IN, 16), fastnn.ReLU(), fastnn.Linear(16, 4), rng=0)
    large = fastnn.SGD(3.0, momentum=0.9)
    with pytest.warns(UserWarning, match="units of layer 0 are dead: positive on no row of epoch"):
        history = fit(model, X, y, optimizer=large, epochs=10, monitor_units=True)
    assert history.dead_units[0][0] < 0.5 < history.dead_units[0][-1]


def test_monitor_units_is_silent_where_nothing_is_wrong(data):
    X, y = data
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(network(), X, y, epochs=5, monitor_units=True)
        fit(sick(), X, y, optimizer=fastnn.SGD(0.0), epochs=1, monitor_units=True)  # just half
        leaky = sick(activation=fastnn.LeakyReLU)
        leaky[0].bias[...] = -30
        assert fit(
            leaky, X, y, optimizer=fastnn.SGD(0.0), epochs=1, monitor_units=True
        ).dead_units == {0: [1.0]}, "these learn, slowly"
        dead = sick()
        dead[0].bias[...] = -30
        fit(dead, X, y, epochs=1)  # nobody asked
    with pytest.raises(TypeError, match="monitor_units: expected True or False, got 1"):
        fit(network(), X, y, monitor_units=1)


def test_a_team_counts_each_unit_once(n_threads, dtype):
    """Wide layers, whose columns are dealt to several threads; widths that no vector divides."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 65)).astype(np.float32)
    model = fastnn.Sequential(
        fastnn.Linear(65, 1003, dtype=dtype), fastnn.ReLU(),
        fastnn.Linear(1003, 517, dtype=dtype), fastnn.ReLU(),
        fastnn.Linear(517, 4, dtype=dtype), rng=0,
    )  # fmt: skip
    model[0].bias[rng.permutation(1003)[:400]] = -4.5
    model[2].bias[rng.permutation(517)[:300]] = -4
    history = fit(model, X, np.zeros(300, int), optimizer=fastnn.SGD(0.0), epochs=2, batch_size=150)
    z = model[0](X.astype(dtype))
    expected = [share_never_positive(z), share_never_positive(model[2](relu(z)))]
    assert [shares[-1] for shares in history.dead_units.values()] == expected
    assert all(0.02 < share < 0.7 for share in expected), expected
