from fastnn._core.csrc cimport fnn_kernels

cdef struct Rule:
    int kind, dtype
    Py_ssize_t n
    char *w
    const char *g
    char *first        # the optimizer's state: v; m and s; s and v
    char *second
    long long t        # updates done
    double lr, weight_decay, momentum, beta1, beta2, eps, alpha, bias1, bias2
    bint nesterov, decoupled

# Counts the update and prepares what depends on the count; then every range once.
cdef void begin_update(Rule *rule) noexcept nogil
cdef void update_range(const fnn_kernels *K, const Rule *rule, const char *g, Py_ssize_t begin,
                       Py_ssize_t end) noexcept nogil

cdef class Update:
    cdef Rule rule
    cdef readonly object parameters, gradients, state
