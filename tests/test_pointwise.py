"""Elementwise activations, their derivatives and gradients, and softmax."""

from __future__ import annotations

import math

import numpy as np
import pytest
from oracle import WIDE, same_bits

from fastnn import leaky_relu, leaky_relu_derivative
from fastnn._core import pointwise

SLOPES = (0.01, 0.0, 0.3, 1.0, 2.5, -0.5)
# Around one to four vectors of every width, and enough for several threads.
SIZES = [*range(36), 63, 64, 65, 127, 129, 1025, 200_003]
SPECIAL = (0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-30, -1e-30, 3e38, -3e38)
ACTS = ("identity", "leaky_relu", "relu", "tanh", "sigmoid", "gelu", "silu")
FROM_INPUT = ("gelu", "silu")  # their derivative needs the input; the others' is told by the output


def samples(dtype, rng):
    tiny = np.finfo(dtype).smallest_subnormal
    x = np.concatenate([SPECIAL, [tiny, -tiny], rng.standard_normal(300)]).astype(dtype)
    return np.concatenate([x, x[::-1][:7]])


def value(name, x, slope=0.01):
    """f(x) of Python floats."""
    if name == "leaky_relu":
        return x if x > 0 else slope * x
    if name == "relu":
        return max(x, 0.0)
    if name == "tanh":
        return math.tanh(x)
    if name == "sigmoid":
        return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))
    if name == "gelu":
        return 0.5 * x * math.erfc(-x * math.sqrt(0.5))
    if name == "silu":
        return x * value("sigmoid", x)
    return x


def derivative(name, x, slope=0.01):
    if name in ("leaky_relu", "relu"):
        return 1.0 if x > 0 else (slope if name == "leaky_relu" else 0.0)
    if name == "tanh":
        return 1 / math.cosh(x) ** 2
    if name == "sigmoid":
        return value("sigmoid", x) * value("sigmoid", -x)
    if name == "gelu":
        density = math.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
        return 0.5 * math.erfc(-x * math.sqrt(0.5)) + x * density
    if name == "silu":
        s = value("sigmoid", x)
        return s * (1 + x * value("sigmoid", -x))
    return 1.0


@pytest.mark.parametrize("slope", SLOPES)
def test_leaky_relu_is_exact(isa, dtype, slope, rng):
    x = samples(dtype, rng)
    with np.errstate(over="ignore", invalid="ignore"):
        want = np.where(x > 0, x, x.dtype.type(slope) * x)
    assert same_bits(leaky_relu(x, slope), want)
    derived = np.where(x > 0, x.dtype.type(1), x.dtype.type(slope))
    assert same_bits(leaky_relu_derivative(x, slope), derived)


def test_every_size_and_number_of_threads(isa, n_threads, dtype, rng):
    for size in SIZES:
        x = rng.standard_normal(size).astype(dtype)
        want = np.where(x > 0, x, x.dtype.type(0.3) * x)
        around = np.full(size + 2, 7, dtype)
        assert leaky_relu(x, 0.3, out=around[1:-1]).shape == (size,)
        assert same_bits(around[1:-1], want)
        assert around[0] == around[-1] == 7, "written beyond out"
        derived = leaky_relu_derivative(x, 0.3)
        assert same_bits(derived, np.where(x > 0, x.dtype.type(1), x.dtype.type(0.3)))


@pytest.mark.parametrize("name", ACTS)
def test_the_bits_do_not_depend_on_threads_or_position(isa, dtype, name, rng, set_threads):
    x = rng.standard_normal(100_003).astype(dtype)
    grad = rng.standard_normal(x.size).astype(dtype)

    def results():
        return (
            pointwise.act(name, x),
            pointwise.act_derivative(name, x),
            pointwise.act_grad(name, x, grad),
        )

    set_threads(1)
    want = results()
    for n in (2, 5):
        set_threads(n)
        assert all(same_bits(a, b) for a, b in zip(results(), want, strict=True))
    for at in (0, 1, 15, 50_001, x.size - 1):
        assert same_bits(pointwise.act(name, x[at : at + 1]), want[0][at : at + 1])
        assert same_bits(pointwise.act(name, x[at:]), want[0][at:])


def test_the_derivative_at_zero_is_the_slope(isa, dtype):
    zeros = np.array([0.0, -0.0], dtype)
    assert (leaky_relu_derivative(zeros, 0.25) == 0.25).all()
    assert (pointwise.act_derivative("leaky_relu", zeros, 0.25) == 0.25).all()
    assert (pointwise.act_derivative("relu", zeros) == 0).all()


@pytest.mark.parametrize("shape", [(), (1,), (3, 4), (2, 3, 5), (0, 4), (2, 0, 3)])
def test_any_shape(dtype, shape):
    x = -np.ones(shape, dtype)
    y = leaky_relu(x, 0.5)
    assert type(y) is np.ndarray
    assert same_bits(y, np.full(shape, -0.5, dtype))
    assert same_bits(leaky_relu_derivative(x, 0.5), np.full(shape, 0.5, dtype))


@pytest.mark.parametrize("function", [leaky_relu, leaky_relu_derivative])
def test_any_memory_and_in_place(function, dtype, tmp_path, rng):
    x = rng.standard_normal((6, 10)).astype(dtype)
    want = function(x, 0.25)
    wide = np.repeat(np.repeat(x, 2, axis=0), 3, axis=1)
    moved = np.frombuffer(b"\0" + x.tobytes(), dtype, offset=1).reshape(x.shape)
    x.tofile(tmp_path / "x")
    mapped = np.memmap(tmp_path / "x", dtype, mode="r", shape=x.shape)
    for given in (np.asfortranarray(x), wide[::2, ::3], x[::-1].copy()[::-1], moved, mapped):
        assert same_bits(function(given, 0.25), want)
    assert same_bits(function(x.T, 0.25), np.ascontiguousarray(want.T))
    assert same_bits(function(x.tolist(), 0.25).astype(dtype), want)
    y = x.copy()
    assert function(y, 0.25, out=y) is y
    assert same_bits(y, want)
    y = x.copy()
    function(y, 0.25, out=y.view())
    assert same_bits(y, want), "the same memory under another name"


@pytest.mark.parametrize("function", [leaky_relu, leaky_relu_derivative])
def test_refusals(function, dtype):
    x = np.ones((3, 4), dtype)
    other = "float64" if dtype == "float32" else "float32"
    whole = np.zeros(30, dtype)
    fixed = np.ones((3, 4), dtype)
    fixed.flags.writeable = False
    for slope in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match=r"^negative_slope: expected a finite number, got "):
            function(x, slope)
    for slope in ("0.1", None, [0.1], np.ones(2), 1j):
        with pytest.raises(TypeError, match=r"^negative_slope: expected a number, got "):
            function(x, slope)
    for wrong in (object, complex, ">f8", "int32"):
        with pytest.raises(TypeError, match=r"^x: expected dtype float32 or float64, got "):
            function(x.astype(wrong))
    for out, error, match in [
        (np.ones((4, 3), dtype), ValueError, r"expected shape \(3, 4\), got \(4, 3\)"),
        (np.ones((3, 4), other), TypeError, f"expected dtype {dtype}, got {other}"),
        (fixed, ValueError, "expected a writable array"),
        (np.ones((4, 3), dtype).T, ValueError, "C-contiguous"),
        (x.tolist(), TypeError, "expected an ndarray, got list"),
    ]:
        with pytest.raises(error, match=f"^out: .*{match}"):
            function(x, out=out)
    for given in (whole[1:13], whole[::-1][10:22], whole[:24:2]):
        with pytest.raises(ValueError, match=r"^out: .*overlaps the input"):
            function(given, out=whole[:12])
    assert not whole.any(), "written to before it was refused"
    with pytest.raises(ValueError, match="float32"):
        function(x.astype(np.float32), 1e39)


@pytest.mark.parametrize("name", ACTS)
def test_values_and_derivatives(isa, dtype, name, rng):
    """Within a few roundings of values of order 1; their relative accuracy is for the C tests."""
    x = np.concatenate([np.linspace(-30, 30, 997), rng.standard_normal(500)]).astype(dtype)
    eps = np.finfo(dtype).eps
    for got, function in (
        (pointwise.act(name, x), value),
        (pointwise.act_derivative(name, x), derivative),
    ):
        want = np.array([function(name, float(v)) for v in x])
        assert got.dtype == dtype
        assert (np.abs(got - want) <= 8 * eps * (1 + np.abs(want))).all()


@pytest.mark.parametrize("name", ACTS)
def test_gradients(isa, dtype, name, rng):
    x = rng.standard_normal(301).astype(dtype)
    grad = rng.standard_normal(301).astype(dtype)
    saved = x if name in FROM_INPUT else pointwise.act(name, x)
    got = pointwise.act_grad(name, saved, grad)
    want = grad * np.array([derivative(name, float(v)) for v in x])
    assert (np.abs(got - want) <= 16 * np.finfo(dtype).eps * (1 + np.abs(want))).all()


@pytest.mark.parametrize("name", ACTS)
def test_derivatives_by_central_differences(isa, name, rng):
    x = rng.standard_normal(200)
    x = x[np.abs(x) > 1e-3]
    h = 1e-5
    slope = (pointwise.act(name, x + h, 0.3) - pointwise.act(name, x - h, 0.3)) / (2 * h)
    assert np.allclose(pointwise.act_derivative(name, x, 0.3), slope, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ACTS)
def test_nan_and_infinity(isa, dtype, name):
    x = np.ones(67, dtype)
    x[[0, 33, 66]] = np.nan
    y = pointwise.act(name, x)
    assert np.array_equal(np.isnan(y), np.isnan(x))
    ends = pointwise.act(name, np.array([np.inf, -np.inf], dtype))
    want = {
        "identity": (np.inf, -np.inf), "leaky_relu": (np.inf, -np.inf), "relu": (np.inf, 0),
        "tanh": (1, -1), "sigmoid": (1, 0), "gelu": (np.inf, 0), "silu": (np.inf, 0),
    }  # fmt: skip
    assert tuple(ends) == want[name]
    steep = {"identity": (1, 1), "leaky_relu": (1, 0.01), "relu": (1, 0), "gelu": (1, 0)}
    steep["silu"] = (1, 0)
    slopes = pointwise.act_derivative(name, np.array([np.inf, -np.inf], dtype))
    assert np.array_equal(slopes, np.array(steep.get(name, (0, 0)), dtype))
    signs = pointwise.act(name, np.array([-0.0, 0.0], dtype))
    if name != "sigmoid":
        assert same_bits(signs, np.array([-0.0, 0.0], dtype)), "-0.0 keeps its sign"


def test_unknown_activation():
    with pytest.raises(ValueError, match=r"^activation: expected one of identity, .*, got 'swish'"):
        pointwise.act("swish", np.ones(2))


def wide_softmax(x):
    e = np.exp(x.astype(WIDE) - x.max(axis=-1, keepdims=True, initial=-np.inf))
    return e / e.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 9, 15, 16, 17, 33, 100])
def test_softmax(isa, n_threads, dtype, n, rng):
    eps = np.finfo(dtype).eps
    for m in (0, 1, 5, 700):
        x = (4 * rng.standard_normal((m, n))).astype(dtype)
        y = pointwise.softmax(x)
        want = wide_softmax(x)
        assert y.dtype == dtype
        assert (np.abs(y - want) <= (n + 16) * eps * want).all()
        grad = rng.standard_normal((m, n)).astype(dtype)
        got = pointwise.softmax_grad(y, grad)
        y, grad = y.astype(WIDE), grad.astype(WIDE)
        want = y * (grad - (grad * y).sum(axis=1, keepdims=True))
        bound = y * (np.abs(grad) + (np.abs(grad) * y).sum(axis=1, keepdims=True))
        assert (np.abs(got - want) <= (n + 4) * eps * bound).all()


def test_softmax_extremes(isa, dtype):
    huge = np.finfo(dtype).max
    assert np.array_equal(pointwise.softmax(np.array([huge, huge, -huge], dtype)), [0.5, 0.5, 0])
    assert np.array_equal(pointwise.softmax(np.array([0, -np.inf], dtype)), [1, 0])
    x = np.ones((3, 5), dtype)
    x[1, 2] = np.nan
    y = pointwise.softmax(x)
    assert np.isnan(y[1]).all()
    assert np.allclose(y[[0, 2]], 0.2)
    assert same_bits(pointwise.softmax(x[0]), y[0])


def test_softmax_refusals():
    for wrong in (np.ones((2, 2, 2)), np.float64(1)):
        with pytest.raises(ValueError, match=r"^x: expected shape \(m, n\) or \(n,\)"):
            pointwise.softmax(wrong)
    with pytest.raises(ValueError, match=r"^grad: expected shape \(2, 3\), got \(3, 2\)"):
        pointwise.softmax_grad(np.ones((2, 3)), np.ones((3, 2)))
    with pytest.raises(TypeError, match=r"^grad: expected dtype float64 as y has, got float32"):
        pointwise.softmax_grad(np.ones((2, 3)), np.ones((2, 3), np.float32))


@pytest.mark.parametrize("n", [1, 2, 63, 128, 129, 1000, 5001, 200_003])
def test_sums_are_finite_only_if_all_numbers_are(isa, n_threads, dtype, n, rng):
    x = rng.standard_normal(n).astype(dtype)
    assert pointwise.sums_are_finite(x)
    for value in (np.nan, np.inf, -np.inf):
        for at in {0, n // 2, n - 1}:
            y = x.copy()
            y[at] = value
            assert not pointwise.sums_are_finite(y), (value, at)
    # No proof of the contrary: what is finite may have sums that are not.
    assert not pointwise.sums_are_finite(np.full(5000, np.finfo(dtype).max, dtype))
