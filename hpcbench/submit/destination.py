"""Where a submit's jobs go: a scheduler and a save directory, checked before anything is queued; changes nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcbench.cluster.account_rights import asks_for_rights, charged_profile, find_refused
from hpcbench.cluster.limits import find_impossible, is_chosen
from hpcbench.cluster.save_dir import refuse_unusable
from hpcbench.config.profile import environments_of, file_to_remember, local_file
from hpcbench.errors import ConfigError, Problem
from hpcbench.invocation import quoted
from hpcbench.scheduler.protocol import Scheduler
from hpcbench.scheduler.registry import open_scheduler, scheduler_of
from hpcbench.scheduler.slurm.client import SlurmClient
from hpcbench.scheduler.slurm.cluster_facts import submit_plugins
from hpcbench.schemas.cluster_profile import ClusterProfile, Keep
from hpcbench.schemas.environments import make_hint
from hpcbench.schemas.request import needed_environment
from hpcbench.schemas.suite import Experiment, Suite


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where jobs go and where their results lie."""

    save_dir: Path
    """Absolute root of everything on disk."""
    scheduler: Scheduler
    keep: Keep | None = None
    """What stays of the checkpoints of finished experiments; None keeps all."""
    profile_file: Path | None = None
    """See `profile.file_to_remember`."""
    find_other: Callable[[str, Path], Scheduler | None] = scheduler_of
    """Returns the scheduler of another cluster, which earlier submits of the suite may have gone to."""

    def find_scheduler(self, cluster: str) -> Scheduler | None:
        """Return the scheduler of a cluster, or None when it cannot be queried from this machine."""
        return self.scheduler if cluster == self.scheduler.name else self.find_other(cluster, self.save_dir)

    def jobs_allowed(self, asked: int | None) -> int | None:
        """Return how many jobs may go out now: what was asked for, and what the scheduler has room for."""
        limits = [limit for limit in (asked, self.scheduler.room_left()) if limit is not None]
        return min(limits) if limits else None


def open_destination(profile: ClusterProfile | None, save_dir: Path, slurm: SlurmClient | None = None) -> Destination:
    """Return where the jobs of a profile go; a profile of None is local mode.

    Raises:
        PlanError: its jobs could not be given this save directory.
    """
    refuse_unusable(save_dir, profile)
    return Destination(
        save_dir=save_dir,
        scheduler=open_scheduler(profile, save_dir, slurm),
        keep=None if profile is None else profile.keep,
        profile_file=file_to_remember(profile),
    )


def find_unmade_environments(
    suites: Sequence[Suite], profile: ClusterProfile | None, only: Sequence[str] = ()
) -> list[Problem]:
    """Return the environments that jobs need and the profile does not name, once per suite and environment.

    Raises:
        ConfigError: in local mode, this machine's environments cannot be read.
    """
    named = environments_of(profile, os.environ)
    place = _place_of_environments(profile)
    found: list[Problem] = []
    for suite in suites:
        members: dict[str, list[Experiment]] = {}
        for experiment in suite.experiments:
            name = needed_environment(experiment.cmd, experiment.args, experiment.infer, experiment.framework)
            if name is not None and name not in named and is_chosen(experiment, only):
                members.setdefault(name, []).append(experiment)
        for name, experiments in members.items():
            more = f" (and {len(experiments) - 1} more experiments)" if len(experiments) > 1 else ""
            problem = Problem(
                file=str(suite.file),
                line=experiments[0].line,
                path=experiments[0].name,
                message=f"needs a Python with {name} of its own, and there is no environment {name!r}{more}",
                expected=f"`environments: {{{name}: /path/to/python}}` in {place}",
                hint=make_hint(name, place),
            )
            found.append(problem)
    return found


def _place_of_environments(profile: ClusterProfile | None) -> str:
    if profile is None:
        return str(local_file(os.environ))
    return f"a cluster profile, which {quoted('init')} writes" if profile.file is None else str(profile.file)


def refuse_impossible(
    suites: Sequence[Suite], profile: ClusterProfile | None, only: Sequence[str] | None, slurm: SlurmClient
) -> None:
    """Refuse what the cluster can never run or would not let this user charge, before anything is queued.

    Raises:
        ConfigError: all that is impossible, together.
    """
    problems = find_unmade_environments(suites, profile, only or ())
    if profile is None and problems:
        raise ConfigError(problems)
    if profile is None:
        return
    charged = charged_profile(profile, os.environ)
    known = slurm.entitlements(needs_rights=asks_for_rights(charged) and not submit_plugins(slurm.config))
    problems += find_refused(suites, profile, known, only or (), os.environ)
    # Where scontrol did not answer, sinfo would only wait for the same.
    groups = slurm.node_groups if slurm.config else ()
    problems += find_impossible(suites, charged, groups, only or (), partitions=known.partitions)
    if problems:
        raise ConfigError(problems)
