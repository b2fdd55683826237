"""Losses on raw outputs: one description for whole arrays here and for the training step."""

import numpy as np

from libc.stdint cimport int64_t
from fastnn._core.arrays cimport bytes_of
from fastnn._core.csrc cimport (
    FNN_BCE, FNN_F32, FNN_F64, FNN_HUBER, FNN_MAE, FNN_MSE, fnn_kernels, fnn_loss,
)
from fastnn._core.kernels cimport kernels
from fastnn._core.threads cimport run_team, team_share, team_size

cdef dict KINDS = {"mse": FNN_MSE, "mae": FNN_MAE, "huber": FNN_HUBER, "bce": FNN_BCE}


cdef Loss parse_loss(tuple spec) except *:
    cdef Loss loss
    loss.is_cross_entropy = spec[0] == "cross_entropy"
    loss.kind = 0 if loss.is_cross_entropy else KINDS[spec[0]]
    loss.delta = spec[1] if len(spec) > 1 else 0.0
    return loss


cdef void loss_rows(const fnn_kernels *K, const Loss *loss, Py_ssize_t m, Py_ssize_t n,
                    const void *z, const void *targets, const void *weights, double scale,
                    void *grad, double *row_loss) noexcept nogil:
    cdef Py_ssize_t i
    if loss.is_cross_entropy:
        K.cross_entropy(m, n, z, n, <const int64_t *>targets, weights, scale, grad, n, row_loss)
        return
    K.elementwise_loss(<fnn_loss>loss.kind, loss.delta, m, n, z, n, targets, n, weights, scale / n,
                       grad, n, row_loss)
    for i in range(m):
        row_loss[i] /= n


cdef Py_ssize_t count_right(const fnn_kernels *K, const Loss *loss, Py_ssize_t m, Py_ssize_t n,
                            const void *z, const void *targets,
                            const int64_t *guesses) noexcept nogil:
    cdef const int64_t *labels = <const int64_t *>targets
    cdef Py_ssize_t i, right = 0
    if loss.is_cross_entropy:
        for i in range(m):
            right += guesses[i] == labels[i]
    elif loss.kind == FNN_BCE and K.itemsize == 4:
        for i in range(m * n):
            right += ((<const float *>z)[i] > 0) == ((<const float *>targets)[i] > 0.5)
    elif loss.kind == FNN_BCE:
        for i in range(m * n):
            right += ((<const double *>z)[i] > 0) == ((<const double *>targets)[i] > 0.5)
    return right


cdef struct Rows:
    const fnn_kernels *K
    Loss loss
    Py_ssize_t m, n, target_bytes
    const char *z
    const char *targets
    const char *weights
    char *grad
    double *row_loss


cdef void rows_task(void *context, int member, int team) noexcept nogil:
    cdef Rows *c = <Rows *>context
    cdef Py_ssize_t begin, end, size = c.K.itemsize
    team_share(c.m, 8, member, team, &begin, &end)
    loss_rows(c.K, &c.loss, end - begin, c.n, c.z + begin * c.n * size,
              c.targets + begin * c.target_bytes,
              c.weights + begin * size if c.weights else NULL, 1.0 / c.m,
              c.grad + begin * c.n * size if c.grad else NULL, c.row_loss + begin)


def loss_and_grad(tuple spec, z, targets, weights, bint want_grad):
    """Mean loss over the rows of z, and its gradient.

    Parameters
    ----------
    spec : tuple
        ("cross_entropy",), ("mse",), ("mae",), ("huber", delta) or ("bce",).
    z : ndarray (m, n), float32 or float64, C-contiguous
    targets : int64 labels (m,) for cross-entropy, else (m, n) of z's dtype, C-contiguous
    weights : None or (m,) of z's dtype
    want_grad : bool

    Returns
    -------
    (float, ndarray (m, n) or None) : the mean over rows of w_i l_i, and its derivative by z.
    """
    cdef Rows c
    cdef double total = 0.0
    cdef Py_ssize_t i
    c.K = kernels(FNN_F32 if z.dtype == np.float32 else FNN_F64)
    c.loss = parse_loss(spec)
    c.m, c.n = z.shape
    grad = np.empty_like(z) if want_grad else None
    if c.m == 0 or c.n == 0:
        raise ValueError(f"y: expected at least one row and one output, got shape {z.shape}")
    row_loss = np.empty(c.m)
    c.row_loss = <double *>bytes_of(row_loss)
    c.z = bytes_of(z)
    c.targets = bytes_of(targets)
    c.target_bytes = targets.nbytes // c.m
    c.weights = bytes_of(weights)
    c.grad = bytes_of(grad)
    with nogil:
        run_team(rows_task, &c, team_size(1.0 * c.m * c.n))
        for i in range(c.m):
            total += c.row_loss[i]
    return total / c.m, grad
