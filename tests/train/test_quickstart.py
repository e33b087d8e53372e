"""What a newcomer runs first: the demo, twice."""

from __future__ import annotations

import csv
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.places import ROOT

pytestmark = pytest.mark.train


def hpcbench(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "hpcbench", *arguments], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_demo_beats_its_baseline_and_is_not_run_twice(tmp_path: Path) -> None:
    first = hpcbench("demo", "--save-dir", str(tmp_path))
    assert "7 jobs submitted" in first
    assert "lora-r32" in (tmp_path / "quickstart" / "report.md").read_text()
    assert "</html>" in (tmp_path / "quickstart" / "report.html").read_text()
    rows = csv.DictReader(io.StringIO(hpcbench("collect", "--format", "csv", "--save-dir", str(tmp_path))))
    scores = {row["experiment"]: float(row["pig_latin_exact_match"]) for row in rows}

    # Importing gptqmodel sets another allocator for GPU memory, so a plain training must not.
    logs = [path.read_text(encoding="utf-8") for path in tmp_path.glob("quickstart/*/*/attempt-1/output.log")]
    assert len(logs) == 7
    assert not any("GPT-QModel" in log for log in logs)

    assert scores["baseline"] <= 0.05
    assert min(scores["lora-r4"], scores["lora-r32"], scores["full"]) >= 0.5
    assert scores["lora-r32"] > scores["lora-r4"]

    # The README's code: a notebook's, and what loads the best checkpoint.
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    notebook, best = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    codes = (notebook.replace('"logs"', repr(str(tmp_path))), best.replace('"logs/', f'"{tmp_path}/'))
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False) for code in codes]
    assert [run.stderr for run in runs if run.returncode] == []
    assert runs[-1].stdout.strip()

    assert "0 jobs submitted" in hpcbench("demo", "--save-dir", str(tmp_path))
    assert [path.name for path in sorted(tmp_path.glob("quickstart/*/*/attempt-*"))] == ["attempt-1"] * 7
