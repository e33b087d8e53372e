"""Running failed jobs again: their suite as it was submitted, and what to ask for so that they fit this time.

Resources are not in the fingerprint, so results stay comparable. It submits nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hpcbench.cluster.limits import judge_resources
from hpcbench.config.loading import load_suites
from hpcbench.config.profile import load_profile
from hpcbench.errors import PlanError
from hpcbench.invocation import command
from hpcbench.plan.decide import Options
from hpcbench.scheduler.slurm.client import SlurmClient
from hpcbench.scheduler.slurm.cluster_facts import NodeGroup
from hpcbench.schemas.cluster_profile import ClusterProfile
from hpcbench.schemas.collection import JobView
from hpcbench.schemas.record import BAD_NODE
from hpcbench.schemas.request import JobRef, Resources, main_job
from hpcbench.schemas.states import FAILED_STATES, JobState
from hpcbench.schemas.suite import Suite
from hpcbench.schemas.suite_folder import names_taken, read_plan
from hpcbench.storage.paths import SuitePaths
from hpcbench.submit.destination import Destination, open_destination, refuse_impossible

MEMORY_FACTOR = 1.5
TIME_FACTOR = 2.0
REST_FACTOR = 1.25
"""Safety on the time that the steps left would take at the speed of the last one."""
REST_START_MIN = 10
"""Added to that: loading the model, evaluating, saving."""
WHOLE_GIB = 8
"""From here on memory is asked for in whole GiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """Resources with which a failed job may succeed."""

    resources: Resources
    change: str
    """For example `mem_gb 16 -> 24`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """The failed jobs of one suite, and how they are submitted again."""

    suite: Suite
    jobs: tuple[JobView, ...]
    remedies: Mapping[JobRef, Remedy]
    destination: Destination
    options: Options


def prepare_retry(
    name: str,
    jobs: Sequence[JobView],
    save_dir: Path,
    slurm: SlurmClient,
    *,
    cluster: str | None = None,
    states: Iterable[JobState] = FAILED_STATES,
    adjust: bool = False,
) -> Retry:
    """Return how the jobs that belong to suite `name` are submitted again; a cluster of None is where it went before.

    Raises:
        PlanError: the suite's file is gone, or a remedy is not possible on the cluster.
        ConfigError: the suite's file is wrong by now, or the cluster can never run it.
    """
    suite, where = load_submitted_suite(save_dir, name)
    profile = load_profile(cluster or where)
    destination = open_destination(profile, save_dir, slurm)
    mine = tuple(job for job in jobs if job.suite == name)
    experiments = tuple(sorted({job.experiment for job in mine}))
    refuse_impossible([suite], profile, experiments, slurm)
    remedies = {} if profile is None else find_remedies(mine, suite, profile)
    if profile is not None and adjust:
        check_remedies(remedies, profile, slurm.node_groups)
    options = Options(
        retry=frozenset(states),
        only=with_takers(experiments, suite),
        retry_jobs=frozenset(job.ref for job in mine),
        resources={place: remedy.resources for place, remedy in remedies.items()} if adjust else {},
    )
    return Retry(suite=suite, jobs=mine, remedies=remedies, destination=destination, options=options)


def with_takers(experiments: Sequence[str], suite: Suite) -> tuple[str, ...]:
    """Return the experiments and all that take their models, at any distance: what was blocked runs again too."""
    found = list(experiments)
    for experiment in suite.experiments:  # makers first
        if experiment.ckpt_from in found and experiment.name not in found:
            found.append(experiment.name)
    return tuple(found)


def load_submitted_suite(save_dir: Path, name: str) -> tuple[Suite, str]:
    """Load a suite from the file it was submitted from; return it and its cluster, by name or by its profile's file.

    Raises:
        PlanError: the file is gone.
    """
    known = read_plan(SuitePaths(save_dir, name))
    if known is None or not Path(known.suite_file).is_file():
        file = "" if known is None else known.suite_file
        raise PlanError(f"{name}: its suite file {file} is gone", hint=command("submit", "CONFIG", "--retry", "failed"))
    file = known.profile_file
    cluster = file if file and Path(file).is_file() else known.cluster
    typed_in = Path(known.typed_in) if known.typed_in else None
    taken = partial(names_taken, save_dir)
    suites = load_suites([Path(known.suite_file)], overrides=known.overrides, typed_in=typed_in, taken=taken)
    return suites[0], cluster


def find_remedies(jobs: Iterable[JobView], suite: Suite, profile: ClusterProfile) -> dict[JobRef, Remedy]:
    """Return the remedy of each of a suite's failed jobs for which there is one (pure)."""
    planned = {experiment.name: experiment for experiment in suite.experiments}
    found: dict[JobRef, Remedy] = {}
    for job in jobs:
        experiment = planned.get(job.experiment)
        if job.suite != suite.name or experiment is None:
            continue
        asked = experiment.requirements if job.job == main_job(experiment.cmd) else experiment.eval_requirements
        remedy = find_remedy(job, asked, profile)
        if remedy is not None:
            found[job.ref] = remedy
    return found


def find_remedy(job: JobView, planned: Resources, profile: ClusterProfile) -> Remedy | None:
    """Return the remedy of one failed job, or None: no resource helps, or the suite asks for it by now (pure)."""
    cause = None if job.record is None else job.record.cause
    base = _keep_earlier(job, planned, profile)
    remedy: Remedy | None = None
    if job.state is JobState.HOST_OUT_OF_MEMORY:
        remedy = _more_memory(job, base, profile)
    elif job.state is JobState.TIMEOUT:
        remedy = _more_time(job, base, profile)
    elif job.state in {JobState.NODE_FAILED, JobState.LOST} or (cause is not None and cause.type == BAD_NODE):
        remedy = _other_node(job, base)
    if remedy is None and base != planned:
        return Remedy(resources=base, change="what an earlier retry changed stays changed")
    return remedy


def _keep_earlier(job: JobView, planned: Resources, profile: ClusterProfile) -> Resources:
    if job.request is None:
        return planned
    had = job.request.resources
    more: dict[str, object] = {}
    if had.mem_gb is not None and had.mem_gb > (planned.mem_gb or profile.mem_gb or 0.0):
        more["mem_gb"] = had.mem_gb
    if had.time_min is not None and had.time_min > (planned.time_min or profile.time_min):
        more["time_min"] = had.time_min
    if had.exclude is not None and had.exclude.startswith("" if planned.exclude is None else f"{planned.exclude},"):
        more["exclude"] = had.exclude
    return planned.model_copy(update=more)


def _more_memory(job: JobView, planned: Resources, profile: ClusterProfile) -> Remedy | None:
    had = (job.request.resources.mem_gb if job.request is not None else None) or profile.mem_gb
    attempts = () if job.record is None else job.record.attempts
    peaks = [a.sampled.host_rss_peak_gib or 0.0 for a in attempts if a.sampled is not None]
    basis = max([had or 0.0, *peaks])
    if basis == 0.0:
        return None
    wanted = basis * MEMORY_FACTOR
    wanted = float(math.ceil(wanted)) if wanted >= WHOLE_GIB else math.ceil(wanted * 10) / 10
    if (planned.mem_gb or profile.mem_gb or 0.0) >= wanted:
        return None
    before = f"{had:g}" if had else f"the cluster's default (its peak was {basis:.1f})"
    return Remedy(resources=planned.model_copy(update={"mem_gb": wanted}), change=f"mem_gb {before} -> {wanted:g}")


def _more_time(job: JobView, planned: Resources, profile: ClusterProfile) -> Remedy | None:
    had = (job.request.resources.time_min if job.request is not None else None) or profile.time_min
    left_s = job.progress.get("eta_s")
    wanted = math.ceil(had * TIME_FACTOR)
    if isinstance(left_s, (int, float)) and job.request is not None and job.request.trains:
        # It resumes from its checkpoint, so only the rest counts.
        wanted = math.ceil(left_s * REST_FACTOR / 60) + REST_START_MIN
    if profile.time_max_min is not None:
        wanted = min(wanted, profile.time_max_min)
    if max(had, planned.time_min or profile.time_min) >= wanted:
        return None
    return Remedy(resources=planned.model_copy(update={"time_min": wanted}), change=f"time {had} min -> {wanted} min")


def _other_node(job: JobView, planned: Resources) -> Remedy | None:
    # Which of several nodes it was is not known.
    if job.node is None or planned.nodes > 1:
        return None
    excluded = [] if planned.exclude is None else planned.exclude.split(",")
    if job.node in excluded:
        return None
    names = ",".join([*excluded, job.node])
    return Remedy(resources=planned.model_copy(update={"exclude": names}), change=f"exclude {job.node}")


def check_remedies(remedies: Mapping[JobRef, Remedy], profile: ClusterProfile, groups: Sequence[NodeGroup]) -> None:
    """Refuse changes that no partition of the cluster can give.

    Raises:
        PlanError: the first of them.
    """
    for (experiment, job), remedy in remedies.items():
        for _, message, expected in judge_resources(remedy.resources, profile, groups):
            raise PlanError(
                f"{experiment} {job}: {remedy.change} is not possible here: {message}; expected: {expected}",
                hint="retry it without --adjust, or change what it needs",
            )
