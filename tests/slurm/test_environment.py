"""What a user's shell or an enclosing job would smuggle into jobs on the real test Slurm."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hpcbench.scheduler.slurm.commands import run_command
from hpcbench.schemas.states import JobState
from hpcbench.schemas.submission import read_submissions
from hpcbench.storage.paths import SuitePaths
from tests.support.slurm_cluster.cluster import Cluster
from tests.support.slurm_suites import wait_until_over, write_suite

pytestmark = pytest.mark.slurm


def test_a_submit_from_within_a_job_makes_the_job_that_the_suite_asks_for(
    slurm_cluster: Cluster, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    value = {
        "cmd": "command",
        "device": "cpu",
        "requirements": {"gpu": 0, "mem_gb": 0.1, "time": "10m", "partition": "low"},
        "args": {"command": ["sh", "-c", f"while [ ! -e {go} ]; do sleep 0.1; done"]},
        "experiment": [{"name": "inner"}],
    }
    suite_file, save_dir = write_suite(tmp_path / "nested.yaml", value), tmp_path / "logs"
    beaten = {"PARTITION": "high", "TIMELIMIT": "1", "MEM_PER_CPU": "7M", "ARRAY_INX": "0-3", "JOB_NAME": "x"}
    beaten |= {"WAIT": "1", "GRES": "gpu:1", "OUTPUT": f"{tmp_path}/stolen.out", "REQUEUE": "no", "CLUSTERS": "nowhere"}
    lines = [f"export SBATCH_{name}={text}" for name, text in beaten.items()]
    lines += ["export SBATCH_DISTRIBUTION=block SLURM_NTASKS=3 SLURM_JOB_NAME=y"]
    call = f"{sys.executable} -m hpcbench {{}} {suite_file} --save-dir {save_dir} || exit 1"
    script = tmp_path / "outer.sh"
    script.write_text("\n".join(["#!/bin/bash", *lines, call.format("plan"), call.format("submit")]) + "\n")
    asked = ["sbatch", "--wait", "--parsable", "--ntasks=2", "--mem=900M", f"--output={tmp_path}/outer.out"]
    try:
        outer_id = run_command([*asked, str(script)]).strip()
        text = (tmp_path / "outer.out").read_text()
        assert [line for line in text.splitlines() if "of your environment" in line] == [
            "SBATCH_DISTRIBUTION=block of your environment goes with every job"
        ]
        [known] = read_submissions(SuitePaths(save_dir, "nested"))
        assert known.scheduler_id not in {None, outer_id}
        shown = run_command(["squeue", "-h", "-r", f"--name={known.key}", "--format=%A|%K|%P|%l|%m|%C|%b"]).split()
        assert shown == [f"{known.scheduler_id}|0|low|10:00|102M|1|N/A"]
    finally:
        go.touch()
    [job] = wait_until_over(save_dir).jobs
    assert (job.state, job.record is not None) == (JobState.COMPLETED, True)
