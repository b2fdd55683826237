"""linear and linear_backward against a wider oracle, on all instruction sets."""

from __future__ import annotations

import numpy as np
import pytest
from oracle import assert_within, dense, same_bits, tolerance

from fastnn import leaky_relu, linear, linear_backward

# Around the tiles of all instruction sets (rows 6, 12, 14; columns 4 to 32) and the blocks of k.
ROWS = (0, 1, 2, 5, 6, 7, 13, 14, 15, 29)
COLUMNS = (0, 1, 3, 4, 5, 8, 9, 15, 16, 17, 31, 32, 33, 47, 65)
DEPTHS = (0, 1, 2, 17, 64, 255, 256, 257, 513)
SHAPES = [(m, n, 17) for m in ROWS for n in COLUMNS] + [
    (m, n, k) for m in (1, 3, 15) for n in (7, 33) for k in DEPTHS
]
# Work for five threads, with more tiles along the rows, along the columns, and few of either.
LARGE = [(301, 63, 170), (31, 401, 130), (28, 130, 600)]
# Few and many rows, narrow and wide, shallow and deep, so that each way of the product takes part
# in each form: what is copied, and in what blocks, depends on all three.
WAYS = [
    (m, n, k)
    for m in (1, 5, 26, 50, 200)
    for n in (9, 80, 130, 520)
    for k in (40, 300, 1100, 3500)
    if m * n * k <= 60_000_000
]
SLOPES = (None, 0.01, 0.0, 1.0, 2.5, -0.5)


def buffer_view(weight):
    """The same values as the transpose of a C-ordered (n_in, n_out) buffer, as layers keep them."""
    return np.ascontiguousarray(weight.T).T


def draw(rng, dtype, m, n, k):
    x = rng.standard_normal((m, k)).astype(dtype)
    weight = rng.standard_normal((n, k)).astype(dtype)
    return x, weight, rng.standard_normal(n).astype(dtype)


def exact(x, weight, bias, slope):
    """For integers so small that float64 rounds nothing, whatever the order."""
    z = x.astype(np.float64) @ weight.T.astype(np.float64) + bias
    return z if slope is None else np.where(z > 0, z, slope * z)


def small_integers(rng, dtype, *shape):
    return rng.integers(-4, 5, shape).astype(dtype)


@pytest.mark.parametrize("layout", [buffer_view, np.ascontiguousarray])
def test_within_the_derived_tolerance(isa, dtype, layout, rng):
    for count, (m, n, k) in enumerate(SHAPES):
        x, weight, bias = draw(rng, dtype, m, n, k)
        slope = SLOPES[count % len(SLOPES)]
        bias = None if count % 5 == 0 else bias
        y = linear(x, layout(weight), bias, negative_slope=slope)
        assert y.dtype == dtype
        bound = tolerance(x, weight, bias) * max(1.0, abs(slope or 0))
        assert_within(y, dense(x, weight, bias, slope), bound)


@pytest.mark.parametrize("shape", LARGE)
def test_large_products_within_the_tolerance(isa, n_threads, dtype, shape, rng):
    x, weight, bias = draw(rng, dtype, *shape)
    bound = tolerance(x, weight, bias)
    wanted = dense(x, weight, bias, 0.01)
    for layout in (buffer_view, np.ascontiguousarray):
        assert_within(linear(x, layout(weight), bias, negative_slope=0.01), wanted, bound)


@pytest.mark.parametrize("layout", [buffer_view, np.ascontiguousarray])
def test_small_integers_are_exact(isa, n_threads, dtype, layout, rng):
    for m, n, k in [*SHAPES[::9], *LARGE]:
        x = small_integers(rng, dtype, m, k)
        weight = small_integers(rng, dtype, n, k)
        bias = small_integers(rng, dtype, n)
        for slope in (None, 0.5, -2.0):
            y = linear(x, layout(weight), bias, negative_slope=slope)
            assert np.array_equal(y, exact(x, weight, bias, slope))


def test_the_tolerance_is_not_vacuous(rng):
    """A float32 result is not within the tolerance of a float64 one."""
    x, weight, bias = draw(rng, "float64", 9, 33, 64)
    rough = linear(*(a.astype(np.float32) for a in (x, weight, bias))).astype(np.float64)
    with pytest.raises(AssertionError, match="above the bound"):
        assert_within(rough, dense(x, weight, bias), tolerance(x, weight, bias))


@pytest.mark.parametrize("layout", [buffer_view, np.ascontiguousarray])
@pytest.mark.parametrize(("n", "k"), [(1, 1), (6, 64), (33, 17), (64, 64), (129, 45), (257, 201)])
def test_a_row_does_not_depend_on_its_batch(isa, dtype, layout, n, k, rng):
    x, weight, bias = draw(rng, dtype, 40, n, k)
    weight = layout(weight)
    single = np.concatenate(
        [linear(x[i : i + 1], weight, bias, negative_slope=0.01) for i in range(40)]
    )
    for i in (0, 17, 39):
        assert same_bits(linear(x[i], weight, bias, negative_slope=0.01), single[i])
    for m in range(1, 41) if n * k < 10000 else (2, 3, 4, 6, 7, 8, 12, 13, 14, 15, 28, 29, 40):
        assert same_bits(linear(x[:m], weight, bias, negative_slope=0.01), single[:m]), m


@pytest.mark.parametrize("shape", LARGE)
def test_the_bits_do_not_depend_on_the_threads(isa, dtype, shape, rng, set_threads):
    x, weight, bias = draw(rng, dtype, *shape)
    grad_y = rng.standard_normal(shape[:2]).astype(dtype)
    for layout in (buffer_view, np.ascontiguousarray):
        results = []
        for n in (1, 2, 3, 5, 16):
            set_threads(n)
            y = linear(x, layout(weight), bias, negative_slope=0.01)
            grads = linear_backward(grad_y, x, layout(weight), y=y, negative_slope=0.01)
            results.append((y, *grads))
        for other in results[1:]:
            assert all(same_bits(a, b) for a, b in zip(results[0], other, strict=True))


def test_the_bits_do_not_depend_on_the_layout(isa, dtype, rng):
    for m, n, k in SHAPES[::3]:
        x, weight, bias = draw(rng, dtype, m, n, k)
        y = linear(x, weight, bias)
        grads = linear_backward(y, x, weight)
        wide = np.zeros((n + 3, k + 5), dtype)
        wide[:n, 2 : k + 2] = weight
        for same in (
            buffer_view(weight),
            wide[:n, 2 : k + 2],
            buffer_view(wide)[:n, 2 : k + 2],
            np.repeat(weight, 2, axis=1)[:, ::2],
            weight[::-1].copy()[::-1],
        ):
            assert np.array_equal(same, weight)
            assert same_bits(linear(x, same, bias), y)
            for got, want in zip(linear_backward(y, x, same), grads, strict=True):
                assert same_bits(got, want)


def memory_map(folder, x):
    x.tofile(folder / "x")
    return np.memmap(folder / "x", dtype=x.dtype, mode="r", shape=x.shape)


def misaligned(_, x):
    moved = np.frombuffer(b"\0" + x.tobytes(), x.dtype, offset=1).reshape(x.shape)
    assert not moved.flags.aligned or x.size == 0
    return moved


def read_only(_, x):
    x = x.copy()
    x.flags.writeable = False
    return x


LAYOUTS = {
    "read-only": read_only,
    "misaligned": misaligned,
    "memory map": memory_map,
    "strided columns": lambda _, x: np.repeat(x, 3, axis=-1)[..., ::3],
    "strided rows": lambda _, x: np.repeat(x, 2, axis=0)[::2],
    "reversed": lambda _, x: x[::-1].copy()[::-1],
    "Fortran": lambda _, x: np.asfortranarray(x),
    "part of wider rows": lambda _, x: np.concatenate([x, x, x], axis=-1)[..., : x.shape[-1]],
    "np.matrix": lambda _, x: np.asmatrix(x) if x.ndim == 2 else x,
}


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("name", LAYOUTS)
def test_inputs_in_any_memory(name, dtype, tmp_path, rng):
    x, weight, bias = draw(rng, dtype, 7, 19, 23)
    y = linear(x, weight, bias, negative_slope=0.25)
    want = (y, *linear_backward(y, x, weight, y=y, negative_slope=0.25))
    for which in range(4):
        inputs = [x, weight, bias, y]
        given = LAYOUTS[name](tmp_path, inputs[which])
        before = np.array(given)
        inputs[which] = given
        got = linear(*inputs[:3], negative_slope=0.25)
        grads = linear_backward(inputs[3], *inputs[:2], y=inputs[3], negative_slope=0.25)
        for a, b in zip((got, *grads), want, strict=True):
            assert type(a) is np.ndarray
            assert same_bits(a, b)
        assert same_bits(np.array(given), before), "an input was written to"


def test_other_array_types(rng):
    x, weight, bias = draw(rng, "float64", 3, 4, 5)
    want = linear(x, weight, bias)
    assert same_bits(linear(x.tolist(), weight.tolist(), bias.tolist()), want)
    assert same_bits(linear(memoryview(x), memoryview(weight), memoryview(bias)), want)


def test_shapes_of_results():
    x, weight, bias = np.ones((7, 5)), np.ones((3, 5)), np.ones(3)
    assert linear(x, weight).shape == (7, 3)
    assert linear(x[0], weight, bias).shape == (3,)
    grad_x, grad_weight, grad_bias = linear_backward(np.ones((7, 3)), x, weight)
    assert (grad_x.shape, grad_weight.shape, grad_bias.shape) == ((7, 5), (3, 5), (3,))
    assert grad_weight.T.flags.c_contiguous
    grad_x, grad_weight, _ = linear_backward(np.ones(3), x[0], weight)
    assert (grad_x.shape, grad_weight.shape) == ((5,), (3, 5))


def test_sizes_of_zero(isa, dtype):
    bias = np.array([1, -2, 3], dtype)
    for layout in (buffer_view, np.ascontiguousarray):
        weight = layout(np.ones((3, 0), dtype))
        y = linear(np.ones((2, 0), dtype), weight, bias, negative_slope=0.5)
        assert np.array_equal(y, [[1, -1, 3]] * 2), "without inputs y is act(bias)"
        assert np.array_equal(linear(np.ones((2, 0), dtype), weight), np.zeros((2, 3)))
        assert np.array_equal(linear(np.ones(0, dtype), weight, bias), bias)
        grads = linear_backward(y, np.ones((2, 0), dtype), weight)
        assert (grads[0].shape, grads[1].shape) == ((2, 0), (3, 0))
        assert np.array_equal(grads[2], [2, -2, 6])

        weight = layout(np.ones((3, 4), dtype))
        none = np.ones((0, 4), dtype)
        assert linear(none, weight, bias, negative_slope=0.5).shape == (0, 3)
        grads = linear_backward(np.ones((0, 3), dtype), none, weight)
        assert grads[0].shape == (0, 4)
        assert np.array_equal(grads[1], np.zeros((3, 4))), "a sum over no rows is 0"
        assert np.array_equal(grads[2], np.zeros(3))

        weight = layout(np.ones((0, 4), dtype))
        assert linear(np.ones((2, 4), dtype), weight, bias[:0]).shape == (2, 0)
        grads = linear_backward(np.ones((2, 0), dtype), np.ones((2, 4), dtype), weight)
        assert np.array_equal(grads[0], np.zeros((2, 4)))
        assert (grads[1].shape, grads[2].shape) == ((0, 4), (0,))


@pytest.mark.parametrize("layout", [buffer_view, np.ascontiguousarray])
def test_nan_and_infinity(isa, dtype, layout, rng):
    for m in (1, 3, 29):
        x, weight, bias = draw(rng, dtype, m, 37, 19)
        weight = layout(np.abs(weight) + 1)
        clean = linear(x, weight, bias, negative_slope=0.01)
        for bad in (np.nan, np.inf, -np.inf):
            broken = x.copy()
            broken[m // 2, 3] = bad
            y = linear(broken, weight, bias, negative_slope=0.01)
            others = np.arange(m) != m // 2
            assert same_bits(y[others], clean[others]), "it stays in its row"
            assert np.array_equal(y[m // 2], np.full(37, bad), equal_nan=True)
        weight[5, 3] = np.nan
        y = linear(x, weight, bias, negative_slope=0.01)
        assert np.isnan(y[:, 5]).all()
        assert same_bits(np.delete(y, 5, 1), np.delete(clean, 5, 1))
        broken = x.copy()
        broken[:, 3] = np.inf
        broken[:, 4] = -np.inf
        assert np.isnan(linear(broken, weight, bias)).all()


def test_the_sign_of_zero_and_subnormals(isa, dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    weight, x = np.ones((35, 1), dtype), np.full((3, 1), -0.0, dtype)
    minus = np.full(35, -0.0, dtype)
    for slope in (None, 0.01):
        assert np.signbit(linear(x, weight, minus, negative_slope=slope)).all()
        assert not np.signbit(linear(x, weight, np.abs(minus), negative_slope=slope)).any()
        small = np.full((3, 1), tiny, dtype)
        assert (linear(small, weight, negative_slope=slope) == tiny).all()


def test_out(isa, dtype, rng):
    x, weight, bias = draw(rng, dtype, 5, 33, 8)
    want = linear(x, weight, bias, negative_slope=0.1)
    out = np.full((5, 33), np.nan, dtype)
    assert linear(x, weight, bias, negative_slope=0.1, out=out) is out
    assert same_bits(out, want)
    row = np.empty(33, dtype)
    assert linear(x[2], weight, bias, negative_slope=0.1, out=row) is row
    assert same_bits(row, want[2])
    around = np.full((9, 33), 7.0, dtype)
    linear(x, weight, bias, negative_slope=0.1, out=around[2:7])
    assert same_bits(around[2:7], want)
    assert (around[:2] == 7).all()
    assert (around[7:] == 7).all(), "written beyond out"


def test_out_refused(dtype):
    square = np.arange(16, dtype=dtype).reshape(4, 4)
    x, weight, bias = square.copy(), square.copy(), square[0].copy()
    memory = np.zeros(60, dtype)
    other = "float64" if dtype == "float32" else "float32"
    fixed = np.zeros((4, 4), dtype)
    fixed.flags.writeable = False
    for out, error, match in [
        (np.zeros((4, 5), dtype), ValueError, r"expected shape \(4, 4\), got \(4, 5\)"),
        (np.zeros(16, dtype), ValueError, r"expected shape \(4, 4\), got \(16,\)"),
        (np.zeros((4, 4), other), TypeError, f"expected dtype {dtype}, got {other}"),
        (np.zeros((4, 4), dtype).T[::-1], ValueError, "C-contiguous"),
        (fixed, ValueError, "writable"),
        (square.tolist(), TypeError, "expected an ndarray, got list"),
        (x, ValueError, "overlaps an input"),
        (weight, ValueError, "overlaps an input"),
    ]:
        with pytest.raises(error, match=rf"^out: .*{match}"):
            linear(x, weight, bias, out=out)
    for at in range(3):
        inputs = [x, weight, bias]
        part = memory[12:28].reshape(4, 4) if at < 2 else memory[14:18]
        part[...] = inputs[at]
        before = memory.copy()
        for given in (part, part[::-1], part.T):
            inputs[at] = given
            with pytest.raises(ValueError, match=r"^out: .*overlaps an input"):
                linear(*inputs, out=memory[:16].reshape(4, 4))
        assert same_bits(memory, before)
    assert np.array_equal(x, square)
    assert np.array_equal(weight, square)


@pytest.mark.parametrize("which", ["x", "weight", "bias"])
@pytest.mark.parametrize("kind", [object, complex, ">f4", "int64", "float16", "U3"])
def test_dtypes_refused(which, kind):
    inputs = {"x": np.ones((2, 3)), "weight": np.ones((4, 3)), "bias": np.ones(4)}
    inputs[which] = inputs[which].astype(kind)
    with pytest.raises(TypeError, match=rf"^{which}: expected dtype float32 or float64, got "):
        linear(**inputs)


def test_dtypes_must_agree():
    single, double = np.ones((3, 3), np.float32), np.ones((3, 3))
    for call, match in [
        (lambda: linear(single, double), "weight: expected dtype float32 as x has, got float64"),
        (lambda: linear(double, single), "weight: expected dtype float64 as x has, got float32"),
        (lambda: linear(double, double, single[0]), "bias: expected dtype float64 as x has"),
        (lambda: linear_backward(single, double, double), "grad_y: expected dtype float64"),
        (lambda: linear_backward(double, double, single), "weight: expected dtype float64"),
        (
            lambda: linear_backward(double, double, double, y=single, negative_slope=0.1),
            "y: expected dtype float64 as x has, got float32",
        ),
    ]:
        with pytest.raises(TypeError, match=f"^{match}"):
            call()


def test_shapes_refused():
    x, weight, bias = np.ones((4, 5)), np.ones((3, 5)), np.ones(3)
    grad = np.ones((4, 3))
    for call, match in [
        (lambda: linear(x[:, 1:], weight), r"x: expected shape \(m, 5\) or \(5,\), got \(4, 4\)"),
        (lambda: linear(x[0, 1:], weight), r"x: expected shape \(m, 5\) or \(5,\), got \(4,\)"),
        (lambda: linear(x[None], weight), r"x: .* got \(1, 4, 5\)"),
        (lambda: linear(1.0, weight), r"x: .* got \(\)"),
        (lambda: linear(x, weight[0]), r"weight: expected shape \(n_out, n_in\), got \(5,\)"),
        (lambda: linear(x, weight[None]), r"weight: .* got \(1, 3, 5\)"),
        (lambda: linear(x, weight, bias[:2]), r"bias: expected shape \(3,\), got \(2,\)"),
        (lambda: linear(x, weight, bias[None]), r"bias: expected shape \(3,\), got \(1, 3\)"),
        (lambda: linear_backward(grad.T, x, weight), r"grad_y: .*\(4, 3\), got \(3, 4\)"),
        (lambda: linear_backward(grad[0], x, weight), r"grad_y: .*\(4, 3\), got \(3,\)"),
        (lambda: linear_backward(grad, x[:, 1:], weight), r"x: expected shape \(m, 5\)"),
        (
            lambda: linear_backward(grad, x, weight, y=grad[1:], negative_slope=0.1),
            r"y: expected shape \(4, 3\), got \(3, 3\)",
        ),
    ]:
        with pytest.raises(ValueError, match=f"^{match}"):
            call()


def test_slopes_refused():
    x, weight = np.ones((4, 5), np.float32), np.ones((3, 5), np.float32)
    y = linear(x, weight)
    for slope in (np.nan, np.inf, -np.inf, 1e300):
        with pytest.raises(ValueError, match=r"^negative_slope: expected a finite "):
            linear(x, weight, negative_slope=slope)
        with pytest.raises(ValueError, match=r"^negative_slope: expected a finite "):
            linear_backward(y, x, weight, y=y, negative_slope=slope)
    for slope in ("0.1", [0.1], 1j):
        with pytest.raises(TypeError, match=r"^negative_slope: expected a number, got "):
            linear(x, weight, negative_slope=slope)
    with pytest.raises(ValueError, match=r"^negative_slope: expected at least 0, got -0.1"):
        linear_backward(y, x, weight, y=y, negative_slope=-0.1)
    with pytest.raises(ValueError, match=r"^y: expected what linear returned"):
        linear_backward(y, x, weight, negative_slope=0.1)


@pytest.mark.parametrize("layout", [buffer_view, np.ascontiguousarray])
def test_backward_within_the_tolerance(isa, dtype, layout, rng):
    for m, n, k in [*SHAPES[::5], (70, 40, 30), (130, 9, 33)]:
        x, weight, bias = draw(rng, dtype, m, n, k)
        y = linear(x, layout(weight), bias, negative_slope=0.125)
        grad_y = rng.standard_normal((m, n)).astype(dtype)
        grad_x, grad_weight, grad_bias = linear_backward(
            grad_y, x, layout(weight), y=y, negative_slope=0.125
        )
        grad_z = np.where(y > 0, grad_y, grad_y * y.dtype.type(0.125))  # exact
        assert_within(grad_x, dense(grad_z, weight.T), tolerance(grad_z, weight.T))
        assert_within(grad_weight, dense(grad_z.T, x.T), tolerance(grad_z.T, x.T))
        ones = np.ones((1, m), dtype)
        assert_within(grad_bias[None], dense(ones, grad_z.T), tolerance(ones, grad_z.T))


def assert_gradients(got, grad_z, x, weight):
    grad_z, x, weight = (a.astype(np.float64) for a in (grad_z, x, weight))
    for a, b in zip(got, (grad_z @ weight, grad_z.T @ x, grad_z.sum(0)), strict=True):
        assert np.array_equal(a, b)


def test_backward_of_small_integers_is_exact(isa, n_threads, dtype, rng):
    for m, n, k in [*SHAPES[::11], *LARGE]:
        x = small_integers(rng, dtype, m, k)
        weight = small_integers(rng, dtype, n, k)
        grad_y, y = small_integers(rng, dtype, m, n), small_integers(rng, dtype, m, n)
        for slope in (0.0, 0.5):
            got = linear_backward(grad_y, x, weight, y=y, negative_slope=slope)
            grad_z = grad_y * np.where(y > 0, 1, slope)
            assert_gradients(got, grad_z, x, weight)
        assert_gradients(linear_backward(grad_y, x, weight), grad_y, x, weight)


def test_every_way_of_the_product_is_exact(isa, dtype, rng):
    for m, n, k in WAYS:
        a, b = small_integers(rng, dtype, m, k), small_integers(rng, dtype, n, k)
        wanted = exact(a, b, 0, None)
        for layout in (buffer_view, np.ascontiguousarray):
            assert np.array_equal(linear(a, layout(b)), wanted), (m, n, k, layout)
        # The same product as a gradient by the weights (m x n summed over a batch of k), and by x.
        grad_weight = linear_backward(b.T, a.T, np.ones((n, m), dtype))[1]
        assert np.array_equal(grad_weight, wanted.T), (m, n, k)
        grad_x = linear_backward(a, np.ones((m, n), dtype), np.ascontiguousarray(b.T))[0]
        assert np.array_equal(grad_x, wanted), (m, n, k)


@pytest.mark.parametrize("slope", [None, 0.01, 0.3, 1.0, 1.7])
def test_backward_by_central_differences(isa, slope, rng):
    x, weight, bias = draw(rng, "float64", 5, 4, 6)
    chosen = rng.standard_normal((5, 4))
    z = linear(x, weight, bias)
    assert np.abs(z).min() > 1e-3, "no unit may cross its kink"
    y = linear(x, weight, bias, negative_slope=slope)
    grads = linear_backward(chosen, x, weight, y=y, negative_slope=slope)
    h = 1e-5
    for parameter, grad in zip((x, weight, bias), grads, strict=True):
        for index in np.ndindex(parameter.shape):
            kept = parameter[index]
            values = []
            for moved in (kept + h, kept - h):
                parameter[index] = moved
                values.append((chosen * linear(x, weight, bias, negative_slope=slope)).sum())
            parameter[index] = kept
            assert (values[0] - values[1]) / (2 * h) == pytest.approx(grad[index], abs=1e-8)


def test_backward_at_zero_takes_the_slope(isa, dtype):
    x = weight = np.ones((1, 1), dtype)
    for y in (0.0, -0.0):
        got = linear_backward(x, x, weight, y=np.full((1, 1), y, dtype), negative_slope=0.25)
        assert all(np.all(grad == 0.25) for grad in got)


class OnlyDlpack:
    """An array that is none of NumPy's."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_out_must_not_overlap_a_foreign_input():
    x = np.ones((4, 4), np.float32)
    weight = np.ones((4, 4), np.float32)
    with pytest.raises(ValueError, match="out"):
        linear(OnlyDlpack(x), weight, out=x)
    flat = np.ones(9, np.float32)
    with pytest.raises(ValueError, match="out"):
        leaky_relu(OnlyDlpack(flat[:-1]), out=flat[1:])
    assert (x == 1).all()
    assert (flat == 1).all()
