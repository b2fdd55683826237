"""Elementwise activations, their derivatives and gradients, and softmax.

Everything here is one pass over packed memory: the arrays are checked by arrays.pyx, the elements
(rows, for softmax) are shared out by threads.pyx, and csrc does the arithmetic.
"""

import numpy as np

from libc.math cimport isfinite
from fastnn._core.arrays cimport PACKED, View, as_slope, dtype_of, memory_of, take, take_out
from fastnn._core.csrc cimport (
    FNN_F32, FNN_GELU, FNN_IDENTITY, FNN_LEAKY_RELU, FNN_RELU, FNN_SIGMOID, FNN_SILU, FNN_TANH, fnn_act,
    fnn_dtype, fnn_kernels,
)
from fastnn._core.kernels cimport kernels
from fastnn._core.threads cimport run_call, run_team, team_share, team_size

cdef object empty = np.empty
cdef dict ACTS = {
    "identity": FNN_IDENTITY, "leaky_relu": FNN_LEAKY_RELU, "relu": FNN_RELU, "tanh": FNN_TANH,
    "sigmoid": FNN_SIGMOID, "gelu": FNN_GELU, "silu": FNN_SILU,
}

# What one pass computes; the two for rows come last.
cdef enum Pass:
    VALUE
    DERIVATIVE
    GRADIENT
    SOFTMAX
    SOFTMAX_GRADIENT

# One pass over `count` items (elements; rows of `width` elements for softmax): out from a, and from
# b = the incoming gradient in the two gradient passes.
cdef struct Work:
    const fnn_kernels *K
    Pass what
    fnn_act act
    double slope
    Py_ssize_t count, width, quantum
    const char *a
    const char *b
    char *out


cdef void work_task(void *context, int member, int team) noexcept nogil:
    cdef Work *w = <Work *>context
    cdef Py_ssize_t begin, end, n, at
    team_share(w.count, w.quantum, member, team, &begin, &end)
    n = end - begin
    at = begin * w.width * w.K.itemsize
    if w.what == VALUE:
        w.K.act(w.act, w.slope, n, w.a + at, w.out + at)
    elif w.what == DERIVATIVE:
        w.K.act_derivative(w.act, w.slope, n, w.a + at, w.out + at)
    elif w.what == GRADIENT:
        w.K.act_grad(w.act, w.slope, n, w.a + at, w.b + at, w.out + at)
    elif w.what == SOFTMAX:
        w.K.softmax(n, w.width, w.a + at, w.width, w.out + at, w.width)
    else:
        w.K.softmax_grad(n, w.width, w.a + at, w.width, w.b + at, w.width, w.out + at, w.width)


# Nanoseconds on one core, as measured on one with 64-byte vectors: a byte through the L2 cache, and
# an exponential (or the like) in vectors of 16 lanes.
cdef double BYTE = 0.015
cdef double EXPONENTIAL = 0.25


cdef void run(Work *w) noexcept:
    cdef bint elementary = w.act > FNN_RELU or w.what >= SOFTMAX
    cdef double each = BYTE * w.K.itemsize + (EXPONENTIAL * 16 / w.K.lanes if elementary else 0)
    cdef double work = each * w.count * w.width
    # For narrow rows of softmax it is what each row begins with that counts.
    run_call(work_task, w, team_size(work), work + (20.0 * w.count if w.what >= SOFTMAX else 0.0))


cdef object apply(Pass what, object x, fnn_act act, object negative_slope, object out):
    """out = f(x) or f'(x); out is checked, or made."""
    cdef View view, target
    cdef Work w
    array = take(x, "x", PACKED, &view)
    w.slope = as_slope(negative_slope, view.dtype)
    if out is None:
        out = empty(array.shape, dtype_of(view.dtype))
        take(out, "out", PACKED, &target)
    else:
        take_out(out, "out", array.shape, view.dtype, (), memory_of(x, array), &target)
    w.K = kernels(<fnn_dtype>view.dtype)
    w.what, w.act = what, act
    w.count, w.width, w.quantum = view.size, 1, 1024
    w.a, w.b, w.out = view.data, NULL, target.data
    run(&w)
    return out


cdef fnn_act act_of(object name) except *:
    try:
        return <fnn_act><int>ACTS[name]
    except KeyError:
        raise ValueError(f"activation: expected one of {', '.join(ACTS)}, got {name!r}") from None


def leaky_relu(x, negative_slope=0.01, *, out=None):
    """Leaky ReLU: f(x) = x where x > 0, else negative_slope * x.

    Parameters
    ----------
    x : array_like of float32 or float64, any shape
        Sequences of Python numbers are taken as float64. NaN stays NaN, and -0.0 keeps its sign
        when negative_slope is not negative.
    negative_slope : float
        Any finite number; dimensionless.
    out : ndarray, optional
        C-contiguous, of x's shape and dtype. It may be x itself, for work in place.

    Returns
    -------
    ndarray of x's shape and dtype; `out` if it was given.

    Raises
    ------
    TypeError
        If the dtype of x is not float32 or float64, out is not an ndarray of x's dtype, or
        negative_slope is not a number.
    ValueError
        If negative_slope is NaN or infinite, or out has another shape, is read-only or not
        C-contiguous, or overlaps x without being x.

    Notes
    -----
    Source: Maas, Hannun, Ng 2013, "Rectifier nonlinearities improve neural network acoustic
    models".
    """
    return apply(VALUE, x, FNN_LEAKY_RELU, negative_slope, out)


def leaky_relu_derivative(x, negative_slope=0.01, *, out=None):
    """Derivative of leaky ReLU: f'(x) = 1 where x > 0, else negative_slope.

    At 0, where the function has a kink, and for NaN the derivative is taken as negative_slope.

    Parameters
    ----------
    x : array_like of float32 or float64, any shape
        The input of the activation, not its output.
    negative_slope : float
        Any finite number; dimensionless.
    out : ndarray, optional
        C-contiguous, of x's shape and dtype. It may be x itself, for work in place.

    Returns
    -------
    ndarray of x's shape and dtype; `out` if it was given.

    Raises
    ------
    TypeError, ValueError
        As leaky_relu.

    Notes
    -----
    Source: Maas, Hannun, Ng 2013, "Rectifier nonlinearities improve neural network acoustic
    models".
    """
    return apply(DERIVATIVE, x, FNN_LEAKY_RELU, negative_slope, out)


def act(name, x, negative_slope=0.01, out=None):
    """f(x) for the activation called `name`; negative_slope is read by leaky_relu only."""
    return apply(VALUE, x, act_of(name), negative_slope, out)


def act_derivative(name, x, negative_slope=0.01, out=None):
    """f'(x) for the activation called `name`, from its input."""
    return apply(DERIVATIVE, x, act_of(name), negative_slope, out)


def act_grad(name, saved, grad, negative_slope=0.01):
    """grad * f'(x), with f' from `saved`: the output f(x) for tanh, sigmoid, relu and leaky_relu
    (slope >= 0), the input x for gelu and silu. (For relu and leaky_relu the input serves as well.)
    """
    cdef Work w
    w.what, w.act = GRADIENT, act_of(name)
    return gradient(&w, saved, "saved", grad, negative_slope)


def softmax(x):
    """e^(x - max) / sum of each row of x, shape (m, n) or (n,); float32 or float64."""
    cdef View view, target
    cdef Work w
    array = take(x, "x", PACKED, &view)
    check_rows(&view, array)
    out = empty(array.shape, dtype_of(view.dtype))
    take(out, "out", PACKED, &target)
    w.K = kernels(<fnn_dtype>view.dtype)
    w.what, w.act = SOFTMAX, FNN_IDENTITY
    w.count, w.width, w.quantum = view.rows, view.columns, 1
    w.a, w.out = view.data, target.data
    run(&w)
    return out


def softmax_grad(y, grad):
    """The gradient of softmax by its input, from its output y and the gradient by y: for each row
    y * (grad - sum(grad * y)). Shapes (m, n) or (n,).
    """
    cdef Work w
    w.what, w.act = SOFTMAX_GRADIENT, FNN_IDENTITY
    return gradient(&w, y, "y", grad, 0.0)


cdef object gradient(Work *w, object saved, str name, object grad, object negative_slope):
    cdef View view, incoming, target
    array = take(saved, name, PACKED, &view)
    grad_array = take(grad, "grad", PACKED, &incoming)
    if grad_array.shape != array.shape:
        raise ValueError(f"grad: expected shape {array.shape}, got {grad_array.shape}")
    if incoming.dtype != view.dtype:
        raise TypeError(f"grad: expected dtype {array.dtype} as {name} has, got {grad_array.dtype}")
    w.slope = as_slope(negative_slope, view.dtype)
    w.count, w.width, w.quantum = view.size, 1, 1024
    if w.what == SOFTMAX_GRADIENT:
        check_rows(&view, array)
        w.count, w.width, w.quantum = view.rows, view.columns, 1
    out = empty(array.shape, dtype_of(view.dtype))
    take(out, "out", PACKED, &target)
    w.K = kernels(<fnn_dtype>view.dtype)
    w.a, w.b, w.out = view.data, incoming.data, target.data
    run(w)
    return out


cdef int check_rows(const View *view, object array) except -1:
    if view.ndim != 1 and view.ndim != 2:
        raise ValueError(f"x: expected shape (m, n) or (n,), got {array.shape}")
    return 0


# Numbers to be added up, by each thread in as many columns as the kernel has lanes under way.
cdef struct Sums:
    const fnn_kernels *K
    Py_ssize_t count
    const char *data
    bint finite


cdef void sums_task(void *context, int member, int team) noexcept nogil:
    cdef Sums *s = <Sums *>context
    cdef Py_ssize_t begin, end, i, width = 8 * s.K.lanes, rest = s.count % width
    cdef double[128] room    # at most 8 vectors of 64 bytes, twice
    cdef char *sums = <char *>room
    cdef Py_ssize_t bytes = width * s.K.itemsize
    team_share(s.count // width, 1, member, team, &begin, &end)
    s.K.column_sums(end - begin, width, s.data + begin * bytes, width, sums)
    rest = rest if member == team - 1 else 0
    s.K.column_sums(1, rest, s.data + s.count // width * bytes, rest, sums + bytes)
    for i in range(width + rest):
        if not isfinite((<float *>sums)[i] if s.K.dtype == FNN_F32 else (<double *>sums)[i]):
            s.finite = False


def sums_are_finite(array):
    """Whether sums of all numbers of a C-contiguous float32 or float64 array, of any shape, are finite; if
    so, all of these are. TypeError for another dtype."""
    cdef View view
    cdef Sums s
    kept = take(array, "array", PACKED, &view)
    s.K, s.count, s.data, s.finite = kernels(<fnn_dtype>view.dtype), view.size, view.data, True
    with nogil:
        run_team(sums_task, &s, team_size(0.1 * s.count))
    return s.finite
