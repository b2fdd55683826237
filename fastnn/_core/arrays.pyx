"""The one place that checks arrays; their addresses; memory that is kept from call to
call; how much of it the machine's caches hold.

An ndarray is looked at through NumPy's own C structure rather than a typed memoryview: one body
serves both dtypes and tells the strides of an array that is not packed, and it takes a few
nanoseconds. The buffer protocol, for which NumPy writes down the format each time, takes 75. An
ndarray keeps its memory as long as it lives, so the array is held while its memory is used.

Every error names the argument, what was expected and what came. Wrong types and dtypes are
TypeErrors, wrong shapes and values ValueErrors, and nothing has been written when one is raised.
"""

import numbers

import numpy as np

from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.float cimport DBL_MAX, FLT_MAX
from libc.math cimport fabs, isfinite
from fastnn._core.csrc cimport FNN_F32, FNN_F64

cdef extern from *:
    """
    #define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
    #define NPY_TARGET_VERSION NPY_2_0_API_VERSION    /* runs with NumPy 2.0, whatever it is built with */
    #include <numpy/arrayobject.h>
    """
    ctypedef Py_ssize_t npy_intp
    ctypedef struct PyArrayObject:
        pass
    int NPY_FLOAT, NPY_DOUBLE, NPY_UBYTE
    int NPY_ARRAY_C_CONTIGUOUS, NPY_ARRAY_ALIGNED, NPY_ARRAY_WRITEABLE
    int _import_array() except -1
    char *PyArray_BYTES(PyArrayObject *array)
    int PyArray_NDIM(PyArrayObject *array)
    int PyArray_TYPE(PyArrayObject *array)
    int PyArray_FLAGS(PyArrayObject *array)
    bint PyArray_ISNOTSWAPPED(PyArrayObject *array)
    npy_intp *PyArray_DIMS(PyArrayObject *array)
    npy_intp *PyArray_STRIDES(PyArrayObject *array)

_import_array()    # refuses a NumPy whose structures are others than those compiled for

cdef object ndarray = np.ndarray
cdef object FLOAT32 = np.dtype(np.float32)
cdef object FLOAT64 = np.dtype(np.float64)
cdef object may_share_memory = np.may_share_memory


cdef object dtype_of(int dtype):
    return FLOAT32 if dtype == FNN_F32 else FLOAT64


cdef int dtype_code(object dtype) except -1:
    if dtype is FLOAT32:
        return FNN_F32
    if dtype is FLOAT64:
        return FNN_F64
    found = np.dtype(dtype)  # a copy or a pickle of one is another object
    if found == FLOAT32:
        return FNN_F32
    if found == FLOAT64:
        return FNN_F64
    raise TypeError(f"dtype: expected float32 or float64, got {found}")


cdef bint see(object array, View *view) noexcept:
    """Fill in all but the rows of the view; False where this is no ndarray of the three dtypes in
    the machine's own byte order, at an address that suits it."""
    cdef PyArrayObject *a
    cdef int kind, flags, axis
    if type(array) is not ndarray:
        return False
    a = <PyArrayObject *>array
    kind, flags = PyArray_TYPE(a), PyArray_FLAGS(a)
    if kind == NPY_FLOAT:
        view.dtype, view.itemsize = FNN_F32, 4
    elif kind == NPY_DOUBLE:
        view.dtype, view.itemsize = FNN_F64, 8
    elif kind == NPY_UBYTE:
        view.dtype, view.itemsize = BYTES, 1
    else:
        return False
    view.data = PyArray_BYTES(a)
    view.ndim = PyArray_NDIM(a)
    view.writable = flags & NPY_ARRAY_WRITEABLE != 0
    view.packed = flags & NPY_ARRAY_C_CONTIGUOUS != 0
    view.size = 1
    for axis in range(view.ndim):
        view.size *= PyArray_DIMS(a)[axis]
    return flags & NPY_ARRAY_ALIGNED != 0 and PyArray_ISNOTSWAPPED(a)


cdef bint see_rows(object array, View *view) noexcept:
    """Fill in the rows; False where strides are not whole numbers of elements."""
    cdef const npy_intp *shape = PyArray_DIMS(<PyArrayObject *>array)
    cdef const npy_intp *strides = PyArray_STRIDES(<PyArrayObject *>array)
    cdef Py_ssize_t size = view.itemsize, row_bytes = 0, column_bytes = size
    view.rows = view.columns = 1
    if view.ndim >= 1:
        view.columns = shape[view.ndim - 1]
    if view.ndim == 2:
        view.rows = shape[0]
    view.row_stride, view.column_stride = view.columns, 1
    if view.packed or view.ndim > 2:
        return True
    if view.columns > 1:
        column_bytes = strides[view.ndim - 1]
    row_bytes = strides[0] if view.rows > 1 else view.columns * column_bytes
    view.row_stride = row_bytes // size
    view.column_stride = column_bytes // size
    return view.row_stride * size == row_bytes and view.column_stride * size == column_bytes


cdef bint look(object array, View *view) noexcept:
    """Fill in the view; False where this is not an ndarray that the kernels can read at all."""
    return see(array, view) and view.dtype != BYTES and see_rows(array, view)


cdef bint look_packed(object array, View *view) noexcept:
    return see(array, view) and view.packed and see_rows(array, view)


cdef bint apart(const void *one, Py_ssize_t one_bytes, const void *other,
                Py_ssize_t other_bytes) noexcept:
    return (<const char *>one + one_bytes <= <const char *>other
            or <const char *>other + other_bytes <= <const char *>one)


cdef bint fits(const View *view, Layout layout) noexcept:
    if view.packed:
        return True
    if layout == PACKED or view.ndim > 2:
        return False
    if view.column_stride == 1 and view.row_stride >= view.columns:
        return True
    return (layout == ROWS_OR_COLUMNS and view.row_stride == 1
            and view.column_stride >= view.rows)


cdef object take(object obj, str name, Layout layout, View *view):
    if look(obj, view) and fits(view, layout):
        return obj
    array = convert(as_array(obj, name), name, None)
    look(array, view)
    return array


cdef object convert(object array, str name, object dtype):
    """A packed, aligned ndarray of `dtype` (None: the one it has) from any ndarray."""
    cdef View view
    have = array.dtype
    if dtype is None:
        if have != FLOAT32 and have != FLOAT64:
            raise TypeError(f"{name}: expected dtype float32 or float64, got {describe(have)}")
        dtype = have
    elif have.kind not in "biuf" or have.itemsize > 8 or not have.isnative:
        raise TypeError(
            f"{name}: expected real numbers of at most 64 bits, got dtype {describe(have)}"
        )
    if have is dtype and look(array, &view) and view.packed:
        return array
    return np.array(array, dtype=dtype, order="C", copy=True)


cdef str describe(object dtype):
    return str(dtype) if dtype.isnative else f"{dtype} (not this machine's byte order)"


cdef object to_array(object obj, str name):
    """as_array, but integers stay integers."""
    kind = type(obj)
    if kind is ndarray:
        return obj
    if isinstance(obj, ndarray):
        if hasattr(obj, "mask"):
            raise TypeError(f"{name}: expected a plain array, got a masked array (use .filled())")
        return np.asarray(obj)
    if hasattr(kind, "toarray") or hasattr(kind, "todense"):
        raise TypeError(f"{name}: expected a dense array, got a sparse matrix (use .toarray())")
    try:
        if hasattr(kind, "__dlpack__") and not hasattr(kind, "__array__"):
            return np.asarray(np.from_dlpack(obj))
        array = np.asarray(obj)
    except ValueError as error:
        raise ValueError(f"{name}: expected an array, got {kind.__name__} ({error})") from None
    except (TypeError, RuntimeError, BufferError) as error:
        raise TypeError(f"{name}: expected an array, got {kind.__name__} ({error})") from None
    if array.dtype.kind not in "biufc":
        raise TypeError(f"{name}: expected an array of numbers, got {kind.__name__}")
    return array


def as_array(obj, str name):
    """An ndarray of whatever dtype `obj` has: an array, anything with `__array__` or `__dlpack__`,
    a buffer, a number or nested sequences of numbers. Sequences of Python numbers become float64.

    TypeError for anything else, masked arrays and sparse matrices included; ValueError for
    sequences of unequal lengths.
    """
    array = to_array(obj, name)
    if array is not obj and array.dtype.kind in "biu" and isinstance(obj, (list, tuple, int)):
        return array.astype(FLOAT64)
    return array


def as_real(obj, str name, dtype=None):
    """A C-contiguous, aligned float32 or float64 ndarray of any shape; `obj` itself if it is one.

    Without `dtype` only float32 and float64 pass (and sequences of numbers, as float64). With it,
    integers, bool and other real dtypes of at most 64 bits are converted to it.
    """
    cdef View view
    cdef int code = -1 if dtype is None else dtype_code(dtype)
    if look(obj, &view) and view.packed and (code < 0 or code == view.dtype):
        return obj
    return convert(as_array(obj, name), name, None if code < 0 else dtype_of(code))


def as_labels(obj, str name, rows, classes):
    """Integer labels as an int64 array of shape (rows,), each in [0, classes). rows None: any.

    TypeError unless the dtype is an integer one; ValueError for another shape or a label out of
    range.
    """
    array = to_array(obj, name)
    if array.size == 0 and array is not obj:
        array = array.astype(np.int64)  # an empty list has no integers to tell its dtype by
    if array.dtype.kind not in "iu" or not array.dtype.isnative:
        raise TypeError(f"{name}: expected integer labels, got dtype {describe(array.dtype)}")
    if array.ndim != 1 or (rows is not None and array.shape[0] != rows):
        raise ValueError(
            f"{name}: expected shape ({'m' if rows is None else rows},), got {array.shape}"
        )
    if array.size:
        wrong = (array < 0) | (array >= classes)
        if wrong.any():
            first = int(wrong.argmax())
            raise ValueError(
                f"{name}: expected labels in [0, {classes}), got {array[first]} at index {first}"
            )
    # A copy: kernels index with labels, so nobody may change them after the check.
    return np.array(array, np.int64)


def check_out(out, str name, tuple shape, dtype, *inputs, same=None):
    """Check that `out` can take a result: a writable, aligned, C-contiguous ndarray of exactly this
    shape and dtype that shares no memory with the inputs (None among them is skipped). It may be
    `same`: exactly the memory of that array, for work in place, but not a part of it.
    """
    cdef View view
    take_out(out, name, shape, dtype_code(dtype), inputs, same, &view)
    return out


cdef object memory_of(object given, object taken):
    return given if isinstance(given, ndarray) else taken


cdef int take_out(object out, str name, tuple shape, int dtype, tuple inputs, object same,
                  View *view) except -1:
    array = out
    if type(out) is not ndarray:
        if not isinstance(out, ndarray) or hasattr(out, "mask"):
            raise TypeError(f"{name}: expected an ndarray, got {type(out).__name__}")
        array = np.asarray(out)  # of a memory map, say: the same memory
    if not (look(array, view) and view.packed and view.writable and view.dtype == dtype
            and array.shape == shape):
        refuse_out(array, name, shape, dtype)
    for other in inputs:
        if other is not None and overlap(array, view, other):
            raise ValueError(f"{name}: expected memory of its own, got an array that overlaps an "
                             "input")
    if same is not None and overlap(array, view, same) and not identical(view, same):
        raise ValueError(f"{name}: expected the input itself or memory of its own, got an array "
                         "that overlaps the input")
    return 0


cdef int refuse_out(object array, str name, tuple shape, int dtype) except -1:
    if array.dtype != dtype_of(dtype):
        raise TypeError(f"{name}: expected dtype {dtype_of(dtype)}, got {describe(array.dtype)}")
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    if not array.flags.writeable:
        raise ValueError(f"{name}: expected a writable array, got a read-only one")
    raise ValueError(
        f"{name}: expected an aligned, C-contiguous array, got strides {array.strides}"
        + ("" if array.flags.aligned else ", misaligned")
    )


cdef bint overlap(object array, const View *view, object other) except -1:
    """Whether the bounds of both meet, as numpy.may_share_memory has it."""
    cdef View seen
    cdef Py_ssize_t extent
    if look(other, &seen):
        extent = seen.size
        if not seen.packed:
            extent = 1 + ((seen.rows - 1) * seen.row_stride
                          + (seen.columns - 1) * seen.column_stride)
        if seen.packed or (seen.ndim <= 2 and seen.row_stride >= 0 and seen.column_stride >= 0):
            return not apart(view.data, view.size * view.itemsize,
                             seen.data, extent * seen.itemsize)
    return may_share_memory(array, other)


cdef bint identical(const View *view, object other) noexcept:
    cdef View seen
    return look(other, &seen) and seen.packed and seen.data == view.data


cdef double finite(object value, str name) except? -1.0:
    cdef double number
    if type(value) is not float and not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    try:
        number = value
    except OverflowError:
        raise ValueError(f"{name}: expected a finite number, got one above {DBL_MAX:g}") from None
    if not isfinite(number):
        raise ValueError(f"{name}: expected a finite number, got {value}")
    return number


def as_finite(value, str name):
    """A finite float. TypeError if `value` is no real number, ValueError for NaN or infinity."""
    return finite(value, name)


cdef double as_slope(object value, int dtype) except? -1.0:
    cdef double slope = finite(value, "negative_slope")
    if dtype == FNN_F32 and fabs(slope) > FLT_MAX:
        raise ValueError(f"negative_slope: expected a finite float32, got {slope}")
    return slope


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
    if array is None or not array.size:
        return NULL
    if not isinstance(array, ndarray) or not (PyArray_FLAGS(<PyArrayObject *>array)
                                              & NPY_ARRAY_C_CONTIGUOUS):
        raise ValueError("array: expected a C-contiguous ndarray, got "
                         f"{type(array).__name__} with strides {getattr(array, 'strides', None)}")
    return PyArray_BYTES(<PyArrayObject *>array)


cdef class Buffer:
    """Aligned memory of growing size, so that a steady state allocates nothing."""

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


def find_outer_cache():
    """Bytes of the outermost cache that the first CPU shares, 0 where Linux does not tell. (sysconf may add up
    all caches of a CPU that has several.)"""
    for level in (3, 2):
        try:
            with open(f"/sys/devices/system/cpu/cpu0/cache/index{level}/size") as file:
                size = file.read().strip()
            return int(size[:-1]) * {"K": 1 << 10, "M": 1 << 20}[size[-1]]
        except (OSError, ValueError, IndexError, KeyError):
            pass
    return 0


cdef size_t OUTER_CACHE = find_outer_cache()


cdef size_t outer_cache() noexcept nogil:
    return OUTER_CACHE
