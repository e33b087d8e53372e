"""The README's commands, run one after the other as a reader would, on the test Slurm."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from hpcbench.schemas.states import JobState
from hpcbench.status.gather import gather
from tests.support.places import ROOT
from tests.support.slurm_cluster.cluster import Cluster
from tests.support.slurm_suites import wait_until, wait_until_over, write_suite

pytestmark = pytest.mark.slurm

README = (ROOT / "README.md").read_text(encoding="utf-8")
ON_A_CLUSTER = README.split("## A first run on a cluster", 1)[1].split("```", 1)[0]
COMMANDS = [line.split("#", 1)[0].strip() for line in ON_A_CLUSTER.splitlines() if line.startswith("    hpcbench ")]


def test_the_commands_of_the_readme_work_in_their_order(slurm_cluster: Cluster, tmp_path: Path) -> None:
    suite = {
        "cmd": "command",
        "device": "cpu",
        "requirements": {"mem_gb": 0.1},
        "args": {"command": ["sh", "-c", "echo working; exec sleep 600"]},
        "experiment": [{"name": "full"}, {"name": "lora-lora_rank=8"}, {"name": "base", "args": {"command": ["true"]}}],
    }
    write_suite(tmp_path / "suite.yaml", suite)
    save_dir = tmp_path / "logs"
    verbs = [shlex.split(command)[1] for command in COMMANDS]
    assert verbs == ["init", "doctor", "plan", "submit", "status", "why", "logs", "cancel", "retry", "collect"]

    said: dict[str, str] = {}
    lora = save_dir / "suite" / "lora-lora_rank=8" / "train"
    for command in COMMANDS:
        words = shlex.split(command)[1:]
        if words[0] == "logs":
            log = save_dir / "suite" / "full" / "train" / "attempt-1" / "output.log"
            wait_until(lambda log=log: log.exists() and log.stat().st_size > 0, what="full has a log")  # type: ignore[misc]
        if words[0] == "retry":
            wait_until(
                lambda: next(job for job in gather(save_dir).jobs if job.folder == lora).state is JobState.CANCELLED,
                what="lora is cancelled",
            )
        said[words[0]] = run(words, tmp_path)

    assert "wrote" in said["init"]
    assert "ok       commands:" in said["doctor"]
    assert "3 jobs in 1 submission" in said["plan"]
    assert "3 jobs submitted" in said["submit"]
    assert "working" in said["logs"]
    assert "1 job cancelled" in said["cancel"]
    assert "1 job submitted" in said["retry"]
    assert "| lora" in said["collect"]
    run(["cancel", "--all"], tmp_path)
    wait_until_over(save_dir)


def run(words: list[str], folder: Path) -> str:
    """Run one command; a followed log is left once the job's line is there, as a reader would with Ctrl-C."""
    command = [sys.executable, "-m", "hpcbench", *words]
    env = {**os.environ, "XDG_CONFIG_HOME": str(folder / "config")}
    process = subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if "-f" in words:
        assert process.stdout is not None
        out = next((line for line in process.stdout if "working" in line), "")
        process.terminate()
        _, err = process.communicate()
    else:
        out, err = process.communicate(timeout=300)
        # A test's folder lies in /tmp, which doctor calls an error of the save directory.
        assert process.returncode == 0 or words[0] == "doctor", out + err
    assert "Traceback" not in err
    return out
