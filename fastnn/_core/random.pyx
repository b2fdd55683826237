"""Fills from the random streams of csrc, shared out over threads.

An element of a stream is a pure function of (seed, stream, index), so that any split over threads
gives the same bits; shares begin at multiples of 64 elements, the groups of csrc/fastnn.h.
"""

import math

import numpy as np

from libc.stdint cimport uint32_t, uint64_t
from fastnn._core.arrays cimport PACKED, View, bytes_of, memory_of, take, take_out
from fastnn._core.csrc cimport FNN_F32, FNN_F64, fnn_dtype, fnn_kernels, fnn_stream
from fastnn._core.kernels cimport kernels
from fastnn._core.threads cimport run_team, team_share, team_size
from fastnn._core.arrays import as_finite

cdef object ndarray = np.ndarray
cdef object FLOAT32 = np.dtype(np.float32)
cdef object FLOAT64 = np.dtype(np.float64)
cdef object ONE = 1
cdef object LARGEST = (float(np.finfo(np.float32).max), float(np.finfo(np.float64).max))
# Bounds that hold less of the normal distribution than this would take too many attempts.
cdef double LEAST_MASS = 0.01

cdef enum Draw:
    UNIFORM
    NORMAL
    TRUNCATED
    BITS
    DROPOUT

# Nanoseconds an element on one core for 64-byte vectors of 4-byte elements, output in the L2 cache.
cdef double[5] NS = [0.18, 0.4, 1.2, 0.16, 0.2]

cdef struct Fill:
    const fnn_kernels *K
    Draw draw
    fnn_stream stream
    Py_ssize_t n
    double a, b, low, high    # (low, high), (mean, std) and the truncation, or (rate,)
    const char *x
    char *out


cdef void fill_task(void *context, int member, int team) noexcept nogil:
    cdef Fill *f = <Fill *>context
    cdef fnn_stream s = f.stream
    cdef Py_ssize_t begin, end, n, at
    team_share(f.n, 64, member, team, &begin, &end)
    n = end - begin
    at = begin * f.K.itemsize
    s.start += <uint64_t>begin
    if f.draw == UNIFORM:
        f.K.uniform(&s, n, f.out + at, f.a, f.b)
    elif f.draw == NORMAL:
        f.K.normal(&s, n, f.out + at, f.a, f.b)
    elif f.draw == TRUNCATED:
        f.K.truncated_normal(&s, n, f.out + at, f.a, f.b, f.low, f.high)
    elif f.draw == BITS:
        f.K.bits(&s, n, <uint32_t *>(f.out + at))
    else:
        f.K.dropout(&s, f.a, n, f.x + at, f.out + at)


cdef void run(Fill *f) noexcept:
    cdef int team
    with nogil:
        team = team_size(NS[<int>f.draw] * 16 / f.K.lanes * f.n)
        run_team(fill_task, f, team)


cdef uint64_t as_word(object value, str name, int bits, int multiple=1) except? 0:
    """An unsigned integer of so many bits."""
    kind = type(value)
    if kind is not int and (kind is bool or not hasattr(kind, "__index__")):
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__}")
    try:
        number = value.__index__()
    except TypeError:   # an array with axes, say
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__}") from None
    if not 0 <= number < ONE << bits or number % multiple:
        raise ValueError(f"{name}: expected an integer in [0, 2**{bits})"
                         + (f", a multiple of {multiple}" if multiple > 1 else "")
                         + f", got {number}")
    return number


cdef int take_stream(Fill *f, object seed, object stream, object start) except -1:
    f.stream.seed = as_word(seed, "seed", 64)
    f.stream.stream = as_word(stream, "stream", 48)
    f.stream.start = as_word(start, "start", 64, 64)
    return 0


cdef int take_target(Fill *f, Draw draw, object out) except -1:
    """Looks at `out`, a packed array of either dtype that will be overwritten."""
    cdef View view
    if not isinstance(out, ndarray):
        raise TypeError(f"out: expected an ndarray, got {type(out).__name__}")
    dtype = out.dtype
    if dtype != FLOAT32 and dtype != FLOAT64:
        raise TypeError(f"out: expected dtype float32 or float64, got {dtype}")
    take_out(out, "out", out.shape, FNN_F64 if dtype == FLOAT64 else FNN_F32, (), None, &view)
    f.K = kernels(<fnn_dtype>view.dtype)
    f.draw, f.n, f.out, f.x = draw, view.size, view.data, NULL
    return 0


cdef double as_scale(const Fill *f, object value, str name) except? -1.0:
    """A finite number that `out` can hold."""
    number = as_finite(value, name)
    if abs(number) > LARGEST[<int>f.K.dtype]:
        raise ValueError(f"{name}: expected a finite float32, got {number}")
    return number


cdef int take_normal(Fill *f, object mean, object std) except -1:
    f.a, f.b = as_scale(f, mean, "mean"), as_scale(f, std, "std")
    if f.b < 0:
        raise ValueError(f"std: expected at least 0, got {std}")
    if abs(f.a) + 10 * f.b > LARGEST[<int>f.K.dtype]:
        raise ValueError(f"std: expected mean + 10 std to be finite in out's dtype, got {std}")
    return 0


def uniform_fill(out, seed, stream, low, high, start=0):
    """Fill `out` with low + u * (high - low), u uniform in [0, 1) of 24 (float64: 53) random bits.

    Parameters
    ----------
    out : ndarray of float32 or float64, any shape
        Writable, aligned and C-contiguous; elements are counted in C order.
    seed, stream : int
        Name the stream: below 2**64, 2**48.
    low, high : float
        Finite, low <= high, their difference finite in out's dtype. The sum can round up to high.
    start : int
        Index of out's first element in the stream, a multiple of 64.

    Raises
    ------
    TypeError, ValueError
        For arguments of other types or outside these bounds.
    """
    cdef Fill f
    take_target(&f, UNIFORM, out)
    take_stream(&f, seed, stream, start)
    f.a, f.b = as_scale(&f, low, "low"), as_scale(&f, high, "high")
    if f.a > f.b:
        raise ValueError(f"low: expected at most high = {high}, got {low}")
    if f.b - f.a > LARGEST[<int>f.K.dtype]:
        raise ValueError(f"high: expected high - low to be finite in out's dtype, got {high}")
    run(&f)


def normal_fill(out, seed, stream, mean, std, start=0):
    """Fill `out` with mean + std * z, z standard normal by Box and Muller's method (1958).

    The largest |z| that can come is sqrt(66 ln 2) = 6.764 for float32, sqrt(130 ln 2) = 9.493 for
    float64. std is at least 0; the other parameters and errors are those of uniform_fill.
    """
    cdef Fill f
    take_target(&f, NORMAL, out)
    take_stream(&f, seed, stream, start)
    take_normal(&f, mean, std)
    run(&f)


def truncated_normal_fill(out, seed, stream, mean, std, low, high, start=0):
    """Fill `out` with mean + std * z, z standard normal and drawn again until low <= z <= high.

    low and high count in standard deviations from the mean. They must hold at least 1 % of the
    distribution: ValueError otherwise. Other parameters and errors as in normal_fill.
    """
    cdef Fill f
    take_target(&f, TRUNCATED, out)
    take_stream(&f, seed, stream, start)
    take_normal(&f, mean, std)
    f.low, f.high = as_scale(&f, low, "low"), as_scale(&f, high, "high")
    if f.low >= f.high:
        raise ValueError(f"low: expected less than high = {high}, got {low}")
    mass = (math.erf(f.high / math.sqrt(2)) - math.erf(f.low / math.sqrt(2))) / 2
    if mass < LEAST_MASS:
        raise ValueError(
            f"low: expected low and high to hold at least 1 % of the normal distribution, "
            f"got {low} and {high} (in standard deviations), which hold {100 * mass:.2g} %"
        )
    run(&f)


def bits_fill(out, seed, stream, start=0):
    """Fill `out`, a C-contiguous uint32 ndarray, with the words of a stream, in float32's order."""
    cdef Fill f
    if not isinstance(out, ndarray):
        raise TypeError(f"out: expected an ndarray, got {type(out).__name__}")
    if out.dtype != np.uint32:
        raise TypeError(f"out: expected dtype uint32, got {out.dtype}")
    if not (out.flags.c_contiguous and out.flags.writeable and out.flags.aligned):
        raise ValueError("out: expected a writable, aligned, C-contiguous array, got another one")
    take_stream(&f, seed, stream, start)
    f.K = kernels(FNN_F32)
    f.draw, f.n, f.x = BITS, out.size, NULL
    f.out = bytes_of(out)
    run(&f)


def dropout(x, out, seed, stream, rate, start=0):
    """Inverted dropout: y = x / (1 - rate) where the element is kept, 0 where it is dropped.

    Element i is kept when its float32 uniform of the stream is at least `rate`, for either dtype: a
    function of (seed, stream, i) alone, so that the same call with the gradient for x is the
    backward pass.

    Parameters
    ----------
    x : array_like of float32 or float64, any shape
    out : ndarray of x's shape and dtype, or None
        C-contiguous; may be x itself.
    seed, stream, start : int
        As in uniform_fill.
    rate : float
        Share of the elements that is dropped, 0 <= rate < 1.

    Returns
    -------
    out, or a new ndarray.

    Raises
    ------
    TypeError, ValueError
        For arguments of other types or outside these bounds.

    Source: Srivastava et al. 2014, in its inverted form.
    """
    cdef Fill f
    cdef View view, target
    array = take(x, "x", PACKED, &view)
    if out is None:
        out = np.empty(array.shape, array.dtype)
    take_out(out, "out", array.shape, view.dtype, (), memory_of(x, array), &target)
    take_stream(&f, seed, stream, start)
    f.a = as_finite(rate, "rate")
    if not 0 <= f.a < 1:
        raise ValueError(f"rate: expected 0 <= rate < 1, got {rate}")
    f.K = kernels(<fnn_dtype>view.dtype)
    f.draw, f.n, f.x, f.out = DROPOUT, view.size, view.data, target.data
    run(&f)
    return out
