"""Optimizer updates over a model's flat buffers; the formulas are csrc/fastnn.h's."""

import numpy as np

from libc.math cimport pow
from fastnn._core.arrays cimport bytes_of
from fastnn._core.csrc cimport FNN_F32, FNN_F64, fnn_dtype, fnn_kernels
from fastnn._core.kernels cimport kernels
from fastnn._core.threads cimport run_team, team_share, team_size

cdef enum:
    SGD
    ADAM
    RMSPROP

cdef dict KINDS = {"sgd": SGD, "adam": ADAM, "rmsprop": RMSPROP}


cdef void begin_update(Rule *rule) noexcept nogil:
    rule.t += 1
    rule.bias1 = 1.0 - pow(rule.beta1, <double>rule.t)
    rule.bias2 = 1.0 - pow(rule.beta2, <double>rule.t)


cdef void update_range(const fnn_kernels *K, const Rule *rule, const char *g, Py_ssize_t begin,
                       Py_ssize_t end) noexcept nogil:
    cdef Py_ssize_t at = begin * K.itemsize, n = end - begin
    cdef char *w = rule.w + at
    cdef char *first = rule.first + at if rule.first else NULL
    cdef char *second = rule.second + at if rule.second else NULL
    if n <= 0:
        return
    if rule.kind == SGD:
        K.sgd(n, w, g, first, rule.lr, rule.momentum, rule.nesterov, rule.t == 1,
              rule.weight_decay)
    elif rule.kind == ADAM:
        K.adam(n, w, g, first, second, rule.lr, rule.beta1, rule.beta2, rule.eps,
               rule.weight_decay, rule.decoupled, rule.bias1, rule.bias2)
    else:
        K.rmsprop(n, w, g, first, second, rule.lr, rule.alpha, rule.eps, rule.momentum,
                  rule.weight_decay)


cdef void update_task(void *context, int member, int team) noexcept nogil:
    cdef Rule *rule = <Rule *>context
    cdef const fnn_kernels *K = kernels(<fnn_dtype>rule.dtype)
    cdef Py_ssize_t begin, end
    team_share(rule.n, 1024, member, team, &begin, &end)
    update_range(K, rule, rule.g + begin * K.itemsize, begin, end)


cdef class Update:
    """Update(kind, parameters, gradients, state, **hyper): w, g and the optimizer's state.

    Parameters
    ----------
    kind : "sgd" (state [v]; [] without momentum), "adam" ([m, s]) or "rmsprop" ([s] or [s, v])
    parameters, gradients, state : flat C-contiguous ndarrays of one length and dtype
    **hyper : lr, weight_decay; momentum, nesterov (sgd); beta1, beta2, eps, decoupled (adam);
        alpha, eps, momentum (rmsprop)

    `lr` may be changed between updates; `t` counts the updates done.
    """

    def __init__(self, str kind, parameters, gradients, list state, *, double lr,
                 double weight_decay=0.0, double momentum=0.0, bint nesterov=False,
                 double beta1=0.9, double beta2=0.999, double eps=1e-8, bint decoupled=False,
                 double alpha=0.99):
        cdef Rule *rule = &self.rule
        for array in (gradients, *state):
            if array.shape != parameters.shape or array.dtype != parameters.dtype:
                raise ValueError(
                    f"state: expected shape {parameters.shape} and {parameters.dtype},"
                    f" got {array.shape} and {array.dtype}"
                )
        self.parameters, self.gradients, self.state = parameters, gradients, state
        rule.kind = KINDS[kind]
        rule.dtype = FNN_F32 if parameters.dtype == np.float32 else FNN_F64
        rule.n = parameters.size
        rule.w = bytes_of(parameters)
        rule.g = bytes_of(gradients)
        rule.first = bytes_of(state[0]) if len(state) > 0 else NULL
        rule.second = bytes_of(state[1]) if len(state) > 1 else NULL
        rule.lr, rule.weight_decay, rule.momentum = lr, weight_decay, momentum
        rule.nesterov, rule.decoupled = nesterov, decoupled
        rule.beta1, rule.beta2, rule.eps, rule.alpha = beta1, beta2, eps, alpha
        rule.t = 0

    @property
    def lr(self):
        return self.rule.lr

    @lr.setter
    def lr(self, double value):
        self.rule.lr = value

    @property
    def t(self):
        return self.rule.t

    @t.setter
    def t(self, long long value):
        self.rule.t = value

    def apply(self):
        """One update of all parameters from the gradients as they stand."""
        with nogil:
            begin_update(&self.rule)
            run_team(update_task, &self.rule, team_size(0.2 * self.rule.n))
