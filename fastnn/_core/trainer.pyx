"""Whole training steps over a data set: rows read, forward, loss, backward and update in one call."""

import numpy as np

from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcmp, memset
from fastnn._core.arrays cimport View, bytes_of
from fastnn._core.csrc cimport FNN_LEAKY_RELU, FNN_RELU, fnn_kernels
from fastnn._core.kernels cimport kernels
from fastnn._core.losses cimport Loss, count_right, loss_rows, parse_loss
from fastnn._core.passes cimport Rows, Training, step_task, training_output
from fastnn._core.plan cimport Plan
from fastnn._core.threads cimport run_team
from fastnn._core.updates cimport Update, begin_update

cdef Py_ssize_t CHUNK = 1024    # rows of an evaluation at a time


cdef class Trainer:
    """Trainer(plan, X, targets, weights, loss, update, batch_size, seed, watched=())

    Parameters
    ----------
    plan : Plan
    X : ndarray (m, n_in), C-contiguous, float32, float64 or uint8
    targets : int64 labels (m,) for cross-entropy, else (m, n_out) of the plan's dtype
    weights : None, or (m,) of the plan's dtype
    loss : tuple, as losses.loss_and_grad takes it
    update : Update of the plan's buffers
    batch_size : int
        The most rows of a step.
    seed : int
        Of the dropout masks.
    watched : numbers of the plan's operations that are or end with a ReLU or LeakyReLU
        Whose dead units are counted.

    `loss_sum`, `correct` (see count_right) and `rows` add up over the steps since reset(), and so do
    the units that were positive.
    """

    cdef Plan plan
    cdef Update update
    cdef Loss loss
    cdef Rows x
    cdef Py_ssize_t m, itemsize         # of x
    cdef Py_ssize_t batch_size
    cdef const char *targets
    cdef const char *weights
    cdef Py_ssize_t target_bytes
    cdef uint64_t seed
    cdef object arrays                  # what the pointers point into
    cdef tuple watched
    cdef list marks                     # of each watched operation: 1 for a unit seen positive
    cdef char **seen                    # where these are, by operation
    cdef object index                   # the order last used
    cdef const int64_t *order           # its rows
    cdef Py_ssize_t n_order
    cdef int take_order(self, object index) except -1
    cdef void point(self, Training *t, Py_ssize_t start, bint picked) noexcept
    cdef readonly double loss_sum
    cdef readonly long long correct, rows

    def __cinit__(self, Plan plan, X, targets, weights, tuple loss, Update update,
                  Py_ssize_t batch_size, uint64_t seed, watched=()):
        cdef Py_ssize_t i
        cdef View view
        self.plan, self.update, self.batch_size, self.seed = plan, update, batch_size, seed
        self.loss = parse_loss(loss)
        array = plan.take(X, &view, &self.x)
        self.m, self.itemsize = view.rows, view.itemsize
        self.arrays = (array, targets, weights)
        check_targets(plan, &self.loss, self.m, targets, weights)
        self.targets = bytes_of(targets)
        self.target_bytes = targets.nbytes // self.m if self.m else 0
        self.weights = bytes_of(weights)
        if update.rule.w != plan.w or update.rule.n != plan.n_parameters:
            raise ValueError("update: expected one that is bound to this plan's parameters")
        self.watched, self.marks = tuple(watched), []
        self.seen = <char **>PyMem_Calloc(plan.n_ops + 1, sizeof(char *))
        if self.seen == NULL:
            raise MemoryError("no memory for the marks of units")
        for i in self.watched:
            if not 0 <= i < plan.n_ops or plan.ops[i].act not in (FNN_RELU, FNN_LEAKY_RELU):
                raise ValueError(f"watched: expected an operation with a ReLU, got number {i}")
            marks = np.zeros(plan.ops[i].n_out, plan.dtype)
            self.marks.append(marks)
            self.seen[i] = bytes_of(marks)

    def __dealloc__(self):
        PyMem_Free(self.seen)

    def reset(self):
        """Start adding up again."""
        cdef Py_ssize_t i, size = kernels(self.plan.kind).itemsize
        self.loss_sum, self.correct, self.rows = 0.0, 0, 0
        for i in self.watched:
            memset(self.seen[i], 0, self.plan.ops[i].n_out * size)

    def dead_units(self):
        """Of each watched operation, how many units were positive on no row since reset()."""
        cdef Py_ssize_t i, size = kernels(self.plan.kind).itemsize
        counts = []
        for i in self.watched:
            counts.append(zeros(self.seen[i], self.plan.ops[i].n_out, size))
        return counts

    cdef int take_order(self, object index) except -1:
        """The order in which rows are taken, checked once."""
        cdef Py_ssize_t i
        cdef const int64_t *order
        if index.dtype != np.int64 or index.ndim != 1 or not index.flags.c_contiguous:
            raise ValueError(f"index: expected C-contiguous int64 of one axis,"
                             f" got {index.dtype} of shape {index.shape}")
        order = <const int64_t *>bytes_of(index)
        for i in range(index.size):
            if not 0 <= order[i] < self.m:
                raise ValueError(f"index: expected rows 0 to {self.m - 1}, got {order[i]}")
        self.order, self.n_order, self.index = order, index.size, index
        return 0

    def step(self, index, Py_ssize_t start, Py_ssize_t stop, uint64_t step):
        """One minibatch: rows index[start:stop] (int64), or start:stop where index is None.

        `step` counts the steps from 0 on; it names the dropout masks.
        """
        cdef Plan plan = self.plan
        cdef Training *t = &plan.training
        cdef Py_ssize_t m = stop - start, i, limit = self.m
        cdef int team
        if index is not None:
            if index is not self.index:
                self.take_order(index)
            limit = self.n_order
        if not 0 <= start < stop <= limit or m > self.batch_size:
            raise ValueError(f"start, stop: expected up to {self.batch_size} rows within {limit},"
                             f" got {start}:{stop}")
        if self.update.rule.g != plan.g:
            raise ValueError("update: expected one that is bound to this plan's gradients")
        plan.lock()
        try:
            plan.pending = -1
            # The team of a full batch, so that its size stays the same from step to step.
            team = plan.step_team(self.batch_size)
            plan.prepare(self.batch_size, team)
            t.m, t.seed, t.step, t.drop = m, self.seed, step, True
            t.loss, t.rule, t.grad_x = &self.loss, &self.update.rule, NULL
            t.seen = self.seen
            self.point(t, start, index is not None)
            with nogil:
                begin_update(&self.update.rule)
                run_team(step_task, t, team)
                for i in range(m):
                    self.loss_sum += t.row_loss[i]
                self.correct += count_right(t.net.K, &self.loss, m, plan.n_out, training_output(t),
                                            t.targets, t.guesses)
            self.rows += m
        finally:
            plan.unlock()

    cdef void point(self, Training *t, Py_ssize_t start, bint picked) noexcept:
        """Where this batch's rows, targets and weights are, or are to be picked from."""
        cdef Py_ssize_t size = t.net.K.itemsize
        t.x, t.target_bytes = self.x, self.target_bytes
        t.all_targets = t.all_weights = NULL
        t.next_m, t.x_itemsize = 0, self.itemsize
        if picked:
            t.next_index = &self.order[start + t.m]
            t.next_m = min(t.m, self.n_order - start - t.m)
            t.x.index = &self.order[start]
            t.all_targets, t.all_weights = self.targets, self.weights
            t.targets = t.batch_targets
            t.weights = t.batch_weights if self.weights else NULL
        else:
            t.x.data += start * self.x.ld * self.itemsize
            t.targets = self.targets + start * self.target_bytes
            t.weights = self.weights + start * size if self.weights else NULL

    def evaluate(self, X, targets, weights):
        """(loss_sum, correct, rows) of inference on other data, given as to the constructor."""
        cdef Plan plan = self.plan
        cdef View view
        cdef Py_ssize_t m, i, rows, at
        cdef Rows x, part
        cdef const fnn_kernels *K = kernels(plan.kind)
        cdef char *out
        cdef double *row_loss
        cdef int64_t *guesses
        cdef double loss_sum = 0.0
        cdef long long correct = 0
        cdef const char *t
        cdef const char *w
        cdef Py_ssize_t target_bytes
        array = plan.take(X, &view, &x)
        m = view.rows
        check_targets(plan, &self.loss, m, targets, weights)
        outputs, losses = np.empty((CHUNK, plan.n_out), plan.dtype), np.empty(CHUNK)
        labels = np.empty(CHUNK, np.int64)
        out, row_loss = bytes_of(outputs), <double *>bytes_of(losses)
        guesses = <int64_t *>bytes_of(labels)
        t = bytes_of(targets)
        w = bytes_of(weights)
        target_bytes = targets.nbytes // m if m else 0
        for at in range(0, m, CHUNK):
            PyErr_CheckSignals()    # Ctrl-C need not wait for the rest
            rows = min(CHUNK, m - at)
            part = x
            part.data += at * x.ld * view.itemsize
            plan.infer(&part, rows, out)
            with nogil:
                loss_rows(K, &self.loss, rows, plan.n_out, out, t + at * target_bytes,
                          w + at * K.itemsize if w else NULL, 1.0, NULL, row_loss)
                if self.loss.is_cross_entropy:
                    K.argmax(rows, plan.n_out, out, plan.n_out, guesses)
                for i in range(rows):
                    loss_sum += row_loss[i]
                correct += count_right(K, &self.loss, rows, plan.n_out, out,
                                       t + at * target_bytes, guesses)
        return loss_sum, correct, m


cdef Py_ssize_t zeros(const char *marks, Py_ssize_t n, Py_ssize_t size) noexcept:
    """How many of n numbers of so many bytes are 0. NumPy's code, out of the caches by then, would take
    up to a step's time to say so."""
    cdef Py_ssize_t i, count = 0
    cdef double zero = 0.0
    for i in range(n):
        count += memcmp(marks + i * size, &zero, size) == 0
    return count


cdef int check_targets(Plan plan, const Loss *loss, Py_ssize_t m, targets, weights) except -1:
    """The pointers taken from these are trusted afterwards."""
    cdef tuple shape = (m, plan.n_out)
    dtype = plan.dtype
    if loss.is_cross_entropy:
        shape, dtype = (m,), np.dtype(np.int64)
    if targets.shape != shape or targets.dtype != dtype or not targets.flags.c_contiguous:
        raise ValueError(f"targets: expected C-contiguous {dtype} of shape {shape},"
                         f" got {targets.dtype} of shape {targets.shape}")
    if loss.is_cross_entropy and m and not 0 <= targets.min() <= targets.max() < plan.n_out:
        raise ValueError(f"targets: expected labels 0 to {plan.n_out - 1},"
                         f" got {targets.min()} to {targets.max()}")
    if weights is not None and (weights.shape != (m,) or weights.dtype != plan.dtype
                                or not weights.flags.c_contiguous):
        raise ValueError(f"weights: expected {plan.dtype} of shape {(m,)},"
                         f" got {weights.dtype} of shape {weights.shape}")
    return 0
