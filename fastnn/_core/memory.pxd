cdef class Buffer:
    cdef char *block
    cdef char *data        # 64-byte aligned
    cdef size_t size
    cdef Buffer next       # in a list of those that are free
    # At least `size` bytes from now on; what was in it is lost when it grows.
    cdef int reserve(self, size_t size) except -1

# Where the elements of a C-contiguous ndarray begin, which keeps them as long as it lives; NULL for
# None or no elements.
cdef char *bytes_of(object array) except? NULL
