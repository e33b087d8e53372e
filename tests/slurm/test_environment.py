"""What a user's shell or an enclosing job would smuggle into jobs on the real test Slurm."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hpcbench.scheduler.slurm.commands import run_command
from hpcbench.schemas.states import JobState
from hpcbench.schemas.submission import read_submissions
from hpcbench.storage.paths import SuitePaths
from tests.support.slurm_cluster.cluster import Cluster
from tests.support.slurm_suites import hpcbench, wait_until_over, write_suite

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


def test_jobs_run_from_a_folder_whose_files_are_named_as_modules(slurm_cluster: Cluster, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("random", "token", "select", "logging", "sitecustomize", "pydantic", "hpcbench"):
        (folder / f"{name}.py").write_text(f"raise SystemExit('shadowed: {name}')\n", encoding="utf-8")
    write_suite(
        folder / "poisoned.yaml",
        {
            "cmd": "command",
            "device": "cpu",
            "requirements": {"gpu": 0, "mem_gb": 0.1, "time": "10m"},
            "args": {"command": ["true"]},
            "experiment": [{"name": "a"}],
        },
    )
    # What a site's setup often does: an empty entry, which is the current folder.
    write_suite(folder / "profile.yaml", {"setup": ["export PYTHONPATH=:$PYTHONPATH"], "cpus_per_gpu": 1})
    save_dir = tmp_path / "logs"
    program = str(Path(sys.executable).with_name("hpcbench"))
    line = [program, "submit", "poisoned.yaml", "--cluster", "profile.yaml", "--save-dir", str(save_dir)]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [job] = wait_until_over(save_dir).jobs
    assert job.state is JobState.COMPLETED, job.reason


@pytest.mark.parametrize("rule", ["stop", "warn"])
def test_a_setup_line_that_fails_is_recorded_and_stops_jobs_where_the_profile_says_so(
    rule: str, slurm_cluster: Cluster, tmp_path: Path
) -> None:
    suite_file = write_suite(
        tmp_path / "setup.yaml",
        {
            "cmd": "command",
            "device": "cpu",
            "requirements": {"gpu": 0, "mem_gb": 0.1, "time": "10m"},
            "args": {"command": ["true"]},
            "experiment": [{"name": "a"}],
        },
    )
    setup = ["module() { false; return 1; }", "module load 'cuda 99'", "true"]
    profile = write_suite(tmp_path / "profile.yaml", {"setup": setup, "setup_failure": rule})
    save_dir = tmp_path / "logs"
    hpcbench("submit", str(suite_file), "--cluster", str(profile), "--save-dir", str(save_dir))
    [job] = wait_until_over(save_dir).jobs
    assert job.record is not None, job.reason
    line = "module load 'cuda 99' (exit code 1)"
    assert job.record.environment["setup_failures"] == [line]
    report = hpcbench("collect", "--save-dir", str(save_dir)).stdout
    if rule == "stop":
        assert job.state is JobState.FAILED
        assert job.reason == f"a setup line of the cluster profile failed: {line}"
        assert "ran all the same" not in report
    else:
        assert job.state is JobState.COMPLETED
        assert f"a setup line of the cluster profile failed, and jobs ran all the same (a): {line}" in report
