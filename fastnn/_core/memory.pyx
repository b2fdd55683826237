"""Aligned memory that is kept from call to call, so that a steady state allocates nothing, and the
addresses of arrays."""

from cpython.buffer cimport PyBUF_C_CONTIGUOUS, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc

# Large blocks in pages of 2 MiB, as NumPy's are, where the system has to be asked: with small ones
# every row of a wide matrix lies in a page of its own.
cdef extern from *:
    """
    #include <stdint.h>
    #ifdef __linux__
    #include <sys/mman.h>
    #endif
    #define HUGE_PAGE ((size_t)2 << 20)
    static void use_huge_pages(char *data, size_t size) {
    #ifdef MADV_HUGEPAGE
        char *begin = data + (-(uintptr_t)data & (HUGE_PAGE - 1));
        if (begin + HUGE_PAGE <= data + size)
            madvise(begin, (size_t)(data + size - begin) & ~(HUGE_PAGE - 1), MADV_HUGEPAGE);
    #else
        (void)data;
        (void)size;
    #endif
    }
    """
    const size_t HUGE_PAGE
    void use_huge_pages(char *data, size_t size) nogil


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
        cdef size_t alignment = HUGE_PAGE if size >= 2 * HUGE_PAGE else 64
        if size <= self.size:
            return 0
        PyMem_RawFree(self.block)
        self.size = 0
        self.block = <char *>PyMem_RawMalloc(size + alignment)
        if self.block == NULL:
            raise MemoryError(f"no memory for a workspace of {size} bytes")
        self.data = self.block + (alignment - <size_t>self.block % alignment) % alignment
        use_huge_pages(self.data, size)
        self.size = size
        return 0

    def __dealloc__(self):
        PyMem_RawFree(self.block)
