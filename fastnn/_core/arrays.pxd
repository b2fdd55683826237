# What a kernel needs to know of an ndarray: float32 or float64 in this machine's byte order, aligned
# to its elements. One with fewer than two axes is seen as a single row; one with more than two has
# no rows and is only read where it is packed. Strides are in elements; those of an axis of length 0
# or 1 are what a packed array would have.
cdef struct View:
    char *data
    int ndim
    int dtype                                  # an fnn_dtype, or BYTES
    bint writable, packed                      # packed: C-contiguous
    Py_ssize_t size, itemsize
    Py_ssize_t rows, columns, row_stride, column_stride

cdef enum:
    BYTES = -1         # uint8, which only look_packed sees

# Which layouts a kernel reads in place; any other is copied into a packed array.
cdef enum Layout:
    PACKED             # C-contiguous
    ROWS               # rows are contiguous, the next one starts row_stride elements further
    ROWS_OR_COLUMNS    # ROWS, or the transpose of ROWS

# The array to keep alive while the view is used. TypeError unless float32 or float64.
cdef object take(object obj, str name, Layout layout, View *view)
# What `out` may overlap: the caller's array, or what a foreign object has become.
cdef object memory_of(object given, object taken)
# Looks at a C-contiguous ndarray of float32, float64 or uint8; False for anything else.
cdef bint look_packed(object array, View *view) noexcept
# Whether two runs of bytes share none.
cdef bint apart(const void *one, Py_ssize_t one_bytes, const void *other,
                Py_ssize_t other_bytes) noexcept
# Checks `out` (see check_out) and looks at it.
cdef int take_out(object out, str name, tuple shape, int dtype, tuple inputs, object same,
                  View *view) except -1
# A finite number that the dtype can hold.
cdef double as_slope(object value, int dtype) except? -1.0
cdef object dtype_of(int dtype)                # numpy.dtype of an fnn_dtype

cdef class Buffer:
    cdef char *block
    cdef char *data        # 64-byte aligned
    cdef size_t size
    # At least `size` bytes from now on; what was in it is lost when it grows.
    cdef int reserve(self, size_t size) except -1

# Where the elements of a C-contiguous ndarray begin, which keeps them as long as it lives; NULL for
# None or no elements.
cdef char *bytes_of(object array) except? NULL

# Bytes of the outermost cache, or 0 where the system does not tell.
cdef size_t outer_cache() noexcept nogil
