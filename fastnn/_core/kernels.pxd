from fastnn._core.csrc cimport fnn_dtype, fnn_kernels

cdef const fnn_kernels *kernels(fnn_dtype dtype) noexcept nogil
