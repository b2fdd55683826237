"""Optimizers against their formulas written out in float64 NumPy; schedules; state; bad input."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
from oracle import same_bits

import fastnn
from fastnn import schedules
from fastnn.optimizers import NAMES, as_optimizer

STEPS = 25


def sgd(w, grads, lr, momentum=0.0, nesterov=False, weight_decay=0.0):
    v = None
    for g in grads:
        g = g + weight_decay * w
        v = g if v is None else momentum * v + g
        w = w - lr * (g + momentum * v if nesterov else v)
    return w


def adam(w, grads, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled=False):
    m = s = np.zeros_like(w)
    for t, g in enumerate(grads, 1):
        if decoupled:
            w = w - lr * weight_decay * w
        else:
            g = g + weight_decay * w
        m = betas[0] * m + (1 - betas[0]) * g
        s = betas[1] * s + (1 - betas[1]) * g * g
        w = w - lr * (m / (1 - betas[0] ** t)) / (np.sqrt(s / (1 - betas[1] ** t)) + eps)
    return w


def rmsprop(w, grads, lr, alpha=0.99, eps=1e-8, momentum=0.0, weight_decay=0.0):
    s = v = np.zeros_like(w)
    for g in grads:
        g = g + weight_decay * w
        s = alpha * s + (1 - alpha) * g * g
        v = momentum * v + g / (np.sqrt(s) + eps)
        w = w - lr * v
    return w


CASES = [
    (fastnn.SGD, sgd, {"lr": 0.1}),
    (fastnn.SGD, sgd, {"lr": 0.1, "weight_decay": 0.2}),
    (fastnn.SGD, sgd, {"lr": 0.1, "momentum": 0.9}),
    (fastnn.SGD, sgd, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    (fastnn.Adam, adam, {"lr": 0.01}),
    (fastnn.Adam, adam, {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    (
        fastnn.AdamW,
        lambda *a, **k: adam(*a, **{"weight_decay": 0.01, **k}, decoupled=True),
        {"lr": 0.1},
    ),
    (fastnn.RMSprop, rmsprop, {"lr": 0.01}),
    (fastnn.RMSprop, rmsprop, {"lr": 0.01, "alpha": 0.9, "eps": 1e-4, "weight_decay": 0.1}),
    (fastnn.RMSprop, rmsprop, {"lr": 0.01, "momentum": 0.8}),
]
EVERY = [fastnn.SGD(), fastnn.SGD(momentum=0.9), fastnn.Adam(), fastnn.AdamW()]
EVERY += [fastnn.RMSprop(), fastnn.RMSprop(momentum=0.5)]


def network(dtype="float64", rng=0):
    return fastnn.Sequential(
        fastnn.Linear(5, 4, dtype=dtype), fastnn.ReLU(), fastnn.Linear(4, 3, dtype=dtype), rng=rng
    )


def set_gradients(model, values):
    for name, view in model.gradients().items():
        view[...] = values[name]


def random_gradients(model, rng):
    return {name: rng.standard_normal(view.shape) for name, view in model.gradients().items()}


@pytest.mark.parametrize(("make", "formula", "arguments"), CASES)
def test_steps_follow_the_formula(make, formula, arguments, dtype, rng, isa):
    model = network(dtype)
    before = {name: w.astype(np.float64) for name, w in model.state_dict().items()}
    grads = [random_gradients(model, rng) for _ in range(STEPS)]
    optimizer = make(**arguments)
    for values in grads:
        set_gradients(model, values)
        optimizer.step(model)
    assert optimizer.t == STEPS
    for name, got in model.parameters().items():
        want = formula(before[name], [values[name] for values in grads], **arguments)
        assert np.abs(want - before[name]).max() > 1e-3, "a vacuous comparison"
        np.testing.assert_allclose(got, want, rtol=0, atol=300 * np.finfo(dtype).eps)


@pytest.mark.parametrize("optimizer", EVERY, ids=repr)
@pytest.mark.parametrize("unbound", [False, True])
def test_state_can_be_taken_over(optimizer, unbound, rng):
    model = network()
    grads = [random_gradients(model, rng) for _ in range(6)]
    first = copy.copy(optimizer)
    for values in grads[:3]:
        set_gradients(model, values)
        first.step(model)
    other, second = copy.deepcopy(model), copy.copy(optimizer)
    if not unbound:
        second.bind(other)
    second.load_state_dict(first.state_dict())
    assert second.t == 3
    for values in grads[3:]:
        for each, one in ((model, first), (other, second)):
            set_gradients(each, values)
            one.step(each)
    for name, value in model.parameters().items():
        assert same_bits(other.parameters()[name].copy(), value.copy())


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_brings_the_state_to_the_next_model(clone, rng):
    model = network()
    optimizer = fastnn.Adam(lr=schedules.cosine(0.1, 10))
    set_gradients(model, random_gradients(model, rng))
    optimizer.step(model)
    other, again = clone(model), clone(optimizer)
    values = random_gradients(model, rng)
    for each, one in ((model, optimizer), (other, again)):
        set_gradients(each, values)
        one.step(each)
    assert again.t == 2
    assert same_bits(other.parameters()["0.weight"].copy(), model.parameters()["0.weight"].copy())


@pytest.mark.parametrize("optimizer", EVERY, ids=repr)
def test_steps_do_not_depend_on_the_number_of_threads(optimizer, isa, dtype, set_threads):
    results = []
    for n in (1, 2, 5):
        set_threads(n)
        model = fastnn.Sequential(fastnn.Linear(300, 301, dtype=dtype), rng=0)
        one = copy.copy(optimizer)
        for seed in range(3):
            set_gradients(model, random_gradients(model, np.random.default_rng(seed)))
            one.step(model)
        results.append(model.state_dict()["0.weight"])
    assert same_bits(results[0], results[1])
    assert same_bits(results[0], results[2])


@pytest.mark.parametrize("size", [3, 40, 700])
def test_buffers_begin_at_cache_lines_each_elsewhere_in_a_page(size, dtype):
    model = fastnn.Sequential(fastnn.Linear(size, size, dtype=dtype), rng=0)
    state = fastnn.Adam().bind(model).state
    places = [b.ctypes.data % 4096 for b in (model._parameters, model._gradients, *state)]
    assert all(place % 64 == 0 for place in places)
    assert min(abs(p - q) for i, p in enumerate(places) for q in places[:i]) >= 512


def test_lr_may_be_a_function_of_the_step_and_may_be_set():
    model = network()
    seen = []

    def lr(step):
        seen.append(step)
        return 0.0 if step < 2 else 1.0

    optimizer = fastnn.SGD(lr)
    before = model.state_dict()["0.weight"]
    model.gradients()["0.weight"][...] = 1
    for _ in range(3):
        optimizer.step(model)
    assert seen == [0, 1, 2]
    np.testing.assert_array_equal(model[0].weight, before - 1)
    optimizer.lr = 0.5
    optimizer.step(model)
    np.testing.assert_array_equal(model[0].weight, before - 1 - 0.5)


def test_schedules():
    assert [schedules.constant(0.1)(i) for i in (0, 9)] == [0.1, 0.1]
    assert [schedules.constant(1.0, warmup=4)(i) for i in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    line = schedules.linear(1.0, 12, warmup=2, final=0.5)
    assert [line(i) for i in (0, 1, 2, 7, 12, 99)] == [0.5, 1.0, 1.0, 0.75, 0.5, 0.5]
    curve = schedules.cosine(1.0, 8)
    want = [(1 + math.cos(math.pi * i / 8)) / 2 for i in range(9)]
    np.testing.assert_allclose([curve(i) for i in range(9)], want, atol=1e-15)
    assert curve(8) == curve(1000) == 0.0
    falling = [schedules.exponential(1.0, 0.25, every=2)(i) for i in range(4)]
    np.testing.assert_allclose(falling, [1, 0.5, 0.25, 0.125])
    assert [schedules.step_decay(1.0, 0.5, every=2)(i) for i in range(5)] == [1, 1, 0.5, 0.5, 0.25]


@pytest.mark.parametrize(
    "schedule",
    [
        schedules.constant(0.1, 3),
        schedules.linear(0.1, 9),
        schedules.cosine(0.1, 9, warmup=2, final=0.01),
        schedules.exponential(0.1, 0.5),
        schedules.step_decay(0.1, 0.5, 3),
    ],
    ids=repr,
)
def test_schedules_can_be_pickled_compared_and_printed(schedule):
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    assert eval(repr(schedule), vars(schedules)) == schedule


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.cosine(0.1, 0), "steps: expected an integer of at least 1, got 0"),
        (lambda: schedules.cosine(0.1, 5, warmup=5), "warmup: expected fewer than steps = 5"),
        (lambda: schedules.linear(-0.1, 5), "lr: expected at least 0"),
        (lambda: schedules.linear(0.1, 5, final=math.nan), "final: expected a finite number"),
        (lambda: schedules.exponential(0.1, -1), "factor: expected at least 0"),
        (lambda: schedules.step_decay(0.1, 0.5, 0), "every: expected an integer of at least 1"),
        (lambda: schedules.constant(0.1, -1), "warmup: expected an integer of at least 0"),
        (lambda: fastnn.SGD(-0.1), "lr: expected at least 0, got -0.1"),
        (lambda: fastnn.SGD(math.nan), "lr: expected a finite number"),
        (lambda: fastnn.SGD(momentum=-1), "momentum: expected at least 0"),
        (lambda: fastnn.SGD(nesterov=True), "nesterov: expected a momentum above 0"),
        (lambda: fastnn.SGD(weight_decay=-1), "weight_decay: expected at least 0"),
        (lambda: fastnn.Adam(betas=(0.9, 1.0)), r"betas\[1\]: expected at least 0 and below 1"),
        (lambda: fastnn.Adam(betas=(-0.1, 0.9)), r"betas\[0\]: expected at least 0"),
        (lambda: fastnn.Adam(eps=-1e-8), "eps: expected at least 0"),
        (lambda: fastnn.AdamW(weight_decay=math.inf), "weight_decay: expected a finite number"),
        (lambda: fastnn.RMSprop(alpha=1), "alpha: expected at least 0 and below 1, got 1"),
        (lambda: as_optimizer("adagrad"), "optimizer: expected one of sgd, adam, adamw, rmsprop"),
    ],
)
def test_bad_values_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fastnn.SGD("0.1"), "lr: expected a number"),
        (lambda: fastnn.SGD(nesterov=1), "nesterov: expected True or False"),
        (lambda: fastnn.Adam(betas=0.9), "betas: expected two numbers"),
        (lambda: schedules.cosine(0.1, 2.5), "steps: expected an integer"),
        (lambda: as_optimizer(fastnn.Adam), "optimizer: expected an optimizer such as"),
        (lambda: as_optimizer(None), "optimizer: expected an optimizer such as"),
    ],
)
def test_bad_types_are_refused(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_a_schedule_that_grows_without_bound_is_refused_by_name():
    model, optimizer = network(), fastnn.SGD(schedules.exponential(0.1, 2.0))
    optimizer.load_state_dict({"t": 2000})
    with pytest.raises(ValueError, match=r"lr\(2000\): expected a finite number, got inf"):
        optimizer.step(model)


@pytest.mark.parametrize("value", [-1.0, math.nan, "fast", None])
def test_a_schedule_that_gives_nonsense_is_refused_before_anything_changes(value):
    model = network()
    before = model.state_dict()
    with pytest.raises((ValueError, TypeError), match=r"lr\(0\): expected"):
        fastnn.Adam(lambda step: value).step(model)
    assert same_bits(model.state_dict()["0.weight"], before["0.weight"])


def test_an_optimizer_serves_one_model():
    optimizer = fastnn.SGD()
    model = network()
    optimizer.step(model)
    with pytest.raises(ValueError, match="optimizer: expected the model that it has served before"):
        optimizer.step(network())
    optimizer.step(model)


def test_state_that_does_not_fit_is_refused():
    model, optimizer = network(), fastnn.Adam()
    optimizer.step(model)
    state = optimizer.state_dict()
    for wrong, message in [
        ({"t": 1}, "state: expected"),
        ({**state, "more": 1}, "state: expected"),
        ({**state, "t": -1}, "t: expected an integer of at least 0"),
        ({**state, "t": 2**63}, "t: expected an integer of at least 0 and below 9.22337e\\+18"),
        ({**state, "mean": state["mean"][:-1]}, "mean: expected float64 of shape"),
        ({**state, "square": state["square"].astype("float32")}, "square: expected float64"),
    ]:
        with pytest.raises(ValueError, match=message):
            optimizer.load_state_dict(wrong)
        assert optimizer.t == 1
    fresh = fastnn.Adam()
    fresh.load_state_dict({**state, "mean": np.zeros(3), "square": np.zeros(3)})
    with pytest.raises(ValueError, match="mean: expected float64 of shape"):
        fresh.step(model)


def test_names_and_repr():
    assert [type(as_optimizer(name)).__name__ for name in NAMES] == [
        "SGD",
        "Adam",
        "AdamW",
        "RMSprop",
    ]
    assert repr(fastnn.SGD(0.5)) == "SGD(lr=0.5, momentum=0.0, nesterov=False, weight_decay=0.0)"
    assert repr(fastnn.Adam(schedules.constant(0.1))).startswith(
        "Adam(lr=constant(lr=0.1, warmup=0)"
    )
