ctypedef void (*team_task)(void *context, int member, int team) noexcept nogil

# Runs task on `team` threads of this process, member 0 to team - 1; on the caller alone for team 1.
cdef void run_team(team_task task, void *context, int team) noexcept nogil
# The same for a caller who has the GIL. It is let go, but for work of at most so few nanoseconds
# that others would gain nothing.
cdef void run_call(team_task task, void *context, int team, double at_most) noexcept
# Waits for the other members; only inside a task, and reached by all of them.
cdef void team_barrier(int team) noexcept nogil
# How many threads pay for this much work (nanoseconds on one core).
cdef int team_size(double work) noexcept nogil
# The share of member in n items, split at multiples of quantum.
cdef void team_share(Py_ssize_t n, Py_ssize_t quantum, int member, int team,
                     Py_ssize_t *begin, Py_ssize_t *end) noexcept nogil
# The next part of n items that nobody has claimed: begin (n: there is none) and end. Parts are multiples of
# `quantum`, and smaller the less is left.
cdef Py_ssize_t team_claim(Py_ssize_t *next, Py_ssize_t n, Py_ssize_t quantum, int team,
                           Py_ssize_t *end) noexcept nogil
