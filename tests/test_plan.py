"""The compiled plan: whole networks against float64 NumPy, and the bits under any split."""

import itertools
import math
import sys
import threading
import time

import numpy as np
import pytest

from fastnn._core import kernels
from fastnn._core.plan import Plan
from fastnn._core.threads import set_num_threads
from fastnn._core.trainer import Trainer
from fastnn._core.updates import Update


def erf(x):
    return np.vectorize(math.erf)(x)


ACT = {
    "identity": lambda z, a: z,
    "leaky_relu": lambda z, a: np.where(z > 0, z, a * z),
    "relu": lambda z, a: np.maximum(z, 0),
    "tanh": lambda z, a: np.tanh(z),
    "sigmoid": lambda z, a: 1 / (1 + np.exp(-z)),
    "gelu": lambda z, a: z * (1 + erf(z / math.sqrt(2))) / 2,
    "silu": lambda z, a: z / (1 + np.exp(-z)),
}


class Network:
    """A plan with random weights, and the same in float64 NumPy."""

    def __init__(self, sizes, acts, dtype="float64", slope=0.01, extra=(), seed=0):
        rng = np.random.default_rng(seed)
        self.layers, self.ops, at, flat = [], [], 0, []
        for i, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
            w = (rng.standard_normal((n_in, n_out)) / math.sqrt(n_in)).astype(dtype)
            b = rng.standard_normal(n_out).astype(dtype) * np.dtype(dtype).type(0.1)
            self.ops.append(("linear", n_in, n_out, at, at + w.size, acts[i], slope))
            flat += [w.ravel(), b]
            at += w.size + b.size
            self.layers.append((w, b, acts[i], slope))
        self.ops += list(extra)
        self.parameters = np.concatenate(flat)
        parts = iter(np.split(self.parameters, np.cumsum([part.size for part in flat])[:-1]))
        self.layers = [
            (next(parts).reshape(w.shape), next(parts), *rest) for w, _, *rest in self.layers
        ]
        self.gradients = np.zeros_like(self.parameters)
        self.dtype = np.dtype(dtype)
        self.plan = Plan(self.ops, sizes[0], dtype, self.parameters, self.gradients, 1 / 255)

    def reference(self, x):
        y = np.asarray(x, np.float64)
        for w, b, act, slope in self.layers:
            y = ACT[act](y @ w.astype(np.float64) + b, slope)
        return y


def data(m, n, dtype, seed=1):
    return np.random.default_rng(seed).standard_normal((m, n)).astype(dtype)


@pytest.mark.parametrize(("dtype", "tol"), [("float32", 2e-5), ("float64", 1e-13)])
@pytest.mark.parametrize("act", sorted(ACT))
@pytest.mark.parametrize("m", [1, 7, 33, 200])
def test_predict_and_forward_match_numpy(isa, dtype, tol, act, m):
    net = Network([17, 45, 32, 6], [act, act, "identity"], dtype)
    x = data(m, 17, dtype)
    want = net.reference(x)
    scale = np.abs(want).max()
    np.testing.assert_allclose(net.plan.predict(x), want, rtol=0, atol=tol * scale)
    np.testing.assert_array_equal(net.plan.forward(x), net.plan.predict(x))


@pytest.mark.parametrize("sizes", [[17, 64, 64, 6], [300, 513, 100, 10], [3, 1, 1], [64, 2048, 5]])
def test_rows_have_the_same_bits_in_any_batch_and_any_team(isa, set_threads, sizes):
    net = Network(sizes, ["leaky_relu"] * (len(sizes) - 2) + ["identity"], "float32")
    x = data(300, sizes[0], "float32")
    set_threads(1)
    want = np.concatenate([net.plan.predict(x[i : i + 1]) for i in range(300)])
    for n in (1, 2, 5):
        set_threads(n)
        for m in (1, 2, 3, 13, 14, 15, 31, 64, 300):
            np.testing.assert_array_equal(net.plan.predict(x[:m]), want[:m])
            np.testing.assert_array_equal(net.plan.forward(x[:m]), want[:m])


@pytest.mark.parametrize("n", [2, 3, 5])
def test_a_team_that_claims_rows_leaves_none_out(isa, set_threads, n):
    """Into an `out` of NaN: memory of its own might hold the answers of a call before."""
    net = Network([17, 64, 64, 6], ["leaky_relu", "leaky_relu", "identity"], "float32")
    x = data(1500, 17, "float32")
    set_threads(1)
    want = net.plan.predict(x)
    set_threads(n)
    for m in (283, 300, 561, 1499, 1500):
        out = np.full((m, 6), np.nan, np.float32)
        np.testing.assert_array_equal(net.plan.predict(x[:m], out), want[:m])


@pytest.mark.parametrize("act", sorted(ACT))
@pytest.mark.parametrize("slope", [0.01, -0.5, 3.0])
@pytest.mark.parametrize(
    "extra", [(), (("softmax",),), (("act", "tanh", 0.0), ("softmax",)), (("dropout", 0.3),)]
)
def test_gradients_by_central_differences(act, slope, extra):
    if slope != 0.01 and act != "leaky_relu":
        pytest.skip("the slope is the leaky ReLU's")
    net = Network([5, 7, 4], [act, act], "float64", slope, extra)
    x = data(6, 5, "float64")
    weight = data(6, 4, "float64", 2)

    def objective():
        return float((net.plan.forward(x, 11, 3) * weight).sum())

    objective()
    grad_x = net.plan.backward(weight)
    got = net.gradients.copy()
    step = 1e-6
    for flat, grad in ((net.parameters, got), (x.reshape(-1), grad_x.reshape(-1))):
        numeric = np.empty_like(grad)
        for i in range(flat.size):
            keep = flat[i]
            flat[i] = keep + step
            up = objective()
            flat[i] = keep - step
            numeric[i] = (up - objective()) / (2 * step)
            flat[i] = keep
        np.testing.assert_allclose(grad, numeric, rtol=1e-6, atol=1e-8)


def test_a_plan_without_layers_and_one_of_activations_alone(set_threads):
    none = np.empty(0)
    x = data(4, 3, "float64")
    np.testing.assert_array_equal(Plan([], 3, "float64", none, none, 1.0).predict(x), x)
    drop = Plan([("dropout", 0.5)], 3, "float64", none, none, 1.0)
    np.testing.assert_array_equal(drop.predict(x), x)
    wide = np.ones((2, 100_000))
    for n in (1, 2, 5):
        set_threads(n)
        many = Plan([("dropout", 0.5)], 100_000, "float64", none, none, 1.0)
        np.testing.assert_array_equal(many.predict(wide), wide)
    plan = Plan([("act", "relu", 0.0), ("act", "tanh", 0.0)], 3, "float64", none, none, 1.0)
    np.testing.assert_allclose(plan.predict(x), np.tanh(np.maximum(x, 0)), rtol=1e-14)
    plan.forward(x)
    grad = plan.backward(np.ones((4, 3)))
    np.testing.assert_allclose(grad, (1 - np.tanh(x) ** 2) * (x > 0), rtol=1e-13)


def test_inputs_of_other_dtypes_and_layouts():
    net = Network([6, 8, 3], ["relu", "identity"], "float32")
    x = data(20, 6, "float32")
    want = net.plan.predict(x)
    for other in (
        x.astype(np.float64),
        np.asfortranarray(x),
        np.repeat(x, 2, axis=0)[::2],
        x[::-1].copy()[::-1],
        x.tolist(),
    ):
        np.testing.assert_array_equal(net.plan.predict(other), want)
    x.flags.writeable = False
    np.testing.assert_array_equal(net.plan.predict(x), want)
    np.testing.assert_array_equal(net.plan.predict(x[3]), want[3])
    pixels = np.random.default_rng(0).integers(0, 256, (20, 6), dtype=np.uint8)
    scaled = pixels.astype(np.float32) * np.float32(1 / 255)
    np.testing.assert_array_equal(net.plan.predict(pixels), net.plan.predict(scaled))
    np.testing.assert_array_equal(net.plan.predict(pixels[::2]), net.plan.predict(scaled[::2]))


def test_out_is_filled_and_returned():
    net = Network([6, 8, 3], ["relu", "identity"], "float32")
    x = data(20, 6, "float32")
    out = np.full((20, 3), np.nan, np.float32)
    assert net.plan.predict(x, out) is out
    np.testing.assert_array_equal(out, net.plan.predict(x))


@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        (np.zeros((4, 5), np.float32), ValueError, "x: expected shape (m, 6)"),
        (np.zeros((2, 4, 6), np.float32), ValueError, "x: expected shape"),
        (np.zeros((4, 6), object), TypeError, "x"),
        (np.zeros((4, 6), complex), TypeError, "x"),
        (np.zeros((4, 6), ">f4"), TypeError, "x"),
        ("rows", TypeError, "x"),
    ],
)
def test_bad_inputs(x, error, words):
    net = Network([6, 8, 3], ["relu", "identity"], "float32")
    with pytest.raises(error) as caught:
        net.plan.predict(x)
    assert words in str(caught.value)


def test_bad_out():
    net = Network([6, 8, 6], ["relu", "identity"], "float32")
    x = data(4, 6, "float32")
    frozen = np.zeros((4, 6), np.float32)
    frozen.flags.writeable = False
    inside = net.parameters[:24].reshape(4, 6)
    spread = np.zeros((4, 12), np.float32)[:, ::2]
    for out in (np.zeros((4, 5), np.float32), frozen, x, spread, inside):
        with pytest.raises(ValueError, match="out"):
            net.plan.predict(x, out)
    with pytest.raises(TypeError, match="out"):
        net.plan.predict(x, np.zeros((4, 6)))


def test_backward_needs_a_forward_of_the_same_rows():
    net = Network([6, 8, 3], ["relu", "identity"])
    with pytest.raises(RuntimeError, match="forward"):
        net.plan.backward(np.zeros((4, 3)))
    net.plan.forward(np.zeros((4, 6)))
    with pytest.raises(ValueError, match="grad"):
        net.plan.backward(np.zeros((5, 3)))
    net.plan.backward(np.zeros((4, 3)))
    with pytest.raises(RuntimeError, match="forward"):
        net.plan.backward(np.zeros((4, 3)))


def test_many_threads_predict_at_once(isa, n_threads):
    net = Network([300, 200, 100, 10], ["leaky_relu", "tanh", "identity"], "float32")
    inputs = [data(m, 300, "float32", m) for m in (1, 2, 50, 117)]
    want = [net.plan.predict(x) for x in inputs]
    wrong = []

    def work():
        for _ in range(20):
            for x, y in zip(inputs, want, strict=True):
                if not np.array_equal(net.plan.predict(x), y):
                    wrong.append(x.shape)

    team = [threading.Thread(target=work) for _ in range(6)]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()
    assert not wrong


def test_a_kept_layout_is_that_of_the_call(set_threads):
    """Of other rows, another team or other kernels nothing is left over."""
    net = Network([300, 513, 100, 10], ["leaky_relu", "tanh", "identity"], "float32")
    x = data(300, 300, "float32")
    before = kernels.isa()
    for name in (*kernels.available_isas(), before):
        kernels.set_isa(name)
        try:
            for n, m in itertools.product((5, 1, 2), (300, 1, 117)):
                set_threads(n)
                net.plan.predict(x[:m])
            fresh = Network([300, 513, 100, 10], ["leaky_relu", "tanh", "identity"], "float32")
            for m in (1, 300, 50):
                want = fresh.plan.predict(x[:m])
                np.testing.assert_array_equal(net.plan.predict(x[:m]), want)
        finally:
            kernels.set_isa(before)


def test_narrow_rows_let_the_gil_go():
    """79,000 rows of one number are few multiply-adds, and long all the same."""
    net = Network([1, 1], ["tanh"], "float32")
    x = data(79_000, 1, "float32")
    turns, stop = [0], threading.Event()

    def count():
        while not stop.is_set():
            turns[0] += 1
            time.sleep(0)  # lets the GIL go; gets it back only where somebody else does

    interval = sys.getswitchinterval()
    thread = threading.Thread(target=count)
    sys.setswitchinterval(1000)  # nobody is made to
    try:
        thread.start()
        for _ in range(1000):
            before = turns[0]
            net.plan.predict(x)
            if turns[0] > before:
                break
        else:
            pytest.fail("no other thread ran")
    finally:
        stop.set()
        sys.setswitchinterval(interval)
        thread.join()


def trained(
    n_threads, dtype="float32", x_dtype=None, index=True, weights=None, sizes=(40, 96, 64, 10)
):
    set_num_threads(n_threads)
    net = Network(list(sizes), ["leaky_relu", "gelu", "identity"], dtype, extra=[("dropout", 0.1)])
    x = data(500, sizes[0], x_dtype or dtype)
    labels = np.random.default_rng(3).integers(0, sizes[-1], 500)
    state = [np.zeros_like(net.parameters) for _ in range(2)]
    update = Update("adam", net.parameters, net.gradients, state, lr=1e-3)
    trainer = Trainer(net.plan, x, labels, weights, ("cross_entropy",), update, 128, 7)
    step = 0
    for epoch in range(2):
        order = np.random.default_rng(epoch).permutation(500) if index else None
        for start in range(0, 500, 128):
            trainer.step(order, start, min(500, start + 128), step)
            step += 1
    return net.parameters.tobytes(), trainer.loss_sum, trainer.correct


@pytest.mark.parametrize("sizes", [(40, 96, 64, 10), (300, 512, 256, 10)])
def test_training_has_the_same_bits_for_any_team(isa, set_threads, sizes):
    one = trained(1, sizes=sizes)
    assert trained(2, sizes=sizes) == one
    assert trained(5, sizes=sizes) == one


@pytest.mark.parametrize(("dtype", "batch"), [("float32", 1025), ("float64", 513)])
def test_a_short_last_batch_after_a_deep_one(isa, set_threads, dtype, batch):
    # The last batch's dW has a shorter k than the workspace was laid out for.
    results = []
    for n in (1, 2, 5):
        set_threads(n)
        net = Network([128, 512, 1], ["relu", "identity"], dtype)
        x, y = data(2 * batch - 1, 128, dtype), data(2 * batch - 1, 1, dtype, 2)
        update = Update("sgd", net.parameters, net.gradients, [], lr=0.01)
        trainer = Trainer(net.plan, x, y, None, ("mse",), update, batch, 0)
        trainer.step(None, 0, batch, 0)
        z = net.reference(x[batch:])
        before = trainer.loss_sum
        trainer.step(None, batch, 2 * batch - 1, 1)
        assert trainer.loss_sum - before == pytest.approx(((z - y[batch:]) ** 2).sum(), rel=1e-4)
        results.append((net.parameters.tobytes(), trainer.loss_sum))
    assert results[0] == results[1] == results[2]


def test_a_step_reads_rows_in_order_as_through_an_index():
    net = Network([40, 96, 64, 10], ["leaky_relu", "gelu", "identity"])
    x, labels = data(50, 40, "float64"), np.arange(50) % 10
    weights = np.linspace(0.5, 1.5, 50)
    results = []
    for order in (None, np.arange(50)):
        net.parameters[:] = Network([40, 96, 64, 10], ["relu"] * 3).parameters
        update = Update("sgd", net.parameters, net.gradients, [], lr=0.1)
        trainer = Trainer(net.plan, x, labels, weights, ("cross_entropy",), update, 16, 0)
        for i in range(0, 50, 16):
            trainer.step(order, i, min(50, i + 16), i)
        results.append((net.parameters.tobytes(), trainer.loss_sum, trainer.correct, trainer.rows))
    assert results[0] == results[1]
    assert results[0][3] == 50


@pytest.mark.parametrize("loss", [("mse",), ("mae",), ("huber", 0.7), ("bce",)])
def test_a_step_is_forward_loss_backward_update(loss):
    from fastnn._core.losses import loss_and_grad

    rng = np.random.default_rng(5)
    x, weights = data(20, 8, "float64"), rng.uniform(0.5, 2, 20)
    targets = rng.uniform(0, 1, (20, 3))
    whole = Network([8, 16, 3], ["tanh", "identity"])
    apart = Network([8, 16, 3], ["tanh", "identity"])
    updates = [Update("sgd", n.parameters, n.gradients, [], lr=0.1) for n in (whole, apart)]
    trainer = Trainer(whole.plan, x, targets, weights, loss, updates[0], 20, 0)
    trainer.step(None, 0, 20, 0)
    y = apart.plan.forward(x)
    value, grad = loss_and_grad(loss, y, targets, weights, True)
    apart.plan.backward(grad)
    updates[1].apply()
    np.testing.assert_array_equal(whole.parameters, apart.parameters)
    assert trainer.loss_sum / 20 == pytest.approx(value, rel=1e-14)


def test_evaluate_is_inference():
    net = Network([12, 30, 5], ["relu", "identity"], "float32")
    x = data(2500, 12, "float32")
    labels = np.random.default_rng(1).integers(0, 5, 2500)
    update = Update("sgd", net.parameters, net.gradients, [], lr=0.1)
    trainer = Trainer(net.plan, x, labels, None, ("cross_entropy",), update, 16, 0)
    loss, correct, rows = trainer.evaluate(x, labels, None)
    z = net.reference(x)
    z -= z.max(axis=1, keepdims=True)
    want = (np.log(np.exp(z).sum(axis=1)) - z[np.arange(2500), labels]).sum()
    assert rows == 2500
    assert loss == pytest.approx(want, rel=1e-5)
    assert correct == (net.plan.predict(x).argmax(axis=1) == labels).sum()


def test_trainer_refuses_what_does_not_fit():
    net = Network([12, 30, 5], ["relu", "identity"], "float32")
    x, labels = data(10, 12, "float32"), np.arange(10) % 5
    update = Update("sgd", net.parameters, net.gradients, [], lr=0.1)
    loss = ("cross_entropy",)
    with pytest.raises(ValueError, match="labels"):
        Trainer(net.plan, x, labels + 1, None, loss, update, 4, 0)
    with pytest.raises(ValueError, match="targets"):
        Trainer(net.plan, x, labels[:9], None, loss, update, 4, 0)
    with pytest.raises(ValueError, match="weights"):
        Trainer(net.plan, x, labels, np.ones(10), loss, update, 4, 0)
    trainer = Trainer(net.plan, x, labels, None, loss, update, 4, 0)
    with pytest.raises(ValueError, match="index"):
        trainer.step(np.array([0, 1, 10]), 0, 3, 0)
    with pytest.raises(ValueError, match="start"):
        trainer.step(None, 0, 5, 0)
    with pytest.raises(ValueError, match="start"):
        trainer.step(None, 8, 11, 0)
