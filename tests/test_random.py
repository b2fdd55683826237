"""The random streams: their words against a plain model of Philox, their bits on every instruction
set and any split, their statistics."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fastnn._core import kernels
from fastnn._core.random import (
    bits_fill,
    dropout,
    normal_fill,
    truncated_normal_fill,
    uniform_fill,
)

SEED, STREAM = 0x0123456789ABCDEF, 0xFEDCBA987654
# Enough for five threads, with a last block that is not full.
LARGE = 200_003
BEYOND_FLOAT32 = 1e39

FILLS = {
    "uniform": (uniform_fill, (-0.1, 0.1)),
    "normal": (normal_fill, (0.5, 2.0)),
    "truncated_normal": (truncated_normal_fill, (0.0, 1.0, -2.0, 0.5)),
}


def words(seed, stream, start, n):
    """The 32-bit words of elements start, start + 1, ..., as csrc/fastnn.h lays them out."""
    i = np.arange(start, start + n, dtype=np.uint64)
    counter = i // 64 * 16 + i % 16
    low = np.uint64(0xFFFFFFFF)
    c = [counter & low, counter >> 32, np.uint64(stream) & low, np.uint64(stream) >> np.uint64(32)]
    k = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        a, b = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [b >> 32 ^ c[1] ^ np.uint64(k[0]), b & low, a >> 32 ^ c[3] ^ np.uint64(k[1]), a & low]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return np.choose((i // 16 % 4).astype(int), c).astype(np.uint32)


def draws(dtype, seed, stream, start, n):
    """The integers behind n elements: a word each for float32, two for float64, low one first."""
    if dtype == "float32":
        return words(seed, stream, start, n)
    w = words(seed, stream, 2 * start, -(-n // 32) * 64).astype(np.uint64).reshape(-1, 2, 2, 16)
    return (w[:, :, 0] | w[:, :, 1] << np.uint64(32)).reshape(-1)[:n]


def box_muller(dtype, d):
    """The normals of whole groups of draws, in extended precision but for the rounding of u."""
    d = d.reshape(-1, 2, 16)
    bits = 8 * d.itemsize
    u = (d[:, 0].astype(dtype) + np.dtype(dtype).type(0.5)).astype(np.longdouble)
    r = np.sqrt(-2 * np.log(u * np.longdouble(2) ** -bits))
    # the nearest quarter turn and the way from there, since long double has no digits to spare
    turn_4 = d.dtype.type(1 << bits - 2)
    quarter = (d[:, 1] + turn_4 // 2) // turn_4
    rest = (d[:, 1] - quarter * turn_4).view(f"i{d.itemsize}").astype(np.longdouble)
    angle = rest / turn_4 * 2 * np.arctan(np.longdouble(1))
    c, s = np.cos(angle), np.sin(angle)
    quarter = quarter.astype(int)
    cosine, sine = np.choose(quarter, [c, -s, -c, s]), np.choose(quarter, [s, c, -s, -c])
    return np.stack([r * cosine, r * sine], 1).reshape(-1)


def filled(name, n, dtype, seed=SEED, stream=STREAM, start=0):
    fill, arguments = FILLS[name]
    out = np.empty(n, dtype)
    fill(out, seed, stream, *arguments, start=start)
    return out


def standard_normals(n, dtype, seed=SEED, stream=STREAM, start=0):
    out = np.empty(n, dtype)
    normal_fill(out, seed, stream, 0, 1, start=start)
    return out


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_published_vectors(counter, key, expected):
    assert list(kernels.philox4x32(counter, key)) == expected


def test_model_is_philox():
    """Element i is word i // 16 % 4 of counter i // 64 * 16 + i % 16."""
    w = words(SEED, STREAM, 0, 192)
    for i in (0, 1, 15, 16, 63, 64, 100, 191):
        counter = [i // 64 * 16 + i % 16, 0, STREAM & 0xFFFFFFFF, STREAM >> 32]
        assert w[i] == kernels.philox4x32(counter, [SEED & 0xFFFFFFFF, SEED >> 32])[i // 16 % 4]


@pytest.mark.parametrize("n", [0, 1, 15, 16, 63, 64, 65, 191, 192, 193, 255, 256, 257, 1000])
@pytest.mark.parametrize("start", [0, 64, (4 << 32) - 128, 2**63])
def test_bits_are_the_words(isa, n, start):
    out = np.empty(n, np.uint32)
    bits_fill(out, SEED, STREAM, start)
    np.testing.assert_array_equal(out, words(SEED, STREAM, start, n))


def test_uniforms_are_exact(isa, dtype):
    bits = 24 if dtype == "float32" else 53
    d = draws(dtype, SEED, STREAM, 128, 1000)
    u = (d >> (8 * d.itemsize - bits)).astype(dtype) * np.dtype(dtype).type(2.0**-bits)
    out = np.empty(1000, dtype)
    uniform_fill(out, SEED, STREAM, 0, 1, start=128)
    np.testing.assert_array_equal(out, u)
    low, high = np.array([-0.1, 0.3], dtype)
    uniform_fill(out, SEED, STREAM, -0.1, 0.3, start=128)
    np.testing.assert_array_equal(out, low + u * (high - low))


@pytest.mark.parametrize("name", FILLS)
def test_counters_count_beyond_a_word(isa, dtype, name):
    """A fill that crosses 2**32 counters has the values that its groups have alone."""
    start = (4 if dtype == "float32" else 2) * 2**32 - 128
    whole = filled(name, 320, dtype, start=start)
    for at in range(0, 320, 64):
        alone = filled(name, 64, dtype, start=start + at)
        np.testing.assert_array_equal(whole[at : at + 64], alone)


def test_normals_are_accurate(isa, dtype):
    d = draws(dtype, SEED, STREAM, 0, 64 * 500)
    error = np.abs(standard_normals(d.size, dtype) / box_muller(dtype, d) - 1)
    assert error.max() < 4 * np.finfo(dtype).eps
    assert error.mean() < 0.6 * np.finfo(dtype).eps


# Elements 0, 1, 16, 100 and 1000 of the stream. Uniforms are frozen for good, normals as long as
# the method stays; hexadecimal, since every bit counts.
GOLDEN = {
    ("uniform", "float32"): [
        "0x1.f8e0d80000000p-6",
        "0x1.b3e3c80000000p-6",
        "-0x1.57be700000000p-4",
        "0x1.3680c00000000p-9",
        "0x1.d13c040000000p-5",
    ],
    ("uniform", "float64"): [
        "-0x1.57be6ec781c7dp-4",
        "-0x1.fcbd9b28bfa7dp-5",
        "-0x1.5c4cd31e3f65cp-4",
        "0x1.63c95a1231174p-5",
        "0x1.183867a9df4b0p-4",
    ],
    ("normal", "float32"): [
        "0x1.0e6eac0000000p+1",
        "0x1.35b39e0000000p+0",
        "0x1.644bd00000000p+0",
        "0x1.2862a20000000p+1",
        "-0x1.9853380000000p-3",
    ],
    ("normal", "float64"): [
        "0x1.2038f7d7f9fb9p+2",
        "0x1.015d21cca691cp+1",
        "0x1.44691c812ec74p+1",
        "0x1.fbaa7e6b29a5cp-1",
        "0x1.3d22b66043a23p+0",
    ],
    ("truncated_normal", "float32"): [
        "-0x1.30d34c0000000p-4",
        "0x1.6b673c0000000p-2",
        "0x1.c8979e0000000p-2",
        "-0x1.428c520000000p-2",
        "-0x1.6614ce0000000p-2",
    ],
    ("truncated_normal", "float64"): [
        "-0x1.3df97af8cd908p-2",
        "-0x1.cb601b6c7790dp-2",
        "-0x1.414ccc2cf602dp-1",
        "0x1.f754fcd6534b7p-3",
        "0x1.7a456cc087446p-2",
    ],
}


@pytest.mark.parametrize("name", FILLS)
def test_golden_values(isa, dtype, name):
    values = filled(name, 1001, dtype)[[0, 1, 16, 100, 1000]]
    assert [float(v).hex() for v in values] == GOLDEN[name, dtype]


@pytest.mark.parametrize("name", [*FILLS, "bits", "dropout"])
def test_same_bits_everywhere(name, isa, n_threads, dtype, set_threads):
    x = np.linspace(-1, 1, LARGE, dtype=dtype)

    def run():
        if name == "bits":
            out = np.empty(LARGE, np.uint32)
            bits_fill(out, SEED, STREAM)
            return out
        if name == "dropout":
            return dropout(x, None, SEED, STREAM, 0.4)
        return filled(name, LARGE, dtype)

    got = run()
    kernels.set_isa("baseline")
    set_threads(1)
    assert got.tobytes() == run().tobytes()


@pytest.mark.parametrize("name", FILLS)
def test_any_chunk_is_a_piece_of_the_whole(isa, dtype, name, rng):
    whole = filled(name, 5000, dtype)
    for _ in range(60):
        start = 64 * int(rng.integers(0, 60))
        n = int(rng.integers(0, 5000 - start + 1))
        piece = filled(name, n, dtype, start=start)
        assert piece.tobytes() == whole[start : start + n].tobytes()


def test_shape_and_memory_around_are_respected(dtype):
    flat = filled("normal", 105, dtype)
    for shape in [(105,), (3, 5, 7), (105, 1), (21, 5)]:
        out = np.empty(shape, dtype)
        normal_fill(out, SEED, STREAM, 0.5, 2.0)
        np.testing.assert_array_equal(out.ravel(), flat)
    frame = np.full(107, 7, dtype)
    normal_fill(frame[1:-1], SEED, STREAM, 0.5, 2.0)
    np.testing.assert_array_equal(frame[1:-1], flat)
    assert frame[0] == frame[-1] == 7
    scalar = np.empty((), dtype)
    normal_fill(scalar, SEED, STREAM, 0.5, 2.0)
    assert scalar == flat[0]


def normal_cdf(z):
    return np.array([math.erfc(-v / math.sqrt(2)) / 2 for v in z])


def kolmogorov_smirnov(sample, cdf):
    """sqrt(n) times the greatest distance of the two distribution functions; above 2.7 with a
    probability of 1e-6 (2 exp(-2 d^2))."""
    f = cdf(np.sort(sample.astype(np.float64)))
    n = f.size
    above = np.max(np.arange(1, n + 1) / n - f)
    return math.sqrt(n) * max(above, np.max(f - np.arange(n) / n))


N = 1 << 20


def test_uniform_statistics(dtype):
    out = np.empty(N, dtype)
    uniform_fill(out, 5, 6, 0, 1)
    assert out.min() >= 0
    assert out.max() < 1
    u = out.astype(np.float64)
    for power in (1, 2, 3, 4):
        spread = math.sqrt(1 / (2 * power + 1) - 1 / (power + 1) ** 2)
        assert abs(np.mean(u**power) - 1 / (power + 1)) < 5 * spread / math.sqrt(N)
    assert kolmogorov_smirnov(out, lambda v: v) < 2.7


def test_normal_statistics(dtype):
    z = standard_normals(N, dtype, 5, 6).astype(np.float64)
    # even moments 1, 3, 15 of a standard normal, the variance of z^k being m_2k - m_k^2
    for power, moment, next_moment in [
        (1, 0, 1),
        (2, 1, 3),
        (3, 0, 15),
        (4, 3, 105),
        (6, 15, 10395),
    ]:
        error = np.mean(z**power) - moment
        assert abs(error) < 5 * math.sqrt((next_moment - moment**2) / N)
    assert kolmogorov_smirnov(z[:200_000], normal_cdf) < 2.7
    for bound in (1, 2, 3, 4):
        tail = math.erfc(bound / math.sqrt(2)) / 2
        for count in (np.sum(z > bound), np.sum(z < -bound)):
            assert abs(count - N * tail) < 5 * math.sqrt(N * tail)
    # r and the angle of a pair are independent, and so are the two of a pair
    pairs = z.reshape(-1, 2, 16)
    assert abs(np.mean(pairs[:, 0] * pairs[:, 1])) < 5 / math.sqrt(N / 2)
    assert abs(np.mean(pairs[:, 0] ** 2 * pairs[:, 1] ** 2) - 1) < 5 * math.sqrt(8 / (N / 2))


def test_far_tail():
    """16.8 million: beyond 4.5 and 5 as often as they should be, none beyond what can come."""
    out = np.empty(1 << 24, np.float32)
    normal_fill(out, 11, 0, 0, 1)
    for bound in (4.5, 5.0):
        expected = out.size * math.erfc(bound / math.sqrt(2))
        assert abs(np.sum(np.abs(out) > bound) - expected) < 5 * math.sqrt(expected)
    assert np.abs(out).max() < 6.764


@pytest.mark.parametrize(
    ("dtype", "seed", "stream", "start", "at", "bits"),
    [
        ("float32", 0, 120099028433574, 17122354659608464192, 6, 32),
        ("float64", 185846, 32401161635491, 5856341101688192448, 11, 64),
    ],
)
def test_largest_normal(isa, dtype, seed, stream, start, at, bits):
    """The counters, found by running Philox backwards, whose draws are zero: u = 2^-(bits + 1)."""
    largest = math.sqrt(2 * (bits + 1) * math.log(2))
    z = standard_normals(64, dtype, seed, stream, start)[at]
    assert abs(z / largest - 1) < 2 * np.finfo(dtype).eps
    assert f"{largest:.3f}" == {"float32": "6.764", "float64": "9.493"}[dtype]


@pytest.mark.parametrize(("low", "high"), [(-2, 2), (-0.5, 3), (1.5, 2.5), (-40, 0)])
def test_truncated_normal_statistics(dtype, low, high):
    out = np.empty(100_000, dtype)
    truncated_normal_fill(out, 5, 6, 0, 1, low, high)
    assert out.min() >= low
    assert out.max() <= high
    first, last = normal_cdf([low, high])
    assert kolmogorov_smirnov(out, lambda z: (normal_cdf(z) - first) / (last - first)) < 2.7
    scaled = np.empty_like(out)
    truncated_normal_fill(scaled, 5, 6, 3, 0.5, low, high)
    np.testing.assert_array_equal(scaled, 3 + out * out.dtype.type(0.5))


def test_truncated_normal_keeps_what_is_inside(isa, dtype):
    z = standard_normals(5000, dtype)
    out = np.empty(5000, dtype)
    truncated_normal_fill(out, SEED, STREAM, 0, 1, -1, 1)
    inside = np.abs(z) <= 1
    np.testing.assert_array_equal(out[inside], z[inside])
    assert not np.any(out[~inside] == z[~inside])


def test_streams_and_seeds_do_not_correlate(dtype):
    n = 1 << 18
    several = [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (1 << 32, 0), (1, 1 << 32)]
    z = np.array([standard_normals(n, dtype, seed, stream) for seed, stream in several], float)
    correlation = z @ z.T / n - np.eye(len(several))
    assert np.abs(correlation).max() < 5 * math.sqrt(2 / n)
    # nor do neighbours within one stream, at the distances that the layout has
    for lag in (1, 2, 16, 32, 48, 64):
        assert abs(np.mean(z[0, lag:] * z[0, :-lag])) < 5 / math.sqrt(n - lag)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.999, 2.0**-24, 1 - 2.0**-24, 1 / 3])
def test_dropout_mask(isa, dtype, rate):
    """Element i is kept where its float32 uniform, compared exactly, is at least the rate."""
    n = 3000
    u = (words(SEED, STREAM, 0, n) >> 8) * 2.0**-24
    x = np.arange(1, n + 1, dtype=dtype)
    x[[5, 6]] = np.inf, np.nan
    y = dropout(x, None, SEED, STREAM, rate)
    np.testing.assert_array_equal(y, np.where(u >= rate, x * x.dtype.type(1 / (1 - rate)), 0))
    out = x.copy()
    assert dropout(out, out, SEED, STREAM, rate) is out
    np.testing.assert_array_equal(out, y)


def test_dropout_takes_any_layout_and_keeps_the_mean(dtype):
    x = np.ones((400, 300), dtype)
    y = dropout(x, None, 3, 4, 0.25)
    assert abs(y.mean(dtype=float) - 1) < 5 * math.sqrt(1 / 3 / x.size)
    np.testing.assert_array_equal(dropout(np.asfortranarray(x), None, 3, 4, 0.25), y)


READ_ONLY = np.zeros(4)
READ_ONLY.setflags(write=False)
MISALIGNED = np.zeros(41, np.uint8)[1:].view(np.float64)
OUT = np.zeros(70)


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (TypeError, "out: expected an ndarray, got list", lambda: normal_fill([0.0], 0, 0, 0, 1)),
        (TypeError, "out: .*got int64", lambda: normal_fill(np.zeros(3, int), 0, 0, 0, 1)),
        (TypeError, "out: .*got >f8", lambda: normal_fill(np.zeros(3, ">f8"), 0, 0, 0, 1)),
        (TypeError, "out: .*got object", lambda: normal_fill(np.zeros(3, object), 0, 0, 0, 1)),
        (ValueError, "out: .*read-only", lambda: normal_fill(READ_ONLY, 0, 0, 0, 1)),
        (ValueError, "out: .*contiguous", lambda: normal_fill(np.zeros((4, 4)).T[:2], 0, 0, 0, 1)),
        (ValueError, "out: .*misaligned", lambda: normal_fill(MISALIGNED, 0, 0, 0, 1)),
        (TypeError, "seed: .*float", lambda: normal_fill(OUT, 1.0, 0, 0, 1)),
        (TypeError, "seed: .*bool", lambda: normal_fill(OUT, True, 0, 0, 1)),
        (ValueError, "seed: .*-1", lambda: normal_fill(OUT, -1, 0, 0, 1)),
        (ValueError, "seed: ", lambda: normal_fill(OUT, 2**64, 0, 0, 1)),
        (ValueError, "stream: ", lambda: normal_fill(OUT, 0, 2**48, 0, 1)),
        (ValueError, "start: .*multiple of 64", lambda: normal_fill(OUT, 0, 0, 0, 1, start=32)),
        (ValueError, "mean: .*nan", lambda: normal_fill(OUT, 0, 0, math.nan, 1)),
        (TypeError, "mean: .*str", lambda: normal_fill(OUT, 0, 0, "0", 1)),
        (ValueError, "std: .*-1", lambda: normal_fill(OUT, 0, 0, 0, -1)),
        (ValueError, "std: .*inf", lambda: normal_fill(OUT, 0, 0, 0, math.inf)),
        (ValueError, "std: .*10 std", lambda: normal_fill(OUT, 0, 0, 0, 1e308)),
        (ValueError, "mean: ", lambda: normal_fill(OUT.astype("f"), 0, 0, BEYOND_FLOAT32, 1)),
        (ValueError, "low: .*at most", lambda: uniform_fill(OUT, 0, 0, 1, 0)),
        (ValueError, "high: .*finite", lambda: uniform_fill(OUT, 0, 0, -1e308, 1e308)),
        (ValueError, "high: ", lambda: uniform_fill(OUT.astype("f"), 0, 0, 0, BEYOND_FLOAT32)),
        (ValueError, "low: .*less than", lambda: truncated_normal_fill(OUT, 0, 0, 0, 1, 1, 1)),
        (ValueError, "low: .*1 %", lambda: truncated_normal_fill(OUT, 0, 0, 0, 1, 3, 4)),
        (TypeError, "out: .*float64", lambda: bits_fill(OUT, 0, 0)),
        (TypeError, "out: .*list", lambda: bits_fill([1], 0, 0)),
        (ValueError, "out: ", lambda: bits_fill(np.zeros(8, np.uint32)[::2], 0, 0)),
        (ValueError, "rate: .*1", lambda: dropout(OUT, None, 0, 0, 1.0)),
        (ValueError, "rate: .*-0.1", lambda: dropout(OUT, None, 0, 0, -0.1)),
        (ValueError, "rate: .*nan", lambda: dropout(OUT, None, 0, 0, math.nan)),
        (ValueError, "out: .*shape", lambda: dropout(OUT, np.zeros(3), 0, 0, 0.5)),
        (ValueError, "out: .*overlaps", lambda: dropout(OUT[:60], OUT[1:61], 0, 0, 0.5)),
        (TypeError, "x: .*int64", lambda: dropout(np.zeros(3, int), None, 0, 0, 0.5)),
    ],
)
def test_bad_input(error, match, call):
    with pytest.raises(error, match=match):
        call()
    assert not OUT.any(), "written before the check"
