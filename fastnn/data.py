"""Data sets: the digits that ship with the package, and the IDX files of MNIST and its relatives.

Images come as uint8, one flattened image a row, so that they can go to `fit` and `predict` as they
are; the scale to about [0, 1] is the model's `uint8_scale`.
"""

import math
import os
from io import BufferedIOBase
from typing import NamedTuple

import numpy as np

from ._checks import as_path

__all__ = ["IdxData", "load_digits", "load_idx"]

_UINT8 = 0x08  # IDX: the third byte of the magic number names the type of the values
_CHUNK = 1 << 20


class IdxData(NamedTuple):
    """Four arrays of one data set, and the (rows, columns) of an image."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    image_shape: tuple[int, int]


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """The 1,797 handwritten digits of 8 x 8 pixels that ship with the package.

    Returns
    -------
    images : ndarray of uint8, shape (1797, 64)
        Values 0 (paper) to 16 (ink); `uint8_scale=1 / 16` maps them to [0, 1].
    labels : ndarray of int64, shape (1797,)
        The digits 0 to 9.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine
    Learning Repository, 1998, doi:10.24432/C50P49, licensed CC BY 4.0.
    """
    path = os.path.join(os.path.dirname(__file__), "_data", "digits.npz")
    with np.load(path, allow_pickle=False) as file:
        # The file has them pixel by pixel, which packs smaller.
        return np.ascontiguousarray(file["images"]), file["labels"].astype(np.int64)


def load_idx(directory: str | os.PathLike[str]) -> IdxData:
    """Read the four IDX files of MNIST, Fashion-MNIST and others of that form, gzipped or not.

    Parameters
    ----------
    directory : path
        Holds train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and
        t10k-labels-idx1-ubyte, each with or without `.gz`.

    Returns
    -------
    IdxData
        Images as uint8 of shape (m, rows * columns), labels as int64 of shape (m,).

    Raises
    ------
    FileNotFoundError
        If one of the four files is missing.
    TypeError
        If directory is not a path.
    ValueError
        If a file is truncated, has bytes left over, is not an IDX file of uint8 values with the
        right number of dimensions, or does not match the others; the message names the file.

    Format: Y. LeCun, C. Cortes, C. Burges, The MNIST database of handwritten digits.
    """
    directory = as_path(directory, "directory")
    parts = {}
    for part in ("train", "t10k"):
        images_path = _find(directory, f"{part}-images-idx3-ubyte")
        labels_path = _find(directory, f"{part}-labels-idx1-ubyte")
        images, labels = _read_idx(images_path, 3), _read_idx(labels_path, 1)
        if len(images) != len(labels):
            raise ValueError(
                f"{labels_path}: expected {len(images)} labels, one for each image of "
                f"{os.path.basename(images_path)}, got {len(labels)}"
            )
        if images.size == 0:
            raise ValueError(f"{images_path}: expected images, got shape {images.shape}")
        parts[part] = images, labels.astype(np.int64)
    (train, train_labels), (test, test_labels) = parts["train"], parts["t10k"]
    if train.shape[1:] != test.shape[1:]:
        raise ValueError(
            f"{images_path}: expected images of {train.shape[1:]} pixels as in the training files, "
            f"got {test.shape[1:]}"
        )
    return IdxData(
        train.reshape(len(train), -1),
        train_labels,
        test.reshape(len(test), -1),
        test_labels,
        (train.shape[1], train.shape[2]),
    )


def _find(directory: str, name: str) -> str:
    for candidate in (name, name + ".gz"):
        path = os.path.join(directory, candidate)
        if os.path.isfile(path):
            return path
    what = "no such file" if os.path.isdir(directory) else "no such folder"
    raise FileNotFoundError(f"{os.path.join(directory, name)}[.gz]: {what}")


def _read_idx(path: str, dimensions: int) -> np.ndarray:
    """The array in an IDX file: a magic number, the sizes (big-endian uint32), the values."""
    import gzip
    import zlib

    try:
        with gzip.open(path) if path.endswith(".gz") else open(path, "rb") as file:
            head = _read(file, 4 + 4 * dimensions)
            magic = bytes([0, 0, _UINT8, dimensions])
            if head[:4] != magic:
                raise ValueError(
                    f"{path}: expected an IDX file of uint8 values with {dimensions} dimension"
                    f"{'s' if dimensions > 1 else ''} (magic number {magic.hex()}), "
                    f"got {head[:4].hex() or 'an empty file'}"
                )
            if len(head) < 4 + 4 * dimensions:
                raise ValueError(f"{path}: truncated within its header")
            shape = tuple(int.from_bytes(head[i : i + 4], "big") for i in range(4, len(head), 4))
            size = math.prod(shape)
            values = _read(file, size + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: truncated or not a gzip file ({error})") from None
    if len(values) != size:
        got = f"only {len(values)}" if len(values) < size else "more"
        raise ValueError(f"{path}: expected {size} bytes of values for shape {shape}, got {got}")
    return np.frombuffer(values, np.uint8).reshape(shape)


def _read(file: BufferedIOBase, size: int) -> bytearray:
    """Up to `size` bytes, in pieces: a header that claims too much must not allocate it."""
    data = bytearray()
    while piece := file.read(min(size - len(data), _CHUNK)):
        data += piece
    return data
