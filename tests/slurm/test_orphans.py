"""Programs that leave children behind: none of them outlives its job, however the job ends. There are no cgroups here."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from hpcbench.scheduler.slurm.commands import run_command
from tests.support.interrupted_trainings import assert_no_orphans, find_process, processes_of, scheduler_id
from tests.support.slurm_cluster.cluster import Cluster
from tests.support.slurm_suites import command_experiment, command_suite, submit, wait_until

pytestmark = pytest.mark.slurm

FAMILY = "sleep 3001 & (sleep 3002 & exec sleep 3003) & setsid sleep 3004 & (sleep 3005 &); (setsid sleep 3006 &); wait"
"""Children and grandchildren, with parents and without, in the job's session and in their own."""


def test_no_child_of_a_program_outlives_its_job(slurm_cluster: Cluster, tmp_path: Path) -> None:
    programs = {"stubborn": f"trap '' TERM; {FAMILY}", "killed": FAMILY, "limit": FAMILY}
    names = {name: ("bash", "-c", program) for name, program in programs.items()}
    submit(
        command_suite([command_experiment(name, words, suite="interrupted") for name, words in names.items()]), tmp_path
    )

    def num_children() -> int:
        return sum(words.startswith("sleep 300") for words in processes_of(tmp_path).values())

    wait_until(lambda: num_children() == 6 * len(names), what="all families are complete")
    # Slurm's SIGKILL follows its TERM after KillWait (5 s here), sooner than the supervisor gives up on the program.
    run_command(["scancel", scheduler_id(tmp_path, "stubborn")])
    run_command(["scancel", "--signal=USR2", scheduler_id(tmp_path, "limit")])
    os.kill(find_process(tmp_path, "hpcbench.job", experiment="killed"), signal.SIGKILL)
    assert_no_orphans(tmp_path)
