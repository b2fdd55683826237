"""What this machine can do at most, for benches to compare with: csrc's limit loops on a team."""

from fastnn._core.arrays cimport Buffer
from fastnn._core.csrc cimport (
    FNN_F32, FNN_F64, FNN_LIMIT_COPY, FNN_LIMIT_FMA, FNN_LIMIT_READ, FNN_LIMIT_STREAM_COPY,
    FNN_LIMIT_STREAM_WRITE, FNN_LIMIT_UPDATE, FNN_LIMIT_WRITE, fnn_kernels, fnn_limit,
)
from fastnn._core.kernels cimport kernels
from fastnn._core.threads cimport run_team

cdef dict LIMITS = {
    "fma": FNN_LIMIT_FMA, "read": FNN_LIMIT_READ, "write": FNN_LIMIT_WRITE, "copy": FNN_LIMIT_COPY,
    "update": FNN_LIMIT_UPDATE, "stream_write": FNN_LIMIT_STREAM_WRITE,
    "stream_copy": FNN_LIMIT_STREAM_COPY,
}

cdef struct Loop:
    const fnn_kernels *K
    fnn_limit what
    Py_ssize_t rounds, n    # elements of one member
    char *data
    int members


cdef void loop_task(void *context, int member, int team) noexcept nogil:
    """This member's loop; more than one where the team is smaller than was asked for."""
    cdef Loop *w = <Loop *>context
    while member < w.members:
        w.K.limit(w.what, w.rounds, w.n, w.data + member * w.n * w.K.itemsize)
        member += team


cdef class Probe:
    """Probe(dtype, threads, nbytes): runs the limit loops over memory of its own.

    Parameters
    ----------
    dtype : "float32" or "float64"
    threads : int
        How many cores work at once, each on a part of the memory.
    nbytes : int
        Memory of all threads together, rounded up to whole vectors.
    """

    cdef Loop loop
    cdef Buffer memory

    def __init__(self, str dtype, int threads, Py_ssize_t nbytes):
        cdef Loop *w = &self.loop
        cdef Py_ssize_t quantum, step
        if threads < 1 or nbytes < 0:
            raise ValueError(f"threads, nbytes: expected at least 1 and 0, got {threads}, {nbytes}")
        w.K = kernels(FNN_F64 if dtype == "float64" else FNN_F32)
        w.members = threads
        quantum = 16 * w.K.lanes
        step = threads * quantum * w.K.itemsize
        w.n = max(1, (nbytes + step - 1) // step) * quantum
        self.memory = Buffer()
        self.memory.reserve(threads * w.n * w.K.itemsize)
        w.data = self.memory.data
        self.run("write", 1)

    def run(self, str what, Py_ssize_t rounds):
        """Run one of csrc's limit loops: "fma", "read", "write", "copy", "update", "stream_write" or
        "stream_copy".

        Returns
        -------
        float : what was done, in floating-point operations ("fma") or in bytes read and written.
        """
        cdef Loop *w = &self.loop
        if what not in LIMITS:
            raise ValueError(f"what: expected one of {', '.join(LIMITS)}, got {what!r}")
        w.what, w.rounds = LIMITS[what], rounds
        with nogil:
            run_team(loop_task, w, w.members)
        if w.what == FNN_LIMIT_FMA:
            return 2.0 * w.members * rounds * w.K.gemm_mr * w.K.gemm_nr
        return (2.0 if w.what == FNN_LIMIT_UPDATE else 1.0) * w.members * rounds * w.n * w.K.itemsize
