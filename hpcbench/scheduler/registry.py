"""Which scheduler a command uses: that of `--cluster`, or the one that a suite was submitted to; it is not queried."""

from __future__ import annotations

import functools
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from hpcbench.config.profile import environments_of, load_profile, read_profile
from hpcbench.errors import ConfigError
from hpcbench.scheduler.protocol import Scheduler
from hpcbench.scheduler.slurm.client import SlurmClient
from hpcbench.scheduler.slurm.scheduler import SlurmScheduler
from hpcbench.schemas.cluster_profile import LOCAL, ClusterProfile
from hpcbench.storage.clock import LONG_AGO, parse_moment
from hpcbench.storage.json_files import read_json
from hpcbench.storage.paths import plan_files

logger = logging.getLogger(__name__)


def open_scheduler(profile: ClusterProfile | None, save_dir: Path, slurm: SlurmClient | None = None) -> Scheduler:
    """Return the scheduler for a profile; None is local mode.

    Raises:
        ConfigError: in local mode, this machine's environments cannot be read.
    """
    if profile is not None:
        return SlurmScheduler(profile, save_dir, slurm)
    return _local(save_dir, environments_of(None, os.environ))


def scheduler_of(cluster: str, save_dir: Path) -> Scheduler | None:
    """Return the scheduler that a suite was submitted to, or None when it cannot be asked from this machine."""
    if cluster == LOCAL:
        return _local(save_dir)
    if shutil.which("squeue") is None:
        return None
    return SlurmScheduler(_profile_of(cluster, save_dir), save_dir)


def _profile_of(cluster: str, save_dir: Path) -> ClusterProfile:
    try:
        file = _remembered_file(cluster, save_dir)
        profile = load_profile(cluster) if file is None else read_profile(file)
    except ConfigError as error:
        _warn_once(cluster, error.problems[0].render())
        profile = None
    # Asking and cancelling need nothing of a profile but its name, and the file may give it another one by now.
    return ClusterProfile(name=cluster) if profile is None else profile.model_copy(update={"name": cluster})


def _remembered_file(cluster: str, save_dir: Path) -> Path | None:
    """Return the profile that the newest suite of this cluster names, if it is still there."""
    plans = [plan for file in plan_files(save_dir) if (plan := read_json(file)) is not None]
    named = [
        (parse_moment(plan.get("planned_at")) or LONG_AGO, file)
        for plan in plans
        if plan.get("cluster") == cluster and isinstance(file := plan.get("profile_file"), str) and file
    ]
    file = Path(max(named)[1]) if named else None
    return file if file is not None and file.is_file() else None


@functools.cache
def _warn_once(cluster: str, problem: str) -> None:
    logger.warning("%s: its profile's settings, such as poll_s, are not known: %s", cluster, problem)


def _local(save_dir: Path, environments: Mapping[str, str] | None = None) -> Scheduler:
    from hpcbench.scheduler.local.scheduler import LocalScheduler

    return LocalScheduler(save_dir, environments=environments)
