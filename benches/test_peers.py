"""peers.py runs with whatever peers are installed, and its tables tell the losses."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from pathlib import Path

import peer_cells
import peer_dense
import peer_report
import peer_timing
import peer_train
import pytest

SCRIPT = Path(__file__).with_name("peers.py")


def peers(*argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_quick_run(tmp_path: Path) -> None:
    chosen = ["--quick", "--rounds", "1", "--threads", "1", "--peers", "numpy"]
    done = peers(*chosen, "--only", "layer,predict,train", "--only", "init", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    run = json.loads((tmp_path / "peers.json").read_text())
    (part,) = run["runs"]
    names = [(cell["section"], cell["name"]) for cell in part["cells"]]
    assert names == [
        ("layer", "1x64"), ("layer", "32x256"), ("predict", "64-32-10, 1"),
        ("train", "64-32-10, 32"), ("init", "uniform 1,000,000"), ("init", "normal 1,000,000"),
    ]  # fmt: skip
    for cell in part["cells"]:
        assert cell["failed"] == {}
        assert {"fastnn", "NumPy out="} <= {form["peer"] for form in cell["forms"]}
        assert all(t > 0 for form in cell["forms"] for t in form["seconds"])
        assert cell["limit"] > 0
    text = (tmp_path / "peers.md").read_text()
    assert "| 32x256 |" in text
    assert "NumPy plain" in text
    assert "layer 32x256" in (tmp_path / "peers_short.md").read_text()
    drawn = {path.name for path in tmp_path.glob("*.png")}
    assert drawn in (set(), {"peers_ratios_1.png", "peers_roofline_1.png", "peers_short.png"})

    again = tmp_path / "again"
    done = peers("--render", str(tmp_path / "peers.json"), "--out", str(again))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (again / "peers.md").read_text() == text


def test_the_environment_cannot_slow_numpy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "512")
    done = peers("--quick", "--rounds", "1", "--threads", "1", "--peers", "numpy",
                 "--cells", "layer 1x16", "--out", str(tmp_path))  # fmt: skip
    assert "OPENBLAS_L2_SIZE=512" in done.stdout
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--only", "nothing"], "--only: expected some of layer"),
        (["--threads", "0"], "--threads: expected 1 to"),
        (["--cells", "nothing such", "--threads", "1"], "no cell was measured"),
    ],
)
def test_wrong_usage(tmp_path: Path, argv: list[str], message: str) -> None:
    done = peers(*argv, "--out", str(tmp_path))
    assert done.returncode == 1
    assert message in done.stderr


def part(**seconds: list[float]) -> dict:
    (beside,) = seconds["fastnn"]
    forms = [
        {"peer": peer, "variant": str(i), "seconds": times, "beside": beside}
        for peer, several in seconds.items()
        for i, times in enumerate(several)
    ]
    cell = {"section": "layer", "name": "1x64", "dtype": "float32", "flops": 8192, "forms": forms}
    cell |= {
        "batch": 0,
        "traffic": 17000,
        "limit": 1e-7,
        "limited_by": "read",
        "failed": {},
        "disturbed": 0.2,
    }
    return {"threads": 2, "status": 0, "machine": {}, "limits": {}, "cells": [cell]}


def test_a_loss_is_told_in_all_tables() -> None:
    slow = {"JAX": [[8e-6] * 3, [1e-6, 1e-6, 9e-6]], "PyTorch": [[3e-6, 3e-6, 9e-6]]}
    measured = part(fastnn=[[2e-6, 2e-6, 9e-6]], **slow)
    (row,) = rows = peer_report.rows(measured)
    assert (row.best, row.ratio, row.seconds) == ("JAX", 0.5, 2e-6)
    assert row.peers["PyTorch"] == pytest.approx(1.5)
    assert row.spread == pytest.approx(0.25 / 0.5)
    assert row.share == pytest.approx(0.05)
    run = {"command": "peers.py", "runs": [measured]}
    line = next(text for text in peer_report.table(run, [rows]).splitlines() if "1x64 |" in text)
    assert line == (
        "| 1x64 | 2.00 us | 1.50 | **0.50** | JAX 0.50 **SLOWER** | 4.10 GFLOP/s | 5% read "
        "| 50% (!) |"
    )
    assert "not the fastest in 1: 1x64 (JAX 0.50)" in peer_report.summary(rows)
    assert "| layer 1x64 | 2.00 us | JAX 0.50 **SLOWER** |" in peer_report.short_table(run, [rows])


def test_what_is_just_behind_is_not_rounded_away() -> None:
    text = peer_report.summary(peer_report.rows(part(fastnn=[[1e-6]], JAX=[[0.9991e-6]])))
    assert "(JAX 0.9991)" in text
    assert "fastest in all" in peer_report.summary(
        peer_report.rows(part(fastnn=[[1e-6]], X=[[2e-6]]))
    )


def test_wrong_answers_are_found() -> None:
    net = peer_dense.Network((16, 8), 4, "float32", last=True)
    (form,) = peer_dense.numpy_plain(net)
    assert net.check(form) is None
    assert "the answer is off" in (net.check(form._replace(call=lambda: 1.001 * form.call())) or "")
    task = peer_train.Task((16, 8, 4), 8, 80)
    (training,) = peer_train.fastnn_fit(task)
    assert task.check(training) is None
    assert "the loss is" in (task.check(training) or "")  # it has learnt meanwhile


def test_forms_take_turns_and_slow_forms_of_a_peer_drop_out() -> None:
    calls: list[str] = []

    def form(peer: str, variant: str, work: int) -> peer_timing.Form:
        def call() -> None:
            calls.append(variant)
            math.fsum(range(work))

        return peer_timing.Form(peer, variant, call)

    forms = [form("a", "quick", 10_000), form("a", "slow", 100_000),
             form("b", "other", 10_000), form("c", "hopeless", 100_000)]  # fmt: skip
    ours, budget = form("us", "first", 10_000), peer_timing.Budget(4, 1e-3)
    measured, disturbed = peer_timing.measure(ours, forms, budget)
    times = {timed.variant: timed for timed in measured}
    assert [*times] == ["first", "quick", "slow", "other", "hopeless"]
    assert len(times["first"].seconds) == len(times["quick"].ratios) == 4
    assert len(times["other"].ratios) == 4
    assert 1 <= len(times["slow"].ratios) <= 2
    assert 1 <= len(times["hopeless"].ratios) <= 2
    assert disturbed >= 0
    assert times["first"].ratios == [1] * 4
    assert times["slow"].ratio > 3 * times["quick"].ratio
    peers = {"quick": "a", "slow": "a"}
    turns = [name for name, _ in itertools.groupby(peers.get(name, name) for name in calls)]
    turns = turns[turns.index("hopeless") + 1 :]  # before that each form is tried once
    assert set(turns[::2]) == {"first"} != set(turns[1::2])
    assert len(turns) >= 2 * (3 + 3 + 2 + 2) + 1


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="the system does not tell")
def test_other_programs_are_noticed() -> None:
    others = peer_timing.Others()
    busy = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", busy], check=True)
    assert 0 < others.share() <= 1.5


def test_every_peer_is_listed_and_names_are_unique() -> None:
    cells = peer_cells.cells()
    assert {peer for cell in cells for peer in cell.makers} == set(peer_cells.MODULES)
    assert len({(cell.section, cell.name) for cell in cells}) == len(cells)
    known = {(cell.section, cell.name) for cell in cells}
    assert {(s, name) for s, *names in peer_report.SHORT for name in names} <= known
