"""The one place that checks arrays: what passes as it is, what is converted, what is refused."""

from __future__ import annotations

import array
from pathlib import Path

import numpy as np
import pytest
from oracle import same_bits

from fastnn._core import arrays


class HasArray:
    """What a tensor of another library looks like."""

    def __init__(self, data):
        self.data = data

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.data, dtype=dtype)


class HasDlpack:
    def __init__(self, data):
        self.data = data

    def __dlpack__(self, **kwargs):
        return self.data.__dlpack__(**kwargs)

    def __dlpack_device__(self):
        return self.data.__dlpack_device__()


class Refuses:
    """As a tensor on another device, or one that requires a gradient."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("use detach() first")


class Sparse:
    def toarray(self):
        return np.zeros((2, 2))


def misaligned(dtype, shape):
    size = np.dtype(dtype).itemsize * int(np.prod(shape))
    return np.frombuffer(bytearray(size + 1), dtype, offset=1).reshape(shape)


@pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 4), (2, 0, 3), (2, 3, 4)])
def test_a_fitting_array_is_not_copied(dtype, shape):
    x = np.ones(shape, dtype)
    assert arrays.as_array(x, "x") is x
    assert arrays.as_real(x, "x") is x
    assert arrays.as_real(x, "x", dtype) is x


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x[::2],
        lambda x: x[:, ::-1],
        lambda x: x[::-1],
        lambda x: x.T,
        lambda x: x[:, 1:3],
        lambda x: np.asfortranarray(x),
        lambda x: np.broadcast_to(x[0], (4, 6)),
        lambda x: np.stack([x, x], axis=-1)[..., 0],
    ],
)
def test_any_layout_becomes_packed_with_the_same_values(dtype, make):
    x = make(np.arange(24, dtype=dtype).reshape(4, 6))
    got = arrays.as_real(x, "x")
    assert got.flags.c_contiguous
    assert got.flags.aligned
    assert got.dtype == dtype
    assert np.array_equal(got, x)


def test_misaligned_and_read_only(dtype):
    x = misaligned(dtype, (3, 5))
    x[...] = np.arange(15).reshape(3, 5)
    assert not x.flags.aligned
    got = arrays.as_real(x, "x")
    assert got.flags.aligned
    assert np.array_equal(got, x)
    fixed = np.arange(4, dtype=dtype)
    fixed.flags.writeable = False
    assert arrays.as_real(fixed, "x") is fixed


def test_memory_map(tmp_path, dtype):
    np.arange(12, dtype=dtype).tofile(tmp_path / "x")
    x = np.memmap(tmp_path / "x", dtype=dtype, mode="r", shape=(3, 4))
    got = arrays.as_real(x, "x")
    assert type(got) is np.ndarray
    assert np.may_share_memory(got, x)
    assert np.array_equal(got, x)


@pytest.mark.parametrize("wrap", [HasArray, HasDlpack, memoryview])
def test_arrays_of_other_libraries(wrap, dtype):
    x = np.arange(6, dtype=dtype)
    got = arrays.as_real(wrap(x), "x")
    assert type(got) is np.ndarray
    assert same_bits(got, x)


def test_python_numbers_are_float64():
    for obj in ([[1, 2], [3, 4]], ((1.0, 2.0),), 3, 2.5, [True, False], array.array("d", [1.0])):
        got = arrays.as_real(obj, "x")
        assert got.dtype == np.float64
        assert np.array_equal(got, np.asarray(obj, np.float64))
    assert arrays.as_real([np.float32(1.5)], "x").dtype == np.float32


@pytest.mark.parametrize("kind", ["bool", "int8", "uint8", "int64", "uint64", "float16", "float64"])
def test_conversion_only_where_a_dtype_is_given(kind):
    x = np.array([0, 1, 1], kind)
    got = arrays.as_real(x, "x", "float32")
    assert got.dtype == np.float32
    assert np.array_equal(got, [0.0, 1.0, 1.0])
    if kind != "float64":
        with pytest.raises(TypeError, match=f"x: expected dtype float32 or float64, got {kind}"):
            arrays.as_real(x, "x")


BAD = {
    "object": np.array([1.0, None]),
    "complex": np.ones(2, complex),
    "big-endian": np.ones(2, np.dtype(np.float32).newbyteorder()),
    "string": np.array(["a"]),
    "datetime": np.array(["2020-01-01"], "datetime64[D]"),
    "structured": np.zeros(2, [("a", "f4")]),
    "long double": np.ones(2, np.longdouble),
    "None": None,
    "text": "text",
    "bytes": b"12",
    "dict": {"a": 1},
    "set": {1.0},
    "generator": (i for i in range(3)),
    "object list": [1.0, None],
    "text list": ["a", "b"],
    "function": len,
    "refusing tensor": Refuses(),
    "masked": np.ma.masked_array([1.0, 2.0], [True, False]),
    "sparse": Sparse(),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("dtype", [None, "float32"])
def test_what_is_not_a_real_array_is_a_type_error(name, dtype):
    with pytest.raises(TypeError, match=r"^weight: expected .*, got "):
        arrays.as_real(BAD[name], "weight", dtype)


def test_the_error_says_what_is_special():
    with pytest.raises(TypeError, match="masked array"):
        arrays.as_array(BAD["masked"], "x")
    with pytest.raises(TypeError, match="sparse matrix"):
        arrays.as_array(BAD["sparse"], "x")
    with pytest.raises(TypeError, match="byte order"):
        arrays.as_real(BAD["big-endian"], "x", "float32")
    with pytest.raises(TypeError, match="detach"):
        arrays.as_array(Refuses(), "x")
    with pytest.raises(ValueError, match=r"^x: .*inhomogeneous"):
        arrays.as_array([[1.0], [1.0, 2.0]], "x")
    with pytest.raises(TypeError, match="dtype: expected float32 or float64, got int8"):
        arrays.as_real(np.ones(2), "x", "int8")


@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", "int64", "uint64"])
def test_labels(kind):
    labels = np.array([0, 2, 1, 2], kind)
    for given in (labels, labels[::-1], labels.tolist(), tuple(labels.tolist())):
        got = arrays.as_labels(given, "y", 4, 3)
        assert got.dtype == np.int64
        assert got.flags.c_contiguous
        assert np.array_equal(got, given)
    same = np.array([0, 1], np.int64)
    copy = arrays.as_labels(same, "y", None, 2)
    same[:] = 9  # what was checked stays what it was
    assert copy.tolist() == [0, 1]
    assert arrays.as_labels([], "y", 0, 3).shape == (0,)


def test_labels_refused():
    with pytest.raises(ValueError, match=r"^y: expected labels in \[0, 3\), got 3 at index 1$"):
        arrays.as_labels([0, 3], "y", 2, 3)
    with pytest.raises(ValueError, match=r"got -1 at index 0"):
        arrays.as_labels(np.array([-1, 0], np.int8), "y", 2, 300)
    with pytest.raises(ValueError, match=r"got 18446744073709551615 at index 0"):
        arrays.as_labels(np.array([2**64 - 1], np.uint64), "y", 1, 3)
    with pytest.raises(ValueError, match=r"^y: expected shape \(3,\), got \(2,\)$"):
        arrays.as_labels([0, 1], "y", 3, 3)
    with pytest.raises(ValueError, match=r"^y: expected shape \(2,\), got \(2, 1\)$"):
        arrays.as_labels([[0], [1]], "y", 2, 3)
    for wrong in ([0.0, 1.0], [np.nan], np.array([True]), np.array([1], ">i4"), ["a"], None):
        with pytest.raises(TypeError, match=r"^y: expected "):
            arrays.as_labels(wrong, "y", None, 3)


def test_out_that_fits(dtype):
    x = np.ones((3, 4), dtype)
    out = np.empty((3, 4), dtype)
    assert arrays.check_out(out, "out", (3, 4), dtype, x, None) is out
    assert arrays.check_out(x, "out", (3, 4), dtype, same=x) is x
    whole = np.empty((6, 4), dtype)
    assert arrays.check_out(whole[:3], "out", (3, 4), dtype, whole[3:], whole[4:].T) is not None
    empty = np.empty((0, 4), dtype)
    assert arrays.check_out(empty, "out", (0, 4), dtype, empty) is empty


def test_out_in_a_memory_map(tmp_path, dtype):
    out = np.memmap(tmp_path / "out", dtype=dtype, mode="w+", shape=(2, 3))
    assert arrays.check_out(out, "out", (2, 3), dtype) is out


def test_out_refused(dtype):
    other = "float64" if dtype == "float32" else "float32"
    fixed = np.empty((3, 4), dtype)
    fixed.flags.writeable = False
    for wrong, error, match in [
        ([[0.0] * 4] * 3, TypeError, "expected an ndarray, got list"),
        (np.ma.masked_array(np.zeros((3, 4), dtype)), TypeError, "got MaskedArray"),
        (np.empty((3, 4), other), TypeError, f"expected dtype {dtype}, got {other}"),
        (np.empty((3, 4), np.dtype(dtype).newbyteorder()), TypeError, "byte order"),
        (np.empty((4, 3), dtype), ValueError, r"expected shape \(3, 4\), got \(4, 3\)"),
        (np.empty((12,), dtype), ValueError, r"expected shape \(3, 4\), got \(12,\)"),
        (fixed, ValueError, "expected a writable array"),
        (np.empty((4, 3), dtype).T, ValueError, "C-contiguous"),
        (np.empty((3, 8), dtype)[:, ::2], ValueError, "C-contiguous"),
        (misaligned(dtype, (3, 4)), ValueError, "misaligned"),
    ]:
        with pytest.raises(error, match=rf"^out: .*{match}"):
            arrays.check_out(wrong, "out", (3, 4), dtype)


def test_out_that_overlaps(dtype):
    whole = np.zeros(40, dtype)
    out = whole[10:22].reshape(3, 4)
    for inside in (
        whole,
        whole[21:],
        whole[:11],
        whole[::-1],
        out,
        out.T,
        out[:, ::2],
        whole[8:24:3],
        whole[10:22].reshape(2, 2, 3)[:, :, ::-1],
    ):
        with pytest.raises(ValueError, match=r"^out: .*overlaps an input"):
            arrays.check_out(out, "out", (3, 4), dtype, inside)
    for inside in (whole, whole[11:23].reshape(3, 4), out.T):
        with pytest.raises(ValueError, match=r"^out: .*overlaps the input"):
            arrays.check_out(out, "out", (3, 4), dtype, same=inside)
    for outside in (whole[:10], whole[22:], whole[9::-1], whole[22:].reshape(3, 6).T, None):
        arrays.check_out(out, "out", (3, 4), dtype, outside)


def test_finite():
    for good in (1, 0.5, np.float32(0.5), np.int8(1), True):
        assert arrays.as_finite(good, "rate") == good
    for bad in ("1", None, [1.0], 1j, np.ones(1)):
        with pytest.raises(TypeError, match=r"^rate: expected a number, got "):
            arrays.as_finite(bad, "rate")
    for bad in (np.nan, np.inf, -np.inf, 10**400, np.float32("nan")):
        with pytest.raises(ValueError, match=r"^rate: expected a finite number, got "):
            arrays.as_finite(bad, "rate")


def test_outer_cache():
    """What Linux says of the first CPU, in KiB; 0 where it says nothing."""
    caches = Path("/sys/devices/system/cpu/cpu0/cache")
    sizes = [caches / f"index{level}/size" for level in (3, 2)]
    told = next((size.read_text().strip() for size in sizes if size.exists()), "0K")
    assert f"{arrays.find_outer_cache() >> 10}K" == told
