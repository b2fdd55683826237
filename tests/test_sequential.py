"""Sequential: one model over flat buffers that agrees with its layers one by one; bad input."""

from __future__ import annotations

import copy
import itertools
import pickle
import threading
import time

import numpy as np
import pytest
from gradients import assert_gradient, numeric_gradient
from oracle import same_bits

import fastnn
from fastnn import init

ACTIVATIONS = {
    "leaky_relu": lambda: fastnn.LeakyReLU(0.1),
    "negative_slope": lambda: fastnn.LeakyReLU(-0.4),
    "relu": fastnn.ReLU,
    "tanh": fastnn.Tanh,
    "sigmoid": fastnn.Sigmoid,
    "gelu": fastnn.GELU,
    "silu": fastnn.SiLU,
    "softmax": fastnn.Softmax,
}


def network(*between, dtype="float64", bias=True, rng=0):
    return fastnn.Sequential(
        fastnn.Linear(5, 4, bias, bias_init="normal" if bias else "zeros", dtype=dtype),
        *between,
        fastnn.Linear(4, 3, bias, dtype=dtype),
        rng=rng,
    )


def one_by_one(model, x):
    for layer in model:
        x = layer(x)
    return x


MODELS = {
    **{name: (lambda act=act: network(act())) for name, act in ACTIVATIONS.items()},
    "linear": network,
    "no bias": lambda: network(fastnn.Tanh(), bias=False),
    "two activations": lambda: network(fastnn.Tanh(), fastnn.GELU()),
    "activations at both ends": lambda: fastnn.Sequential(
        fastnn.SiLU(), fastnn.Linear(5, 3, dtype="float64"), fastnn.Softmax(), rng=0
    ),
    "dropout": lambda: network(fastnn.Tanh(), fastnn.Dropout(0.3)),
    "dropout first": lambda: fastnn.Sequential(
        fastnn.Dropout(0.3), fastnn.Linear(5, 3, dtype="float64"), fastnn.Sigmoid(), rng=0
    ),
    "one layer": lambda: fastnn.Sequential(fastnn.Linear(5, 3, dtype="float64"), rng=0),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_the_gradients_of_a_model_are_those_of_central_differences(make, isa, rng):
    model = make()
    x, target = rng.standard_normal((6, 5)), rng.random((6, 3))
    loss = fastnn.BinaryCrossEntropy()

    def value():
        model._step = 0  # the same elements dropped each time
        return loss(model.forward(x), target)[0]

    value()
    model._step = 0
    _, grad = loss(model.forward(x), target)
    grad_x = model.backward(grad, want_grad_x=True)
    got = {name: view.copy() for name, view in model.gradients().items()}
    assert_gradient(grad_x, numeric_gradient(value, x))
    for name, view in model.parameters().items():
        assert_gradient(got[name], numeric_gradient(value, view))


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_a_model_computes_what_its_layers_do(make, rng):
    model, x = make(), rng.standard_normal((9, 5))
    assert same_bits(model.predict(x), one_by_one(model, x))
    assert same_bits(model(x), model.predict(x))
    assert same_bits(model.forward(x, training=False), model.predict(x))
    assert same_bits(model.predict(x[2]), model.predict(x)[2])


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("widths", [(5, 4, 3), (64, 300, 10), (1, 700, 2)])
def test_the_layers_one_by_one_give_the_bits_of_the_model(
    activation, widths, isa, n_threads, dtype, rng
):
    layers = []
    for n_in, n_out in itertools.pairwise(widths):
        layers += [fastnn.Linear(n_in, n_out, dtype=dtype), ACTIVATIONS[activation]()]
    model = fastnn.Sequential(*layers, rng=0)
    x = rng.standard_normal((70, widths[0])).astype(dtype)
    grad = rng.standard_normal((70, widths[-1])).astype(dtype)
    want = model.forward(x)
    want_x = model.backward(grad, want_grad_x=True)
    want_gradients = model._gradients.copy()
    assert want_gradients.any()
    model._gradients[...] = 0
    for layer in model:
        x = layer.forward(x)
    for layer in reversed(list(model)):
        grad = layer.backward(grad)
    assert same_bits(x, want)
    assert same_bits(grad, want_x)
    assert same_bits(model._gradients, want_gradients)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_nan_and_infinity_stay_in_their_rows(activation, isa, n_threads, dtype, rng):
    model = fastnn.Sequential(
        fastnn.Linear(40, 130, dtype=dtype),
        ACTIVATIONS[activation](),
        fastnn.Linear(130, 6, dtype=dtype),
        ACTIVATIONS[activation](),
        rng=0,
    )
    x = rng.standard_normal((90, 40)).astype(dtype)
    want = model.predict(x)
    x[17, 3], x[60, 39] = np.nan, np.inf
    others = np.delete(np.arange(90), [17, 60])
    for got in (model.predict(x), model.forward(x)):
        assert same_bits(got[others], want[others])
        assert np.isnan(got[17]).all()
        assert not same_bits(got[60], want[60])


def test_want_grad_x_changes_nothing_else(rng):
    model, x, grad = (
        network(fastnn.ReLU()),
        rng.standard_normal((6, 5)),
        rng.standard_normal((6, 3)),
    )
    model.forward(x)
    assert model.backward(grad) is None
    want = model._gradients.copy()
    model.forward(x)
    assert model.backward(grad, want_grad_x=True).shape == (6, 5)
    assert same_bits(model._gradients, want)


def test_parameters_lie_in_one_aligned_buffer_and_are_views():
    model = network(fastnn.ReLU(), dtype="float32")
    assert list(model.parameters()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert [v.shape for v in model.parameters().values()] == [(4, 5), (4,), (3, 4), (3,)]
    assert model.size == 4 * 5 + 4 + 3 * 4 + 3
    for view in (*model.parameters().values(), *model.gradients().values()):
        assert view.flags.writeable
        assert view.base is not None
    for name in ("0.weight", "2.weight"):
        view = model.parameters()[name]
        assert np.shares_memory(view, model._parameters)
        assert np.shares_memory(model.gradients()[name], model._gradients)
        assert view.ctypes.data % 64 == 0
    assert np.shares_memory(model[0].weight, model.parameters()["0.weight"])
    assert np.shares_memory(model[0].grad_bias, model.gradients()["0.bias"])


def test_writing_to_a_weight_takes_effect_at_the_next_call(rng):
    model, x = network(fastnn.ReLU()), rng.standard_normal((4, 5))
    model.forward(x)
    W = rng.standard_normal((4, 5))
    model[0].weight[...] = W
    want = np.maximum(x @ W.T + model[0].bias, 0) @ model[2].weight.T
    np.testing.assert_allclose(model.predict(x), want, rtol=1e-12)
    np.testing.assert_allclose(model.forward(x), want, rtol=1e-12)
    model[0].weight = 2 * W
    want = np.maximum(2 * x @ W.T + model[0].bias, 0) @ model[2].weight.T
    np.testing.assert_allclose(model.predict(x), want, rtol=1e-12)


def test_layers_draw_from_streams_of_their_own():
    def make(rng):
        return fastnn.Sequential(
            fastnn.Linear(6, 6, weight_init="uniform", bias_init="uniform"),
            fastnn.Linear(6, 6, weight_init="uniform", bias_init="uniform"),
            rng=rng,
        )

    model = make(7)
    assert same_bits(model[0].weight.copy("C"), init.uniform((6, 6), rng=7, stream=0))
    assert same_bits(model[1].weight.copy("C"), init.uniform((6, 6), rng=7, stream=1))
    values = np.concatenate([v.ravel() for v in model.parameters().values()])
    assert len(np.unique(values)) == len(values)
    assert same_bits(make(7)._parameters, model._parameters)
    generator = np.random.default_rng(7)
    assert not same_bits(make(generator)._parameters, make(generator)._parameters)
    assert not same_bits(make(None)._parameters, make(None)._parameters)
    own = fastnn.Sequential(
        fastnn.Linear(6, 6, weight_init="uniform", rng=1),
        fastnn.Linear(6, 6, weight_init="uniform", rng=1),
    )
    assert not same_bits(own[0].weight.copy(), own[1].weight.copy())


def test_values_drawn_or_set_before_are_kept():
    layer = fastnn.Linear(5, 4, rng=1)
    drawn = layer.weight.copy()
    fastnn.Sequential(layer, fastnn.ReLU(), rng=2)
    assert same_bits(layer.weight.copy(), drawn)


def test_len_iteration_and_index():
    model = network(fastnn.ReLU())
    assert len(model) == 3
    assert [type(layer).__name__ for layer in model] == ["Linear", "ReLU", "Linear"]
    assert model[-1] is model.layers[2]
    with pytest.raises(IndexError):
        model[3]


def test_out_is_filled_and_returned(rng):
    model, x = network(fastnn.ReLU(), dtype="float32"), rng.standard_normal((4, 5))
    out = np.full((4, 3), np.nan, np.float32)
    assert model.predict(x, out) is out
    assert same_bits(out, model.predict(x))


def test_uint8_is_scaled(rng):
    images = rng.integers(0, 256, (7, 5), dtype=np.uint8)
    for scale in (1 / 255, 1 / 16):
        model = fastnn.Sequential(fastnn.Linear(5, 3), rng=0, uint8_scale=scale)
        scaled = images.astype(np.float32) * np.float32(scale)
        assert same_bits(model.predict(images), model.predict(scaled))
        assert same_bits(model.forward(images), model.predict(scaled))


def test_a_model_of_activations_alone_takes_any_width_and_dtype(rng):
    model = fastnn.Sequential(fastnn.Tanh(), fastnn.Softmax())
    for shape, dtype in (((4, 3), "float64"), ((4, 7), "float32"), ((5,), "float64")):
        x = rng.standard_normal(shape).astype(dtype)
        got = model.predict(x)
        assert got.dtype == dtype
        np.testing.assert_allclose(got, one_by_one(model, x), rtol=1e-6)
    x, grad = rng.standard_normal((4, 3)), rng.standard_normal((4, 3))
    model.forward(x)
    got = model.backward(grad, want_grad_x=True)
    assert_gradient(got, numeric_gradient(lambda: float((model.predict(x) * grad).sum()), x))
    assert model.parameters() == {}
    with pytest.raises(ValueError, match="model: expected at least one Linear layer"):
        model.fit(x, grad, loss="mse", optimizer="sgd")


def test_dropout_is_off_in_inference_and_differs_from_step_to_step(rng):
    model = fastnn.Sequential(fastnn.Linear(5, 400), fastnn.Dropout(0.5), rng=0)
    x = rng.standard_normal((3, 5)).astype(np.float32)
    plain = model.predict(x)
    first, second = model.forward(x), model.forward(x)
    assert not same_bits(first, second)
    kept = first != 0
    assert 0.4 < kept.mean() < 0.6
    assert same_bits(first[kept], 2 * plain[kept])
    again = fastnn.Sequential(fastnn.Linear(5, 400), fastnn.Dropout(0.5), rng=0)
    assert same_bits(again.forward(x), first)


def test_state_dict_copies_and_load_state_dict_is_strict():
    model, other = network(fastnn.ReLU()), network(fastnn.ReLU(), rng=1)
    state = model.state_dict()
    assert all(value.flags.c_contiguous for value in state.values())
    state["0.weight"][...] = 5
    assert not (model[0].weight == 5).any()
    other.load_state_dict(model.state_dict())
    assert same_bits(other._parameters, model._parameters)
    before = other._parameters.copy()
    for change, error, message in [
        ({"0.bias": None}, ValueError, r"missing: \['0.bias'\]"),
        ({"1.weight": np.zeros(3)}, ValueError, r"unknown: \['1.weight'\]"),
        ({"2.bias": np.zeros(4)}, ValueError, r"2.bias: expected shape \(3,\), got \(4,\)"),
        ({"2.bias": np.zeros(3, complex)}, TypeError, "2.bias: expected real numbers"),
    ]:
        wrong = {k: v for k, v in (model.state_dict() | change).items() if v is not None}
        wrong["0.weight"] = wrong["0.weight"] + 1
        with pytest.raises(error, match=message):
            other.load_state_dict(wrong)
        assert same_bits(other._parameters, before)
    with pytest.raises(TypeError, match="state: expected a mapping"):
        other.load_state_dict([1, 2])


@pytest.mark.parametrize(
    "clone", [copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))]
)
def test_copies_are_models_of_their_own(clone, rng):
    model, x = network(fastnn.ReLU(), fastnn.Dropout(0.5)), rng.standard_normal((4, 5))
    model.forward(x)
    other = clone(model)
    assert same_bits(other.predict(x), model.predict(x))
    assert same_bits(other.forward(x), model.forward(x)), "the same masks"
    before = model.state_dict()["0.weight"]
    other[0].weight[...] = 0
    assert same_bits(model.state_dict()["0.weight"], before)
    assert np.shares_memory(other[0].weight, other._parameters)
    assert repr(other) == repr(model)


def test_repr_and_summary():
    model = fastnn.Sequential(
        fastnn.Linear(784, 512), fastnn.LeakyReLU(0.01), fastnn.Dropout(0.2), fastnn.Linear(512, 10)
    )
    assert repr(model) == (
        "Sequential, 407,050 parameters, float32\n"
        "  0: Linear(784, 512): 401,920 parameters, he_normal, slope 0.01, std 0.0505\n"
        "  1: LeakyReLU(0.01)\n"
        "  2: Dropout(0.2)\n"
        "  3: Linear(512, 10): 5,130 parameters, xavier_normal, std 0.0619"
    )
    assert model.summary() == (
        "   layer             output    parameters  initialization\n"
        "0  Linear(784, 512)  (m, 512)     401,920  he_normal, slope 0.01, std 0.0505\n"
        "1  LeakyReLU(0.01)   (m, 512)\n"
        "2  Dropout(0.2)      (m, 512)\n"
        "3  Linear(512, 10)   (m, 10)        5,130  xavier_normal, std 0.0619\n"
        "407,050 parameters, float32, 1,628.2 kB"
    )


def test_a_layer_serves_one_model_at_a_time():
    layer = fastnn.Linear(3, 2)
    model = fastnn.Sequential(layer)
    with pytest.raises(ValueError, match=r"layer 0 \(Linear\): expected a layer of no other model"):
        fastnn.Sequential(layer)
    weight = model.state_dict()["0.weight"]
    del model
    assert same_bits(np.array(fastnn.Sequential(layer)[0].weight, order="C"), weight)
    relu = fastnn.ReLU()
    with pytest.raises(ValueError, match=r"layer 1 \(ReLU\): expected each layer once"):
        fastnn.Sequential(relu, relu)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: fastnn.Sequential(), ValueError, "layers: expected at least one, got none"),
        (
            lambda: fastnn.Sequential(fastnn.Linear(3, 64), fastnn.ReLU(), fastnn.Linear(32, 2)),
            ValueError,
            r"layer 2 \(Linear\): expected in_features 64 as layer 0 gives, got 32",
        ),
        (
            lambda: fastnn.Sequential(fastnn.Linear(3, 4), fastnn.Linear(4, 2, dtype="float64")),
            TypeError,
            r"layer 1 \(Linear\): expected dtype float32 as layer 0 has, got float64",
        ),
        (lambda: fastnn.Sequential(np.tanh), TypeError, "layer 0: expected a layer such as"),
        (
            lambda: fastnn.Sequential([fastnn.ReLU()]),
            TypeError,
            "layer 0: expected a layer such as",
        ),
        (lambda: fastnn.Sequential(fastnn.ReLU), TypeError, "layer 0: expected a layer such as"),
        (lambda: fastnn.Sequential(fastnn.ReLU(), rng="x"), TypeError, "rng: expected"),
        (lambda: fastnn.Sequential(fastnn.ReLU(), uint8_scale=np.nan), ValueError, "uint8_scale"),
    ],
)
def test_bad_layers_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_bad_calls_are_refused(rng):
    model, x = network(fastnn.ReLU()), rng.standard_normal((4, 5))
    for call in (model.predict, model.forward):
        with pytest.raises(ValueError, match=r"x: expected shape \(m, 5\).*, got \(4, 6\)"):
            call(np.zeros((4, 6)))
        with pytest.raises(TypeError, match="x: expected"):
            call(np.zeros((4, 5), complex))
    with pytest.raises(TypeError, match="training: expected True or False"):
        model.forward(x, training=1)
    with pytest.raises(RuntimeError, match="backward: expected a forward pass before it"):
        model.backward(np.zeros((4, 3)))
    model.forward(x)
    with pytest.raises(ValueError, match=r"grad: expected shape \(4, 3\), got \(3, 4\)"):
        model.backward(np.zeros((3, 4)))
    model.backward(np.zeros((4, 3)))
    with pytest.raises(RuntimeError, match="backward: expected a forward pass before it"):
        model.backward(np.zeros((4, 3)))


def test_training_in_another_thread_is_refused_and_predict_is_not(rng):
    model, x = network(fastnn.ReLU()), rng.standard_normal((4, 5))
    want, errors, answers = model.predict(x), [], []

    def other():
        optimizer = fastnn.SGD()
        calls = [
            lambda: model.forward(x),
            lambda: model.backward(np.zeros((4, 3))),
            lambda: optimizer.step(model),
            lambda: model.load_state_dict(model.state_dict()),
            lambda: model.fit(x, x[:, :3], loss="mse", optimizer="sgd"),
        ]
        for call in calls:
            try:
                call()
            except RuntimeError as error:
                errors.append(str(error))
        answers.append(model.predict(x))

    with model._claim:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        model.forward(x)
    assert errors == ["this model is being trained in another thread"] * 5
    assert same_bits(answers[0], want)
    model.forward(x)


def test_predict_holds_no_lock_while_it_works(set_threads, rng):
    """A row is answered, and Python runs, while another thread is in a long call of predict."""
    set_threads(1)
    model = fastnn.Sequential(fastnn.Linear(512, 2048), fastnn.Tanh(), fastnn.Linear(2048, 512))
    x = rng.standard_normal((8000, 512)).astype(np.float32)
    want, underway = model.predict(x[0]), threading.Event()
    began = time.perf_counter()
    model.predict(x)
    alone = time.perf_counter() - began
    thread = threading.Thread(target=lambda: (underway.set(), model.predict(x)))
    thread.start()
    underway.wait()
    time.sleep(alone / 20)
    began = time.perf_counter()
    got = model.predict(x[0])
    waited = time.perf_counter() - began
    thread.join()
    assert same_bits(got, want)
    assert waited < alone / 2


def test_a_failing_initializer_leaves_layers_and_generators_as_they_were():
    def failing(shape, dtype, rng):
        raise ArithmeticError("mine")

    own, shared = np.random.default_rng(1), np.random.default_rng(2)
    first = fastnn.Linear(5, 4, rng=own)
    states = [rng.bit_generator.state for rng in (own, shared)]
    with pytest.raises(ArithmeticError, match="mine"):
        fastnn.Sequential(
            first, fastnn.ReLU(), fastnn.Linear(4, 3, bias_init=failing), rng=shared
        )  # fmt: skip
    assert first.initialization == "auto"
    assert [rng.bit_generator.state for rng in (own, shared)] == states
    model = fastnn.Sequential(first, fastnn.Tanh(), rng=0)
    assert first.initialization.startswith("xavier_normal")
    want = fastnn.Sequential(fastnn.Linear(5, 4, rng=np.random.default_rng(1)), fastnn.Tanh())
    assert same_bits(model._parameters, want._parameters)
    alone = fastnn.Linear(5, 4, bias_init=failing)
    with pytest.raises(ArithmeticError, match="mine"):
        _ = alone.weight
    assert alone.initialization == "auto"


def test_a_slope_that_the_dtype_cannot_hold_is_refused():
    message = r"layer 1 \(LeakyReLU\): expected a negative_slope that float32 can hold, got 1e\+39"
    with pytest.raises(ValueError, match=message):
        network(fastnn.LeakyReLU(1e39), dtype="float32")
    network(fastnn.LeakyReLU(1e39), dtype="float64")
    model = fastnn.Sequential(fastnn.Tanh(), fastnn.LeakyReLU(-1e39))
    with pytest.raises(ValueError, match="layer 1"):
        model.predict(np.zeros((2, 3), np.float32))
    assert np.isfinite(model.predict(-np.ones((2, 3)))).all()
