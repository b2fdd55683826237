"""`fastnn lab`: what it prints and writes, its page, and what it refuses."""

from __future__ import annotations

import dataclasses
import gzip
import itertools
import os
import re
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from fastnn.cli import lab, main
from fastnn.lab import bias, depth, he, leaky, lecture, run, small, xavier, zeros
from fastnn.lab.page import page
from fastnn.lab.parts import Claim, read

TITLES = [
    "Bias", "Zero weights", "Small random weights", "The 5-4-3 network",
    "Xavier, for tanh and sigmoid", "He, for ReLU and Leaky ReLU", "Leaky ReLU against ReLU",
    "Fifty layers",
]  # fmt: skip


class Reader(HTMLParser):
    """What a page consists of; every tag that is opened must be closed again."""

    VOID = ("meta", "link", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)
            self.text.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        for tag in set(self.open):
            self.text[tag][-1] += data

    def attributes(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def few(monkeypatch):
    """A lab of the experiments that take no time."""
    monkeypatch.setattr(
        run, "EXPERIMENTS", {"Bias": bias.experiment, "The 5-4-3 network": lecture.experiment}
    )


def test_all_eight_are_there():
    assert list(run.EXPERIMENTS) == TITLES


def test_it_prints_a_line_per_claim_and_writes_page_and_figures(few, tmp_path, capsys):
    out = tmp_path / "new" / "folder"
    assert main(["lab", "--out", str(out)]) == 0
    printed, err = capsys.readouterr()
    assert err == ""
    task = read()
    experiments = [bias.experiment(task, 0), lecture.experiment(task, 0)]
    for number, one in enumerate(experiments, 1):
        assert re.search(rf"^{number}/2  {one.title}$", printed, re.M)
        for claim in one.claims:
            assert (
                f"  holds  {claim.says}: {claim.measured} (expected: {claim.expected})\n" in printed
            )
    assert "W1, shape (4, 5)" in printed
    n = sum(len(one.claims) for one in experiments)
    assert re.search(rf"^{n} of {n} claims hold \(handwritten digits, 1,797 images", printed, re.M)
    assert printed.splitlines()[-1] == f"The page to read: {out / 'index.html'}"
    names = [picture.name for one in experiments for picture in one.pictures]
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["index.html", *(f"{name}.png" for name in names)]
    )
    for name in names:
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_seed_gives_the_same_page(few, tmp_path):
    pages = []
    for folder, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        assert main(["lab", "--out", str(tmp_path / folder), "--seed", seed]) == 0
        pages.append((tmp_path / folder / "index.html").read_bytes())
    assert pages[0] == pages[1] != pages[2]


def test_a_claim_that_fails_is_told_everywhere(monkeypatch, tmp_path, capsys):
    def failing(task, seed, progress):
        one = bias.experiment(task, seed, progress)
        claims = (Claim("Two is three", "2", "3", False), *one.claims[1:])
        return dataclasses.replace(one, claims=claims)

    monkeypatch.setattr(run, "EXPERIMENTS", {"Bias": failing})
    assert main(["lab", "--out", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "  FAILS  Two is three: 2 (expected: 3)\n" in out
    assert "4 of 5 claims hold" in out
    found = Reader((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert "4 of 5 claims hold" in found.text["header"][0]
    captions = found.text["figcaption"]
    assert captions[0].startswith("Not borne out in this run: ")
    assert not captions[1].startswith("Not")
    assert [text for text in found.text["li"] if "✗ fails" in text]


@pytest.fixture(scope="module")
def chapters():
    """Experiments with figures, and images for them that are quickly made."""
    task = read()
    experiments = [module.experiment(task, 0) for module in (zeros, leaky)]
    png = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + bytes([0, 0, 2, 0, 0, 0, 1, 0])
    images = {picture.name: png for one in experiments for picture in one.pictures}
    return task, experiments, images


def test_the_page_stands_alone(chapters):
    task, experiments, images = chapters
    text = page(task, experiments, images, "fastnn lab")
    found = Reader(text)
    assert found.attributes("html") == [{"lang": "en"}]
    assert {"charset": "utf-8"} in found.attributes("meta")
    assert any(one.get("name") == "viewport" for one in found.attributes("meta"))
    assert "script" not in dict(found.tags)
    for tag, attributes in found.tags:
        for name in ("src", "href"):
            if attributes.get(name):
                assert attributes[name].startswith(("data:", "#")), (tag, attributes[name][:80])
    assert "http" not in text
    assert "@import" not in text
    assert "url(" not in text
    targets = {one["id"] for _, one in found.tags if "id" in one}
    assert {one["href"] for one in found.attributes("a")} == {f"#{name}" for name in targets}


def test_each_figure_has_an_alternative_and_a_conclusion(chapters):
    task, experiments, images = chapters
    found = Reader(page(task, experiments, images, "fastnn lab"))
    pictures = [picture for one in experiments for picture in one.pictures]
    for image, picture in zip(found.attributes("img"), pictures, strict=True):
        assert image["alt"] == picture.alt
        assert len(image["alt"]) > 60
        assert (image["width"], image["height"]) == ("512", "256")
    assert found.text["figcaption"] == [picture.caption for picture in pictures]
    assert all(picture.claims for picture in pictures), "each conclusion rests on claims"


def test_each_claim_and_formula_is_on_the_page(chapters):
    task, experiments, images = chapters
    found = Reader(page(task, experiments, images, "fastnn lab --seed 7"))
    text = " ".join(found.text["body"][0].split())
    for one in experiments:
        assert one.title in text
        for words in (*one.formulas, one.setup):
            assert " ".join(words.split()) in text
        for claim in one.claims:
            assert " ".join(claim.says.split()) in text
            assert f"measured {claim.measured}" in text
            assert f"expected {claim.expected}" in text
    assert "fastnn lab --seed 7" in text
    levels = [int(tag[1]) for tag, _ in found.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))


def test_the_page_tells_what_it_is_to_learn_and_how_to_try(chapters):
    task, experiments, images = chapters
    found = Reader(page(task, experiments, images, "fastnn lab --seed 7"))
    told = dict(zip(found.text["dt"], found.text["dd"], strict=True))["to learn"]
    assert "to bring the loss below the entropy of the labels by more than luck can" in told
    assert f"all {len(task.y):,} images, {task.luck:.2%} of the entropy" in told
    assert "Trying it" in found.text["h2"]
    assert 'pip install "fastnn-cpu[plot]"\nfastnn lab --seed 7\npython try.py' in found.text["pre"]
    for one in experiments:
        assert one.code in found.text["pre"]


CODES = {
    bias: "True [1. 4.]", zeros: "all 32 units of layer 0 are identical: zero weights",
    small: "problem: vanishing", lecture: "Linear(5, 4)", xavier: "problem: saturated",
    he: "Xavier before ReLU loses half the variance per layer", leaky: "{0: [0.0",
    depth: "Xavier before LeakyReLU(0.01) loses half the variance per layer",
}  # fmt: skip


@pytest.mark.parametrize("module", CODES, ids=lambda m: m.__name__.rpartition(".")[2])
def test_the_programs_to_try_run_as_they_are_pasted(module, tmp_path):
    """In a folder of their own, in a Python that knows nothing else."""
    program = tmp_path / "try.py"
    program.write_text(module.code(read()), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-P", program.name], cwd=tmp_path, capture_output=True, text=True,
        check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert CODES[module] in done.stdout
    assert ("units of layer 0 are dead" in done.stderr) == (module is leaky), done.stderr
    assert max(map(len, module.code(read()).splitlines())) <= 100


def test_the_programs_read_ones_own_data(stripes, tmp_path):
    code = zeros.code(read(stripes))
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    assert "X, y, *_ = load_idx(" in code
    assert "identical: zero weights" in done.stdout


def test_progress_within_an_experiment(with_tqdm, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(run, "EXPERIMENTS", {"Zero": zeros.experiment, "Leaky": leaky.experiment})
    for flags in ([], ["--no-progress"]):
        main(["lab", "--out", str(tmp_path), *flags])
        assert capsys.readouterr().err == ""
    main(["lab", "--out", str(tmp_path), "--progress"])
    out, err = capsys.readouterr()
    assert "network" not in out.partition("claims hold")[2]
    if with_tqdm:
        assert err.count("5/5") >= 2
        assert "random ±0.1" in err
    else:
        lines = err.splitlines()
        assert len(lines) == 10
        assert lines[0] == "1/5 networks: zero, no bias"
        assert lines[-1] == "5/5 networks: Leaky ReLU, a = 0.1, afterwards"


def test_names_are_escaped(chapters):
    task, _, images = chapters
    task = dataclasses.replace(task, name="<b>&x")
    text = page(task, [zeros.experiment(task, 0)], images, "fastnn lab --data '<b>&x'")
    assert "<b>&x" not in text
    assert "&lt;b&gt;&amp;x" in text
    Reader(text)


def write_idx(folder: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    for part in ("train", "t10k"):
        for name, values in (("images-idx3", images), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, values.ndim])
            head += b"".join(n.to_bytes(4, "big") for n in values.shape)
            data = gzip.compress(head + values.astype(np.uint8).tobytes())
            (folder / f"{part}-{name}-ubyte.gz").write_bytes(data)
    return folder


@pytest.fixture
def stripes(tmp_path):
    """90 images of 6 x 7 pixels; that of class c has a bright row c."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    images = rng.integers(0, 60, (90, 6, 7))
    images[np.arange(90), labels] += 150
    images[7] = 0  # a blank one
    return write_idx(tmp_path / "stripes", images, labels)


def test_on_data_of_ones_own(stripes, monkeypatch, tmp_path, capsys):
    task = read(stripes)
    assert (task.name, task.shape, task.of, len(task.y), task.classes) == (
        "stripes", (6, 7), 90, 89, 3,
    )  # fmt: skip
    np.testing.assert_allclose(np.square(task.X).mean(axis=1), 1, rtol=1e-5)
    monkeypatch.setattr(
        run, "EXPERIMENTS", {"Zero weights": zeros.experiment, "Leaky": leaky.experiment}
    )
    assert main(["lab", "--data", str(stripes), "--out", str(tmp_path / "out")]) in (0, 1)
    out = capsys.readouterr().out
    assert "(stripes, 89 images of 6 x 7 pixels, seed 0)" in out
    text = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "stripes, 89 images of 90, 6 × 7 pixels, 3 classes" in text
    assert f"fastnn lab --data {stripes}" in text


def test_large_data_is_thinned_out(tmp_path):
    n = 4000
    images = np.ones((n, 2, 2)) * (1 + np.arange(n) % 200)[:, None, None]
    task = read(write_idx(tmp_path / "many", images, np.arange(n) * 10 // n))
    assert (len(task.y), task.of) == (1800, n)
    assert np.bincount(task.y).min() >= 178, "of all parts of the data"


@pytest.mark.parametrize(
    ("images", "labels"),
    [(np.ones((9, 2, 2)), np.zeros(9)), (np.zeros((9, 2, 2)), np.arange(9))],
    ids=["one class", "blank"],
)
def test_data_that_cannot_be_learnt(images, labels, tmp_path):
    folder = write_idx(tmp_path / "poor", images, labels)
    with pytest.raises(SystemExit, match="--data: poor: expected images of at least two classes"):
        main(["lab", "--data", str(folder), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--data", "/nothing/there"], 1, "--data: /nothing/there/train-images.*no such folder"),
        (["--seed", "-1"], 2, "--seed: expected a whole number of at least 0, got '-1'"),
        (["--seed", "x"], 2, "--seed"),
        (["--nothing"], 2, "--nothing"),
        (["more"], 2, "more"),
    ],
)
def test_it_refuses(arguments, status, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["lab", *arguments])
    code, err = caught.value.code, capsys.readouterr().err
    if status == 1:
        assert code.startswith("fastnn lab: error: ")
        err = code
    else:
        assert code == status
    assert re.search(message, err)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "EXPERIMENTS", {"Bias": pytest.fail})  # refused before that
    file = tmp_path / "file"
    file.write_text("mine")
    for out in (file, file / "below"):
        with pytest.raises(SystemExit, match=r"error: --out: cannot write to .*file"):
            main(["lab", "--out", str(out)])
    assert file.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [file]
    with pytest.raises(SystemExit, match=r"--out: expected a folder, got ''"):
        main(["lab", "--out", ""])


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(SystemExit, match="cannot write to .*: Permission denied"):
        main(["lab", "--out", str(tmp_path)])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux")
def test_a_disk_that_is_full(few, tmp_path, monkeypatch, capsys):
    def full(path, parts):
        with open("/dev/full", "wb", buffering=0) as file:
            file.write(parts[0])

    monkeypatch.setattr(run, "write_atomically", full)
    with pytest.raises(SystemExit, match=r"cannot write to .*: No space left on device"):
        main(["lab", "--out", str(tmp_path)])
    assert not (tmp_path / "index.html").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux")
def test_output_that_cannot_be_written_is_no_fault_of_the_folder(tmp_path):
    """stdout_that is full, or closed."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "fastnn", "lab", "--out", str(tmp_path)],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=300,
        )  # fmt: skip
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "--out" not in done.stderr
    code = "import sys\nsys.stdout = None\nfrom fastnn.cli import lab\nlab._say('x')"
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


def test_without_matplotlib_the_error_names_the_mend(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(
        SystemExit, match=r'error: figures: expected matplotlib.*pip install "fastnn-cpu\[plot\]"'
    ):
        main(["lab", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_terminal_that_knows_no_sign_gets_another(monkeypatch, capsys):
    done = subprocess.run(
        [sys.executable, "-P", "-c", "from fastnn.cli import lab\nlab._say('±0.1 · √n')"],
        env=os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "?0.1 ? ?n\n"
    lab._say("±")
    assert capsys.readouterr().out == "±\n"


@pytest.mark.skipif(os.name != "posix", reason="pipes")
def test_broken_pipe_ends_cleanly(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "fastnn", "lab", "--out", str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=300) == 1
    assert err == ""


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.usefixtures("heeds_sigint")
def test_ctrl_c_ends_cleanly(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "fastnn", "lab", "--out", str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for line in process.stdout:
        if line.startswith("3/8"):  # the third is under way
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err.strip() == "interrupted"
    assert not (tmp_path / "index.html").exists(), "a page is complete or not there"


def test_help_tells_what_it_does(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["lab", "-h"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    for word in ("--out DIR", "--data DIR", "--seed N", "fastnn-lab", "exit status is 1"):
        assert word in " ".join(out.split())
    assert max(map(len, out.splitlines())) < 100
