"""The README's example runs as it stands."""

import re
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_the_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) == 4
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    answers, truth = names["answers"], names["y_test"]
    assert (answers == truth).mean() > 0.9
    assert (tmp_path / "digits.safetensors").exists()
    printed = capsys.readouterr().out
    assert "he_normal, slope 0.01" in printed
    assert "verdict: healthy" in printed
    assert "problem: symmetry" in printed
    assert (tmp_path / "inits.png").exists()
