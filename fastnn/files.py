"""Model files: the safetensors format, written and read by the code below.

A file is eight bytes (the length n of the header, little-endian), n bytes of JSON, then the data:

    {"__metadata__": {text: text},
     name: {"dtype": "F32", "shape": [...], "data_offsets": [a, b]}, ...}

Tensors are little-endian, C-ordered and lie without gap or overlap. A model adds one entry to the
metadata, "fastnn": JSON text with the version of this use of the format, the model's settings and
its layers. Its tensors are named as in a PyTorch `state_dict`: "0.weight" of shape (n_out, n_in).

Reading trusts nothing: sizes, offsets and names are checked before an array is made, nothing in a
file is executed, and layers come from the fixed table below.

Format: https://huggingface.co/docs/safetensors.
"""

import math
import os
import stat
from typing import TYPE_CHECKING, Any

import numpy as np

from ._initialization import Recorded

if TYPE_CHECKING:
    from .layers import Layer
    from .sequential import Sequential

__all__ = ["load", "load_tensors", "save_model", "save_tensors"]

VERSION = 1
ENTRY = "fastnn"  # the key of a model's description in the metadata
HEADER_LIMIT = 4 << 20  # bytes; the format allows 100 MB, which as Python objects would be GBs
_SIZE_LIMIT = 2**63 - 1

_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "|u1",
    "BOOL": "|b1",
}
_NAMES = {text: name for name, text in _DTYPES.items()}

Path = str | os.PathLike[str]


# The layers that a file may name, each with the settings that it has.
_LAYERS = {
    "Linear": {"in_features", "out_features", "bias", "dtype"},
    "LeakyReLU": {"negative_slope"},
    "ReLU": set(),
    "Tanh": set(),
    "Sigmoid": set(),
    "GELU": set(),
    "SiLU": set(),
    "Softmax": set(),
    "Dropout": {"rate"},
}


def save_model(model: "Sequential", path: Path) -> None:
    """Write a model's layers and parameters; see `save_tensors`.

    Raises
    ------
    TypeError
        If a layer is not one of fastnn's own.
    OSError
        If the file cannot be written.
    """
    import json

    description = {
        "version": VERSION,
        "uint8_scale": model.uint8_scale,
        "layers": [_described(i, layer) for i, layer in enumerate(model)],
    }
    save_tensors(path, model.parameters(), {ENTRY: json.dumps(description)})


def _described(index: int, layer: "Layer") -> dict[str, Any]:
    from . import layers

    kind = type(layer).__name__
    if kind not in _LAYERS or type(layer) is not getattr(layers, kind):
        raise TypeError(f"layer {index}: expected one of {', '.join(_LAYERS)}, got {kind}")
    entry = {"kind": kind, "settings": layer.settings()}
    if isinstance(layer, layers.Linear):
        entry["initialization"] = layer.initialization
    return entry


def load(path: Path) -> "Sequential":
    """Read a model that `Sequential.save` wrote.

    Returns
    -------
    Sequential
        With the saved parameters, to the bit. The optimizer, the history and the rng are not in
        the file.

    Raises
    ------
    ValueError
        If the file is broken, or not a model of fastnn; the message names the path and the fault.
        Nothing in the file is executed.
    OSError
        If the file cannot be read.
    """
    tensors, metadata = load_tensors(path)
    try:
        return _model(tensors, metadata)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from None


def _model(tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> "Sequential":
    from .layers import Linear
    from .sequential import Sequential

    if ENTRY not in metadata:
        raise ValueError(
            f"expected a model saved by fastnn, got another safetensors file (no {ENTRY!r} in its "
            f"metadata)"
        )
    description = _parse(metadata[ENTRY], ENTRY)
    if description.get("version") != VERSION:
        raise ValueError(
            f"expected a model file of version {VERSION}, got {_short(description.get('version'))}"
        )
    if description.keys() != {"version", "uint8_scale", "layers"}:
        raise ValueError(
            f"{ENTRY}: expected version, uint8_scale, layers, got {_short(description)}"
        )
    entries = description["layers"]
    if not isinstance(entries, list):
        raise ValueError(f"layers: expected a list, got {_short(entries)}")
    layers = [_layer(i, entry) for i, entry in enumerate(entries)]
    # Sizes have to agree with the tensors there are before anything of these sizes is made.
    expected: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
    for i, layer in enumerate(layers):
        if isinstance(layer, Linear):
            n_out, n_in = layer.out_features, layer.in_features
            expected[f"{i}.weight"] = (n_out, n_in), layer.dtype
            if layer.has_bias:
                expected[f"{i}.bias"] = (n_out,), layer.dtype
    for name, (shape, dtype) in expected.items():
        if name not in tensors:
            raise ValueError(f"{name}: expected a tensor of shape {shape}, found none")
        found = tensors[name]
        if (found.shape, found.dtype) != (shape, dtype):
            raise ValueError(
                f"{name}: expected {dtype} of shape {shape}, got {found.dtype} of {found.shape}"
            )
    for name in tensors.keys() - expected:
        raise ValueError(f"{_short(name)}: a tensor that belongs to no layer")
    model = Sequential(*layers, uint8_scale=description["uint8_scale"])
    model.load_state_dict(tensors)
    for layer, entry in zip(layers, entries, strict=True):
        if isinstance(layer, Linear):
            layer._weight_init = Recorded(entry["initialization"])
    return model


def _layer(index: int, entry: Any) -> "Layer":
    """The layer of an entry; a Linear without its parameters."""
    from . import layers

    what = f"layer {index}"
    kind = entry.get("kind") if isinstance(entry, dict) else None
    if not isinstance(kind, str) or kind not in _LAYERS:
        raise ValueError(f"{what}: expected one of {', '.join(_LAYERS)}, got {_short(kind)}")
    fields = {"kind", "settings"} | ({"initialization"} if kind == "Linear" else set())
    settings = entry.get("settings")
    if entry.keys() != fields or not isinstance(settings, dict) or settings.keys() != _LAYERS[kind]:
        raise ValueError(
            f"{what}: expected {', '.join(sorted(fields))}, the settings with "
            f"{', '.join(sorted(_LAYERS[kind])) or 'nothing'}, got {_short(entry)}"
        )
    undrawn = {}
    if kind == "Linear":
        undrawn["weight_init"] = "zeros"
        if settings["dtype"] not in ("float32", "float64"):
            raise ValueError(
                f"{what}: expected dtype float32 or float64, got {_short(settings['dtype'])}"
            )
        text = entry["initialization"]
        if not isinstance(text, str) or len(text) > 200 or not text.isprintable():
            raise ValueError(f"{what}: expected initialization as a short text, got {_short(text)}")
    try:
        layer: Layer = getattr(layers, kind)(**settings, **undrawn)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what}: {error}") from None
    return layer


def save_tensors(path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Write arrays and text to a safetensors file, all or nothing.

    The file appears under its name complete and on disk, or not at all; one that was there before
    stays as it was until then.

    Raises
    ------
    TypeError
        If a name, a metadata key or value is not a str, or the format lacks a dtype.
    ValueError
        If a tensor is named "__metadata__", or the header would be one that `load_tensors` refuses:
        more than 4 MiB, or names full of brackets and colons.
    OSError
        If the file cannot be written.
    """
    import json

    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"metadata: expected text to text, got {key!r}: {type(value).__name__}")
    arrays = {name: _little_endian(name, array) for name, array in tensors.items()}
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    # The widest items first: the data begin at a multiple of 8, so every tensor is aligned.
    names = sorted(arrays, key=lambda name: -arrays[name].dtype.itemsize)
    offset = 0
    for name in names:
        array = arrays[name]
        header[name] = {
            "dtype": _NAMES[array.dtype.newbyteorder("<").str],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > HEADER_LIMIT:
        raise ValueError(f"header: expected at most {HEADER_LIMIT} bytes, got {len(text)}")
    _check_density(text)
    _write_atomically(
        os.fspath(path), [len(text).to_bytes(8, "little"), text] + [arrays[name] for name in names]
    )


def _little_endian(name: str, array: np.ndarray) -> np.ndarray:
    if not isinstance(name, str):
        raise TypeError(f"tensors: expected names of type str, got {name!r}")
    if name == "__metadata__":
        raise ValueError("tensors: the name '__metadata__' is reserved by the format")
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name}: expected an ndarray, got {type(array).__name__}")
    text = array.dtype.newbyteorder("<").str
    if text not in _NAMES:
        raise TypeError(f"{name}: expected a real number or bool dtype, got {array.dtype}")
    # ascontiguousarray would turn a scalar into shape (1,)
    return np.asarray(array, dtype=text, order="C")


def _write_atomically(path: str, parts: list[Any]) -> None:
    path = os.path.realpath(path)  # through a symbolic link, as open() would
    temporary = os.path.join(os.path.dirname(path), f".{os.urandom(8).hex()}.part")
    # Not tempfile, whose files are private: this one gets the permissions of any new file.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(temporary, flags, 0o666)
    try:
        with open(descriptor, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def load_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read a safetensors file.

    Returns
    -------
    tensors : dict of name to ndarray
        In the order of the data; writable, in the machine's byte order. Together they take as many
        bytes as the file has. A broken file makes no larger array; its header, of at most 4 MiB,
        takes at most 30 times its size in memory while it is parsed.
    metadata : dict of str to str

    Raises
    ------
    ValueError
        If the file is not a complete and consistent safetensors file, or holds a dtype that NumPy
        lacks (bfloat16, the 8-bit floats); the message names the path and the fault.
    OSError
        If the file cannot be read.
    """
    path = os.fspath(path)
    try:
        header, data = _read_parts(path)
        metadata = _metadata(header.pop("__metadata__", {}))
        return _tensors(header, data), metadata
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _read_parts(path: str) -> tuple[dict[str, Any], np.ndarray]:
    if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for a writer
        kind = "a folder" if os.path.isdir(path) else "not a regular file"
        raise ValueError(f"expected a safetensors file, got {kind}")
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < 8:
            raise ValueError(f"not a safetensors file: {size} bytes, shorter than its first field")
        length = int.from_bytes(file.read(8), "little")
        if length > min(size - 8, HEADER_LIMIT):
            raise ValueError(
                f"truncated or not a safetensors file: a header of {length} bytes is announced, "
                f"the file has {size} (and the limit is {HEADER_LIMIT})"
            )
        text = file.read(length)
        data = np.empty(size - 8 - length, np.uint8)
        if len(text) != length or file.readinto(data.data) != len(data):
            raise ValueError("the file became shorter while it was read")
    if text[:1] != b"{":
        raise ValueError("not a safetensors file: its header does not begin with '{'")
    _check_density(text)
    return _parse(text, "header"), data


def _check_density(header: bytes) -> None:
    """Refuse what would take much more memory as Python objects than as text.

    An empty list takes 3 bytes of text and 64 as an object. In a real header a tensor takes at
    least 53 bytes with 3 brackets and 4 keys. Text within the metadata counts as well, since that
    is parsed in its turn.
    """
    most = 1000 + len(header) // 12
    if header.count(b"[") + header.count(b"{") > most or header.count(b":") > most:
        raise ValueError(f"header: more than {most} brackets or keys in {len(header)} bytes")


def _parse(text: bytes | str, what: str) -> dict[str, Any]:
    """The object in a JSON text, without repeated keys; ValueError for anything else."""
    import json

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise ValueError("a key occurs twice")
        return result

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        if isinstance(text, bytes):
            text = text.decode()
        result = json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    except RecursionError:
        raise ValueError(f"{what}: nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{what}: not valid JSON in UTF-8 ({error})") from None
    if not isinstance(result, dict):
        raise ValueError(f"{what}: expected a JSON object, got {_short(result)}")
    return result


def _metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ValueError(f"__metadata__: expected text to text, got {_short(value)}")
    return value


def _tensors(header: dict[str, Any], data: np.ndarray) -> dict[str, np.ndarray]:
    spans = sorted((_span(name, entry), name) for name, entry in header.items())
    tensors, end = {}, 0
    for (start, stop), name in spans:
        if start != end:
            fault = "overlaps the tensor before it" if start < end else "leaves a gap before it"
            raise ValueError(f"{_short(name)}: data_offsets [{start}, {stop}] {fault}")
        if stop > len(data):
            raise ValueError(
                f"{_short(name)}: data_offsets [{start}, {stop}] go past the end of the file, "
                f"which has {len(data)} bytes of data"
            )
        tensors[name] = _tensor(name, header[name], data[start:stop])
        end = stop
    if end != len(data):
        raise ValueError(f"{len(data) - end} bytes after the last tensor belong to none")
    return tensors


def _span(name: str, entry: Any) -> tuple[int, int]:
    """The checked data_offsets of an entry that is consistent in itself."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(
            f"{_short(name)}: expected an object with dtype, shape and data_offsets, "
            f"got {_short(entry)}"
        )
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise ValueError(
            f"{_short(name)}: expected dtype one of {', '.join(_DTYPES)}, got {_short(dtype)}"
        )
    if not _are_sizes(shape) or len(shape) > 32:
        raise ValueError(f"{_short(name)}: expected shape as at most 32 sizes, got {_short(shape)}")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(
            f"{_short(name)}: expected data_offsets [begin, end], got {_short(offsets)}"
        )
    itemsize = np.dtype(_DTYPES[dtype]).itemsize
    if math.prod(size for size in shape if size) * itemsize > _SIZE_LIMIT:
        raise ValueError(f"{_short(name)}: the number of bytes of shape {_short(shape)} overflows")
    if math.prod(shape) * itemsize != offsets[1] - offsets[0]:
        raise ValueError(
            f"{_short(name)}: shape {_short(shape)} of {dtype} takes {math.prod(shape) * itemsize} "
            f"bytes, data_offsets {offsets} hold {offsets[1] - offsets[0]}"
        )
    return offsets[0], offsets[1]


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n <= _SIZE_LIMIT for n in value)


def _tensor(name: str, entry: dict[str, Any], data: np.ndarray) -> np.ndarray:
    dtype = np.dtype(_DTYPES[entry["dtype"]])
    if dtype.kind == "b" and data.size and data.max() > 1:
        raise ValueError(f"{_short(name)}: a BOOL is neither 0 nor 1")
    array = data.view(dtype).reshape(entry["shape"])
    if not array.flags.aligned:
        array = array.copy()
    return array.astype(dtype.newbyteorder("="), copy=False)


def _short(value: Any) -> str:
    import reprlib

    return reprlib.repr(value)  # limits depth and length, which the file chose
