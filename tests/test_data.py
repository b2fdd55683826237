"""The embedded digits, and the reader of IDX files against broken and foreign folders."""

import gzip
import os

import numpy as np
import pytest

from fastnn.data import load_digits, load_idx

NAMES = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
]


def idx_bytes(array, magic_type=8):
    sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, magic_type, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


@pytest.fixture
def folder(tmp_path):
    """A small data set: 7 and 3 images of 4 x 5 pixels, the test files gzipped."""
    rng = np.random.default_rng(5)
    arrays = [
        rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((7, 4, 5), (7,), (3, 4, 5), (3,))
    ]
    for name, array in zip(NAMES, arrays, strict=True):
        if name.startswith("t10k"):
            (tmp_path / (name + ".gz")).write_bytes(gzip.compress(idx_bytes(array)))
        else:
            (tmp_path / name).write_bytes(idx_bytes(array))
    return tmp_path, arrays


def test_digits():
    images, labels = load_digits()
    assert images.shape == (1797, 64)
    assert images.dtype == np.uint8
    assert labels.shape == (1797,)
    assert labels.dtype == np.int64
    assert (images.min(), images.max()) == (0, 16)
    # The counts of each digit that the source states for this set.
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert images[0].reshape(8, 8)[0].tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
    assert labels[:10].tolist() == list(range(10))


def test_each_call_gives_arrays_of_its_own():
    first, _ = load_digits()
    first[:] = 99
    assert load_digits()[0].max() == 16


def test_idx_plain_and_gzipped(folder):
    path, arrays = folder
    for directory in (path, str(path), os.fspath(path)):
        data = load_idx(directory)
        np.testing.assert_array_equal(data.train_images, arrays[0].reshape(7, 20))
        np.testing.assert_array_equal(data.train_labels, arrays[1])
        np.testing.assert_array_equal(data.test_images, arrays[2].reshape(3, 20))
        np.testing.assert_array_equal(data.test_labels, arrays[3])
        assert data.image_shape == (4, 5)
        assert data.train_images.dtype == np.uint8
        assert data.train_labels.dtype == np.int64


def test_missing_folder_and_files(folder, tmp_path):
    path, _ = folder
    with pytest.raises(FileNotFoundError, match=r"train-images.*no such folder"):
        load_idx(tmp_path / "nothing")
    (path / (NAMES[3] + ".gz")).unlink()
    with pytest.raises(FileNotFoundError, match=r"t10k-labels-idx1-ubyte\[.gz\]: no such file"):
        load_idx(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b[:-1], "expected 140 bytes of values.*got only 139"),
        (lambda b: b + b"\0", "expected 140 bytes of values.*got more"),
        (lambda b: b[:10], "truncated within its header"),
        (lambda b: b[:3], "magic number 00000803.*got 000008"),
        (lambda b: b"", "got an empty file"),
        (lambda b: b"\x89PNG\r\n" + b, "magic number 00000803.*got 89504e47"),
        (lambda b: bytes([0, 0, 13, 3]) + b[4:], "uint8.*got 00000d03"),
        (lambda b: bytes([0, 0, 8, 1]) + b[4:], "3 dimensions.*got 00000801"),
        (lambda b: b[:4] + b"\xff" * 12 + b[16:], "got only 140"),
        (lambda b: b[:4] + bytes(4) + b[8:16], "expected images"),
    ],
)
@pytest.mark.parametrize("gzipped", [False, True])
def test_broken_images(folder, change, message, gzipped):
    path, arrays = folder
    content = change(idx_bytes(arrays[0]))
    if message == "expected images":
        (path / NAMES[1]).write_bytes(idx_bytes(np.zeros(0)))
    if gzipped:
        (path / NAMES[0]).unlink()
        (path / (NAMES[0] + ".gz")).write_bytes(gzip.compress(content))
    else:
        (path / NAMES[0]).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        load_idx(path)
    assert NAMES[0] in str(caught.value)


@pytest.mark.parametrize("content", [b"not gzip", b"", gzip.compress(bytes(5000))[:-9]])
def test_broken_gzip(folder, content):
    path, _ = folder
    (path / (NAMES[2] + ".gz")).write_bytes(content)
    with pytest.raises(ValueError, match=NAMES[2]):
        load_idx(path)


def test_any_damage_to_a_gzip_file_is_one_error(folder):
    path, arrays = folder
    target = path / (NAMES[2] + ".gz")
    good = target.read_bytes()
    rng = np.random.default_rng(11)
    for _ in range(300):
        damaged = bytearray(good)
        damaged[rng.integers(len(good))] ^= 1 << rng.integers(8)
        target.write_bytes(damaged)
        try:
            data = load_idx(path)
        except ValueError as error:
            assert str(target) in str(error)
        else:  # damage to a field of the gzip header that says nothing about the data
            np.testing.assert_array_equal(data.test_images, arrays[2].reshape(3, 20))


def test_counts_and_shapes_must_match(folder):
    path, arrays = folder
    (path / NAMES[1]).write_bytes(idx_bytes(arrays[1][:-1]))
    with pytest.raises(ValueError, match=r"train-labels.*expected 7 labels.*got 6"):
        load_idx(path)
    (path / NAMES[1]).write_bytes(idx_bytes(arrays[1]))
    (path / NAMES[2]).write_bytes(idx_bytes(arrays[2][:, :, :4]))
    (path / (NAMES[2] + ".gz")).unlink()
    with pytest.raises(ValueError, match=r"t10k-images.*\(4, 5\).*got \(4, 4\)"):
        load_idx(path)
