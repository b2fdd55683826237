"""Aligned memory that is kept from call to call, so that a steady state allocates nothing, and the
addresses of arrays."""

from cpython.buffer cimport PyBUF_C_CONTIGUOUS, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc


cdef char *bytes_of(object array) except? NULL:
    cdef Py_buffer view
    if array is None or not array.size:
        return NULL
    PyObject_GetBuffer(array, &view, PyBUF_C_CONTIGUOUS)
    PyBuffer_Release(&view)
    return <char *>view.buf


cdef class Buffer:
    """A workspace of growing size."""

    cdef int reserve(self, size_t size) except -1:
        if size <= self.size:
            return 0
        PyMem_RawFree(self.block)
        self.size = 0
        self.block = <char *>PyMem_RawMalloc(size + 64)
        if self.block == NULL:
            raise MemoryError(f"no memory for a workspace of {size} bytes")
        self.data = self.block + (64 - <size_t>self.block % 64) % 64
        self.size = size
        return 0

    def __dealloc__(self):
        PyMem_RawFree(self.block)
