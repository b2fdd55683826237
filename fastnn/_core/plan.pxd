from cpython.pythread cimport PyThread_type_lock
from fastnn._core.arrays cimport Buffer, View
from fastnn._core.csrc cimport fnn_dtype
from fastnn._core.passes cimport Inference, Net, Op, Rows, Training

# What one call of inference works in. The layout is kept: the next call often has as many rows, the same team
# and the same kernels.
cdef class Scratch:
    cdef Inference t
    cdef int team
    cdef Buffer memory
    cdef Scratch next              # in a list of those that are free

cdef class Plan:
    cdef readonly object dtype, parameters, gradients
    cdef readonly Py_ssize_t n_in, n_out
    cdef readonly double uint8_scale
    cdef fnn_dtype kind
    cdef Op *ops
    cdef Op *inference_ops         # the same without dropout, in the same allocation
    cdef int n_ops, n_inference_ops
    cdef Py_ssize_t width          # the widest activation, the input included
    cdef Py_ssize_t n_parameters
    cdef double work_per_row       # multiply-adds of a forward pass
    cdef double passing_per_row    # nanoseconds of the rest: calls, activations, copies
    cdef char *w
    cdef char *g
    cdef Scratch free_work         # the first of those that no call holds
    cdef PyThread_type_lock training_lock
    cdef Training training         # pointers into training_memory, as laid out for `layout`
    cdef Buffer training_memory
    cdef tuple layout
    cdef Py_ssize_t pending        # rows of a forward pass that waits for its backward, or -1
    cdef char **pointers

    cdef int add_ops(self, list ops) except -1
    cdef Net net(self, bint inference) noexcept nogil
    cdef size_t gemm_bytes(self, const Net *net, Py_ssize_t m, bint training) noexcept nogil
    cdef double work(self, Py_ssize_t m) noexcept nogil
    cdef int step_team(self, Py_ssize_t m) noexcept nogil
    # The array to keep alive while `rows` are read.
    cdef object take(self, object x, View *view, Rows *rows)
    cdef int check_shape(self, object x) except -1
    cdef tuple shape_of_out(self, const View *x)
    cdef char *take_out(self, object out, object array, const View *x) except? NULL
    cdef Scratch borrow(self)
    cdef void give_back(self, Scratch scratch) noexcept
    cdef int lay_out(self, Scratch scratch, Py_ssize_t m, int team, double work) except -1
    cdef int infer(self, const Rows *x, Py_ssize_t m, char *out) except -1
    cdef int prepare(self, Py_ssize_t m, int team) except -1
    cdef int lock(self) except -1
    cdef void unlock(self) noexcept
