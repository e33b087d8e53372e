"""Chains of three stages on a real Slurm: a model is made, another one is made of it, and that is evaluated."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpcbench.schemas.submission import read_submissions
from hpcbench.storage.paths import SuitePaths
from tests.slurm.test_submit import KILL_HPCBENCH
from tests.support.slurm_cluster.cluster import Cluster
from tests.support.slurm_suites import hpcbench, states, view, wait_until_over, write_suite

pytestmark = pytest.mark.slurm

MAKE = "mkdir model && echo {experiment} > model/weights"
TAKE = "mkdir merged && cp '{checkpoint}/weights' merged/weights"
SCORE = """grep -q "$1" "$2/weights" && echo '{"acc": 1.0}' > "$HPCBENCH_METRICS\""""


def chain(number: int, *, make: str = MAKE, take: str = TAKE) -> list[dict[str, Any]]:
    """Return an experiment whose command makes a model, and one that makes another of it, with an eval."""
    maker = f"e{number}"
    score = ["sh", "-c", SCORE, "sh", maker, "{checkpoint}"]
    return [
        {"name": maker, "args": {"command": ["sh", "-c", make], "output_model": "model"}},
        {
            "name": f"merged{number}",
            "args": {"command": ["sh", "-c", take], "ckpt_from": maker, "output_model": "merged"},
            "eval_dataset": "score",
            "eval_args": {"command": score},
        },
    ]


def write_chains(path: Path, *chains: list[dict[str, Any]]) -> Path:
    small = {"gpu": 0, "cpus": 1, "mem_gb": 0.1, "time": "10m"}
    shared = {"cmd": "command", "device": "cpu", "requirements": small, "eval_requirements": small}
    return write_suite(path, {**shared, "experiment": [experiment for found in chains for experiment in found]})


def test_each_element_goes_through_three_stages_by_itself(slurm_cluster: Cluster, tmp_path: Path) -> None:
    suite = write_chains(
        tmp_path / "chains.yaml", chain(0), chain(1, make="exit 3"), chain(2), chain(3, take="exit 4"), chain(4)
    )
    save_dir = tmp_path / "logs"
    hpcbench("submit", str(suite), "--save-dir", str(save_dir))
    sent = read_submissions(SuitePaths(save_dir, "chains"))
    assert [len(submission.elements) for submission in sent] == [5, 5, 5]
    assert [submission.after_key for submission in sent] == [None, sent[0].key, sent[1].key]

    found = wait_until_over(save_dir)
    assert {ref: str(job.state) for suite in found.suites for ref, job in suite.jobs.items()} == {
        **{(f"e{i}", "train"): "failed" if i == 1 else "completed" for i in range(5)},
        **{(f"merged{i}", "train"): {1: "blocked", 3: "failed"}.get(i, "completed") for i in range(5)},
        **{(f"merged{i}", "eval-score"): "blocked" if i in {1, 3} else "completed" for i in range(5)},
    }
    assert view(found, "merged1", "train").reason == "the train job of e1 is failed"
    assert view(found, "merged1", "eval-score").reason == "its train job is blocked"
    assert not any(job.held for job in found.jobs)


def test_retrying_the_first_stage_runs_what_hangs_on_it(slurm_cluster: Cluster, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    suite = write_chains(tmp_path / "again.yaml", chain(0, make=f"test -e {flag} && {MAKE}"), chain(1))
    save_dir = tmp_path / "logs"
    hpcbench("submit", str(suite), "--save-dir", str(save_dir))
    assert states(wait_until_over(save_dir), "eval-score") == {"merged0": "blocked", "merged1": "completed"}
    flag.touch()
    done = hpcbench("retry", "e0", "--save-dir", str(save_dir))
    assert "3 jobs submitted" in done.stdout
    assert states(wait_until_over(save_dir), "eval-score") == {"merged0": "completed", "merged1": "completed"}


@pytest.mark.parametrize("killed_at", [2, 3])
def test_a_submit_killed_between_the_stages_is_completed_by_the_next(
    slurm_cluster: Cluster, tmp_path: Path, killed_at: int
) -> None:
    shims, calls = tmp_path / "bin", tmp_path / "calls"
    shims.mkdir()
    real = subprocess.run(["sh", "-c", "command -v sbatch"], capture_output=True, text=True, check=True).stdout.strip()
    # The last call is killed after Slurm took it, the one before that at once.
    before = KILL_HPCBENCH if killed_at == 2 else f'"{real}" "$@"; {KILL_HPCBENCH}'
    text = f'#!/bin/sh\necho >> "{calls}"\nif [ $(wc -l < "{calls}") = {killed_at} ]; then {before}\nexit 1; fi\n'
    (shims / "sbatch").write_text(f'{text}exec "{real}" "$@"\n')
    (shims / "sbatch").chmod(0o755)
    suite = write_chains(tmp_path / "cut.yaml", *(chain(i, make=f"sleep 8; {MAKE}") for i in range(3)))
    save_dir = tmp_path / "logs"
    command = [sys.executable, "-m", "hpcbench", "submit", str(suite), "--save-dir", str(save_dir)]
    environment = {**os.environ, "PATH": f"{shims}:{os.environ['PATH']}"}
    assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode == -signal.SIGKILL

    again = hpcbench("submit", str(suite), "--save-dir", str(save_dir))
    assert ("6 jobs submitted" if killed_at == 2 else "0 jobs submitted") in again.stdout
    assert "0 jobs submitted" in hpcbench("submit", str(suite), "--save-dir", str(save_dir)).stdout
    found = wait_until_over(save_dir)
    assert {str(job.state) for job in found.jobs} == {"completed"}
    assert len(found.jobs) == 9
    starts = [file.read_text().splitlines() for file in save_dir.glob("cut/submissions/*.started/*")]
    assert [len(lines) for lines in starts] == [1] * 9
