"""The safetensors reader and writer: every malformation, thousands of damaged files, models."""

import json
import os
import stat
import struct

import numpy as np
import pytest

import fastnn
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
    with pytest.raises(OSError, match="No space left"):
        save_tensors(path, {"x": np.zeros(3)}, {})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model"]


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
    with pytest.raises(FileNotFoundError):
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
    "deep": (raw(b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"), "more than .* brackets"),
    "deep objects": (raw(b'{"a": ' * 100_000 + b"1" + b"}" * 100_000), "more than .* brackets"),
    "too long": (raw({"a": "b" * 5_000_000}), "the limit is 4194304"),
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


def test_no_array_beyond_the_size_of_the_file(tmp_path):
    import tracemalloc

    claims = [
        raw({"a": entry("F32", (HUGE,), (0, 4 * HUGE))}),
        raw({"a": entry("F32", (2**60,), (0, 2**62))}, bytes(100)),
        raw({}, length=99_999_999),
    ]
    path = tmp_path / "model"
    for content in claims:
        path.write_bytes(content)
        tracemalloc.start()
        with pytest.raises(ValueError, match="model"):
            load_tensors(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 200_000


def many(text, count=250_000):
    return ",".join([text] * count)


HOSTILE = {
    "lists": f'{{"a": [{many("[]", 1_000_000)}]}}',
    "spaced lists": f'{{"a": [{many("[]" + " " * 9)}]}}',
    "lists of text": f'{{"a": [{many("""["%x"]""")}]}}',
    "numbers": f'{{"a": [{many("999", 700_000)}]}}',
    "texts": f'{{"a": [{many(""" "zz" """.strip(), 700_000)}]}}',
    "objects": f'{{"a": [{many("""{"%05x":1}""")}]}}',
    "keys": "{" + ",".join(f'"{i:05x}":999' for i in range(250_000)) + "}",
    "in the metadata": json.dumps({"__metadata__": {"fastnn": f"[{many('[]', 1_000_000)}]"}}),
    "spaced, there": json.dumps({"__metadata__": {"fastnn": f"[{many('[]' + ' ' * 9)}]"}}),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_header_takes_a_bounded_multiple_of_its_size(tmp_path, case):
    import tracemalloc

    content = raw(HOSTILE[case].encode())
    path = tmp_path / "model"
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(ValueError, match="model: "):
        fastnn.load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30 * len(content)
    if case in ("lists", "in the metadata"):  # refused before it is parsed
        assert peak < 1.1 * len(content)


def test_thousands_of_layers_and_strange_names_pass(tmp_path):
    tensors = {f"{i}": np.zeros((1,) * (i % 3), np.uint8) for i in range(20_000)}
    tensors |= {"[" * 300: np.ones(1), ":{" * 300: np.ones(2)}
    save_tensors(tmp_path / "model", tensors, {})
    assert load_tensors(tmp_path / "model")[0].keys() == tensors.keys()
    with pytest.raises(ValueError, match="header: more than .* brackets or keys"):
        save_tensors(tmp_path / "other", {"[" * 2000: np.ones(1)}, {})
    assert os.listdir(tmp_path) == ["model"]


def every_layer(dtype="float32"):
    return fastnn.Sequential(
        fastnn.Linear(6, 5, dtype=dtype),
        fastnn.LeakyReLU(0.2),
        fastnn.Dropout(0.25),
        fastnn.Linear(5, 7, bias=False, weight_init="orthogonal", dtype=dtype),
        fastnn.Tanh(),
        fastnn.Linear(7, 4, dtype=dtype, bias_init="ones"),
        fastnn.Sigmoid(),
        fastnn.GELU(),
        fastnn.SiLU(),
        fastnn.ReLU(),
        fastnn.Linear(4, 3, dtype=dtype),
        fastnn.Softmax(),
        uint8_scale=1 / 16,
        rng=4,
    )


@pytest.fixture
def model_file(tmp_path):
    model = every_layer()
    model.save(tmp_path / "model.safetensors")
    return model, tmp_path / "model.safetensors"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_model_round_trip(tmp_path, dtype, rng):
    model = every_layer(dtype)
    model.save(tmp_path / "a")
    same = fastnn.load(str(tmp_path / "a"))
    x = rng.standard_normal((9, 6)).astype(dtype)
    assert same.predict(x).tobytes() == model.predict(x).tobytes()
    images = rng.integers(0, 17, (9, 6), dtype=np.uint8)
    assert same.predict(images).tobytes() == model.predict(images).tobytes()
    assert same.summary() == model.summary()
    assert same.dtype == dtype
    same.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_loaded_model_trains_on(tmp_path, rng):
    model = fastnn.Sequential(fastnn.Linear(6, 5), fastnn.Tanh(), fastnn.Linear(5, 3), rng=1)
    model.save(tmp_path / "model")
    same = fastnn.load(tmp_path / "model")
    x, y = rng.standard_normal((40, 6)).astype("f4"), rng.random((40, 3)).astype("f4")
    for each in (model, same):
        each.fit(x, y, loss="mse", optimizer="adam", epochs=2, rng=1, progress=False)
    assert_same(same.state_dict(), model.state_dict())


def test_keys_and_layout_are_those_of_a_state_dict(model_file):
    model, path = model_file
    tensors, metadata = load_tensors(path)
    assert list(metadata) == ["fastnn"]
    assert_same(tensors, model.state_dict())
    assert tensors["3.weight"].shape == (7, 5)
    assert tensors["3.weight"].flags.c_contiguous


def rewrite(path, change, tensors=None):
    """The file again, its description changed."""
    old, metadata = load_tensors(path)
    description = json.loads(metadata["fastnn"])
    change(description)
    save_tensors(path, old | (tensors or {}), {"fastnn": json.dumps(description)})


def set_layer(index, **fields):
    return lambda d: d["layers"][index].update(fields)


def set_setting(index, **settings):
    return lambda d: d["layers"][index]["settings"].update(settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(version=2), "version 1, got 2"),
        (lambda d: d.pop("version"), "version 1, got None"),
        (lambda d: d.update(more=1), "expected version, uint8_scale, layers"),
        (lambda d: d.update(uint8_scale="x"), "uint8_scale: expected"),
        (lambda d: d.update(uint8_scale=None), "uint8_scale: expected"),
        (lambda d: d.update(layers={}), "layers: expected a list"),
        (lambda d: d.update(layers=[]), "a tensor that belongs to no layer"),
        (lambda d: d.update(layers=[3]), "layer 0: expected one of Linear"),
        (lambda d: d["layers"].pop(), None),  # a Softmax less: another model, but a sound one
        (lambda d: d["layers"].pop(0), r"2\.weight: expected .* \(7, 5\), found none"),
        (set_layer(1, kind="Exec"), "layer 1: expected one of Linear.*got 'Exec'"),
        (set_layer(1, kind="__init__"), "layer 1: expected one of"),
        (set_layer(1, kind=["ReLU"]), "layer 1: expected one of"),
        (set_layer(1, kind="ReLU"), "layer 1: expected kind, settings, the settings with nothing"),
        (set_layer(1, more=1), "layer 1: expected kind, settings"),
        (set_layer(1, settings=[]), "layer 1: expected kind, settings"),
        (set_layer(0, initialization=3), "initialization as a short text"),
        (set_layer(0, initialization="\x1b[2J"), "initialization as a short text"),
        (set_layer(0, initialization="a" * 300), "initialization as a short text"),
        (set_setting(0, rng=1), "layer 0: expected"),
        (set_setting(0, weight_init="ones"), "layer 0: expected"),
        (set_setting(0, in_features=7), r"0\.weight: expected float32 of shape \(5, 7\)"),
        (set_setting(0, in_features=10**15), r"0\.weight: expected float32 of shape"),
        (set_setting(0, in_features=0), "layer 0: in_features"),
        (set_setting(0, in_features=True), "layer 0: in_features"),
        (set_setting(0, in_features=6.0), "layer 0: in_features"),
        (set_setting(0, bias=False), r"'0\.bias': a tensor that belongs to no layer"),
        (set_setting(3, bias=True), r"3\.bias: expected a tensor of shape \(7,\), found none"),
        (set_setting(0, dtype="float64"), r"0\.weight: expected float64.*got float32"),
        (set_setting(0, dtype="float16"), "layer 0: expected dtype float32 or float64"),
        (set_setting(0, dtype=["f4"]), "layer 0: expected dtype float32 or float64"),
        (set_setting(1, negative_slope="steep"), "layer 1: negative_slope"),
        (set_setting(1, negative_slope=None), "layer 1: negative_slope"),
        (set_setting(1, negative_slope=1e999), "not valid JSON"),
        (set_setting(2, rate=1.5), "layer 2: rate"),
    ],
)
def test_description_is_checked(model_file, change, message):
    _, path = model_file
    rewrite(path, change)
    if message is None:
        assert len(fastnn.load(path)) == 11
        return
    with pytest.raises(ValueError, match=message) as caught:
        fastnn.load(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_wrong_tensors(model_file):
    _, path = model_file
    rewrite(path, lambda d: None, {"0.bias": np.zeros(5, np.float64)})
    with pytest.raises(ValueError, match=r"0\.bias: expected float32 of shape \(5,\), got float64"):
        fastnn.load(path)
    rewrite(path, lambda d: None, {"0.bias": np.zeros(5, np.float32), "x": np.zeros(1)})
    with pytest.raises(ValueError, match="'x': a tensor that belongs to no layer"):
        fastnn.load(path)


def test_foreign_files(tmp_path, model_file):
    _, path = model_file
    foreign = tmp_path / "torch.safetensors"
    save_tensors(foreign, load_tensors(path)[0], {"format": "pt"})
    with pytest.raises(ValueError, match="expected a model saved by fastnn, got another"):
        fastnn.load(foreign)
    for text in ("", "[]", "{", "[" * 900, "nothing"):
        save_tensors(foreign, {}, {"fastnn": text})
        with pytest.raises(ValueError, match="torch.safetensors: fastnn: "):
            fastnn.load(foreign)
    np.savez(tmp_path / "model.npz", x=np.ones(3))
    with pytest.raises(ValueError, match="model.npz: truncated or not a safetensors file"):
        fastnn.load(tmp_path / "model.npz")
    with pytest.raises(ValueError, match="got a folder"):
        fastnn.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        fastnn.load(tmp_path / "nowhere")


def test_layers_of_ones_own_are_refused(tmp_path):
    class Mine(fastnn.LeakyReLU):
        pass

    model = fastnn.Sequential(fastnn.Linear(2, 2), Mine())
    with pytest.raises(TypeError, match="layer 1: expected one of Linear.*got Mine"):
        model.save(tmp_path / "model")
    assert os.listdir(tmp_path) == []


def test_damaged_models_raise_value_error_only(model_file, tmp_path, rng):
    _, path = model_file
    good, bad_path = path.read_bytes(), tmp_path / "bad"
    x = rng.standard_normal((2, 6)).astype("f4")
    refused = 0
    for bad in damaged_copies(good, 2000, seed=2):
        bad_path.write_bytes(bad)
        try:
            loaded = fastnn.load(bad_path)
        except ValueError as error:
            refused += 1
            assert str(bad_path) in str(error)
        else:
            assert loaded.predict(x).shape == (2, 3)
    assert refused > 1000
