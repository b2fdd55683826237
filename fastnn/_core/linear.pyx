"""The dense layer as a function: y = act(x @ weight.T + bias), and its gradients.

The kernel reads the weights as a (n_in, n_out) buffer, so a weight of shape (n_out, n_in) that is
the transpose of one is used in place; a C-ordered weight is transposed on the way, block by block,
and any other layout is copied first.

A product is cut into a grid of parts along the rows and columns of its result, never along the sum,
so an element has the same bits whoever computes it. There are as many parts as threads, cut where
the busiest thread has the least to do.
"""

import numpy as np

from libc.string cimport memset

from fastnn._core.arrays cimport (
    PACKED, ROWS, ROWS_OR_COLUMNS, Buffer, View, as_slope, dtype_of, memory_of, outer_cache, take, take_out,
)
from fastnn._core.csrc cimport (
    FNN_IDENTITY, FNN_LEAKY_RELU, fnn_act, fnn_dtype, fnn_gemm, fnn_kernels,
)
from fastnn._core.kernels cimport kernels
from fastnn._core.threads cimport run_call, run_team, team_barrier, team_share, team_size

cdef object empty = np.empty

# C = epilogue(A B + bias), cut into a grid of `down` x `across` parts.
cdef struct Product:
    fnn_gemm whole
    int down, across

cdef struct Forward:
    const fnn_kernels *K
    Product y
    int parts
    char *work              # of one member; the next member's is work_bytes further
    size_t work_bytes

cdef struct Backward:
    const fnn_kernels *K
    Product grad_w, grad_x
    fnn_act act
    double slope
    Py_ssize_t m, n_out
    const char *y           # NULL without an activation: then grad_y is grad_z
    const char *grad_y
    char *grad_z
    char *grad_b
    int parts
    char *work
    size_t work_bytes


cdef double part_ns(const fnn_kernels *K, const fnn_gemm *g, double rows,
                    double columns) noexcept nogil:
    """Time of one part on one core: half of the arithmetic peak, and a read of A and B from the
    shared cache, where B takes longer if it is transposed on the way."""
    cdef double flops = 2.0 * rows * columns * g.k
    cdef double read = (rows + columns * (1.0 if g.b_cs == 1 else 3.0)) * g.k * K.itemsize
    return flops / (8 * K.lanes) + read / 50


cdef void cut(const fnn_kernels *K, Product *p, int parts) noexcept nogil:
    """Choose the grid in which the largest part is the cheapest."""
    cdef fnn_gemm *g = &p.whole
    cdef double best = -1, cost
    cdef int down, across
    for down in range(1, parts + 1):
        across = parts // down
        cost = part_ns(K, g, share_size(g.m, K.gemm_mr, down), share_size(g.n, K.gemm_nr, across))
        if best < 0 or cost < best:
            best = cost
            p.down, p.across = down, across


cdef Py_ssize_t share_size(Py_ssize_t n, Py_ssize_t quantum, int team) noexcept nogil:
    """The most that team_share gives to a member."""
    cdef Py_ssize_t blocks = (n + quantum - 1) // quantum
    return min(n, (blocks + team - 1) // team * quantum)


cdef size_t product_work(const fnn_kernels *K, const Product *p) noexcept nogil:
    cdef const fnn_gemm *g = &p.whole
    return K.gemm_work(share_size(g.m, K.gemm_mr, p.down), share_size(g.n, K.gemm_nr, p.across),
                       g.k, g.b_cs)


cdef void run_part(const fnn_kernels *K, const Product *p, int part, void *work) noexcept nogil:
    cdef fnn_gemm g = p.whole
    cdef Py_ssize_t top, bottom, left, right, size = K.itemsize
    team_share(g.m, K.gemm_mr, part // p.across, p.down, &top, &bottom)
    team_share(g.n, K.gemm_nr, part % p.across, p.across, &left, &right)
    if top == bottom or left == right:
        return
    g.m, g.n = bottom - top, right - left
    g.a = <const char *>g.a + top * g.a_rs * size
    g.b = <const char *>g.b + left * g.b_cs * size
    if g.bias != NULL:
        g.bias = <const char *>g.bias + left * size
    g.c = <char *>g.c + (top * g.ldc + left) * size
    g.work = work
    K.gemm(&g)


cdef void run_product(const fnn_kernels *K, const Product *p, int member, int team,
                      void *work) noexcept nogil:
    """This member's parts; more than one where the team is smaller than was asked for."""
    cdef int part = member
    while part < p.down * p.across:
        run_part(K, p, part, work)
        part += team


cdef Product product(Py_ssize_t m, Py_ssize_t n, Py_ssize_t k) noexcept nogil:
    cdef Product p
    memset(&p, 0, sizeof(p))
    p.whole.m, p.whole.n, p.whole.k = m, n, k
    p.whole.act, p.whole.ldc = FNN_IDENTITY, n
    p.down = p.across = 1
    return p


cdef Buffer workspace(int members, size_t *bytes):
    """`bytes`, rounded up to a multiple of 64, for each member; None for 0 bytes."""
    cdef Buffer buffer
    if bytes[0] == 0:
        return None
    buffer = Buffer()
    bytes[0] = (bytes[0] + 63) // 64 * 64
    buffer.reserve(members * bytes[0])
    return buffer


cdef void forward_task(void *context, int member, int team) noexcept nogil:
    cdef Forward *f = <Forward *>context
    run_product(f.K, &f.y, member, team, f.work + member * f.work_bytes if f.work else NULL)


cdef void backward_task(void *context, int member, int team) noexcept nogil:
    cdef Backward *b = <Backward *>context
    cdef char *work = b.work + member * b.work_bytes if b.work else NULL
    cdef Py_ssize_t begin, end, size = b.K.itemsize
    if b.y != NULL:
        team_share(b.m * b.n_out, 1024, member, team, &begin, &end)
        b.K.act_grad(b.act, b.slope, end - begin, b.y + begin * size, b.grad_y + begin * size,
                     b.grad_z + begin * size)
        team_barrier(team)
    team_share(b.n_out, b.K.gemm_nr, member, team, &begin, &end)
    b.K.column_sums(b.m, end - begin, b.grad_z + begin * size, b.n_out, b.grad_b + begin * size)
    run_product(b.K, &b.grad_w, member, team, work)
    run_product(b.K, &b.grad_x, member, team, work)


cdef int check_layer(object x, const View *vx, object weight, const View *vw) except -1:
    if vw.ndim != 2:
        raise ValueError(f"weight: expected shape (n_out, n_in), got {weight.shape}")
    if (vx.ndim != 1 and vx.ndim != 2) or vx.columns != vw.columns:
        raise ValueError(f"x: expected shape (m, {vw.columns}) or ({vw.columns},), got {x.shape}")
    return check_dtype(vx, "weight", vw)


cdef tuple result_shape(const View *vx, const View *vw):
    if vx.ndim == 1:
        return (vw.rows,)
    return (vx.rows, vw.rows)


cdef int check_dtype(const View *vx, str name, const View *other) except -1:
    if other.dtype != vx.dtype:
        raise TypeError(
            f"{name}: expected dtype {dtype_of(vx.dtype)} as x has, got {dtype_of(other.dtype)}"
        )
    return 0


def linear(x, weight, bias=None, *, negative_slope=None, out=None):
    """y = x @ weight.T + bias, followed by leaky ReLU where a negative_slope is given.

    Parameters
    ----------
    x : array_like, shape (m, n_in) or (n_in,), float32 or float64
    weight : array_like, shape (n_out, n_in), of x's dtype
        Read in place where it is the transpose of a C-ordered (n_in, n_out) array, as a layer keeps
        it, or C-ordered itself; the former is faster.
    bias : array_like, shape (n_out,), of x's dtype, optional
    negative_slope : float, optional
        Any finite number: f(z) = z where z > 0, else negative_slope * z. None: no activation.
    out : ndarray, optional
        C-contiguous, of the result's shape and dtype, overlapping none of the inputs.

    Returns
    -------
    ndarray, shape (m, n_out), or (n_out,) for x of shape (n_in,); `out` if it was given.

    Raises
    ------
    TypeError
        If a dtype is not float32 or float64 or differs from x's, or negative_slope is not a number.
    ValueError
        If a shape does not match, negative_slope is NaN or infinite, or out has another shape, is
        read-only, not C-contiguous, or overlaps an input.

    Notes
    -----
    Each element is bias + the sum over n_in in ascending order, rounded in x's dtype: the same bits
    for any number of threads and any number of rows. Source of leaky ReLU: Maas, Hannun, Ng 2013.
    """
    cdef View vx, vw, vb, vy
    cdef Forward f
    cdef fnn_gemm *g = &f.y.whole
    cdef Buffer buffer
    cdef double work
    bias_array = None
    x_array = take(x, "x", ROWS, &vx)
    weight_array = take(weight, "weight", ROWS_OR_COLUMNS, &vw)
    check_layer(x_array, &vx, weight_array, &vw)
    f.y = product(vx.rows, vw.rows, vx.columns)
    if bias is not None:
        bias_array = take(bias, "bias", PACKED, &vb)
        if vb.ndim != 1 or vb.size != vw.rows:
            raise ValueError(f"bias: expected shape ({vw.rows},), got {bias_array.shape}")
        check_dtype(&vx, "bias", &vb)
        g.bias = vb.data
    if negative_slope is not None:
        g.act, g.slope = FNN_LEAKY_RELU, as_slope(negative_slope, vx.dtype)
    shape = result_shape(&vx, &vw)
    if out is None:
        out = empty(shape, dtype_of(vx.dtype))
        take(out, "out", PACKED, &vy)
    else:
        inputs = (memory_of(x, x_array), memory_of(weight, weight_array), memory_of(bias, bias_array))
        take_out(out, "out", shape, vx.dtype, inputs, None, &vy)
    g.a, g.a_rs, g.a_cs = vx.data, vx.row_stride, 1
    g.b, g.b_rs, g.b_cs = vw.data, vw.column_stride, vw.row_stride if vw.rows > 1 else 1
    g.c, g.cache = vy.data, outer_cache()
    f.K = kernels(<fnn_dtype>vx.dtype)
    work = part_ns(f.K, g, g.m, g.n)
    f.parts = team_size(work)
    if f.parts > 1:
        cut(f.K, &f.y, f.parts)
    f.work_bytes = product_work(f.K, &f.y)
    buffer = workspace(f.parts, &f.work_bytes)
    f.work = buffer.data if buffer is not None else NULL
    # Writing y, and a tile's call for each row, count where n_in is small.
    run_call(forward_task, &f, f.parts, work + g.m * (4.0 + 0.1 * g.n))
    return out


def linear_backward(grad_y, x, weight, *, y=None, negative_slope=None):
    """The gradients of linear by x, weight and bias, given that by its output.

    With grad_z = grad_y * f'(z): grad_x = grad_z @ weight, grad_weight = grad_z.T @ x, and
    grad_bias is the sum of the rows of grad_z. Nothing is divided by the number of rows.

    Parameters
    ----------
    grad_y : array_like, shape (m, n_out), or (n_out,) if x has shape (n_in,); of x's dtype
    x : array_like, shape (m, n_in) or (n_in,), float32 or float64
    weight : array_like, shape (n_out, n_in), of x's dtype
    y : array_like, of grad_y's shape and x's dtype
        What linear returned. Needed, and read, only where negative_slope is given: f' is 1 where
        y > 0, else negative_slope.
    negative_slope : float, optional
        That of the forward call, at least 0: below 0 the sign of y does not tell that of z.

    Returns
    -------
    grad_x : ndarray, of x's shape
    grad_weight : ndarray, shape (n_out, n_in), the transpose of a C-ordered (n_in, n_out) array
    grad_bias : ndarray, shape (n_out,)

    Raises
    ------
    TypeError
        If a dtype is not float32 or float64 or differs from x's, or negative_slope is not a number.
    ValueError
        If a shape does not match, negative_slope is negative, NaN or infinite, or y is missing.

    Notes
    -----
    The same bits for any number of threads. Source of leaky ReLU: Maas, Hannun, Ng 2013.
    """
    cdef View vx, vw, vg, vy, v_grad_w, v_grad_x, v_grad_b, v_grad_z
    cdef Backward b
    cdef Buffer buffer
    x_array = take(x, "x", ROWS, &vx)
    weight_array = take(weight, "weight", ROWS_OR_COLUMNS, &vw)
    check_layer(x_array, &vx, weight_array, &vw)
    shape = result_shape(&vx, &vw)
    grad_y_array = take_as(grad_y, "grad_y", shape, &vx, &vg)
    b.act, b.slope, b.y = FNN_IDENTITY, 0.0, NULL
    b.m, b.n_out = vx.rows, vw.rows
    b.grad_y = b.grad_z = vg.data
    if negative_slope is not None:
        b.act, b.slope = FNN_LEAKY_RELU, as_slope(negative_slope, vx.dtype)
        if b.slope < 0:
            raise ValueError(
                f"negative_slope: expected at least 0, got {negative_slope}: below 0 the sign of y "
                "does not tell the sign of its input"
            )
        if y is None:
            raise ValueError("y: expected what linear returned, for negative_slope, got None")
        y_array = take_as(y, "y", shape, &vx, &vy)
        grad_z = empty(shape, dtype_of(vx.dtype))
        take(grad_z, "grad_z", PACKED, &v_grad_z)
        b.y, b.grad_z = vy.data, v_grad_z.data
    grad_w = empty((vx.columns, vw.rows), dtype_of(vx.dtype))
    grad_x = empty(x_array.shape, dtype_of(vx.dtype))
    grad_b = empty(vw.rows, dtype_of(vx.dtype))
    take(grad_w, "grad_weight", PACKED, &v_grad_w)
    take(grad_x, "grad_x", PACKED, &v_grad_x)
    take(grad_b, "grad_bias", PACKED, &v_grad_b)
    b.grad_b = v_grad_b.data
    backward_products(&b, &vx, &vw, v_grad_w.data, v_grad_x.data)
    b.work_bytes = max(product_work(b.K, &b.grad_w), product_work(b.K, &b.grad_x))
    buffer = workspace(b.parts, &b.work_bytes)
    b.work = buffer.data if buffer is not None else NULL
    with nogil:
        run_team(backward_task, &b, b.parts)
    return grad_x, grad_w.T, grad_b


cdef object take_as(object obj, str name, tuple shape, const View *vx, View *view):
    """A packed array of this shape and of x's dtype."""
    array = take(obj, name, PACKED, view)
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    check_dtype(vx, name, view)
    return array


cdef void backward_products(Backward *b, const View *vx, const View *vw, void *grad_w,
                            void *grad_x) noexcept:
    """grad_w = x^T grad_z and grad_x = grad_z weight, both cut for the team that they pay for."""
    cdef fnn_gemm *g
    b.K = kernels(<fnn_dtype>vx.dtype)
    b.grad_w = product(vx.columns, b.n_out, b.m)
    g = &b.grad_w.whole
    g.a, g.a_rs, g.a_cs = vx.data, 1, vx.row_stride
    g.b, g.b_rs, g.b_cs = b.grad_z, b.n_out, 1
    g.c = grad_w
    b.grad_x = product(b.m, vx.columns, b.n_out)
    g = &b.grad_x.whole
    g.a, g.a_rs, g.a_cs = b.grad_z, b.n_out, 1
    g.b, g.b_rs, g.b_cs = vw.data, vw.row_stride, vw.column_stride
    g.c, g.cache = grad_x, outer_cache()
    b.parts = team_size(part_ns(b.K, &b.grad_w.whole, vx.columns, b.n_out)
                        + part_ns(b.K, g, b.m, vx.columns))
    if b.parts > 1:
        cut(b.K, &b.grad_w, b.parts)
        cut(b.K, &b.grad_x, b.parts)
