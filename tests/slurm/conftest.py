"""The session's own Slurm for tests marked `slurm`.

In: the machine. Out: a running cluster, with SLURM_CONF set for the session; or a skip, or in CI a failure.
Never: the cluster that a developer runs in ``.slurm``.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn

import pytest

from hpcbench.scheduler.slurm.commands import run_command
from tests.support.slurm_cluster.cluster import Cluster, start_cluster
from tests.support.slurm_cluster.installation import ClusterUnavailableError

# What a developer's shell may set for Slurm's clients, which would change what a test sees.
_CLIENT_PREFIXES = ("SLURM_", "SBATCH_", "SALLOC_", "SQUEUE_", "SACCT_", "SINFO_", "SCANCEL_", "SCONTROL_")

# Jobs of `high` take the place of those of `low`, and of those of `grace` 10 s after a warning.
PREEMPTION = (
    "PreemptType=preempt/partition_prio",
    "PreemptMode=REQUEUE",
    "PartitionName=low Nodes=gpu[1-2] PriorityTier=1 MaxTime=08:00:00",
    "PartitionName=grace Nodes=gpu[1-2] PriorityTier=1 GraceTime=10 MaxTime=08:00:00",
    "PartitionName=high Nodes=gpu[1-2] PriorityTier=10 MaxTime=08:00:00",
)


def is_slurm_required(environment: Mapping[str, str]) -> bool:
    """Return whether a missing Slurm is a failure rather than a test left out."""
    return environment.get("CI") == "true" or environment.get("HPCBENCH_REQUIRE_SLURM") == "1"


def leave_out(reason: str, environment: Mapping[str, str]) -> NoReturn:
    """Skip the test for want of a Slurm, or fail it where one has to be there."""
    if is_slurm_required(environment):
        pytest.fail(f"Slurm is required here, and cannot be had: {reason}")
    pytest.skip(f"Slurm test left out: {reason}")


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[Cluster]:
    """Start a private cluster with accounting, preemption and a MinJobAge of 10 s, and end it with the session."""
    with tempfile.TemporaryDirectory(prefix="hpcbench-", dir="/tmp") as folder, pytest.MonkeyPatch.context() as patch:
        try:
            cluster = start_cluster(Path(folder), min_job_age=10, extra_lines=PREEMPTION)
        except ClusterUnavailableError as error:
            leave_out(str(error), os.environ)
        try:
            for name in [name for name in os.environ if name.startswith(_CLIENT_PREFIXES)]:
                patch.delenv(name)
            for name, value in cluster.environment.items():
                patch.setenv(name, value)
            yield cluster
        finally:
            cluster.stop()


@pytest.fixture
def held(slurm_cluster: Cluster) -> Iterator[None]:
    """A partition that takes jobs and starts none, so that thousands of them cost nothing."""
    run_command(["scontrol", "create", "PartitionName=held", "Nodes=gpu1", "State=DOWN"])
    yield
    run_command(["scancel", "--partition=held"])
    deadline = time.monotonic() + 30
    while run_command(["squeue", "--noheader", "--partition=held"]) and time.monotonic() < deadline:
        time.sleep(0.5)
    run_command(["scontrol", "delete", "PartitionName=held"])
