"""`fastnn bench`: its table, its file, its limits, and that it leaves the process as it was."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from fastnn import get_num_threads
from fastnn._core import kernels
from fastnn._core.limits import Probe
from fastnn.cli import bench as module
from fastnn.cli import main
from fastnn.cli.bench import BLAS_VARIABLES, Row, _ahead, _line, measure
from fastnn.cli.bench_cases import Case, Form, Forms

KINDS = ("fma", "read", "write", "copy", "update", "stream_write", "stream_copy")
ROW = re.compile(
    r"^(?P<name>.{28})(?: +[\d.]+ (?:s|ms|us|ns)){3}(?: +[\d.]+[ <]){2} +[\d.]+ (?:GFLOP/s|GB/s   )"
    r" +\d+% (?:FMA|read|copy|write|update)$"
)


def bench(capsys: pytest.CaptureFixture[str], *argv: str) -> list[str]:
    assert main(["bench", *argv]) == 0
    return capsys.readouterr().out.splitlines()


def test_table_and_file(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    granted: Callable[[int], int],
) -> None:
    for name in BLAS_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "bench.json"
    before = get_num_threads()
    lines = bench(
        capsys, "--quick", "--threads", "2", "--json", str(path),
        "--only", "linear 1x64", "--only", "gelu", "--only", "train 784-512-256-10, 32",
    )  # fmt: skip
    assert get_num_threads() == before
    text = "\n".join(lines)
    assert max(map(len, lines)) <= 100
    assert kernels.isa() in text
    assert f"threads: {granted(2)}" in text
    assert "Warning" not in text
    shown = [match["name"].strip() for line in lines if (match := ROW.match(line))]
    assert shown == ["linear 1x64->64", "gelu 65,536", "train 784-512-256-10, 32"]

    rows = json.loads(path.read_text())["rows"]
    assert [row["name"] for row in rows] == shown
    # How fast is not asserted: another program may hold a core meanwhile. But rate and time are of
    # the same work, and a training step is some hundred times a small product.
    linear, gelu, train = rows
    assert linear["rate"] * linear["fastnn"] == pytest.approx(2 * 64 * 64, rel=1e-6)
    assert gelu["rate"] * gelu["fastnn"] == pytest.approx(2 * 4 * 65_536, rel=1e-6)
    assert 1e-7 < 20 * linear["fastnn"] < train["fastnn"] < 1
    for row in rows:
        assert min(row["ratio"], row["ratio_out"], row["limit"]) > 0
    assert re.search(r"Ahead of plain NumPy in \d of 3 rows", text)


class Known:
    """Limits of a machine that is known: 2 GFLOP/s, and a bandwidth for each footprint."""

    threads, flops = 1, 2e9

    def bandwidth(self, kind: str, nbytes: float) -> float:
        assert (kind, nbytes) == ("copy", 4 * 250)
        return 8e9

    def look(self) -> None:
        pass


@pytest.mark.parametrize("takes_out", [False, True])
@pytest.mark.parametrize(("flops", "by", "share"), [(0, "copy", 0.25), (8e3, "FMA", 2.0)])
def test_a_row_is_what_follows_from_times_and_limits(
    monkeypatch: pytest.MonkeyPatch, takes_out: bool, flops: float, by: str, share: float
) -> None:
    """With times that are given, so that no noise can blur it: medians of ratios, not of times."""
    ours = [[1e-6, 4e-6, 5e-6], [1e-6, 2e-6, 3e-6]]
    theirs = [[4e-6, 4e-6, 6e-6], [5e-6, 3e-6, 3e-6]]
    given = (ours if takes_out else ours[1:]) + theirs

    def known(ours: list[Form], theirs: tuple[Form, ...], *_: object, rest: bool) -> object:
        assert (len(ours), len(theirs), rest) == (len(given) - 2, 2, False)
        return given

    def call() -> None:
        raise AssertionError("nobody calls it")

    monkeypatch.setattr(module, "measure", known)
    forms = Forms(call, call, call, call if takes_out else None)
    case = Case("it", lambda dtype: forms, flops, 1000, 250, "copy")
    limits = cast("module.Limits", Known())
    row = module.run_case(case, "float32", limits, 1.0, 3)
    assert (row.name, row.fastnn, row.numpy, row.numpy_out) == ("it", 2e-6, 4e-6, 3e-6)
    assert row.ratio == pytest.approx(1.2 if takes_out else 2.0, rel=1e-12)
    assert row.ratio_out == pytest.approx(1.5, rel=1e-12)
    assert (row.limited_by, row.unit) == (by, "GFLOP/s" if flops else "GB/s")
    assert row.limit == pytest.approx(share, rel=1e-12)
    assert row.rate == pytest.approx((flops or 4000) / 2e-6, rel=1e-12)


def test_rows_that_are_not_ahead_are_marked_and_named() -> None:
    slow = Row("case", 2e-6, 1e-6, 3e-6, 0.5, 1.5, 1e9, "GB/s", 0.25, "copy")
    assert "0.50<" in _line(slow)
    assert "1.50<" not in _line(slow)
    assert ROW.match(_line(slow))
    assert _ahead("it", {"a": 0.5, "b": 2.0}) == "Ahead of it in 1 of 2 rows; not ahead (<): a."
    assert _ahead("it", {"a": 1.5}) == "Ahead of it in 1 of 1 rows."


def test_float64(capsys: pytest.CaptureFixture[str]) -> None:
    text = "\n".join(bench(capsys, "--quick", "--dtype", "float64", "--only", "softmax"))
    assert "float64" in text
    assert "softmax 512x128" in text


@pytest.mark.parametrize("name", BLAS_VARIABLES)
def test_warns_of_a_slowed_numpy(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for each in BLAS_VARIABLES:
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, "512")
    text = "\n".join(bench(capsys, "--quick", "--threads", "1", "--only", "cross_entropy 128x10"))
    assert f"Warning: the environment sets {name}=512" in " ".join(text.split())


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--threads", "0"], "expected a whole number from 1 to 1024, got '0'"),
        (["--dtype", "float16"], "float16"),
        (["--only", "nothing such"], "--only: expected part of a name"),
        (["--json", os.path.join("no", "such", "folder", "x.json"), "--only", "gelu"], "--json"),
    ],
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], argv: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["bench", "--quick", *argv])
    assert message in f"{caught.value}{capsys.readouterr().err}"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_limit_loops_tell_what_they_did(isa: str, n_threads: int, dtype: str) -> None:
    probe = Probe(dtype, n_threads, 100_000)
    for what in KINDS:
        once = probe.run(what, 1)
        assert probe.run(what, 3) == 3 * once
        if what == "fma":
            assert once % (2 * n_threads) == 0
        else:
            assert once % 64 == 0
            assert once >= 100_000
    assert probe.run("update", 1) == 2 * probe.run("read", 1)


def test_limits_are_plausible() -> None:
    """No loop was optimized away: from registers and from memory, a core has its limits."""
    probe = Probe("float32", 1, 1 << 16)
    for what in KINDS:
        rounds = max(1, round(1e7 / probe.run(what, 1)))
        rates = []
        for _ in range(5):
            start = time.perf_counter()
            done = probe.run(what, rounds)
            rates.append(done / (time.perf_counter() - start))
        assert 1e7 < max(rates) < 2e12, what


def test_probe_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="threads, nbytes: expected at least 1 and 0, got 0, 5"):
        Probe("float32", 0, 5)
    with pytest.raises(ValueError, match="what: expected one of fma, read"):
        Probe("float32", 1, 0).run("divide", 1)


def test_measure_times_every_form_in_every_round() -> None:
    calls: list[str] = []

    def form(name: str, seconds: float) -> Callable[[], None]:
        def call() -> None:
            calls.append(name)
            time.sleep(seconds)

        return call

    short, long = measure([form("short", 1e-4)], [form("long", 2e-3)], 0.01, 3)
    assert len(short) == len(long) == 3
    assert min(short) < min(long)
    assert min(short) >= 1e-4
    assert min(long) >= 2e-3
    order = [name for i, name in enumerate(calls) if i == 0 or name != calls[i - 1]]
    assert order[-6:] == ["short", "long"] * 3
