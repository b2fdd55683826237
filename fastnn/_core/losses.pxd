from libc.stdint cimport int64_t
from fastnn._core.csrc cimport fnn_kernels

cdef struct Loss:
    bint is_cross_entropy
    int kind       # an fnn_loss, for the elementwise ones
    double delta

cdef Loss parse_loss(tuple spec) except *
# Row losses w_i l_i of m rows and, where grad is given, scale * w_i * dl/dz; rows packed (ld = n).
# Elementwise losses are means over the n outputs of a row. targets: int64 labels, or m x n numbers.
cdef void loss_rows(const fnn_kernels *K, const Loss *loss, Py_ssize_t m, Py_ssize_t n,
                    const void *z, const void *targets, const void *weights, double scale,
                    void *grad, double *row_loss) noexcept nogil
# How many answers are right. Cross-entropy: rows whose guess, the largest output's index, is their
# label. Binary cross-entropy: outputs above 0 where the target is above 1/2, or neither. Else 0.
cdef Py_ssize_t count_right(const fnn_kernels *K, const Loss *loss, Py_ssize_t m, Py_ssize_t n,
                            const void *z, const void *targets,
                            const int64_t *guesses) noexcept nogil
