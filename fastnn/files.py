"""Model files: the safetensors format, written and read by the code below.

A file is eight bytes (the length n of the header, little-endian), n bytes of JSON, then the data:

    {"__metadata__": {text: text}, name: {"dtype": "F32", "shape": [...], "data_offsets": [a, b]}, ...}

Tensors are little-endian, C-ordered and lie without gap or overlap. A model adds one entry to the
metadata, "fastnn": JSON text that holds the version of this use of the format, the model's settings
and its layers. Its tensors are named as in a PyTorch `state_dict`: "0.weight" of shape (n_out, n_in).

Reading trusts nothing: sizes, offsets and names are checked before an array is made, nothing in a
file is executed, and layers come from the fixed table below.

Format: https://huggingface.co/docs/safetensors.
"""

import math
import os
import stat
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .sequential import Sequential

__all__ = ["load", "load_tensors", "save_model", "save_tensors"]

VERSION = 1
HEADER_LIMIT = 100_000_000  # bytes, the format's own limit
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


def save_tensors(path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Write arrays and text to a safetensors file, all or nothing.

    The file appears under its name complete and on disk, or not at all; a file that was there before
    stays as it was until then.

    Raises
    ------
    TypeError
        If a name, a metadata key or a metadata value is not a str, or a dtype has no safetensors name.
    ValueError
        If a tensor is named "__metadata__", or the header would exceed the format's limit.
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
    # os.open and not tempfile, whose files are private: this one gets the permissions of a new file.
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
        bytes as the file has.
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
        if len(text) != length or file.readinto(data) != len(data):
            raise ValueError("the file became shorter while it was read")
    if text[:1] != b"{":
        raise ValueError("not a safetensors file: its header does not begin with '{'")
    return _parse(text, "header"), data


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
        raise ValueError(
            f"{_short(name)}: expected shape as at most 32 sizes, got {_short(shape)}"
        )
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
