"""The safetensors reader and writer: every malformation, thousands of damaged files, memory."""

import contextlib
import io
import json
import os
import stat
import struct
import tracemalloc

import numpy as np
import pytest

import fastnn
from fastnn import files
from fastnn.files import load_tensors, save_tensors

DTYPES = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"]


@pytest.fixture
def tensors():
    rng = np.random.default_rng(3)
    arrays = {f"{i}.{d}": (9 * rng.standard_normal((3, i))).astype(d) for i, d in enumerate(DTYPES)}
    return arrays | {"scalar": np.array(2.5), "odd": np.arange(3, dtype=np.int8)}


def raw(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def assert_same(got, expected):
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert got[name].dtype == array.dtype
        assert got[name].shape == array.shape
        assert got[name].tobytes() == array.tobytes()


def test_round_trip(tmp_path, tensors):
    metadata = {"who": "мы", "empty": "", "quote": '"\n\\'}
    path = tmp_path / "a.safetensors"
    save_tensors(path, tensors, metadata)
    got, got_metadata = load_tensors(path)
    assert_same(got, tensors)
    assert got_metadata == metadata
    assert all(a.flags.writeable and a.flags.aligned for a in got.values())


def test_layouts_and_byte_orders(tmp_path):
    base = np.arange(12.0, dtype=np.float32).reshape(3, 4)
    arrays = {"t": base.T, "r": base[::-1, ::2], "big": base.astype(">f4"), "none": base[:0]}
    save_tensors(tmp_path / "a", arrays, {})
    got, metadata = load_tensors(str(tmp_path / "a"))
    assert metadata == {}
    for name, array in arrays.items():
        np.testing.assert_array_equal(got[name], array)
        assert got[name].dtype == np.float32


def test_same_content_same_bytes(tmp_path, tensors):
    save_tensors(tmp_path / "a", tensors, {"k": "v"})
    save_tensors(tmp_path / "b", tensors, {"k": "v"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_against_the_safetensors_package(tmp_path, tensors):
    theirs = pytest.importorskip("safetensors.numpy")
    save_tensors(tmp_path / "ours", tensors, {"k": "v"})
    assert_same(theirs.load_file(tmp_path / "ours"), tensors)
    theirs.save_file(tensors, tmp_path / "theirs", {"k": "v"})
    got, metadata = load_tensors(tmp_path / "theirs")
    assert_same(got, tensors)
    assert metadata == {"k": "v"}


def test_refusal_leaves_the_old_file(tmp_path):
    path = tmp_path / "model"
    save_tensors(path, {"x": np.ones(3)}, {})
    before = path.read_bytes()

    with pytest.raises(TypeError, match="y: expected"):
        save_tensors(path, {"x": np.zeros(3), "y": np.array([None])}, {})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model"]


def test_failure_while_writing_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "model"
    save_tensors(path, {"x": np.ones(3)}, {})
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device: .*model'$"):
        save_tensors(path, {"x": np.zeros(3)}, {})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("name", ["replace", "fsync"])
def test_an_interrupt_while_writing_stays_one(tmp_path, monkeypatch, name):
    """Ctrl-C may be heard just after the file got its name."""
    whole = getattr(os, name)

    def interrupted(*arguments):
        whole(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_tensors(tmp_path / "model", {"x": np.ones(3)}, {})
    assert os.listdir(tmp_path) == (["model"] if name == "replace" else [])


def test_permissions_are_those_of_a_new_file(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    save_tensors(tmp_path / "model", {}, {})
    modes = [stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in ("plain", "model")]
    assert modes[0] == modes[1]


def test_symbolic_link_is_written_through(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "target")
    save_tensors(tmp_path / "link", {"x": np.ones(2)}, {})
    assert (tmp_path / "link").is_symlink()
    assert load_tensors(tmp_path / "folder" / "target")[0]["x"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("tensors", "metadata", "error", "message"),
    [
        ({"x": np.ones(2, complex)}, {}, TypeError, "x: expected a real.*complex128"),
        ({"x": np.array([None])}, {}, TypeError, "x: expected .*object"),
        ({"x": np.array(["a"])}, {}, TypeError, "x: expected .*<U1"),
        ({"x": np.ones(2, "M8[s]")}, {}, TypeError, "x: expected .*datetime64"),
        ({"x": [1.0]}, {}, TypeError, "x: expected an ndarray, got list"),
        ({1: np.ones(2)}, {}, TypeError, "names of type str, got 1"),
        ({"__metadata__": np.ones(2)}, {}, ValueError, "reserved"),
        ({}, {"k": 1}, TypeError, "metadata: expected text"),
        ({}, {1: "k"}, TypeError, "metadata: expected text"),
    ],
)
def test_what_cannot_be_saved(tmp_path, tensors, metadata, error, message):
    with pytest.raises(error, match=message):
        save_tensors(tmp_path / "model", tensors, metadata)
    assert os.listdir(tmp_path) == []


def test_folders_and_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_tensors(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="got a folder"):
        load_tensors(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="not a regular file"):
        load_tensors(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError, match="no/model'$"):
        save_tensors(tmp_path / "no" / "model", {}, {})
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        save_tensors(tmp_path / "folder", {}, {})
    assert sorted(os.listdir(tmp_path)) == ["folder", "pipe"]


HUGE = 2**40
MALFORMED = {
    "empty": (b"", "0 bytes"),
    "seven bytes": (b"1234567", "7 bytes"),
    "no header": (struct.pack("<Q", 0), "does not begin with '{'"),
    "header past the end": (raw({}, length=3), "a header of 3 bytes is announced, the file has 10"),
    "huge header": (raw({}, length=2**64 - 1), "18446744073709551615 bytes is announced"),
    "zip": (b"PK\x03\x04" + bytes(100), "truncated or not a safetensors file"),
    "not an object": (raw([1]), "does not begin with '{'"),
    "not json": (raw(b"{nope}"), "not valid JSON"),
    "unfinished": (raw(b'{"a": '), "not valid JSON"),
    "trailing text": (raw(b"{} {}"), "not valid JSON"),
    "not utf-8": (raw(b'{"\xff": 1}'), "not valid JSON in UTF-8"),
    "utf-16": (raw("{}".encode("utf-16")), "does not begin with '{'"),
    "NaN": (raw(b'{"a": NaN}'), "NaN is not JSON"),
    "key twice": (raw(b'{"a": 1, "a": 1}'), "a key occurs twice"),
    "inner key twice": (raw(b'{"a": {"dtype": 1, "dtype": 2}}'), "a key occurs twice"),
    "deep": (raw(b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"), "bytes in memory"),
    "deep objects": (raw(b'{"a": ' * 100_000 + b"1" + b"}" * 100_000), "bytes in memory"),
    "deep, but short": (  # what is too deep, each Python says for itself
        raw(b'{"a": ' + b"[" * 3000 + b"]" * 3000 + b"}"),
        "nested too deeply|expected an object with dtype",
    ),
    "too long": (raw({"a": "b" * 5_000_000}), "header: expected at most 1048576 bytes"),
    "metadata": (raw({"__metadata__": {"a": 1}}), "__metadata__: expected text to text"),
    "metadata null": (raw({"__metadata__": None}), "__metadata__: expected text to text, got None"),
    "entry": (raw({"a": 1}), "expected an object with dtype, shape and data_offsets, got 1"),
    "missing field": (raw({"a": {"dtype": "F32", "shape": []}}), "expected an object with"),
    "extra field": (raw({"a": entry() | {"more": 1}}, bytes(8)), "expected an object with"),
    "dtype": (raw({"a": entry("F31")}, bytes(8)), "'a': expected dtype one of F64.*got 'F31'"),
    "dtype list": (raw({"a": entry(["F32"])}, bytes(8)), "expected dtype"),
    "bfloat16": (raw({"a": entry("BF16", (4,))}, bytes(8)), "got 'BF16'"),
    "bool value": (raw({"a": entry("BOOL", (1,), (0, 1))}, b"\2"), "neither 0 nor 1"),
    "shape text": (raw({"a": entry() | {"shape": "2"}}, bytes(8)), "expected shape"),
    "shape negative": (raw({"a": entry(shape=(-2,))}, bytes(8)), r"expected shape.*\[-2\]"),
    "shape float": (raw({"a": entry(shape=(2.0,))}, bytes(8)), "expected shape"),
    "shape bool": (raw({"a": entry(shape=(True, 2))}, bytes(8)), "expected shape"),
    "shape long": (raw({"a": entry(shape=(1,) * 32 + (2,))}, bytes(8)), "at most 32 sizes"),
    "shape overflow": (raw({"a": entry(shape=(HUGE, HUGE))}, bytes(8)), "overflows"),
    "shape overflow, empty": (raw({"a": entry("I8", (0, HUGE, HUGE), (0, 0))}), "overflows"),
    "shape digits": (raw(b'{"a": {"shape": [%s]}}' % (b"9" * 5000)), "not valid JSON"),
    "offsets one": (raw({"a": entry(offsets=(8,))}, bytes(8)), "expected data_offsets"),
    "offsets reversed": (raw({"a": entry(offsets=(8, 0))}, bytes(8)), "expected data_offsets"),
    "offsets negative": (raw({"a": entry(offsets=(-8, 0))}, bytes(8)), "expected data_offsets"),
    "offsets text": (raw({"a": entry(offsets=("0", "8"))}, bytes(8)), "expected data_offsets"),
    "size": (raw({"a": entry(shape=(3,))}, bytes(8)), r"takes 12 bytes.*\[0, 8\] hold 8"),
    "past the end": (raw({"a": entry()}, bytes(4)), "past the end of the file"),
    "bytes left over": (raw({"a": entry()}, bytes(9)), "1 bytes after the last tensor"),
    "gap at the start": (raw({"a": entry(offsets=(4, 12))}, bytes(12)), "leaves a gap"),
    "gap": (raw({"a": entry(), "b": entry(offsets=(9, 17))}, bytes(17)), "'b'.*leaves a gap"),
    "overlap": (raw({"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12)), "'b'.*overlaps"),
    "same place": (raw({"a": entry(), "b": entry()}, bytes(8)), "'b'.*overlaps"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed(tmp_path, case):
    content, message = MALFORMED[case]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        load_tensors(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value)) < 500 + len(str(path))


def test_unaligned_data_is_served(tmp_path):
    header = {"a": entry("U8", (1,), (0, 1)), "b": entry("F64", (1,), (1, 9))}
    (tmp_path / "a").write_bytes(raw(header, b"\7" + struct.pack("<d", 0.1)))
    got, _ = load_tensors(tmp_path / "a")
    assert got["b"].flags.aligned
    assert got["b"].tolist() == [0.1]


def damaged_copies(good, count, seed):
    """Copies with flipped bits, changed bytes (in the header above all), cuts and insertions."""
    rng = np.random.default_rng(seed)
    head = 8 + int.from_bytes(good[:8], "little")
    alphabet = b'{}[]",:0123456789-eE.tfnu\\\0\xff '
    for _ in range(count):
        bad = bytearray(good)
        for _ in range(rng.integers(1, 4)):
            at = int(rng.integers(head if rng.random() < 0.9 else len(bad)))
            kind = rng.integers(5)
            if kind == 0:
                bad[at] ^= 1 << rng.integers(8)
            elif kind == 1:
                bad[at] = alphabet[rng.integers(len(alphabet))]
            elif kind == 2:
                del bad[int(rng.integers(len(bad))) :]
                break
            elif kind == 3:
                bad[at:at] = bad[at : at + int(rng.integers(1, 20))]
            else:
                del bad[at : at + int(rng.integers(1, 20))]
            head = min(head, len(bad))
        yield bytes(bad)


def test_damaged_files_raise_value_error_only(tmp_path, tensors):
    path = tmp_path / "model"
    save_tensors(path, tensors, {"key": "value"})
    good = path.read_bytes()
    refused = 0
    for bad in damaged_copies(good, 3000, seed=1):
        path.write_bytes(bad)
        try:
            load_tensors(path)
        except ValueError as error:
            refused += 1
            assert str(path) in str(error)
    assert refused > 2000  # the others changed a name, a text or a value only


def test_a_truncation_anywhere_is_refused(tmp_path):
    path = tmp_path / "model"
    save_tensors(path, {"a": np.ones(4), "b": np.ones((3, 2), np.float32)}, {"k": "v"})
    good = path.read_bytes()
    for length in range(len(good)):
        path.write_bytes(good[:length])
        with pytest.raises(ValueError, match="model: "):
            load_tensors(path)


def peak_of(function, *arguments):
    """The most memory, in bytes, that a call which may be refused held at any time."""
    tracemalloc.start()
    try:
        with contextlib.suppress(ValueError):
            function(*arguments)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_no_array_beyond_the_size_of_the_file(tmp_path):
    claims = [
        raw({"a": entry("F32", (HUGE,), (0, 4 * HUGE))}),
        raw({"a": entry("F32", (2**60,), (0, 2**62))}, bytes(100)),
        raw({"a": entry("F32", (HUGE, 0), (0, 0))}),
        raw({}, length=99_999_999),
    ]
    path = tmp_path / "model"
    for content in claims:
        path.write_bytes(content)
        assert peak_of(load_tensors, path) < 200_000


def many(piece):
    """n pieces between commas, each with its number where it has a place for one."""
    return lambda n: ",".join([piece.replace("#", f"{i:x}") for i in range(n)])


EMPTY = '{"dtype":"I8","shape":[0],"data_offsets":[0,0]}'
HOSTILE = {
    "lists": many("[]"),
    "spaced lists": many("[]         "),
    "lists of a text": many('["%"]'),
    "lists of three": many("[999,999,999]"),
    "numbers": many("999"),
    "floats": many("1.5"),
    "texts": many('"zz"'),
    "wide texts": many('"z\N{WINKING FACE}"'),
    "one wide character": lambda n: '"\N{WINKING FACE}' + "z" * n + '"',
    "escapes": lambda n: '"' + r"\ud83d\ude09" * n + '"',
    "objects": many('{"#":1}'),
    "same objects": many('{"a":1}'),
    "empty objects": many("{}"),
    "layers": many('{"kind":"ReLU","settings":{}}'),
}


def largest_accepted(make):
    """How many pieces the longest header has that is parsed at all."""

    def accepted(n):
        try:
            files._check_memory(make(n))
        except ValueError:
            return False
        return True

    step = 1 << 12
    while accepted(step):
        step *= 2
    n = 0
    while step := step // 2:
        n += step * accepted(n + step)
    return n


def headers(case):
    """A header in which it is an entry, and one in which it is parsed within the metadata."""
    piece = HOSTILE[case]
    yield lambda n: f'{{"a":[{piece(n)}]}}'.encode()
    for start, end in (("[", "]"), ('{"version":1,"uint8_scale":1,"layers":[', "]}")):
        for ascii_only in (True, False):
            yield lambda n, start=start, end=end, ascii_only=ascii_only: json.dumps(
                {"__metadata__": {"fastnn": start + piece(n) + end}}, ensure_ascii=ascii_only
            ).encode()


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_header_takes_a_bounded_amount_of_memory(tmp_path, case):
    path = tmp_path / "model"
    for make in headers(case):
        n = largest_accepted(make)
        path.write_bytes(raw(make(n)))
        assert peak_of(fastnn.load, path) < files.HEADER_MEMORY + 100_000
        path.write_bytes(raw(make(3 * n)))  # refused before it is parsed
        size = os.path.getsize(path) + io.DEFAULT_BUFFER_SIZE
        assert peak_of(fastnn.load, path) < 1.1 * size + 100_000


def test_tensors_without_elements_take_a_bounded_amount_of_memory(tmp_path):
    def make(n):
        return ("{" + ",".join(f'"{i:x}":{EMPTY}' for i in range(n)) + "}").encode()

    (tmp_path / "model").write_bytes(raw(make(largest_accepted(make))))
    assert peak_of(load_tensors, tmp_path / "model") < files.HEADER_MEMORY + 100_000


@pytest.mark.parametrize("shape", [(1000, 1000), (1, 1_000_000), (3, 400_000), (1_000_000,)])
def test_loading_takes_the_size_of_the_file_once(tmp_path, shape):
    path = tmp_path / "file"
    save_tensors(path, {"x": np.zeros(shape, np.float32)}, {})
    assert peak_of(load_tensors, path) < os.path.getsize(path) + (1 << 20)
    if len(shape) == 2:
        fastnn.Sequential(fastnn.Linear(*shape)).save(path)
        assert peak_of(fastnn.load, path) < os.path.getsize(path) + (1 << 20)


def test_many_tensors_and_strange_names_pass(tmp_path):
    tensors = {f"{i}": np.zeros((1,) * (i % 3), np.uint8) for i in range(1500)}
    tensors |= {"[" * 300: np.ones(1), ":{" * 300: np.ones(2)}
    save_tensors(tmp_path / "model", tensors, {})
    assert load_tensors(tmp_path / "model")[0].keys() == tensors.keys()
    with pytest.raises(ValueError, match="header: expected one that takes at most 4194304 bytes"):
        save_tensors(tmp_path / "other", {"[" * 40_000: np.ones(1)}, {})
    assert os.listdir(tmp_path) == ["model"]
