"""Aligned memory that is kept from call to call, so that a steady state allocates nothing, and the
addresses of arrays."""

from numpy import uint8

from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc


cdef char *bytes_of(object array) except? NULL:
    cdef const unsigned char[::1] flat
    if array is None or not array.size:
        return NULL
    flat = array.reshape(-1).view(uint8)
    return <char *>&flat[0]


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
