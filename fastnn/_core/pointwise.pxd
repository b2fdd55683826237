from fastnn._core.csrc cimport fnn_act

# The activation of this name; ValueError where it is unknown.
cdef fnn_act act_of(object name) except *
