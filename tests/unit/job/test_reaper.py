"""Nothing that a job started outlives it, whoever ends it. Real processes, without Slurm."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcbench.job.reaper import finish, start_reaper
from hpcbench.plan.decide import Options
from hpcbench.schemas.record import read_record
from hpcbench.schemas.submission import read_submissions
from hpcbench.storage.paths import SuitePaths
from hpcbench.submit.carry_out import submit_suite
from hpcbench.submit.destination import Destination
from tests.support.fake_scheduler import FakeScheduler
from tests.support.interrupted_trainings import processes_of
from tests.support.slurm_suites import command_experiment, command_suite

FAMILY = "sleep 3001 & (sleep 3002 & exec sleep 3003) & setsid sleep 3004 & (sleep 3005 &); (setsid sleep 3006 &);"
"""Children and grandchildren, with parents and without, in the job's session and in their own."""


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()


@pytest.mark.parametrize(
    ("last", "number", "code", "state"),
    [
        ("wait", signal.SIGTERM, 1, "cancelled"),
        ("wait", signal.SIGKILL, -signal.SIGKILL, None),
        ("sleep 0.5", None, 0, "completed"),
        ("exit 3", None, 1, "failed"),
    ],
)
def test_no_child_of_a_program_outlives_its_supervisor(
    tmp_path: Path, last: str, number: signal.Signals | None, code: int, state: str | None
) -> None:
    suite = command_suite([command_experiment("a", ("bash", "-c", f"{FAMILY} {last}"))])
    submit_suite(suite, Destination(save_dir=tmp_path, scheduler=FakeScheduler()), Options())
    paths = SuitePaths(tmp_path, "commands")
    [submission] = read_submissions(paths)
    command = [sys.executable, "-m", "hpcbench.job", str(paths.submission(submission.key)), "--index", "0"]
    job = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    if number is not None:
        wait_for(lambda: sum(words.startswith("sleep 300") for words in processes_of(tmp_path).values()) == 6)
        job.send_signal(number)
    assert job.wait(timeout=120) == code
    if number is signal.SIGKILL:
        wait_for(lambda: not processes_of(tmp_path))
    assert processes_of(tmp_path) == {}
    found = read_record(paths.job("a", "train").record)
    assert (None if found is None else found.state.value) == state


def test_a_job_that_a_job_submitted_and_another_node_of_its_own_are_left_alone() -> None:
    reaper = start_reaper("token", {"SLURM_JOB_ID": "7", "SLURM_NODEID": "1"})
    places = [("7", "1"), ("7", "0"), ("8", "1")]
    own, *others = [
        subprocess.Popen(
            ["sleep", "3000"],
            env={**os.environ, "HPCBENCH_CLAIM": "token", "SLURM_JOB_ID": job, "SLURM_NODEID": node},
        )
        for job, node in places
    ]
    finish(reaper)
    assert own.wait(timeout=120) == -signal.SIGKILL
    assert [other.poll() for other in others] == [None, None]
    for other in others:
        other.kill()
        other.wait()
