"""The one place that opens threads.

A team is an OpenMP parallel region; its size never changes what is computed, only who computes it.
(Not a `prange`: a training step is one region with barriers between its operations, which may not stand
in a loop that is shared out, and each member finds its own share so that no sum is ever cut.)
A child of fork() runs on one thread: the runtime's pool does not survive the fork, whoever filled it
(GNU's runtime is shared with any other module that names the same library), and waiting for its
threads would never end. The results are the same bits anyway.
"""

import os

from cython.parallel cimport parallel, threadid
from libc.string cimport memset

cdef extern from *:
    """
    #ifdef _OPENMP
    #include <omp.h>
    #define fnn_openmp _OPENMP
    #define fnn_team_now omp_get_num_threads
    #else
    #define fnn_openmp 0
    static int fnn_team_now(void) { return 1; }
    #endif

    #if defined(__unix__) || defined(__APPLE__)
    #include <pthread.h>
    #include <sched.h>
    static volatile int fnn_orphan;
    static void fnn_after_fork(void) { fnn_orphan = 1; }
    static int fnn_watch_forks(void) { return pthread_atfork(0, 0, fnn_after_fork); }
    #define fnn_yield sched_yield
    #else
    static volatile int fnn_orphan;
    static int fnn_watch_forks(void) { return 0; }
    #define fnn_yield()
    #endif

    #if defined(__x86_64__) || defined(__i386__)
    #define fnn_pause __builtin_ia32_pause
    #else
    #define fnn_pause()
    #endif

    /* OpenMP's own barrier spins for milliseconds, which on a busy machine keeps the CPU from the very
     * thread that is waited for. This one spins for about the time of a short operation, then yields. */
    #include <stdatomic.h>
    typedef struct { atomic_int arrived, passed; } fnn_meeting;
    static _Thread_local fnn_meeting *fnn_here;

    static void fnn_meet(fnn_meeting *here, int team) {
        const int passed = atomic_load_explicit(&here->passed, memory_order_relaxed);
        if (atomic_fetch_add_explicit(&here->arrived, 1, memory_order_acq_rel) == team - 1) {
            atomic_store_explicit(&here->arrived, 0, memory_order_relaxed);
            atomic_store_explicit(&here->passed, passed + 1, memory_order_release);
            return;
        }
        for (int spins = 0; atomic_load_explicit(&here->passed, memory_order_acquire) == passed; spins++) {
            if (spins < 2000)
                fnn_pause();
            else
                fnn_yield();
        }
    }
    static void fnn_enter(fnn_meeting *here) { fnn_here = here; }

    /* Parts that shrink with what is left, down to a quantum: few at first, and in the end no member
     * waits long for another. */
    static Py_ssize_t fnn_claim(Py_ssize_t *next, Py_ssize_t n, Py_ssize_t quantum, int team, Py_ssize_t *end) {
        Py_ssize_t begin = __atomic_load_n(next, __ATOMIC_RELAXED), blocks;
        do {
            if (begin >= n) return n;
            blocks = (n - begin) / (2 * team * quantum);
            *end = begin + (blocks > 1 ? blocks : 1) * quantum;
            if (*end > n) *end = n;
        } while (!__atomic_compare_exchange_n(next, &begin, *end, 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
        return begin;
    }
    static void fnn_barrier(int team) { fnn_meet(fnn_here, team); }
    """
    ctypedef struct fnn_meeting:
        pass
    int fnn_openmp
    int fnn_orphan
    int fnn_team_now() noexcept nogil
    void fnn_enter(fnn_meeting *here) noexcept nogil
    void fnn_barrier(int team) noexcept nogil
    Py_ssize_t fnn_claim(Py_ssize_t *next, Py_ssize_t n, Py_ssize_t quantum, int team,
                         Py_ssize_t *end) noexcept nogil
    int fnn_watch_forks()

# Nanoseconds of work of its own from which a thread is worth its call. On two quiet cores, just above
# it, two threads took 6.0 us for what one did in 7.5 (tanh of 49,152 numbers), and 7.9 for 10.5
# (linear 32x192->192).
cdef double WORTH = 4000.0
# Nanoseconds below which a call keeps the GIL: to let it go and take it again takes 75 (one row of 16 numbers
# through 16-16: 298 and 222 ns).
cdef double BRIEF = 1000.0
cdef int MAX_THREADS = 1024
cdef int threads = 1


cdef void take_part(team_task task, void *context, fnn_meeting *here, int member) noexcept nogil:
    # Under a thread limit the runtime may give fewer than were asked for.
    cdef int members = fnn_team_now()
    fnn_enter(here)
    task(context, member, members)
    fnn_barrier(members)


cdef void run_team(team_task task, void *context, int team) noexcept nogil:
    cdef fnn_meeting here
    if team <= 1 or fnn_orphan:
        task(context, 0, 1)
        return
    memset(&here, 0, sizeof(here))
    with parallel(num_threads=team):
        take_part(task, context, &here, threadid())


cdef void run_call(team_task task, void *context, int team, double at_most) noexcept:
    if team <= 1 and at_most < BRIEF:
        task(context, 0, 1)
        return
    with nogil:
        run_team(task, context, team)


cdef void team_barrier(int team) noexcept nogil:
    if team > 1:
        fnn_barrier(team)


cdef int team_size(double work) noexcept nogil:
    cdef double worth = work / WORTH
    if threads == 1 or worth < 2 or fnn_orphan:
        return 1
    return threads if worth >= threads else <int>worth


cdef void team_share(Py_ssize_t n, Py_ssize_t quantum, int member, int team,
                     Py_ssize_t *begin, Py_ssize_t *end) noexcept nogil:
    cdef Py_ssize_t blocks
    begin[0], end[0] = 0, n
    if team == 1:   # no divisions in the smallest calls
        return
    blocks = (n + quantum - 1) // quantum
    begin[0] = min(n, blocks * member // team * quantum)
    end[0] = min(n, blocks * (member + 1) // team * quantum)


cdef Py_ssize_t team_claim(Py_ssize_t *next, Py_ssize_t n, Py_ssize_t quantum, int team,
                           Py_ssize_t *end) noexcept nogil:
    return fnn_claim(next, n, quantum, team, end)


def _quota(folder):
    """CPUs that the quota of one control group allows (a float), or None."""
    try:
        if os.path.exists(f"{folder}/cpu.max"):
            with open(f"{folder}/cpu.max") as file:
                quota, period = file.read().split()
        else:
            with open(f"{folder}/cpu.cfs_quota_us") as file:
                quota = file.read()
            with open(f"{folder}/cpu.cfs_period_us") as file:
                period = file.read()
        limit = float(quota) / float(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
    return limit if limit > 0 else None


def _cgroup_cpus():
    """The least quota of this process's control group (version 2 or 1) and those above it, or None."""
    folders = []
    try:
        with open("/proc/self/cgroup") as file:
            for line in file:
                number, controllers, path = line.rstrip("\n").split(":", 2)
                if number == "0" or "cpu" in controllers.split(","):
                    root = "/sys/fs/cgroup" + ("" if number == "0" else "/cpu")
                    parts = [part for part in path.split("/") if part not in ("", "..")]
                    folders += [
                        "/".join([root, *parts[:i]]) for i in range(len(parts) + 1)
                    ]
    except (OSError, ValueError):
        return None
    limits = [limit for limit in map(_quota, folders) if limit is not None]
    return min(limits, default=None)


def available_cpus():
    """CPUs that this process may really use: its affinity, less a control group's quota."""
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:
        cpus = os.cpu_count() or 1
    quota = _cgroup_cpus()
    if quota is not None:
        cpus = min(cpus, max(1, round(quota)))
    return cpus


def openmp_version():
    """The OpenMP version date this was built with (e.g. 201511), or 0 for a serial build."""
    return fnn_openmp


def get_num_threads():
    """Number of threads that work on large enough tasks; 1 in a child of fork()."""
    return 1 if fnn_orphan else threads


def set_num_threads(n):
    """Set the number of threads for the whole process.

    Parameters
    ----------
    n : int
        At least 1. More than there are CPUs is allowed and slow. A build without OpenMP stays at 1,
        and so does a child of fork().
        Results have the same bits for any number.

    Raises
    ------
    TypeError
        If n is not an integer.
    ValueError
        If n is below 1 or above 1024.
    """
    global threads
    if isinstance(n, bool) or not hasattr(type(n), "__index__"):
        raise TypeError(f"n: expected an integer of at least 1, got {n!r}")
    try:
        n = n.__index__()
    except TypeError:   # an array with axes, say
        raise TypeError(f"n: expected an integer of at least 1, got {type(n).__name__}") from None
    if not 1 <= n <= MAX_THREADS:
        raise ValueError(f"n: expected 1 to {MAX_THREADS}, got {n}")
    threads = n if fnn_openmp else 1


def _initial_threads():
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if first.isdigit() and int(first) >= 1:
        return min(int(first), MAX_THREADS)
    return available_cpus()


fnn_watch_forks()
set_num_threads(_initial_threads())
