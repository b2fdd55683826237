"""What `fastnn bench` and the benches of the repository measure: one list of cases.

A case is one piece of work in three or four forms that give the same result: fastnn's and NumPy's
plain ones, which return new arrays, and those that write to `out=`, NumPy's in its best form. The
weights lie as each form likes them best: fastnn's as a model keeps them, NumPy's (n_out, n_in) for
`x @ W.T` and (n_in, n_out) for the best form.
"""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import init
from .._core.linear import linear, linear_backward
from .._core.pointwise import act, leaky_relu, leaky_relu_derivative, softmax
from .._core.trainer import Trainer
from .._core.updates import Update
from .._memory import flat_zeros
from ..layers import LeakyReLU, Linear
from ..losses import CrossEntropy
from ..optimizers import Adam
from ..sequential import Sequential
from .plain_numpy import PlainNetwork

__all__ = ["CASES", "Case", "Forms"]

Array = NDArray[Any]
Form = Callable[[], Any]

SLOPE = 0.01
LR = 1e-6  # a batch learnt by heart would have gradients too small to be typical
SMALL_NET = (17, 64, 64, 6)
LARGE_NET = (784, 512, 256, 10)


class Forms(NamedTuple):
    """The work as calls without arguments. fastnn_out is None where fastnn takes no `out=`."""

    fastnn: Form
    numpy: Form
    numpy_out: Form
    fastnn_out: Form | None = None


class Case(NamedTuple):
    """One row of the table.

    `flops` counts a multiply-add as two. `traffic` is what must be read and written at least, and
    `footprint` the memory in which that happens, both in elements; `memory` names the limit that
    traffic meets: "read", "copy", "write" or "update". `tolerance` is the largest difference of two
    forms' results in units of the largest element; 0 for random fills, which are alike, not equal.
    """

    name: str
    make: Callable[[str], Forms]
    flops: float
    traffic: float
    footprint: float
    memory: str
    tolerance: float = 1e-4
    dtypes: tuple[str, ...] = ("float32", "float64")


def _normal(dtype: str, *shape: int) -> Array:
    return np.random.default_rng(1).standard_normal(shape, np.dtype(dtype))


def _linear(m: int, k: int, n: int) -> Case:
    def make(dtype: str) -> Forms:
        x, w, b = _normal(dtype, m, k), _normal(dtype, n, k), _normal(dtype, n)
        wt = np.ascontiguousarray(w.T)
        y, z, s = (np.empty((m, n), dtype) for _ in range(3))

        def plain() -> Array:
            z = x @ w.T + b
            return np.where(z > 0, z, SLOPE * z)

        def best() -> Array:
            np.matmul(x, wt, out=z)
            np.add(z, b, out=z)
            np.multiply(z, SLOPE, out=s)
            return np.maximum(z, s, out=z)

        call = partial(linear, x, wt.T, b, negative_slope=SLOPE)
        return Forms(call, plain, best, partial(call, out=y))

    size = m * k + k * n + m * n
    return Case(f"linear {m}x{k}->{n}", make, 2 * m * n * k, size, size, "read")


def _linear_backward(m: int, k: int, n: int) -> Case:
    def make(dtype: str) -> Forms:
        x, w, grad_y = _normal(dtype, m, k), _normal(dtype, n, k), _normal(dtype, m, n)
        wt = np.ascontiguousarray(w.T)
        y = linear(x, wt.T, negative_slope=SLOPE)
        grad_z, grad_x = np.empty((m, n), dtype), np.empty((m, k), dtype)
        grad_wt, grad_b = np.empty((k, n), dtype), np.empty(n, dtype)

        def plain() -> tuple[Array, Array, Array]:
            grad_z = np.where(y > 0, grad_y, SLOPE * grad_y)
            return grad_z @ w, grad_z.T @ x, grad_z.sum(axis=0)

        def best() -> tuple[Array, Array, Array]:
            np.multiply(grad_y, SLOPE, out=grad_z)
            np.copyto(grad_z, grad_y, where=y > 0)
            np.matmul(grad_z, wt.T, out=grad_x)
            np.matmul(x.T, grad_z, out=grad_wt)
            np.sum(grad_z, axis=0, out=grad_b)
            return grad_x, grad_wt.T, grad_b

        call = partial(linear_backward, grad_y, x, wt.T, y=y, negative_slope=SLOPE)
        return Forms(call, plain, best)

    size = 2 * (m * k + k * n + m * n)
    return Case(f"linear_backward {m}x{k}->{n}", make, 4 * m * n * k, size, size, "read")


def _pointwise(
    name: str,
    shape: tuple[int, ...],
    fastnn: Callable[..., Array],
    plain: Callable[[Array], Array],
    best: Callable[[Array, Array, Array], Array],
    tolerance: float = 1e-5,
    *,
    takes_out: bool = True,
) -> Case:
    """plain(x) and best(x, out, scratch), with scratch of x's shape."""

    def make(dtype: str) -> Forms:
        x = _normal(dtype, *shape)
        y, out, scratch = np.empty_like(x), np.empty_like(x), np.empty_like(x)
        return Forms(
            partial(fastnn, x),
            partial(plain, x),
            partial(best, x, out, scratch),
            partial(fastnn, x, out=y) if takes_out else None,
        )

    size = 2 * int(np.prod(shape))
    label = f"{name} {'x'.join(f'{n:,}' for n in shape)}"
    return Case(label, make, 0, size, size, "copy", tolerance)


def _leaky_relu_best(x: Array, out: Array, scratch: Array) -> Array:
    np.multiply(x, SLOPE, out=scratch)
    np.maximum(x, scratch, out=out)
    return out


def _derivative_plain(x: Array) -> Array:
    y: Array = np.where(x > 0, x.dtype.type(1), x.dtype.type(SLOPE))
    return y


def _derivative_best(x: Array, out: Array, scratch: Array) -> Array:
    np.greater(x, 0, out=out)
    np.multiply(out, 1 - SLOPE, out=out)
    np.add(out, SLOPE, out=out)
    return out


def _sigmoid_plain(x: Array) -> Array:
    y: Array = 1 / (1 + np.exp(-x))
    return y


def _sigmoid_best(x: Array, out: Array, scratch: Array) -> Array:
    np.negative(x, out=out)
    np.exp(out, out=out)
    np.add(out, 1, out=out)
    np.reciprocal(out, out=out)
    return out


# NumPy has no erf: its users take the formula with tanh, which is within 5e-4 (Hendrycks and Gimpel
# 2016, "Gaussian error linear units").
_GELU = float(np.sqrt(2 / np.pi))


def _gelu_plain(x: Array) -> Array:
    y: Array = 0.5 * x * (1 + np.tanh(_GELU * (x + 0.044715 * x * x * x)))
    return y


def _gelu_best(x: Array, out: Array, scratch: Array) -> Array:
    np.multiply(x, x, out=out)
    np.multiply(out, 0.044715 * _GELU, out=out)
    np.add(out, _GELU, out=out)
    np.multiply(out, x, out=out)
    np.tanh(out, out=out)
    np.add(out, 1, out=out)
    np.multiply(x, 0.5, out=scratch)
    np.multiply(out, scratch, out=out)
    return out


def _softmax_plain(x: Array) -> Array:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    y: Array = e / e.sum(axis=1, keepdims=True)
    return y


def _softmax_best(x: Array, out: Array, scratch: Array) -> Array:
    np.subtract(x, x.max(axis=1, keepdims=True), out=out)
    np.exp(out, out=out)
    np.divide(out, out.sum(axis=1, keepdims=True), out=out)
    return out


def _cross_entropy_plain(z: Array, labels: Array) -> tuple[float, Array]:
    m = len(z)
    shifted = z - z.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    grad = np.exp(log_p)
    grad[np.arange(m), labels] -= 1
    return float(-log_p[np.arange(m), labels].mean()), grad / m


def _cross_entropy(m: int, n: int) -> Case:
    def make(dtype: str) -> Forms:
        z = _normal(dtype, m, n)
        labels = np.random.default_rng(2).integers(0, n, m)
        rows, grad = np.arange(m), np.empty_like(z)

        def best() -> tuple[float, Array]:
            np.subtract(z, z.max(axis=1, keepdims=True), out=grad)
            picked = grad[rows, labels]
            np.exp(grad, out=grad)
            sums = grad.sum(axis=1, keepdims=True)
            np.multiply(grad, 1 / (m * sums), out=grad)
            grad[rows, labels] -= 1 / m
            return float((np.log(sums[:, 0]) - picked).mean()), grad

        return Forms(
            partial(CrossEntropy(), z, labels), partial(_cross_entropy_plain, z, labels), best
        )

    size = 2 * m * n
    return Case(f"cross_entropy {m}x{n}", make, 0, size, size, "copy")


class _PlainAdam:
    """Adam as the paper writes it (Kingma and Ba 2015), new arrays at each step."""

    def __init__(self, parameter: Array, lr: float) -> None:
        self.w, self.lr, self.t = parameter, lr, 0
        self.m, self.s = np.zeros_like(parameter), np.zeros_like(parameter)

    def step(self, g: Array) -> Array:
        self.t += 1
        self.m = 0.9 * self.m + 0.1 * g
        self.s = 0.999 * self.s + 0.001 * g**2
        mean, square = self.m / (1 - 0.9**self.t), self.s / (1 - 0.999**self.t)
        self.w = self.w - self.lr * mean / (np.sqrt(square) + 1e-8)
        return self.w


def _adam(n: int) -> Case:
    def make(dtype: str) -> Forms:
        g = _normal(dtype, n)
        w, m, s = (flat_zeros(n, np.dtype(dtype), place) for place in (0, 2, 3))
        w2, m2, s2, work = (np.zeros(n, dtype) for _ in range(4))
        update = Update("adam", w, g, [m, s], lr=LR)
        steps = itertools.count(1)

        def fastnn() -> Array:
            update.apply()
            return w

        def best() -> Array:
            t = next(steps)
            np.multiply(m2, 0.9, out=m2)
            np.multiply(g, 0.1, out=work)
            np.add(m2, work, out=m2)
            np.multiply(s2, 0.999, out=s2)
            np.multiply(g, g, out=work)
            np.multiply(work, 0.001, out=work)
            np.add(s2, work, out=s2)
            np.sqrt(s2, out=work)
            np.multiply(work, 1 / (1 - 0.999**t) ** 0.5, out=work)
            np.add(work, 1e-8, out=work)
            np.divide(m2, work, out=work)
            np.multiply(work, LR / (1 - 0.9**t), out=work)
            return np.subtract(w2, work, out=w2)

        return Forms(fastnn, partial(_PlainAdam(np.zeros(n, dtype), LR).step, g), best)

    # Reads w, g, m and s, writes w, m and s.
    return Case(f"Adam {n:,}", make, 0, 7 * n, 4 * n, "update")


def _fill(name: str, n: int) -> Case:
    def make(dtype: str) -> Forms:
        kind, rng, ours = np.dtype(dtype), np.random.default_rng(3), np.random.default_rng(4)
        out, ours_out = np.empty(n, kind), np.empty(n, kind)
        fill = rng.random if name == "uniform" else rng.standard_normal
        shape: dict[str, Any] = {"shape": (n,), "dtype": dtype, "rng": ours}
        call = (
            partial(init.uniform, low=0.0, high=1.0, **shape)
            if name == "uniform"
            else partial(init.normal, std=1.0, **shape)
        )
        return Forms(
            call,
            partial(fill, n, dtype=kind),
            partial(fill, dtype=kind, out=out),
            partial(call, out=ours_out),
        )

    return Case(f"{name} fill {n:,}", make, 0, n, n, "write", 0)


def _network(widths: tuple[int, ...], dtype: str) -> Sequential:
    layers: list[Any] = []
    for n_in, n_out in itertools.pairwise(widths):
        layers += [Linear(n_in, n_out, dtype=dtype, bias_init="ones"), LeakyReLU(SLOPE)]
    return Sequential(*layers[:-1], rng=5)


def _products(widths: tuple[int, ...]) -> int:
    """Elements of all weights."""
    return sum(n_in * n_out for n_in, n_out in itertools.pairwise(widths))


def _predict(widths: tuple[int, ...], m: int) -> Case:
    def make(dtype: str) -> Forms:
        model, x = _network(widths, dtype), _normal(dtype, m, widths[0])
        parameters = list(model.state_dict().values())
        weights, biases = parameters[::2], parameters[1::2]
        transposed = [np.ascontiguousarray(w.T) for w in weights]
        outputs = [np.empty((m, n), dtype) for n in widths[1:]]
        scratch = [np.empty((m, n), dtype) for n in widths[1:]]
        y = np.empty((m, widths[-1]), dtype)

        def plain() -> Array:
            a = x
            for w, b in zip(weights[:-1], biases[:-1], strict=True):
                z = a @ w.T + b
                a = np.where(z > 0, z, SLOPE * z)
            return a @ weights[-1].T + biases[-1]

        def best() -> Array:
            a = x
            for w, b, z, s in zip(transposed, biases, outputs, scratch, strict=True):
                a = np.add(np.matmul(a, w, out=z), b, out=z)
                if z is not outputs[-1]:
                    np.maximum(z, np.multiply(z, SLOPE, out=s), out=z)
            return a

        return Forms(partial(model.predict, x), plain, best, partial(model.predict, x, out=y))

    name = "-".join(map(str, widths))
    size = _products(widths) + sum(widths[1:]) + m * (widths[0] + widths[-1])
    return Case(f"predict {name}, {m}", make, 2 * m * _products(widths), size, size, "read")


def _train(widths: tuple[int, ...], m: int) -> Case:
    """A step on the same batch again and again: forward, cross-entropy, backward, Adam."""

    def make(dtype: str) -> Forms:
        model, x = _network(widths, dtype), _normal(dtype, m, widths[0])
        labels = np.random.default_rng(6).integers(0, widths[-1], m)
        drawn = list(model.state_dict().values())
        update = Adam(lr=LR).bind(model)
        update.lr = LR
        assert model._plan is not None
        trainer = Trainer(model._plan, x, labels, None, ("cross_entropy",), update, m, 0)
        plain = [_PlainAdam(parameter, LR) for parameter in drawn]
        best = PlainNetwork([w.T for w in drawn[::2]], drawn[1::2], m, negative_slope=SLOPE, lr=LR)

        def fastnn() -> float:
            trainer.reset()
            trainer.step(None, 0, m, 0)
            return trainer.loss_sum / m

        return Forms(
            fastnn,
            partial(_plain_step, plain[::2], plain[1::2], x, labels),
            lambda: best.step(x, labels) / m,
        )

    first, weights = widths[0] * widths[1], _products(widths)
    flops = 2 * m * (3 * weights - first)  # no gradient is wanted by the inputs
    name = "-".join(map(str, widths))
    # The update moves most: four reads and three writes of each parameter.
    sizes = 7 * weights, 4 * weights, "update"
    return Case(f"train {name}, {m}", make, flops, *sizes, 1e-3, ("float32",))


def _plain_step(
    weights: list[_PlainAdam], biases: list[_PlainAdam], x: Array, labels: Array
) -> float:
    """A training step as a textbook writes it; the loss before it."""
    inputs, a = [x], x
    for w, b in zip(weights[:-1], biases[:-1], strict=True):
        z = a @ w.w.T + b.w
        a = np.where(z > 0, z, SLOPE * z)
        inputs.append(a)
    loss, grad = _cross_entropy_plain(a @ weights[-1].w.T + biases[-1].w, labels)
    for i in reversed(range(len(weights))):
        grad_w, grad_b = grad.T @ inputs[i], grad.sum(axis=0)
        if i > 0:
            grad = grad @ weights[i].w
            grad = np.where(inputs[i] > 0, grad, SLOPE * grad)
        weights[i].step(grad_w)
        biases[i].step(grad_b)
    return loss


CASES: tuple[Case, ...] = (
    _linear(1, 64, 64),
    _linear(1, 256, 256),
    _linear(1, 1024, 1024),
    _linear(8, 512, 512),
    _linear(32, 64, 64),
    _linear(32, 256, 256),
    _linear(32, 784, 512),
    _linear(128, 784, 256),
    _linear(512, 512, 512),
    _linear(1024, 1024, 1024),
    _linear(8192, 128, 128),
    _linear_backward(32, 256, 256),
    _linear_backward(128, 784, 256),
    _linear_backward(512, 512, 512),
    _pointwise(
        "leaky_relu", (65536,), partial(leaky_relu, negative_slope=SLOPE),
        lambda x: np.where(x > 0, x, SLOPE * x), _leaky_relu_best,
    ),
    _pointwise(
        "leaky_relu", (4194304,), partial(leaky_relu, negative_slope=SLOPE),
        lambda x: np.where(x > 0, x, SLOPE * x), _leaky_relu_best,
    ),
    _pointwise(
        "leaky_relu_derivative", (65536,), partial(leaky_relu_derivative, negative_slope=SLOPE),
        _derivative_plain, _derivative_best,
    ),
    _pointwise(
        "tanh", (65536,), partial(act, "tanh"), np.tanh, lambda x, out, _: np.tanh(x, out=out)
    ),
    _pointwise("sigmoid", (65536,), partial(act, "sigmoid"), _sigmoid_plain, _sigmoid_best),
    _pointwise("gelu", (65536,), partial(act, "gelu"), _gelu_plain, _gelu_best, 1e-3),
    _pointwise("softmax", (512, 128), softmax, _softmax_plain, _softmax_best, takes_out=False),
    _cross_entropy(128, 10),
    _cross_entropy(128, 1000),
    _adam(535818),
    _fill("uniform", 1000000),
    _fill("normal", 1000000),
    _predict(SMALL_NET, 1),
    _predict(SMALL_NET, 16),
    _predict(LARGE_NET, 1),
    _predict(LARGE_NET, 256),
    _train(LARGE_NET, 32),
    _train(LARGE_NET, 128),
)  # fmt: skip
