"""Initializers: the formulas, the streams, `out=` and bad input."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest

from fastnn import init
from fastnn._initialization import describe
from fastnn._rng import stream_seed

SHAPE = (300, 500)
# name, arguments, standard deviation by the formula as it is written, n_in = 500 and n_out = 300
FORMULAS = [
    ("uniform", {}, 0.2 / math.sqrt(12)),
    ("uniform", {"low": 1.0, "high": 4.0}, 3 / math.sqrt(12)),
    ("normal", {}, 0.01),
    ("normal", {"mean": 1.0, "std": 0.3}, 0.3),
    ("truncated_normal", {"std": 1.0}, math.sqrt(0.7737413035499232)),
    ("xavier_normal", {}, math.sqrt(2 / 800)),
    ("xavier_uniform", {}, math.sqrt(2 / 800)),
    ("xavier_normal", {"gain": 5 / 3}, 5 / 3 * math.sqrt(2 / 800)),
    ("xavier_uniform", {"gain": 0.5}, 0.5 * math.sqrt(2 / 800)),
    ("he_normal", {}, math.sqrt(2 / 500)),
    ("he_uniform", {}, math.sqrt(2 / 500)),
    ("he_normal", {"negative_slope": 0.5}, math.sqrt(2 / (1.25 * 500))),
    ("he_uniform", {"negative_slope": -0.5, "mode": "fan_out"}, math.sqrt(2 / (1.25 * 300))),
    ("he_normal", {"mode": "fan_avg"}, math.sqrt(2 / 400)),
    ("lecun_normal", {}, math.sqrt(1 / 500)),
    ("lecun_uniform", {}, math.sqrt(1 / 500)),
    ("variance_scaling", {}, math.sqrt(1 / 500)),
    ("variance_scaling", {"scale": 2.0, "mode": "fan_out"}, math.sqrt(2 / 300)),
    ("variance_scaling", {"mode": "fan_avg", "distribution": "normal"}, math.sqrt(1 / 400)),
    ("variance_scaling", {"scale": 3.0, "distribution": "uniform"}, math.sqrt(3 / 500)),
    ("orthogonal", {}, math.sqrt(1 / 500)),
    ("orthogonal", {"gain": 2.0}, 2 * math.sqrt(1 / 500)),
]
RANDOM = sorted({name for name, _, _ in FORMULAS})


def same_bits(a, b):
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


@pytest.mark.parametrize(("name", "arguments", "std"), FORMULAS)
def test_standard_deviation(name, arguments, std, dtype):
    w = getattr(init, name)(SHAPE, **arguments, dtype=dtype, rng=1)
    assert w.shape == SHAPE
    assert w.dtype == dtype
    assert w.flags.c_contiguous
    # the sample's deviation is within 5 of its own: std * sqrt((kurtosis - 1) / 4 n), kurtosis <= 3
    assert abs(w.std(dtype=float) / std - 1) < 5 / math.sqrt(2 * w.size)
    text = describe(getattr(init, name), SHAPE, **arguments)
    assert text.startswith(name)
    assert text.endswith(f"std {std:.3g}")


@pytest.mark.parametrize(
    ("name", "bound"),
    [
        ("uniform", 0.1),
        ("xavier_uniform", math.sqrt(6 / 800)),
        ("he_uniform", math.sqrt(6 / 500)),
        ("lecun_uniform", math.sqrt(3 / 500)),
    ],
)
def test_uniform_bounds(name, bound, dtype):
    w = getattr(init, name)(SHAPE, dtype=dtype, rng=1)
    eps = np.finfo(dtype).eps
    assert np.abs(w).max() <= bound * (1 + eps)
    assert w.max() > 0.999 * bound
    assert w.min() < -0.999 * bound
    # the same uniforms whatever the bounds
    u = init.uniform(SHAPE, 0.0, 1.0, dtype=dtype, rng=1)
    np.testing.assert_allclose(w, (2 * u - 1) * bound, atol=4 * eps * bound)


@pytest.mark.parametrize("name", ["normal", "xavier_normal", "he_normal", "lecun_normal"])
def test_normals_are_one_draw_scaled(name, dtype):
    z = init.normal(SHAPE, 0.0, 1.0, dtype=dtype, rng=1)
    std = {n: s for n, a, s in FORMULAS if not a}[name]
    w = getattr(init, name)(SHAPE, dtype=dtype, rng=1)
    np.testing.assert_array_equal(w, z * z.dtype.type(std))


def test_variance_scaling_truncates_at_two_of_the_wider_deviation():
    w = init.variance_scaling(SHAPE, rng=1)
    bound = 2 * math.sqrt(1 / 500) / 0.87962566103423978
    assert 0.99 * bound < np.abs(w).max() <= bound * (1 + 1e-6)


def test_constants(dtype):
    assert not init.zeros((3, 4), dtype=dtype).any()
    assert (init.ones(5, dtype=dtype) == 1).all()
    assert (init.constant((2, 3, 4), 0.25, dtype=dtype) == 0.25).all()
    np.testing.assert_array_equal(init.eye((3, 5), dtype=dtype), np.eye(3, 5, dtype=dtype))
    np.testing.assert_array_equal(init.eye((4, 2), gain=3.0), 3 * np.eye(4, 2, dtype="float32"))
    for array in (init.zeros(2, dtype=dtype), init.eye((2, 2), dtype=dtype)):
        assert array.dtype == dtype


@pytest.mark.parametrize("shape", [(40, 70), (70, 40), (50, 50), (1, 9), (9, 1), (1, 1)])
def test_orthogonal(shape):
    w = init.orthogonal(shape, 1.5, dtype="float64", rng=3)
    gram = w @ w.T if shape[0] <= shape[1] else w.T @ w
    np.testing.assert_allclose(gram, 2.25 * np.eye(min(shape)), atol=1e-13)
    np.testing.assert_allclose(init.orthogonal(shape, 1.5, rng=3), w, rtol=1e-6, atol=1e-7)


def test_orthogonal_is_uniformly_distributed():
    """Without the signs of R, the first entry of Q would never be positive."""
    first = [init.orthogonal((2, 2), dtype="float64", rng=seed)[0, 0] for seed in range(400)]
    # its angle is uniform: cos^2 has mean 1/2, cos mean 0
    assert abs(np.mean(first)) < 5 * math.sqrt(0.5 / 400)
    assert abs(np.mean(np.square(first)) - 0.5) < 5 * math.sqrt(0.125 / 400)


@pytest.mark.parametrize("name", RANDOM)
def test_rng_as_spec_7(name, dtype):
    draw = functools.partial(getattr(init, name), (20, 30), dtype=dtype)
    assert same_bits(draw(rng=7), draw(rng=7))
    assert same_bits(draw(rng=7), draw(rng=np.random.default_rng(7)))
    assert same_bits(draw(rng=7), draw(rng=np.random.SeedSequence(7)))
    assert same_bits(draw(rng=7), draw(rng=np.random.PCG64(7)))
    assert not same_bits(draw(rng=7), draw(rng=8))
    assert not same_bits(draw(rng=7), draw(rng=7, stream=1))
    assert not same_bits(draw(), draw())
    generator = np.random.default_rng(7)
    first, second = draw(rng=generator), draw(rng=generator)
    assert same_bits(first, draw(rng=7))
    assert not same_bits(first, second)


@pytest.mark.parametrize(
    ("match", "call"),
    [
        ("std: ", lambda rng: init.normal(3, 0.0, -1.0, rng=rng)),
        ("shape: ", lambda rng: init.normal((3, -1), rng=rng)),
        ("stream: ", lambda rng: init.normal(3, stream=-1, rng=rng)),
        ("out: ", lambda rng: init.normal(3, rng=rng, out=np.zeros(4, "f"))),
    ],
)
def test_a_failed_call_leaves_the_generator_alone(match, call):
    generator = np.random.default_rng(7)
    with pytest.raises(ValueError, match=match):
        call(generator)
    assert stream_seed(generator) == stream_seed(7)


def test_seeds_have_64_bits():
    for rngs in (range(200), [None] * 200):
        seeds = [stream_seed(rng) for rng in rngs]
        assert len(set(seeds)) == 200
        assert 2**63 < max(seeds) < 2**64
        assert all(any(seed >> bit & 1 for seed in seeds) for bit in range(64))


@pytest.mark.parametrize("name", RANDOM)
def test_same_bits_for_any_threads_and_instruction_set(name, isa, n_threads, dtype):
    shape = (700, 300) if name != "orthogonal" else (7, 9)
    w = getattr(init, name)(shape, dtype=dtype, rng=5, stream=2)
    assert same_bits(w, reference(name, shape, dtype))


@functools.cache
def reference(name, shape, dtype):
    return getattr(init, name)(shape, dtype=dtype, rng=5, stream=2)


LAYOUTS = {
    "C": lambda shape, dtype: np.zeros(shape, dtype),
    "transposed": lambda shape, dtype: np.zeros(shape[::-1], dtype).T,
    "reversed": lambda shape, dtype: np.zeros(shape, dtype)[::-1],
    "every second": lambda shape, dtype: np.zeros((2 * shape[0], 3 * shape[1]), dtype)[::2, ::3],
    "misaligned": lambda shape, dtype: (
        np.zeros(math.prod(shape) * np.dtype(dtype).itemsize + 1, np.uint8)[1:]
        .view(dtype)
        .reshape(shape)
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(130, 37), (4, 5), (1100, 3)])
@pytest.mark.parametrize("name", [*RANDOM, "zeros", "ones", "eye"])
def test_out(name, shape, layout, dtype):
    out = LAYOUTS[layout](shape, dtype)
    function = getattr(init, name)
    assert function(shape, dtype=dtype, rng=5, out=out) is out
    np.testing.assert_array_equal(out, function(shape, dtype=dtype, rng=5))


def test_out_of_other_dimensions():
    strided = np.zeros(10_000, "f")[::2]
    np.testing.assert_array_equal(init.normal(5000, rng=1, out=strided), init.normal(5000, rng=1))
    cube = np.zeros((5, 4, 300), "f").transpose(2, 1, 0)
    init.uniform(cube.shape, rng=1, out=cube)
    np.testing.assert_array_equal(cube, init.uniform(cube.shape, rng=1))
    assert init.normal((), rng=1) == init.normal(1, rng=1)[0]
    assert init.normal((3, 0), rng=1).shape == (3, 0)
    assert init.uniform(np.int64(3), rng=1).shape == (3,)


@pytest.mark.parametrize(
    ("name", "slope", "gain"),
    [
        ("linear", 0.01, 1),
        ("identity", 0.01, 1),
        ("sigmoid", 0.01, 1),
        ("tanh", 0.01, 5 / 3),
        ("relu", 0.01, math.sqrt(2)),
        ("leaky_relu", 0.01, math.sqrt(2 / 1.0001)),
        ("leaky_relu", 0.0, math.sqrt(2)),
        ("leaky_relu", 3.0, math.sqrt(0.2)),
        ("leaky_relu", 1e300, math.sqrt(2) / 1e300),
        ("selu", 0.01, 0.75),
    ],
)
def test_gain(name, slope, gain):
    assert init.calculate_gain(name, slope) == pytest.approx(gain, rel=1e-15)


def test_describe():
    assert describe(init.he_normal, (256, 784), negative_slope=0.01) == (
        "he_normal, slope 0.01, std 0.0505"
    )
    assert describe(init.he_normal, (256, 784), rng=3) == "he_normal, slope 0, std 0.0505"
    assert describe(init.xavier_normal, (4, 5)) == "xavier_normal, std 0.471"
    partial = functools.partial(init.he_uniform, negative_slope=0.2)
    assert describe(partial, (3, 8)) == "he_uniform, slope 0.2, std 0.49"
    assert describe(init.uniform, (3, 4)) == "uniform, std 0.0577"
    assert describe(init.constant, (3,), value=0.5) == "constant, value 0.5"
    assert describe(init.zeros, (3,)) == "zeros"
    assert describe(np.zeros, (3, 4)) == "zeros"
    for name in set(init.__all__) - {"calculate_gain"}:
        assert name in describe.__globals__["_STD"]


MASKED = np.ma.masked_array(np.zeros((4, 5), "f"))


@pytest.mark.parametrize(
    ("error", "match", "keywords"),
    [
        (ValueError, "stream: .*-1", {"stream": -1}),
        (ValueError, "stream: ", {"stream": 2**48}),
        (TypeError, "stream: ", {"stream": 1.5}),
        (TypeError, "rng: .*'bad'", {"rng": "bad"}),
        (ValueError, "rng: .*-1", {"rng": -1}),
        (TypeError, "out: .*MaskedArray", {"out": MASKED}),
        (TypeError, "dtype: ", {"dtype": "float16"}),
    ],
)
@pytest.mark.parametrize("name", sorted(set(init.__all__) - {"calculate_gain"}))
def test_all_check_their_keywords_alike(name, error, match, keywords):
    arguments = (0.5,) if name == "constant" else ()
    with pytest.raises(error, match=match):
        getattr(init, name)((4, 5), *arguments, **keywords)
    assert not MASKED.data.any()


@pytest.mark.parametrize("name", sorted(set(init.__all__) - {"calculate_gain"}))
@pytest.mark.parametrize("shape", [(10**30, 3), (2**40, 2**40), (1, 10**400)])
def test_too_large_a_shape(name, shape):
    arguments = (0.5,) if name == "constant" else ()
    with pytest.raises(ValueError, match="shape: expected an array that fits into memory, got"):
        getattr(init, name)(shape, *arguments)


def test_constants_leave_a_generator_alone():
    generator = np.random.default_rng(7)
    init.zeros(3, rng=generator)
    init.eye((3, 3), rng=generator)
    assert stream_seed(generator) == stream_seed(7)


W = np.zeros((4, 5), "f")
READ_ONLY = np.zeros((4, 5), "f")
READ_ONLY.setflags(write=False)


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (ValueError, r"shape: expected \(n_out, n_in\).*\(4,\)", lambda: init.he_normal(4)),
        (ValueError, r"shape: .*\(4, 5, 6\)", lambda: init.xavier_uniform((4, 5, 6))),
        (ValueError, r"shape: .*\(4, 0\)", lambda: init.lecun_normal((4, 0))),
        (ValueError, r"shape: .*\(0, 4\)", lambda: init.orthogonal((0, 4))),
        (ValueError, "shape: expected lengths of at least 0", lambda: init.zeros((4, -5))),
        (TypeError, "shape: .*4.0", lambda: init.zeros(4.0)),
        (TypeError, "shape: .*'45'", lambda: init.zeros("45")),
        (TypeError, "shape: .*None", lambda: init.normal(None)),
        (TypeError, "dtype: .*float16", lambda: init.zeros(3, dtype="float16")),
        (TypeError, "dtype: .*int", lambda: init.zeros(3, dtype=int)),
        (TypeError, "dtype: .*>f4", lambda: init.zeros(3, dtype=">f4")),
        (TypeError, "dtype: .*None", lambda: init.zeros(3, dtype=None)),
        (TypeError, "dtype: .*'real'", lambda: init.zeros(3, dtype="real")),
        (TypeError, "out: .*list", lambda: init.zeros(2, out=[1.0, 2.0])),
        (
            TypeError,
            "out: expected dtype float64, got float32",
            lambda: init.normal((4, 5), dtype="float64", out=W),
        ),
        (
            ValueError,
            r"out: expected shape \(5, 4\), got \(4, 5\)",
            lambda: init.normal((5, 4), out=W),
        ),
        (ValueError, "out: .*read-only", lambda: init.he_normal((4, 5), out=READ_ONLY)),
        (TypeError, "rng: .*'seed'", lambda: init.normal(3, rng="seed", out=W[0, :3])),
        (TypeError, "rng: .*1.5", lambda: init.normal(3, rng=1.5)),
        (TypeError, "rng: .*True", lambda: init.normal(3, rng=True)),
        (TypeError, "rng: .*matrix", lambda: init.normal(3, rng=np.eye(2).view(np.matrix))),
        (TypeError, r"rng: .*\[1, 2\]", lambda: init.normal(3, rng=[1, 2])),
        (ValueError, "rng: .*-1", lambda: init.normal(3, rng=-1)),
        (ValueError, "stream: .*-1", lambda: init.normal(3, stream=-1)),
        (ValueError, "low: ", lambda: init.uniform(3, 1.0, -1.0)),
        (ValueError, "high: .*nan", lambda: init.uniform(3, 0.0, math.nan)),
        (ValueError, "std: ", lambda: init.normal(3, std=-0.5)),
        (TypeError, "std: .*str", lambda: init.normal(3, std="1")),
        (ValueError, "low: .*1 %", lambda: init.truncated_normal(3, low=4.0, high=5.0)),
        (ValueError, "value: .*inf", lambda: init.constant((4, 5), math.inf, out=W)),
        (ValueError, "value: .*float32", lambda: init.constant(3, 1e39)),
        (ValueError, "gain: .*nan", lambda: init.eye((4, 5), math.nan, out=W)),
        (ValueError, "gain: .*0", lambda: init.xavier_normal((4, 5), 0.0)),
        (ValueError, "gain: .*inf", lambda: init.orthogonal((4, 5), math.inf)),
        (ValueError, "negative_slope: .*nan", lambda: init.he_normal((4, 5), math.nan)),
        (
            ValueError,
            "mode: expected one of fan_in, fan_out, fan_avg, got 'fan'",
            lambda: init.he_uniform((4, 5), mode="fan"),
        ),
        (
            ValueError,
            "distribution: .*'cauchy'",
            lambda: init.variance_scaling((4, 5), distribution="cauchy"),
        ),
        (ValueError, "scale: .*0", lambda: init.variance_scaling((4, 5), 0.0)),
        (TypeError, "nonlinearity: expected a name, got list", lambda: init.calculate_gain([])),
        (ValueError, "nonlinearity: .*'swish'", lambda: init.calculate_gain("swish")),
        (ValueError, "negative_slope: .*inf", lambda: init.calculate_gain("leaky_relu", math.inf)),
    ],
)
def test_bad_input(error, match, call):
    with pytest.raises(error, match=match):
        call()
    assert not W.any(), "written before the check"
