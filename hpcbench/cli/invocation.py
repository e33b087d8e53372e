"""What an invocation of a verb works on: save directory, scheduler, suites and jobs.

In: options as they were typed. Out: values for the verbs. It prints through `console.py` only.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpcbench.cli.conventions import EXIT_INTERRUPTED
from hpcbench.cli.output import print_error, print_line, print_outcome, print_summary, print_warning
from hpcbench.cluster.accounts import asks_for_rights, charged_profile, find_refused
from hpcbench.cluster.limits import find_impossible
from hpcbench.cluster.save_dir import refuse_unusable
from hpcbench.config import load_suites
from hpcbench.config.profile import file_to_remember, load_profile
from hpcbench.errors import ConfigError, HpcbenchError, PlanError
from hpcbench.plan.decide import Options
from hpcbench.scheduler.protocol import Scheduler
from hpcbench.scheduler.registry import open_scheduler
from hpcbench.scheduler.slurm.accounts import submit_plugins
from hpcbench.scheduler.slurm.client import SlurmClient
from hpcbench.schemas.cluster_profile import ClusterProfile
from hpcbench.schemas.states import JobState
from hpcbench.schemas.suite import Suite
from hpcbench.schemas.suite_folder import read_suite
from hpcbench.schemas.views import JobView
from hpcbench.status.gather import gather
from hpcbench.storage.paths import SuitePaths
from hpcbench.submit.send_arrays import Outcome

if TYPE_CHECKING:
    from hpcbench.submit.dry_run import Preview


def usual_save_dir(given: Path | None) -> Path:
    """Return the absolute save directory of a verb that names no cluster: the one given, else that of this machine's.

    Raises:
        ConfigError: none is given, and the profile of this machine cannot be read.
    """
    return resolve_save_dir(given, load_profile() if given is None else None)


def resolve_save_dir(given: Path | None, profile: ClusterProfile | None) -> Path:
    """Return the absolute save directory: the one given, else the profile's, else `logs`."""
    if given is None:
        given = Path(profile.save_dir) if profile is not None and profile.save_dir else Path("logs")
    # Path.expanduser raises where there is no such user.
    return Path(os.path.expanduser(given)).absolute()  # noqa: PTH111


def open_cluster(profile: ClusterProfile | None, root: Path, slurm: SlurmClient) -> tuple[Scheduler, int]:
    """Return the scheduler and one more than its largest array index.

    Raises:
        PlanError: its jobs could not be given this save directory.
    """
    refuse_unusable(root, profile)
    scheduler = open_scheduler(profile, root, slurm)
    return scheduler, scheduler.max_array_size()


def refuse_impossible(
    suites: Sequence[Suite], profile: ClusterProfile | None, only: Sequence[str] | None, slurm: SlurmClient
) -> None:
    """Refuse what the cluster can never run or would not let this user charge, before anything is queued.

    Raises:
        ConfigError: all that is impossible, together.
    """
    if profile is None:
        return
    charged = charged_profile(profile, os.environ)
    known = slurm.entitlements(needs_rights=asks_for_rights(charged) and not submit_plugins(slurm.config))
    problems = find_refused(suites, profile, known, only or (), os.environ)
    # Where scontrol did not answer, sinfo would only wait for the same.
    groups = slurm.node_groups if slurm.config else ()
    problems += find_impossible(suites, charged, groups, only or (), partitions=known.partitions)
    if problems:
        raise ConfigError(problems)


def jobs_allowed(scheduler: Scheduler, asked: int | None) -> int | None:
    """Return how many jobs may go out now: what was asked for, and what the profile's `max_submitted` leaves."""
    limits = [limit for limit in (asked, scheduler.room_left()) if limit is not None]
    return min(limits) if limits else None


def submit_by_profile(
    suite: Suite,
    root: Path,
    profile: ClusterProfile | None,
    cluster: tuple[Scheduler, int],
    options: Options,
    *,
    max_jobs: int | None = None,
) -> Outcome:
    """Submit a suite within the profile's limits; `cluster` is what `open_cluster` returned."""
    from hpcbench.submit.submit import submit_suite

    scheduler, max_array = cluster
    return submit_suite(
        suite,
        save_dir=root,
        scheduler=scheduler,
        options=options,
        max_jobs=jobs_allowed(scheduler, max_jobs),
        max_array=max_array,
        keep=None if profile is None else profile.keep,
        profile_file=file_to_remember(profile),
    )


def submit_in_turn(
    suites: Sequence[Suite],
    root: Path,
    profile: ClusterProfile | None,
    cluster: tuple[Scheduler, int],
    options: Options,
    *,
    max_jobs: int | None = None,
) -> tuple[list[str], bool, Exception | None]:
    """Submit suites one after the other, each as `submit_by_profile` does, and say what was done.

    In local mode nobody but the caller runs what was queued, so an error after that is printed and returned.

    Returns:
        The suites that were submitted, whether something was refused or changed, and what ended it early.
    """
    scheduler = cluster[0]
    names: list[str] = []
    failed = False
    for suite in suites:
        try:
            outcome = submit_by_profile(suite, root, profile, cluster, options, max_jobs=max_jobs)
        except (HpcbenchError, OSError) as error:
            if not scheduler.runs_here or not names:
                raise
            print_error(error)
            rest = ", ".join(other.name for other in suites[len(names) :])
            print_warning(f"not submitted: {rest}; what was queued before runs now")
            return names, failed, error
        names.append(suite.name)
        max_jobs = None if max_jobs is None else max_jobs - outcome.num_jobs
        failed |= print_outcome(suite, outcome, scheduler.name, root)
    return names, failed, None


def preview_by_profile(
    suites: Sequence[Suite],
    root: Path,
    cluster: tuple[Scheduler, int],
    options: Options,
    *,
    max_jobs: int | None = None,
) -> list[Preview]:
    """Return what submitting these suites, one after the other, would do within the profile's limits."""
    from hpcbench.submit.dry_run import preview_suite

    scheduler, max_array = cluster
    room = jobs_allowed(scheduler, max_jobs)
    previews = []
    for suite in suites:
        preview = preview_suite(
            suite, save_dir=root, scheduler=scheduler, options=options, max_jobs=room, max_array=max_array
        )
        room = None if room is None else room - preview.num_jobs
        previews.append(preview)
    return previews


def make_options(only: Sequence[str] | None, retry: str | None, *, force: bool) -> Options:
    """Return the options of a submit or plan."""
    return Options(retry=frozenset(parse_states(retry)), force=force, only=tuple(only or ()))


def parse_states(text: str | None) -> tuple[JobState, ...]:
    """Return the states in `failed,timeout`.

    Raises:
        PlanError: a word is no state.
    """
    words = [] if text is None else [word.strip() for word in text.split(",") if word.strip()]
    unknown = [word for word in words if word not in set(JobState)]
    if unknown:
        raise PlanError(f"unknown state {unknown[0]!r}; expected: {', '.join(JobState)}")
    return tuple(JobState(word) for word in words)


def need_jobs(jobs: Sequence[JobView], names: Sequence[str] | None) -> None:
    """Refuse to go on without jobs.

    Raises:
        PlanError: there are none.
    """
    if not jobs:
        raise PlanError(f"no such job: {' '.join(names or ['(all)'])}", hint="hpcbench status shows all names")


def suite_again(root: Path, name: str) -> tuple[Suite, str]:
    """Load a suite from the file it was submitted from; return it and its cluster, by name or by its profile's file."""
    known = read_suite(SuitePaths(root, name))
    if known is None or not Path(known.plan.suite_file).is_file():
        file = "" if known is None else known.plan.suite_file
        raise PlanError(f"{name}: its suite file {file} is gone", hint="hpcbench submit CONFIG --retry failed")
    file = known.plan.profile_file
    cluster = file if file and Path(file).is_file() else known.plan.cluster
    return load_suites([Path(known.plan.suite_file)], overrides=known.plan.overrides)[0], cluster


def run_local(root: Path, names: Sequence[str], *, detach: bool) -> bool:
    """Run the local queue here, or leave it to a background process; return whether something failed."""
    from hpcbench.scheduler.local.runner import run_queue, start_detached

    if detach:
        start_detached(root)
        print_line("running in the background; hpcbench status shows progress")
        return False
    code = run_queue(root, display=True)
    if code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    print_summary(gather(root, names))
    return code != 0
