"""A model as the machine sees it: operations over flat buffers, and the workspaces they need.

Each call checks its arrays once and then works, without the GIL but for the briefest. A workspace of
inference belongs to a call, so any number of threads may predict at once; the training workspace has a
lock, and a second thread that trains the same model is refused.
"""

cimport cython
import numpy as np

from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.pythread cimport (
    PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock, PyThread_release_lock,
)
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy
from fastnn._core.arrays cimport BYTES, apart, bytes_of, look_packed
from fastnn._core.arrays import as_array, as_real, check_out
from fastnn._core.csrc cimport (
    FNN_F32, FNN_F64, FNN_GELU, FNN_IDENTITY, FNN_LEAKY_RELU, FNN_SILU, fnn_kernels,
)
from fastnn._core.kernels cimport kernels
from fastnn._core.passes cimport (
    ACT, DROPOUT, FLOAT32, FLOAT64, LINEAR, NEAR, SAME, SOFTMAX, UINT8, Inference, backward_task,
    forward_task, inference_task, training_output,
)
from fastnn._core.pointwise cimport act_of
from fastnn._core.threads cimport run_call, run_team, team_size

cdef object empty = np.empty
cdef Py_ssize_t BLOCK = 1 << 20     # bytes of the widest activation of a block of rows
cdef Py_ssize_t OWN = 1 << 19       # bytes of weights that a core's own cache keeps
cdef Py_ssize_t NEAR_ENOUGH = 3 << 19    # bytes of weights that may be read once more for some rows
cdef Py_ssize_t ENOUGH = 48         # rows of a member that are worth reading more of them than that


cdef size_t aligned(size_t size) noexcept nogil:
    return (size + 63) // 64 * 64


cdef class Scratch:
    def __cinit__(self):
        self.memory = Buffer()


cdef class Plan:
    """Plan(ops, n_in, dtype, parameters, gradients, uint8_scale)

    Parameters
    ----------
    ops : list of tuples
        ("linear", n_in, n_out, weight_offset, bias_offset or -1, act, negative_slope),
        ("act", act, negative_slope), ("softmax",), ("dropout", rate). Offsets count elements of the
        flat buffers, where a weight is an (n_in, n_out) C-ordered block.
    n_in : int
        Width of the input.
    dtype : "float32" or "float64"
    parameters, gradients : flat C-contiguous ndarrays of that dtype
        gradients may be None, and set before the first backward pass.
    uint8_scale : float
        What uint8 inputs are multiplied by.
    """

    def __cinit__(self, list ops, Py_ssize_t n_in, dtype, parameters, gradients,
                  double uint8_scale):
        self.dtype = np.dtype(dtype)
        self.kind = FNN_F32 if self.dtype == np.float32 else FNN_F64
        self.n_in, self.uint8_scale = n_in, uint8_scale
        self.parameters = parameters
        self.n_parameters = parameters.size
        self.w = bytes_of(parameters)
        if gradients is not None:
            self.set_gradients(gradients)
        self.training_memory = Buffer()
        self.pending = -1
        self.n_ops = len(ops)
        self.training_lock = PyThread_allocate_lock()
        self.ops = <Op *>PyMem_Calloc(2 * len(ops) + 1, sizeof(Op))
        self.pointers = <char **>PyMem_Calloc(2 * len(ops) + 1, sizeof(char *))
        if self.ops == NULL or self.pointers == NULL or self.training_lock == NULL:
            raise MemoryError("no memory for the plan of a model")
        self.inference_ops = self.ops + self.n_ops
        self.add_ops(ops)

    def __dealloc__(self):
        PyMem_Free(self.ops)
        PyMem_Free(self.pointers)
        if self.training_lock != NULL:
            PyThread_free_lock(self.training_lock)

    def set_gradients(self, gradients):
        """Where backward passes write."""
        if gradients.size != self.n_parameters or gradients.dtype != self.dtype:
            raise ValueError(f"gradients: expected {self.n_parameters} of {self.dtype},"
                             f" got {gradients.size} of {gradients.dtype}")
        self.gradients = gradients
        self.g = self.training.net.gradients = bytes_of(gradients)

    cdef int add_ops(self, list ops) except -1:
        cdef Op *op = self.ops
        cdef Py_ssize_t width = self.n_in
        self.width = width
        self.passing_per_row = 0.25 * width
        for spec in ops:
            op.n_in = op.n_out = width
            op.act = FNN_IDENTITY
            if spec[0] == "linear":
                op.kind = LINEAR
                op.n_in, op.n_out, op.weight, op.bias = spec[1], spec[2], spec[3], spec[4]
                op.act, op.slope = act_of(spec[5]), spec[6]
                width = op.n_out
            elif spec[0] == "act":
                op.kind = ACT
                op.act, op.slope = act_of(spec[1]), spec[2]
            elif spec[0] == "softmax":
                op.kind = SOFTMAX
            else:
                op.kind = DROPOUT
                op.rate = spec[1]
            # Where the output does not tell f': under a negative slope it hides the input's sign.
            op.from_input = (op.act == FNN_GELU or op.act == FNN_SILU
                             or (op.act == FNN_LEAKY_RELU and op.slope < 0))
            self.work_per_row += op.n_in * op.n_out if op.kind == LINEAR else 4.0 * width
            # Calls, activations and copies, which a small work_per_row may leave out.
            self.passing_per_row += 4.0 + 0.25 * op.n_out
            if op.kind != DROPOUT:
                self.inference_ops[self.n_inference_ops] = op[0]
                self.n_inference_ops += 1
            self.width = max(self.width, width)
            op += 1
        self.n_out = width
        return 0

    cdef Net net(self, bint inference) noexcept nogil:
        cdef Net net
        net.K = kernels(self.kind)
        net.ops = self.inference_ops if inference else self.ops
        net.n_ops = self.n_inference_ops if inference else self.n_ops
        net.n_in, net.n_out, net.width = self.n_in, self.n_out, self.width
        net.parameters, net.gradients = self.w, self.g
        net.gemm_bytes = net.near_bytes = 0
        return net

    cdef size_t gemm_bytes(self, const Net *net, Py_ssize_t m, bint training) noexcept nogil:
        """Work that one thread needs for the largest product."""
        cdef size_t size = 0
        cdef const Op *op
        cdef int i
        for i in range(net.n_ops):
            op = &net.ops[i]
            if op.kind == LINEAR:
                size = max(size, net.K.gemm_work(m, op.n_out, op.n_in, 1))
                if training:
                    size = max(size, net.K.gemm_work(op.n_in, op.n_out, m, 1))
                    size = max(size, net.K.gemm_work(m, op.n_in, op.n_out, max(2, op.n_out)))
        return aligned(size)

    cdef double work(self, Py_ssize_t m) noexcept nogil:
        """Nanoseconds that one core is likely to need for a forward pass of m rows."""
        cdef const fnn_kernels *K = kernels(self.kind)
        return m * self.work_per_row / (5.0 * K.lanes) + self.n_parameters * K.itemsize * 0.01

    cdef int step_team(self, Py_ssize_t m) noexcept nogil:
        """How many threads pay for a training step: in each, cores read what others have just written,
        weights above all, so a thread must have twelve times as much to do as in one pass. On two cores with
        AVX-512 784-128-10 by batches of 32 takes 157 us on one thread and 155 on two, at the least."""
        return team_size(self.work(m) / 4.0)

    cdef object take(self, object x, View *view, Rows *rows):
        """x as rows that the kernels can read."""
        if not look_packed(x, view):
            x = as_array(x, "x")
            self.check_shape(x)
            x = np.ascontiguousarray(x) if x.dtype.char == "B" else as_real(x, "x", self.dtype)
            look_packed(x, view)
        elif view.ndim not in (1, 2) or view.columns != self.n_in:
            self.check_shape(x)
        rows.kind = UINT8 if view.dtype == BYTES else FLOAT32 if view.dtype == FNN_F32 else FLOAT64
        if view.dtype == <int>self.kind:
            rows.kind = SAME
        rows.data, rows.ld, rows.index = view.data, self.n_in, NULL
        rows.scale = self.uint8_scale
        return x

    cdef int check_shape(self, object x) except -1:
        if x.ndim not in (1, 2) or x.shape[x.ndim - 1] != self.n_in:
            raise ValueError(
                f"x: expected shape (m, {self.n_in}) or ({self.n_in},), got {x.shape}")
        return 0

    cdef tuple shape_of_out(self, const View *x):
        if x.ndim == 2:
            return (x.rows, self.n_out)
        return (self.n_out,)

    cdef char *take_out(self, object out, object array, const View *x) except? NULL:
        """Check that the outputs for `array`, seen as x, can go to `out`; where its elements are."""
        cdef View view
        if (look_packed(out, &view) and view.dtype == <int>self.kind and view.writable
                and view.ndim == x.ndim and view.columns == self.n_out and view.rows == x.rows
                and apart(view.data, view.size * view.itemsize, x.data, x.size * x.itemsize)
                and apart(view.data, view.size * view.itemsize, self.w,
                          self.n_parameters * view.itemsize)):
            return view.data
        check_out(out, "out", self.shape_of_out(x), self.dtype, array, self.parameters)
        look_packed(np.asarray(out), &view)
        return view.data

    # Linked by hand: a list's memory comes and goes with its length.
    cdef Scratch borrow(self):
        """A workspace for one call."""
        cdef Scratch scratch
        with cython.critical_section(self):
            scratch = self.free_work
            if scratch is not None:
                self.free_work, scratch.next = scratch.next, None
        return Scratch() if scratch is None else scratch

    cdef void give_back(self, Scratch scratch) noexcept:
        with cython.critical_section(self):
            self.free_work, scratch.next = scratch, self.free_work

    cdef int lay_out(self, Scratch scratch, Py_ssize_t m, int team, double work) except -1:
        """Which way m rows go through the layers, and the memory that it takes."""
        cdef Inference *t = &scratch.t
        cdef Py_ssize_t mr, row_bytes, enough, most, blocks
        cdef Py_ssize_t bytes = self.n_parameters * self.dtype.itemsize
        scratch.team = 0     # not laid out, should memory run out
        t.net = self.net(True)
        t.m = m
        mr = t.net.K.gemm_mr
        # By columns a layer is shared by all, at a barrier each; by rows nobody waits, but everyone
        # reads all the weights, which pays only when there are rows enough to use them on.
        enough = 4 * mr
        if bytes > OWN:
            enough = max(enough, ENOUGH)
        t.by_rows = (team == 1 or t.net.n_ops == 0 or m >= enough * team
                     or work < 2000.0 * t.net.n_ops * team)
        # A core that another program slows down takes fewer rows; but each claim reads all the weights.
        t.quantum = mr if bytes < NEAR_ENOUGH else 0
        row_bytes = t.net.width * t.net.K.itemsize
        t.block = m
        # Activations of a block of rows stay near the core; each block reads all the weights. With
        # one layer there is nothing to keep.
        if t.by_rows and t.net.n_ops > 1 and m > 4 * mr:
            most = max(BLOCK, 2 * bytes) // (row_bytes * mr)
            t.block = max(4, most) * mr
            blocks = (m + t.block - 1) // t.block
            t.block = (m + blocks - 1) // blocks
        t.net.gemm_bytes = self.gemm_bytes(&t.net, t.block, False)
        t.member_bytes = 2 * aligned(t.block * row_bytes) + t.net.gemm_bytes
        if t.by_rows:
            scratch.memory.reserve(team * t.member_bytes)
        else:
            scratch.memory.reserve(t.member_bytes + team * t.net.gemm_bytes)
        t.work = scratch.memory.data
        scratch.team = team
        return 0

    cdef int infer(self, const Rows *x, Py_ssize_t m, char *out) except -1:
        """All layers on m rows, in this call's own workspace."""
        cdef double work = self.work(m)
        cdef int team = team_size(work)
        cdef Scratch scratch
        cdef Inference *t
        if m == 0 or self.n_out == 0:
            return 0
        scratch = self.borrow()
        t = &scratch.t
        try:
            if scratch.team != team or t.m != m or t.net.K != kernels(self.kind):
                self.lay_out(scratch, m, team, work)
            t.x, t.out, t.next = x[0], out, 0
            run_call(inference_task, t, team, work + m * self.passing_per_row)
        finally:
            self.give_back(scratch)
        return 0

    def predict(self, x, out=None):
        """Outputs for the rows of x, dropout off.

        Parameters
        ----------
        x : array (m, n_in) or (n_in,), any real dtype; uint8 is multiplied by uint8_scale
        out : None, or a writable C-contiguous ndarray (m, n_out) or (n_out,) of the plan's dtype
            that does not overlap x or the parameters

        Returns
        -------
        ndarray (m, n_out) or (n_out,); `out` where it was given

        Raises
        ------
        ValueError, TypeError : x or out has another shape or dtype than asked for, or they overlap.
        """
        cdef View view
        cdef Rows rows
        cdef char *target
        array = self.take(x, &view, &rows)
        if out is None:
            out = empty(self.shape_of_out(&view), self.dtype)
        target = self.take_out(out, array, &view)
        self.infer(&rows, view.rows, target)
        return out

    cdef int lock(self) except -1:
        if not PyThread_acquire_lock(self.training_lock, 0):
            raise RuntimeError("this model is being trained in another thread")
        return 0

    cdef void unlock(self) noexcept:
        PyThread_release_lock(self.training_lock)

    cdef int prepare(self, Py_ssize_t m, int team) except -1:
        """Lay the training workspace out for batches of up to m rows."""
        cdef Training *t = &self.training
        cdef Net net = self.net(False)
        cdef tuple layout = (m, team, <size_t>net.K)
        cdef size_t itemsize = net.K.itemsize, at = 0
        cdef size_t[5] sizes
        cdef Py_ssize_t widest = net.n_out
        cdef int i, keep
        if layout == self.layout:
            return 0
        for i in range(net.n_ops):
            widest = max(widest, net.ops[i].n_out)
        self.layout = None
        net.gemm_bytes = self.gemm_bytes(&net, m, True)
        # Some strips, for which a call of the kernel pays; at least one.
        net.near_bytes = aligned(net.K.gemm_mr * widest * itemsize)
        net.near_bytes = max(net.near_bytes, min(4 * net.near_bytes, <size_t>NEAR), <size_t>NEAR // 2)
        # Once to add up the sizes, once to hand out the addresses.
        for keep in range(2):
            if keep:
                self.training_memory.reserve(at)
            at = 0
            t.input = self.training_memory.data + at
            at += aligned(m * net.n_in * itemsize)
            for i in range(3):
                t.grads[i] = self.training_memory.data + at
                at += aligned(m * widest * itemsize)
            for i in range(net.n_ops):
                self.pointers[i] = self.training_memory.data + at
                at += aligned(m * net.ops[i].n_out * itemsize)
                if net.ops[i].kind == LINEAR and net.ops[i].from_input:
                    self.pointers[net.n_ops + i] = self.training_memory.data + at
                    at += aligned(m * net.ops[i].n_out * itemsize)
            t.work = self.training_memory.data + at
            at += team * (net.gemm_bytes + net.near_bytes)
            t.row_loss = <double *>(self.training_memory.data + at)
            at += aligned(m * sizeof(double))
            t.guesses = <int64_t *>(self.training_memory.data + at)
            at += aligned(m * sizeof(int64_t))
            t.batch_targets = self.training_memory.data + at
            at += aligned(m * max(<size_t>net.n_out * itemsize, sizeof(int64_t)))
            t.batch_weights = self.training_memory.data + at
            at += aligned(m * itemsize)
        t.net = net
        t.outputs = self.pointers
        t.inputs = self.pointers + net.n_ops
        self.layout = layout
        return 0

    def forward(self, x, uint64_t seed=0, uint64_t step=0, bint training=True):
        """Outputs for the rows of x, with the activations kept for backward.

        Parameters
        ----------
        x : array (m, n_in), any real dtype
        seed, step : the dropout masks are a function of these
        training : whether dropout drops

        Returns
        -------
        ndarray (m, n_out)
        """
        cdef View view
        cdef Rows rows
        cdef Training *t = &self.training
        cdef Py_ssize_t m
        cdef int team
        array = self.take(x, &view, &rows)
        m = view.rows
        if view.ndim != 2:
            raise ValueError(f"x: expected shape (m, {self.n_in}), got ({self.n_in},)")
        self.lock()
        try:
            self.pending = -1
            team = team_size(self.work(m))
            self.prepare(m, team)
            self.training.m = m
            t.x, t.all_targets, t.all_weights, t.seen = rows, NULL, NULL, NULL
            t.seed, t.step, t.drop = seed, step, training
            with nogil:
                run_team(forward_task, t, team)
            out = empty((m, self.n_out), self.dtype)
            if out.size:
                memcpy(bytes_of(out), training_output(t), out.nbytes)
            if rows.kind == SAME:    # x may change before backward: keep it
                memcpy(t.input, rows.data, m * self.n_in * t.net.K.itemsize)
            t.x.kind, t.x.data = SAME, t.input
            self.pending = m
        finally:
            self.unlock()
        return out

    def backward(self, grad, bint want_grad_x=True):
        """Gradients of all parameters, into the flat buffer, for the last forward pass.

        Parameters
        ----------
        grad : array (m, n_out)
            Derivative of the objective by the outputs of that forward pass.
        want_grad_x : bool
            Whether the derivative by x is wanted too.

        Returns
        -------
        ndarray (m, n_in) or None

        Raises
        ------
        RuntimeError : no forward pass is waiting for its backward.
        """
        cdef Training *t = &self.training
        cdef int team
        self.lock()
        try:
            if self.pending < 0:
                raise RuntimeError("backward: expected a forward pass before it, found none")
            if self.gradients is None and self.n_parameters:
                raise RuntimeError("backward: expected gradients to be set before it, found none")
            grad = as_real(grad, "grad", self.dtype)
            if grad.shape != (self.pending, self.n_out):
                raise ValueError(f"grad: expected shape {(self.pending, self.n_out)}, got {grad.shape}")
            out = empty((self.pending, self.n_in), self.dtype) if want_grad_x else None
            t.grad_out, t.grad_x, t.rule = bytes_of(grad), bytes_of(out), NULL
            team = min(<int>self.layout[1], self.step_team(self.pending))
            self.pending = -1
            with nogil:
                run_team(backward_task, t, team)
        finally:
            self.unlock()
        return out
