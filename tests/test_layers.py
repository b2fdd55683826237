"""Layers one by one: their gradients, their parameters, how these are drawn, and bad input."""

from __future__ import annotations

import copy
import functools
import math
import pickle

import numpy as np
import pytest
from gradients import assert_gradient, numeric_gradient
from oracle import same_bits

import fastnn
from fastnn import init

ACTIVATIONS = [
    fastnn.LeakyReLU(),
    fastnn.LeakyReLU(0.3),
    fastnn.LeakyReLU(-0.5),
    fastnn.LeakyReLU(1.5),
    fastnn.ReLU(),
    fastnn.Tanh(),
    fastnn.Sigmoid(),
    fastnn.GELU(),
    fastnn.SiLU(),
    fastnn.Softmax(),
]


@pytest.fixture(autouse=True)
def _one_thread(set_threads):
    set_threads(1)


def away_from_zero(rng, shape):
    """Normal numbers no nearer than 0.01 to the kinks at 0."""
    x = rng.standard_normal(shape)
    return x + np.copysign(0.01, x)


@pytest.mark.parametrize("layer", ACTIVATIONS, ids=repr)
@pytest.mark.parametrize("shape", [(3, 5), (7,)])
def test_the_gradient_of_an_activation_is_that_of_central_differences(layer, shape, rng):
    x, grad = away_from_zero(rng, shape), rng.standard_normal(shape)
    y = layer.forward(x)
    assert same_bits(y, layer(x))
    want = numeric_gradient(lambda: float((layer(x) * grad).sum()), x)
    assert_gradient(layer.backward(grad), want)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(6, 4), (4,)])
def test_the_gradients_of_linear_are_those_of_central_differences(bias, shape, rng):
    layer = fastnn.Linear(4, 3, bias, bias_init="normal", dtype="float64", rng=1)
    x, grad = rng.standard_normal(shape), rng.standard_normal((*shape[:-1], 3))

    def value():
        return float((layer(x) * grad).sum())

    assert same_bits(layer.forward(x), layer(x))
    got_x = layer.backward(grad)
    assert_gradient(got_x, numeric_gradient(value, x))
    assert_gradient(layer.grad_weight, numeric_gradient(value, layer.weight))
    if bias:
        assert_gradient(layer.grad_bias, numeric_gradient(value, layer.bias))
    else:
        assert layer.bias is None
        assert layer.grad_bias is None


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dropout_drops_a_share_scales_the_rest_and_passes_their_gradients(dtype):
    layer = fastnn.Dropout(0.3, rng=5)
    x = np.ones((200, 100), dtype)
    y = layer.forward(x)
    kept = y != 0
    assert same_bits(y[kept], np.full(kept.sum(), 1 / 0.7, dtype))
    assert abs(kept.mean() - 0.7) < 5 * math.sqrt(0.21 / x.size)
    assert same_bits(layer.backward(x), y)
    assert not same_bits(layer.forward(x), y), "the next call drops others"
    assert same_bits(layer(x), x)
    assert same_bits(fastnn.Dropout(0.3, rng=5).forward(x), y)
    assert same_bits(fastnn.Dropout(0.0).forward(x), x)


def test_backward_uses_the_input_as_it_was(rng):
    for layer in [fastnn.Linear(5, 5, dtype="float64", rng=0), *ACTIVATIONS]:
        x, grad = rng.standard_normal((3, 5)), rng.standard_normal((3, 5))
        y = layer.forward(x)
        want = layer.backward(grad)
        y = layer.forward(x)
        x[:], y[:] = 7, 9
        assert same_bits(layer.backward(grad), want)


def test_weight_and_bias_are_views_in_the_layout_of_the_kernels():
    layer = fastnn.Linear(5, 4, rng=0)
    assert layer.weight.shape == (4, 5)
    assert layer.weight.T.flags.c_contiguous
    assert layer.bias.shape == (4,)
    assert np.shares_memory(layer.weight, layer.weight)
    W = np.arange(20.0).reshape(4, 5)
    layer.weight[...] = W
    layer.bias[2] = 100
    x = np.ones((1, 5), np.float32)
    np.testing.assert_array_equal(layer(x), W.sum(axis=1)[None] + [0, 0, 100, 0])
    layer.weight = 2 * W
    layer.bias = [1, 2, 3, 4]
    np.testing.assert_array_equal(layer(x), 2 * W.sum(axis=1)[None] + [1, 2, 3, 4])
    W[:] = 0
    assert layer.weight.any(), "assigning copies"


def test_parameters_are_drawn_at_first_use_from_the_layers_rng():
    generator = np.random.default_rng(3)
    a, b = fastnn.Linear(6, 5, rng=generator), fastnn.Linear(6, 5, rng=generator)
    assert a._parameters is None
    assert not same_bits(a.weight, b.weight), "a generator is advanced"
    assert same_bits(fastnn.Linear(6, 5, rng=3).weight, fastnn.Linear(6, 5, rng=3).weight)
    assert not same_bits(fastnn.Linear(6, 5).weight, fastnn.Linear(6, 5).weight)
    want = init.he_uniform((5, 6), rng=3)
    assert same_bits(fastnn.Linear(6, 5, weight_init="he_uniform", rng=3).weight.copy("C"), want)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weight_init_may_be_a_name_a_function_a_partial_or_values(dtype):
    def mine(shape, dtype, rng):
        return rng.uniform(5, 6, shape)

    def layer(weight_init):
        return fastnn.Linear(50, 40, weight_init=weight_init, dtype=dtype, rng=0)

    assert not layer("zeros").weight.any()
    assert layer(mine).weight.min() >= 5
    assert same_bits(layer(mine).weight, layer(mine).weight)
    W = np.arange(2000.0).reshape(40, 50)
    np.testing.assert_array_equal(layer(W).weight, W)
    narrow = layer(functools.partial(init.uniform, low=-0.1, high=0.1)).weight
    assert 0.09 < np.abs(narrow).max() <= 0.1
    assert narrow.dtype == dtype
    bias = fastnn.Linear(3, 2, bias_init=functools.partial(init.constant, value=0.5)).bias
    np.testing.assert_array_equal(bias, [0.5, 0.5])


@pytest.mark.parametrize(
    ("follower", "name", "variance"),
    [
        (fastnn.LeakyReLU(0.3), "he_normal, slope 0.3", 2 / (1.09 * 300)),
        (fastnn.ReLU(), "he_normal, slope 0", 2 / 300),
        (fastnn.GELU(), "he_normal, slope 0", 2 / 300),
        (fastnn.SiLU(), "he_normal, slope 0", 2 / 300),
        (fastnn.Tanh(), "xavier_normal", 2 / 500),
        (fastnn.Sigmoid(), "xavier_normal", 2 / 500),
        (fastnn.Softmax(), "xavier_normal", 2 / 500),
        (fastnn.Linear(200, 10), "xavier_normal", 2 / 500),
        (None, "xavier_normal", 2 / 500),
    ],
    ids=repr,
)
@pytest.mark.parametrize("between", [False, True])
def test_auto_asks_which_activation_follows(follower, name, variance, between):
    layer = fastnn.Linear(300, 200)
    rest = [] if follower is None else [copy.copy(follower)]
    rest = [fastnn.Dropout(0.1), *rest] if between else rest
    fastnn.Sequential(layer, *rest, rng=0)
    assert layer.initialization == f"{name}, std {math.sqrt(variance):.3g}"
    # The variance of n normals has a standard deviation of sqrt(2 / n) of itself.
    assert abs(layer.weight.var() / variance - 1) < 5 * math.sqrt(2 / layer.weight.size)
    assert not layer.bias.any()


def test_repr_tells_sizes_parameters_and_initialization():
    layer = fastnn.Linear(784, 512, rng=0)
    assert repr(layer) == "Linear(784, 512): 401,920 parameters, auto"
    fastnn.Sequential(layer, fastnn.LeakyReLU(0.01))
    assert repr(layer) == (
        "Linear(784, 512): 401,920 parameters, he_normal, slope 0.01, std 0.0505"
    )
    other = fastnn.Linear(3, 2, False, weight_init=np.zeros((2, 3)), dtype="float64")
    assert repr(other) == "Linear(3, 2, bias=False, dtype='float64'): 6 parameters, given values"
    assert repr(fastnn.LeakyReLU(0.2)) == "LeakyReLU(0.2)"
    assert repr(fastnn.Dropout(0.25)) == "Dropout(0.25)"
    assert repr(fastnn.GELU()) == "GELU()"


@pytest.mark.parametrize(
    "clone", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_a_copy_of_a_layer_has_its_own_parameters_and_no_model(clone):
    layer = fastnn.Linear(4, 3, rng=0)
    fastnn.Sequential(layer)
    other = clone(layer)
    assert same_bits(other.weight, layer.weight)
    other.weight[...] = 0
    assert layer.weight.any()
    fastnn.Sequential(other)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_copies_of_a_layer_that_has_not_drawn_yet_draw_the_same(dtype):
    layer = fastnn.Linear(4, 3, rng=0, dtype=dtype)
    copies = copy.copy(layer), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))
    assert all(same_bits(each.weight, layer.weight) for each in copies)


@pytest.mark.parametrize("size", [3, 40, 700])
def test_a_layer_of_its_own_and_its_copy_begin_at_a_cache_line(size):
    layer = fastnn.Linear(size, size, rng=0)
    assert layer.weight.any()  # drawn
    copies = (layer, copy.copy(layer), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)))
    assert [each.weight.ctypes.data % 64 for each in copies] == [0, 0, 0, 0]


def test_anything_that_is_an_array_is_taken():
    class Wrapped:
        def __array__(self, dtype=None, copy=None):
            return np.ones((2, 3))

    layer = fastnn.Linear(3, 2, weight_init="ones", dtype="float64")
    for x in (Wrapped(), [[1, 1, 1], [1, 1, 1]], np.ones((2, 3), np.int8), np.ones((3, 2)).T):
        np.testing.assert_array_equal(layer.forward(x), [[3, 3], [3, 3]])
    read_only = np.ones((2, 3))
    read_only.flags.writeable = False
    np.testing.assert_array_equal(layer(read_only), [[3, 3], [3, 3]])


BAD_LINEAR = [
    ((0, 3), {}, ValueError, "in_features: expected an integer of at least 1, got 0"),
    ((3, -1), {}, ValueError, "out_features: expected an integer of at least 1, got -1"),
    ((3.0, 1), {}, TypeError, "in_features: expected an integer"),
    ((True, 1), {}, TypeError, "in_features: expected an integer"),
    ((3, 2, 1), {}, TypeError, "bias: expected True or False, got 1"),
    ((3, 2), {"dtype": "float16"}, TypeError, "dtype: expected float32 or float64"),
    ((3, 2), {"dtype": None}, TypeError, "dtype: expected float32 or float64"),
    ((3, 2), {"dtype": ">f4"}, TypeError, "dtype: expected float32 or float64"),
    ((3, 2), {"weight_init": "he"}, ValueError, "weight_init: expected one of .*he_normal"),
    ((3, 2), {"bias_init": "auto"}, ValueError, "bias_init: expected one of"),
    ((3, 2), {"weight_init": np.ones((3, 2))}, ValueError, r"weight_init: .*\(2, 3\).*\(3, 2\)"),
    ((10**12, 10**12), {}, ValueError, "in_features, out_features: expected a weight that fits"),
    ((3, 2), {"rng": "x"}, TypeError, "rng: expected None, a non-negative integer"),
    ((3, 2), {"bias_init": [1, 2, 3]}, ValueError, r"bias_init: expected shape \(2,\)"),
    ((3, 2), {"weight_init": np.ones((2, 3), complex)}, TypeError, "weight_init"),
    ((3, 2), {"weight_init": None}, TypeError, "weight_init"),
]


@pytest.mark.parametrize(("args", "kwargs", "error", "message"), BAD_LINEAR)
def test_linear_refuses_bad_arguments(args, kwargs, error, message):
    with pytest.raises(error, match=message):
        fastnn.Linear(*args, **kwargs)


def test_an_initializer_that_gives_another_shape_is_refused():
    layer = fastnn.Linear(3, 2, weight_init=lambda shape, dtype, rng: np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"weight_init: expected shape \(2, 3\), got \(3, 2\)"):
        layer.forward(np.zeros((1, 3)))


@pytest.mark.parametrize("rng", [-1, "0", 1.5, True, [1], np.eye(2).view(np.matrix)])
@pytest.mark.parametrize("make", [functools.partial(fastnn.Linear, 3, 2), fastnn.Dropout])
def test_a_bad_rng_is_refused(make, rng):
    with pytest.raises((TypeError, ValueError), match="rng: expected"):
        make(rng=rng)


def test_setting_parameters_refuses_what_does_not_fit():
    layer = fastnn.Linear(3, 2, rng=0)
    before = layer.weight.copy()
    for value in (np.ones((3, 2)), np.ones(3), 5.0):
        with pytest.raises(ValueError, match=r"weight: expected shape \(2, 3\)"):
            layer.weight = value
    with pytest.raises(TypeError, match="weight"):
        layer.weight = "ones"
    with pytest.raises(ValueError, match=r"bias: expected shape \(2,\), got \(3,\)"):
        layer.bias = [1, 2, 3]
    with pytest.raises(ValueError, match="bias=False"):
        fastnn.Linear(3, 2, bias=False).bias = [1, 2]
    assert same_bits(layer.weight, before)


@pytest.mark.parametrize("slope", [math.nan, math.inf])
def test_a_slope_that_is_not_finite_is_refused(slope):
    with pytest.raises(ValueError, match="negative_slope: expected a finite number"):
        fastnn.LeakyReLU(slope)


def test_other_bad_settings_are_refused():
    with pytest.raises(TypeError, match="negative_slope: expected a number"):
        fastnn.LeakyReLU("0.1")
    for rate in (1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match="rate: expected"):
            fastnn.Dropout(rate)


def test_forward_and_backward_refuse_what_does_not_fit():
    linear = fastnn.Linear(3, 2)
    with pytest.raises(ValueError, match=r"x: expected shape \(m, 3\) or \(3,\), got \(4, 5\)"):
        linear.forward(np.zeros((4, 5)))
    with pytest.raises(TypeError, match="x: expected"):
        linear.forward(np.zeros((4, 3), complex))
    for layer, columns in [(linear, 2), (fastnn.Tanh(), 3), (fastnn.Softmax(), 3)]:
        with pytest.raises(RuntimeError, match="backward: expected a call of forward before it"):
            layer.backward(np.zeros((4, columns)))
        layer.forward(np.zeros((4, 3)))
        with pytest.raises(
            ValueError, match=rf"grad: expected shape \(4, {columns}\), got \(4, 9\)"
        ):
            layer.backward(np.zeros((4, 9)))
        layer.backward(np.zeros((4, columns)))
        with pytest.raises(RuntimeError, match="backward"):
            layer.backward(np.zeros((4, columns)))
    with pytest.raises(TypeError, match="x: expected dtype float32 or float64"):
        fastnn.Tanh()(np.zeros(3, int))
