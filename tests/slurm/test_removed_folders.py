"""Folders of the save directory that were removed while jobs waited: what is gone is named, and what helps works."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hpcbench.schemas.cluster_profile import ClusterProfile
from hpcbench.schemas.states import JobState
from hpcbench.storage.paths import SuitePaths
from tests.support.slurm_cluster.cluster import Cluster
from tests.support.slurm_suites import command_experiment, command_suite, submit, wait_until_over

pytestmark = pytest.mark.slurm

LATER = ClusterProfile(extra_sbatch={"begin": "now+6"})
"""Time to remove something before the job starts."""


def test_the_folder_of_slurms_logs(slurm_cluster: Cluster, tmp_path: Path) -> None:
    suite = command_suite([command_experiment("a", ["true"])])
    submit(suite, tmp_path, profile=LATER)
    folder = SuitePaths(tmp_path, suite.name).slurm_logs
    shutil.rmtree(folder)
    [job] = wait_until_over(tmp_path).jobs
    assert job.state is JobState.FAILED
    assert job.reason == f"Slurm could not start it: the folder of its log is not there: {folder}"
    assert job.hint == "`hpcbench retry commands/a` makes it anew; find out what removes files there"


def test_the_folder_of_the_job(slurm_cluster: Cluster, tmp_path: Path) -> None:
    suite = command_suite([command_experiment("a", ["true"])])
    submit(suite, tmp_path, profile=LATER)
    job_folder = SuitePaths(tmp_path, suite.name).job("a", "train")
    shutil.rmtree(job_folder.folder)
    [job] = wait_until_over(tmp_path).jobs
    assert job.state is JobState.FAILED
    assert job.reason == (
        "a file that the job needs was removed, or cannot be read on its node: "
        f"{job_folder.request}: no valid job request"
    )
