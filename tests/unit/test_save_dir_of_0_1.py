"""A save directory that hpcbench 0.1.0 wrote is read, collected, left alone and retried by this version."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Golden
from tests.support.places import RECORDED, ROOT

OLD = RECORDED / "save_dir_0_1"

# A Slurm that has forgotten the jobs: its clients succeed and list nothing.
SLURM_COMMANDS = {
    "squeue": "",
    "sacct": "",
    "scancel": "",
    "sbatch": "echo 'sbatch: nothing may be submitted here' >&2; exit 1",
    "scontrol": "echo 'AccountingStorageType = accounting_storage/slurmdbd'",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a copy of the recorded folder, with the absolute paths of this machine."""
    copy = tmp_path / "old"
    shutil.copytree(OLD, copy)
    places = {"@SAVE_DIR@": copy / "logs", "@FOLDER@": copy, "@CHECKOUT@": ROOT}
    for file in copy.rglob("*"):
        if file.is_file():
            text = file.read_text(encoding="utf-8")
            for mark, path in places.items():
                text = text.replace(mark, str(path))
            file.write_text(text, encoding="utf-8")
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, script in SLURM_COMMANDS.items():
        (commands / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (commands / name).chmod(0o755)
    return copy


def hpcbench(folder: Path, *arguments: str, code: int = 0, **variables: str) -> str:
    """Run hpcbench on the copy; return its output."""
    done = subprocess.run(
        [sys.executable, "-m", "hpcbench", *arguments, "--save-dir", str(folder / "logs")],
        env={**os.environ, "PATH": f"{folder.parent / 'bin'}:{os.environ['PATH']}", **variables},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def job_states(folder: Path, suite: str) -> dict[str, str]:
    """Return the states that `status` gives the jobs of a suite."""
    jobs = json.loads(hpcbench(folder, "status", suite, "--json"))["jobs"]
    return {f"{job['experiment']} {job['job']}": job["state"] for job in jobs}


def attempts(folder: Path, suite: str) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in (folder / "logs" / suite).rglob("attempt-*"))


def test_status_is_as_0_1_printed_it(folder: Path) -> None:
    now = json.loads(hpcbench(folder, "status", "--json"))
    then = json.loads((folder / "status.json").read_text(encoding="utf-8"))
    assert now["warnings"] == then["warnings"] == []
    assert len(now["jobs"]) == len(then["jobs"])
    for job, old_job in zip(now["jobs"], then["jobs"], strict=True):
        assert {key: job[key] for key in old_job} == old_job


def test_every_value_of_the_csv_report_is_as_0_1_printed_it(folder: Path) -> None:
    def rows(text: str) -> list[dict[str, Any]]:
        return list(csv.DictReader(io.StringIO(text)))

    now = rows(hpcbench(folder, "collect", "--format", "csv"))
    then = rows((folder / "report.csv").read_text(encoding="utf-8"))
    assert len(now) == len(then)
    for row, old_row in zip(now, then, strict=True):
        assert {key: row[key] for key in old_row} == old_row


def test_the_markdown_report_is_complete(folder: Path, golden: Golden) -> None:
    report = hpcbench(folder, "collect", "--format", "markdown").replace(str(folder / "logs"), "@SAVE_DIR@")
    report = report.replace(str(folder), "@FOLDER@")
    golden("save_dir_0_1/report.md", re.sub(r"collected \S+ \S+ UTC", "collected 2026-11-28 03:58 UTC", report))


def test_submit_runs_nothing_again(folder: Path) -> None:
    before = {suite: attempts(folder, suite) for suite in ("quickstart", "programs", "on_slurm")}
    hpcbench(folder, "submit", str(ROOT / "configs" / "quickstart.yaml"), "--cluster", "local")
    # Failed and cancelled jobs wait for a retry; that is not an error of this submit.
    hpcbench(folder, "submit", "programs.yaml", "--cluster", "local")
    hpcbench(folder, "submit", "on_slurm.yaml", "--cluster", "slurm")
    assert {suite: attempts(folder, suite) for suite in before} == before


def test_a_changed_experiment_is_found_out(folder: Path) -> None:
    suite = folder / "programs.yaml"
    suite.write_text(suite.read_text(encoding="utf-8").replace("12.5", "13.5"), encoding="utf-8")
    printed = hpcbench(folder, "plan", "programs.yaml", "--cluster", "local", code=1)
    assert re.search(r"good +train +changed .*\"speed\": 12.5.* -> .*\"speed\": 13.5", printed), printed


@pytest.mark.parametrize("suite", ["programs", "on_slurm"])
def test_retry_runs_failed_and_cancelled_jobs_and_their_evals(folder: Path, suite: str) -> None:
    assert job_states(folder, suite) == {
        "good train": "completed",
        "good eval-score": "completed",
        "bad train": "failed",
        "bad eval-score": "blocked",
        "slow train": "cancelled",
        "slow eval-score": "blocked",
    }
    hpcbench(folder, "retry", f"{suite}/*", "--cluster", "local", REPAIRED="yes")
    assert set(job_states(folder, suite).values()) == {"completed"}
    second = {name for name in attempts(folder, suite) if name.endswith("attempt-2")}
    assert second == {f"logs/{suite}/{experiment}/train/attempt-2" for experiment in ("bad", "slow")}


def test_the_log_and_the_cause_of_a_failed_job_are_shown(folder: Path) -> None:
    assert "no such module" in hpcbench(folder, "logs", "programs/bad")
    assert "no such module" in hpcbench(folder, "why", "programs/bad")
