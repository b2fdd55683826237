"""Model files: the safetensors format, written and read by the code below.

A file is eight bytes (the length n of the header, little-endian), n bytes of JSON, then the data:

    {"__metadata__": {text: text},
     name: {"dtype": "F32", "shape": [...], "data_offsets": [a, b]}, ...}

Tensors are little-endian, C-ordered and lie without gap or overlap. A model adds one entry to the
metadata, "fastnn": JSON text with the version of this use of the format, the model's settings and
its layers. Its tensors are named as in a PyTorch `state_dict`: "0.weight" of shape (n_out, n_in).

Reading trusts nothing: sizes, offsets and names are checked before an array is made, nothing in a
file is executed, and layers come from the fixed table below. Arrays never take more than the file
itself, and its header never more than HEADER_MEMORY.

Format: https://huggingface.co/docs/safetensors.
"""

import contextlib
import math
import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from ._checks import as_path
from ._initialization import Recorded

if TYPE_CHECKING:
    from .layers import Layer
    from .sequential import Sequential

__all__ = ["load", "load_tensors", "save_model", "save_tensors"]

VERSION = 1
ENTRY = "fastnn"  # the key of a model's description in the metadata
# Bytes that a header may take as Python objects: enough for some 1,000 layers. (The format allows
# headers of 100 MB, which as objects could be gigabytes.)
HEADER_MEMORY = 4 << 20
_BLOCK = 1 << 18  # bytes read at a time into a model
_SIZE_LIMIT = 2**63 - 1

_DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("f8"),
    "F32": np.dtype("f4"),
    "F16": np.dtype("f2"),
    "I64": np.dtype("i8"),
    "I32": np.dtype("i4"),
    "I16": np.dtype("i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("u8"),
    "U32": np.dtype("u4"),
    "U16": np.dtype("u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}

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
    with _opened(path) as (file, tensors, metadata):
        model = _model(tensors, metadata)
        for name, view in model.parameters().items():
            _read_into(file, tensors[name], view)
    return model


def _model(tensors: dict[str, "_Tensor"], metadata: dict[str, str]) -> "Sequential":
    """The model that a file describes, its parameters still to be read."""
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
    for layer, entry in zip(layers, entries, strict=True):
        if isinstance(layer, Linear):
            layer._weight_init = Recorded(entry["initialization"])
            # Nothing is drawn, and the model's own buffer is the only memory.
            layer._parameters = np.broadcast_to(np.zeros(1, layer.dtype), layer.size)
    return Sequential(*layers, uint8_scale=description["uint8_scale"])


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
    if kind == "Linear":
        if settings["dtype"] not in ("float32", "float64"):
            raise ValueError(
                f"{what}: expected dtype float32 or float64, got {_short(settings['dtype'])}"
            )
        text = entry["initialization"]
        if not isinstance(text, str) or len(text) > 200 or not text.isprintable():
            raise ValueError(f"{what}: expected initialization as a short text, got {_short(text)}")
    try:
        layer: Layer = getattr(layers, kind)(**settings)
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
        If a tensor is named "__metadata__", or the header would be one that `load_tensors` refuses.
    OSError
        If the file cannot be written.
    """
    import json

    path = as_path(path, "path")
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
            "dtype": _NAMES[array.dtype.newbyteorder("=")],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    _check_memory(text)
    write_atomically(
        path, [len(text).to_bytes(8, "little"), text] + [arrays[name] for name in names]
    )


def _little_endian(name: str, array: np.ndarray) -> np.ndarray:
    if not isinstance(name, str):
        raise TypeError(f"tensors: expected names of type str, got {name!r}")
    if name == "__metadata__":
        raise ValueError("tensors: the name '__metadata__' is reserved by the format")
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name}: expected an ndarray, got {type(array).__name__}")
    if array.dtype.newbyteorder("=") not in _NAMES:
        raise TypeError(f"{name}: expected a real number or bool dtype, got {array.dtype}")
    # ascontiguousarray would turn a scalar into shape (1,)
    return np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")


def write_atomically(path: str, parts: list[Any]) -> None:
    """Write a file of these buffers, complete or not at all."""
    path = os.path.realpath(path)  # through a symbolic link, as open() would
    temporary = os.path.join(os.path.dirname(path), f".{os.urandom(8).hex()}.part")
    try:
        # Not tempfile, whose files are private: this one gets the permissions of any new file.
        with open(temporary, "xb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # Ctrl-C may have come when it had its name already
            os.unlink(temporary)
        if isinstance(error, OSError):  # which may name the temporary file, or none
            raise type(error)(error.errno, error.strerror, path) from None
        raise


def load_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read a safetensors file.

    Returns
    -------
    tensors : dict of name to ndarray
        In the order of the data; writable, in the machine's byte order.
    metadata : dict of str to str

    Raises
    ------
    ValueError
        If the file is not a complete and consistent safetensors file, holds a dtype that NumPy
        lacks (bfloat16, the 8-bit floats), or has a header that could take more than 4 MiB in
        memory; the message names the path and the fault.
    OSError
        If the file cannot be read.
    """
    arrays = {}
    with _opened(path) as (file, tensors, metadata):
        for name, tensor in tensors.items():
            arrays[name] = np.empty(tensor.shape, tensor.dtype)
            _read_into(file, tensor, arrays[name])
    return arrays, metadata


class _Tensor(NamedTuple):
    """Where a tensor of a checked file is."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    begin: int  # bytes from the start of the file


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, dict[str, _Tensor], dict[str, str]]]:
    """The open file, its tensors in the order of the data, and its metadata.

    What goes wrong with the content, then or later, is a ValueError that names the path.
    """
    path = as_path(path, "path")
    if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for a writer
        kind = "a folder" if os.path.isdir(path) else "not a regular file"
        raise ValueError(f"{path}: expected a safetensors file, got {kind}")
    with open(path, "rb") as file:
        try:
            yield file, *_read_header(file)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from None


def _read_header(file: BinaryIO) -> tuple[dict[str, _Tensor], dict[str, str]]:
    size = os.fstat(file.fileno()).st_size
    if size < 8:
        raise ValueError(f"not a safetensors file: {size} bytes, shorter than its first field")
    length = int.from_bytes(file.read(8), "little")
    if length > size - 8:
        raise ValueError(
            f"truncated or not a safetensors file: a header of {length} bytes is announced, "
            f"the file has {size}"
        )
    _check_length(length)
    text = file.read(length)
    if len(text) != length:
        raise ValueError("the file became shorter while it was read")
    if text[:1] != b"{":
        raise ValueError("not a safetensors file: its header does not begin with '{'")
    _check_memory(text)
    header = _parse(text, "header")
    metadata = _metadata(header.pop("__metadata__", {}))
    return _tensors(header, 8 + length, size), metadata


def _check_length(length: int) -> None:
    if 4 * length > HEADER_MEMORY:
        raise ValueError(f"header: expected at most {HEADER_MEMORY // 4} bytes, got {length}")


def _check_memory(header: bytes) -> None:
    """Refuse what could take more than HEADER_MEMORY as Python objects.

    Bounds for CPython 3.11 and newer, 64 bits, free-threaded or not: the text, decoded and once
    more as the value of a metadata key, whose own parse copies what it quotes; an object, its pairs
    and their list while it is built; a list that has room to grow; strings; numbers. Metadata count
    in full, since their text may be parsed in its turn.
    """
    _check_length(len(header))
    width = 1 if header.isascii() and b"\\u" not in header else 4  # bytes of a decoded character
    pairs, items, quotes = header.count(b":"), header.count(b","), header.count(b'"')
    objects, lists = header.count(b"{"), header.count(b"[")
    memory = (1 + 3 * width) * len(header)
    memory += 240 * objects + 120 * lists + 220 * pairs + 56 * items + 32 * quotes
    if memory > HEADER_MEMORY:
        raise ValueError(
            f"header: expected one that takes at most {HEADER_MEMORY} bytes in memory, got one "
            f"of {len(header)} bytes that may take {memory}"
        )


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


def _tensors(header: dict[str, Any], start: int, size: int) -> dict[str, _Tensor]:
    """The tensors of a file of `size` bytes whose data begin at `start`."""
    spans = sorted((_span(name, entry), name) for name, entry in header.items())
    tensors, end = {}, 0
    for (begin, stop), name in spans:
        if begin != end:
            fault = "overlaps the tensor before it" if begin < end else "leaves a gap before it"
            raise ValueError(f"{_short(name)}: data_offsets [{begin}, {stop}] {fault}")
        if stop > size - start:
            raise ValueError(
                f"{_short(name)}: data_offsets [{begin}, {stop}] go past the end of the file, "
                f"which has {size - start} bytes of data"
            )
        dtype, shape = _DTYPES[header[name]["dtype"]], tuple(header[name]["shape"])
        tensors[name] = _Tensor(name, dtype, shape, start + begin)
        end = stop
    if end != size - start:
        raise ValueError(f"{size - start - end} bytes after the last tensor belong to none")
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
    itemsize = _DTYPES[dtype].itemsize
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


def _read_into(file: BinaryIO, tensor: _Tensor, array: np.ndarray) -> None:
    """Read a tensor into an array of its shape and dtype, and of any layout."""
    file.seek(tensor.begin)
    try:
        _read_blocks(file, array.reshape(1) if array.ndim == 0 else array)
    except ValueError as error:
        raise ValueError(f"{_short(tensor.name)}: {error}") from None


def _read_blocks(file: BinaryIO, array: np.ndarray) -> None:
    if array.size == 0:
        return
    row = array[:1].nbytes
    if array.ndim > 1 and row > _BLOCK:
        for part in array:
            _read_blocks(file, part)
        return
    rows = max(1, _BLOCK // row)
    for at in range(0, len(array), rows):
        part = array[at : at + rows]
        block = np.empty(part.shape, array.dtype.newbyteorder("<"))
        raw = block.reshape(-1).view(np.uint8)
        if file.readinto(raw.data) != raw.size:  # type: ignore[attr-defined]
            raise ValueError("the file became shorter while it was read")
        if array.dtype.kind == "b" and raw.max() > 1:
            raise ValueError("a BOOL is neither 0 nor 1")
        part[...] = block


def _short(value: Any) -> str:
    import reprlib

    return reprlib.repr(value)  # limits depth and length, which the file chose
