"""Which scheduler a command talks to.

In: `--cluster`, or the name that a suite was submitted to. Out: a scheduler, or a clear error. Nothing is asked of it
here.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from hpcbench.errors import ConfigError
from hpcbench.profile import LOCAL, ClusterProfile, load_profile
from hpcbench.scheduler.protocol import Scheduler
from hpcbench.scheduler.slurm import SlurmScheduler


def open_scheduler(profile: ClusterProfile | None, save_dir: Path) -> Scheduler:
    """Return the scheduler for a profile; None is local mode."""
    return _local(save_dir) if profile is None else SlurmScheduler(profile, save_dir)


def scheduler_of(cluster: str, save_dir: Path) -> Scheduler | None:
    """Return the scheduler that a suite was submitted to, or None when it cannot be asked from this machine."""
    if cluster == LOCAL:
        return _local(save_dir)
    if shutil.which("squeue") is None:
        return None
    try:
        profile = load_profile(cluster)
    except ConfigError:
        # Reading needs nothing of a profile but its name.
        profile = ClusterProfile(name=cluster)
    return SlurmScheduler(profile or ClusterProfile(name=cluster), save_dir)


def _local(save_dir: Path) -> Scheduler:
    from hpcbench.scheduler.local import LocalScheduler

    return LocalScheduler(save_dir)
