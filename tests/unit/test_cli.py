"""The command line's ways out: exit codes and messages, never a traceback."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from hpcbench import cli
from hpcbench.invocation import usual_save_dir
from hpcbench.jsonfile import write_json
from hpcbench.paths import SuitePaths
from hpcbench.profile import ClusterProfile
from hpcbench.submit_batches import Outcome
from tests.unit.job_cases import submission


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command line here and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["hpcbench", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def test_a_file_that_cannot_be_written_is_a_message(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(SuitePaths(tmp_path, "tuners").plan, {"suite": "tuners"})
    target = tmp_path / "tuners" / "suite.json" / "report.md"
    assert run(monkeypatch, "collect", "--save-dir", str(tmp_path), "-o", str(target)) == cli.EXIT_FAILED
    assert str(target.parent) in capsys.readouterr().err


def test_max_jobs_counts_the_jobs_of_all_suites(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = [tmp_path / "first.yaml", tmp_path / "second.yaml"]
    for file in files:
        value = {"cmd": "command", "device": "cpu", "args": {"command": ["true"]}, "experiment": [{"name": "a"}]}
        file.write_text(json.dumps(value))
    asked: list[int] = []

    def submit_suite(*_: object, max_jobs: int, **__: Any) -> Outcome:
        asked.append(max_jobs)
        return Outcome(submitted=[submission()])

    monkeypatch.setattr("hpcbench.submit.submit_suite", submit_suite)
    monkeypatch.setattr("hpcbench.invocation.run_local", lambda *_, **__: False)
    arguments = ["--cluster", "local", "--save-dir", str(tmp_path / "logs"), "--max-jobs", "6"]
    assert run(monkeypatch, "submit", *map(str, files), *arguments) == 0
    assert asked == [6, 2]


def test_verbs_look_where_the_profile_of_this_machine_puts_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = ClusterProfile(save_dir=str(tmp_path / "bench"))
    monkeypatch.setattr("hpcbench.invocation.load_profile", lambda: profile)
    assert usual_save_dir(None) == tmp_path / "bench"
    assert usual_save_dir(tmp_path) == tmp_path
    monkeypatch.setattr("hpcbench.invocation.load_profile", lambda: None)
    assert usual_save_dir(None) == Path("logs").absolute()
