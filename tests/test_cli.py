"""The command line: what it prints, its exit status, and how it ends early."""

import functools
import gzip
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import fastnn
from fastnn.cli import main
from fastnn.cli.plain_numpy import PlainNetwork

NAMES = [
    ("train-images-idx3-ubyte", (60, 6, 7)),
    ("train-labels-idx1-ubyte", (60,)),
    ("t10k-images-idx3-ubyte", (20, 6, 7)),
    ("t10k-labels-idx1-ubyte", (20,)),
]


@pytest.fixture
def idx_folder(tmp_path):
    """Four small IDX files: the image of class c has a bright row c."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "stripes"
    folder.mkdir()
    labels = {60: rng.integers(0, 4, 60), 20: np.arange(20) % 4}
    for name, shape in NAMES:
        values = labels[shape[0]].astype(np.uint8)
        if len(shape) == 3:
            values = rng.integers(0, 60, shape, dtype=np.uint8)
            values[np.arange(shape[0]), labels[shape[0]]] += 150
        head = bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)
        (folder / (name + ".gz")).write_bytes(gzip.compress(head + values.tobytes()))
    return folder


def start(*arguments, **options):
    """`python -m fastnn` in a process of its own, away from the current folder."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "fastnn", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def run(*arguments, **options):
    process = start(*arguments, **options)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def test_no_arguments_shows_help():
    status, out, err = run()
    assert status == 0
    assert err == ""
    for command in ("demo", "lab", "bench", "info"):
        assert re.search(rf"^  {command} ", out, re.M)
    assert max(map(len, out.splitlines())) < 80


def test_version(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"fastnn {fastnn.__version__}\n"


@pytest.mark.parametrize("arguments", [["nothing"], ["nothing", "--x"], ["--nothing"]])
def test_wrong_usage(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_info(capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert fastnn.__version__ in out
    assert np.__version__ in out


def test_demo_learns_the_digits(capsys):
    assert main(["demo"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) < 80
    assert "1,433 images to learn from and 364 held out, 8 x 8 pixels, 10 classes" in out
    assert "he_normal, slope 0.01, std 0.177" in out
    accuracy = re.search(r"(\d+) of 364 right, accuracy (\d+\.\d+)%", out)
    assert float(accuracy[2]) >= 97
    assert int(accuracy[1]) == round(float(accuracy[2]) * 3.64)
    times = re.findall(r"(fastnn|plain NumPy) +([\d.]+) ms", out)
    assert [name for name, _ in times] == ["fastnn", "plain NumPy"]
    assert all(float(ms) > 0 for _, ms in times)
    assert re.search(r"^ *0 \(\d+\.\d%\)", out, re.M)


def test_demo_on_idx_files(capsys, idx_folder, tmp_path):
    saved = tmp_path / "model.safetensors"
    options = ["--hidden=16,8", "--epochs=200", "--batch-size=16", "--seed=3", "--threads=1"]
    with fastnn.threads(fastnn.get_num_threads()):
        assert main(["demo", "--data", str(idx_folder), "--save", str(saved), *options]) == 0
    out = capsys.readouterr().out
    assert "60 images to learn from and 20 held out, 6 x 7 pixels, 4 classes" in out
    assert "20 of 20 right, accuracy 100.00%" in out
    model = fastnn.load(saved)
    assert [p.shape for p in model.parameters().values()] == [
        (16, 42), (16,), (8, 16), (8,), (4, 8), (4,),
    ]  # fmt: skip
    data = fastnn.data.load_idx(idx_folder)
    assert (model.predict(data.test_images).argmax(axis=1) == data.test_labels).all()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--data", "/nothing/there"], 1, "--data: /nothing/there/train-images.*no such folder"),
        (["--data", ""], 1, "--data: train-images.*no such"),
        (["--save", "/nothing/there/model"], 1, "--save: no such folder: /nothing/there"),
        (["--plot", "/nothing/there/a.png"], 1, "--plot: no such folder: /nothing/there"),
        (["--save", ""], 1, "--save: expected the name of a file, got ''"),
        (["--save", "."], 1, "--save: expected the name of a file, got '.'"),
        (["--plot", "./"], 1, "--plot: expected the name of a file, got './'"),
        (["--plot", "a.txt"], 1, "ending in .png, .pdf or .svg, got 'a.txt'"),
        (["--epochs", "0"], 2, "whole number of at least 1, got '0'"),
        (["--batch-size", "-3"], 2, "--batch-size"),
        (["--hidden", "12,x"], 2, "whole number of at least 1, got 'x'"),
        (["--hidden", ""], 2, "whole number of at least 1, got ''"),
        (["--threads", "2.5"], 2, "got '2.5'"),
        (["--threads", "5000"], 2, "--threads: expected a whole number from 1 to 1024, got '5000'"),
        (["--seed", "-1"], 2, "--seed"),
        (["--nothing"], 2, "--nothing"),
        (["more"], 2, "more"),
    ],
)
def test_demo_refuses(capsys, monkeypatch, tmp_path, arguments, status, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["demo", *arguments])
    code, err = caught.value.code, capsys.readouterr().err
    if status == 1:
        assert code.startswith("fastnn demo: error: ")
        err = code
    else:
        assert code == status
    assert re.search(message, err)


def test_demo_with_a_broken_folder(idx_folder):
    (idx_folder / (NAMES[0][0] + ".gz")).write_bytes(b"no")
    status, out, err = run("demo", "--data", str(idx_folder))
    assert (status, out) == (1, "")
    assert err.startswith("fastnn demo: error: --data: ")
    assert err.count("\n") == 1


def test_demo_with_one_class(idx_folder):
    for name, shape in NAMES[1::2]:
        content = bytes([0, 0, 8, 1]) + shape[0].to_bytes(4, "big") + bytes(shape[0])
        (idx_folder / (name + ".gz")).write_bytes(gzip.compress(content))
    status, out, err = run("demo", "--data", str(idx_folder))
    assert (status, out) == (1, "")
    message = "expected labels of several classes, got only 0 in"
    assert err == f"fastnn demo: error: --data: {message} {idx_folder}\n"


@pytest.mark.parametrize("option", ["--save", "--plot"])
def test_what_cannot_be_written_is_told_in_one_line(idx_folder, tmp_path, option):
    if option == "--plot":
        pytest.importorskip("matplotlib")
    path = tmp_path / ("a" * 300 + ".png")
    status, _, err = run("demo", "--data", str(idx_folder), "--epochs", "1", option, str(path))
    assert status == 1
    assert re.fullmatch(rf"fastnn demo: error: {option}: .*too long: '{path}'\n", err)


@pytest.mark.skipif(
    "asan" in os.environ.get("LD_PRELOAD", ""), reason="the sanitizer ends such a process itself"
)
def test_a_model_that_fits_into_no_memory_is_told_in_one_line(idx_folder):
    status, _, err = run("demo", "--data", str(idx_folder), "--hidden", f"{10**15}")
    assert status == 1
    assert re.fullmatch("fastnn: error: not enough memory: .*\n", err)


def test_a_batch_size_beyond_the_data_is_one_batch(idx_folder):
    options = "--epochs", "1", "--batch-size", f"{10**20}"
    status, _, err = run("demo", "--data", str(idx_folder), *options)
    assert (status, err) == (0, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_output_that_cannot_be_written_is_told_in_one_line():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "fastnn", "info"], stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 1
    assert re.fullmatch(rb"fastnn: error: .*No space left on device\n", done.stderr)


def test_plot_without_matplotlib(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SystemExit, match=r'pip install "fastnn-cpu\[plot\]"'):
        main(["demo", "--plot", str(tmp_path / "a.png")])


def test_plot(capsys, idx_folder, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "a.png"
    assert main(["demo", "--data", str(idx_folder), "--epochs", "2", "--plot", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert str(path) in capsys.readouterr().out


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.usefixtures("heeds_sigint")
def test_ctrl_c_ends_cleanly():
    # A program that a shell runs in the background ignores SIGINT from the start.
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = start("demo", "--epochs", "1000000", preexec_fn=heed)
    deadline = time.monotonic() + 60
    try:
        for line in process.stdout:
            assert time.monotonic() < deadline
            if line.strip().startswith("1 "):  # the first epoch: training is under way
                break
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=300)
    finally:
        process.kill()  # nothing where it has ended
    assert process.returncode == 130
    assert err.strip() == "interrupted"


@pytest.mark.skipif(os.name != "posix", reason="pipes")
def test_broken_pipe_ends_cleanly():
    process = start("demo")
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=300) == 1
    assert err == ""


def test_plain_numpy_computes_the_same(rng):
    """The yardstick is honest: its first steps agree with fastnn's in float32."""
    x = rng.integers(0, 17, (64, 12), dtype=np.uint8)
    y = rng.integers(0, 5, 64)
    model = fastnn.Sequential(
        fastnn.Linear(12, 9), fastnn.LeakyReLU(0.1), fastnn.Linear(9, 7), fastnn.LeakyReLU(0.1),
        fastnn.Linear(7, 5), rng=0, uint8_scale=1 / 16,
    )  # fmt: skip
    values = model.state_dict()
    plain = PlainNetwork(
        [values[f"{i}.weight"].T for i in (0, 2, 4)],
        [values[f"{i}.bias"] for i in (0, 2, 4)],
        batch_size=24,
        negative_slope=0.1,
        lr=1e-2,
    )
    history = model.fit(
        x, y, loss="cross_entropy", optimizer=fastnn.Adam(lr=1e-2), epochs=5, batch_size=24,
        shuffle=False, progress=False,
    )  # fmt: skip
    losses = [plain.epoch(x, y, 1 / 16, np.arange(64)) for _ in range(5)]
    np.testing.assert_allclose(losses, history.loss, rtol=1e-5)
    for i, w in zip((0, 2, 4), plain.w, strict=True):
        np.testing.assert_allclose(w.T, model.parameters()[f"{i}.weight"], atol=1e-5)
