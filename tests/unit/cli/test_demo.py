"""`hpcbench demo` where it cannot run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.typed_commands import run_here


def test_without_the_workers_libraries_nothing_is_queued(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    ended = run_here("demo", "--save-dir", str(tmp_path / "logs"))
    assert ended.code == 1
    assert f"demo: {sys.executable} has no " in ended.err
    assert "peft" in ended.err
    assert "pip install 'hpcbench-llm[worker]'" in ended.err
    assert not (tmp_path / "logs").exists()
