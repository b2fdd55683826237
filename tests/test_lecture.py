"""What the lecture says of bias, initialization and Leaky ReLU, seen on this library's networks."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import fastnn
from fastnn import init


@pytest.fixture(autouse=True)
def _one_thread(set_threads):
    set_threads(1)


@pytest.fixture(scope="module")
def digits():
    X, y = fastnn.data.load_digits()
    return X[:600], y[:600]


def trained(weight_init, activation, digits, epochs=20):
    """A network with one hidden layer of 16 units, and its accuracy on what it was trained with."""
    model = fastnn.Sequential(
        fastnn.Linear(64, 16, weight_init=weight_init),
        activation,
        fastnn.Linear(16, 10, weight_init=weight_init),
        rng=0,
        uint8_scale=1 / 16,
    )
    model.fit(*digits, loss="cross_entropy", optimizer=fastnn.Adam(0.01), epochs=epochs, rng=0)
    return model, model.evaluate(*digits, loss="cross_entropy")["accuracy"]


def different_rows(weight):
    return len(np.unique(weight, axis=0))


def test_a_5_4_3_network_has_the_lectures_shapes():
    model = fastnn.Sequential(fastnn.Linear(5, 4), fastnn.LeakyReLU(), fastnn.Linear(4, 3))
    assert model[0].weight.shape == (4, 5)
    assert model[2].weight.shape == (3, 4)
    assert model[0].bias.shape == (4,)
    assert model.predict(np.ones(5)).shape == (3,)


@pytest.mark.parametrize("activation", [fastnn.Tanh, fastnn.Sigmoid, fastnn.LeakyReLU])
@pytest.mark.parametrize(
    "weight_init", ["zeros", functools.partial(init.constant, value=0.05)], ids=["zeros", "equal"]
)
def test_equal_weights_keep_all_hidden_units_alike(activation, weight_init, digits):
    model, accuracy = trained(weight_init, activation(), digits)
    assert different_rows(model[0].weight) == 1, "every hidden unit has learnt the same"
    assert different_rows(model[2].weight.T) == 1, "and is used alike"
    assert np.unique(model[0].bias).size == 1
    assert model[2].bias.any(), "training did happen"
    assert accuracy < 0.5


@pytest.mark.parametrize("activation", [fastnn.Tanh, fastnn.Sigmoid, fastnn.LeakyReLU])
@pytest.mark.parametrize(
    "weight_init",
    [functools.partial(init.uniform, low=-0.1, high=0.1), functools.partial(init.normal, std=0.01)],
    ids=["uniform", "normal"],
)
def test_small_random_weights_break_the_symmetry(activation, weight_init, digits):
    model, accuracy = trained(weight_init, activation(), digits)
    assert different_rows(model[0].weight) == 16
    assert accuracy > 0.95


def test_only_a_bias_answers_when_every_input_is_zero():
    x = np.zeros((1, 3), np.float32)
    assert not fastnn.Linear(3, 2, bias=False, rng=0)(x).any()
    np.testing.assert_array_equal(fastnn.Linear(3, 2, bias_init=[1.5, -2])(x), [[1.5, -2]])


def test_only_a_bias_fits_a_line_that_misses_the_origin():
    m, b = 3.0, 2.0
    x = np.linspace(-1, 1, 64)[:, None]
    y = m * x + b
    found = {}
    for bias in (True, False):
        model = fastnn.Sequential(fastnn.Linear(1, 1, bias, dtype="float64"), rng=0)
        history = model.fit(x, y, loss="mse", optimizer=fastnn.SGD(0.2), epochs=100, rng=0)
        found[bias] = model[0], history.loss[-1]
    layer, loss = found[True]
    np.testing.assert_allclose([layer.weight[0, 0], layer.bias[0]], [m, b], rtol=1e-9)
    assert loss < 1e-18
    layer, loss = found[False]
    # The best line through the origin has the right slope here, and misses by b everywhere.
    np.testing.assert_allclose(layer.weight[0, 0], m, rtol=0.1)
    np.testing.assert_allclose(loss, b * b, rtol=0.1)


def deep(weight_init, activation, width, depth=30):
    layers = []
    for _ in range(depth):
        layers += [fastnn.Linear(width, width, weight_init=weight_init), activation()]
    return fastnn.Sequential(*layers, rng=0)


def growth(model, rng):
    """Standard deviation of the outputs by that of the inputs; likewise for the gradients back."""
    width = model[0].in_features
    x = rng.standard_normal((200, width)).astype(np.float32)
    forward = model.forward(x).std() / x.std()
    backward = model.backward(x, want_grad_x=True).std() / x.std()
    return forward, backward


small = functools.partial(init.uniform, low=-0.1, high=0.1)


@pytest.mark.parametrize("name", ["he_normal", "he_uniform"])
@pytest.mark.parametrize("slope", [0.01, 0.3])
def test_he_holds_the_variance_through_30_layers_of_leaky_relu(name, slope, rng):
    he = functools.partial(getattr(init, name), negative_slope=slope)
    forward, backward = growth(deep(he, lambda: fastnn.LeakyReLU(slope), 100), rng)
    assert 0.2 < forward < 5
    assert 0.2 < backward < 5


@pytest.mark.parametrize("name", ["xavier_normal", "xavier_uniform"])
def test_xavier_holds_the_variance_through_30_layers_of_tanh(name, rng):
    forward, backward = growth(deep(name, fastnn.Tanh, 100), rng)
    # tanh' is below 1, so some is lost at first, and less and less later.
    assert 0.05 < forward < 1
    assert 0.02 < backward < 1


@pytest.mark.parametrize("activation", [fastnn.LeakyReLU, fastnn.Tanh])
def test_too_little_variance_makes_outputs_and_gradients_vanish(activation, rng):
    forward, backward = growth(deep(small, activation, 100), rng)
    assert forward < 1e-6
    assert backward < 1e-6


def test_too_much_variance_makes_outputs_and_gradients_explode(rng):
    forward, backward = growth(deep(wide, fastnn.LeakyReLU, 100), rng)
    assert forward > 1e3
    assert backward > 1e3


def wide(shape, dtype, rng):
    return rng.uniform(-0.5, 0.5, shape)


@pytest.mark.parametrize(
    ("activation", "alive"), [(fastnn.ReLU, False), (lambda: fastnn.LeakyReLU(0.1), True)]
)
def test_a_dead_unit_comes_back_under_leaky_relu_only(activation, alive):
    x = np.linspace(0, 1, 64)[:, None]
    model = fastnn.Sequential(
        fastnn.Linear(1, 1, weight_init=[[1.0]], bias_init=[-1.5], dtype="float64"),
        activation(),
        fastnn.Linear(1, 1, weight_init=[[1.0]], dtype="float64"),
    )
    hidden = model[0]
    assert (hidden(x) < 0).all(), "dead: off for every input"
    before = hidden.weight.copy(), hidden.bias.copy()
    history = model.fit(x, x, loss="mse", optimizer=fastnn.SGD(0.2), epochs=1000, rng=0)
    if alive:
        assert (hidden(x) > 0).any()
        assert history.loss[-1] < 0.001
    else:
        assert (hidden.weight, hidden.bias) == before, "no gradient has ever reached it"
        assert history.loss[-1] > 0.08, "the variance of x is all that is left: 1 / 12"
