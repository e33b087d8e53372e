"""What a submit goes by: the plan, what is known of each of its jobs, and what happens to each.

In: a suite, its save directory, a scheduler to ask. Out: decisions and warnings. It changes nothing, so `plan` shows
what `submit` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from hpcbench.plan.decide import Action, Decision, Options, decide
from hpcbench.plan.fingerprint import input_paths
from hpcbench.plan.inputs import hash_inputs
from hpcbench.plan.jobs import plan_suite
from hpcbench.retention import choose_checkpoint
from hpcbench.scheduler.protocol import Scheduler
from hpcbench.scheduler.registry import scheduler_of
from hpcbench.schemas.record import TrainMetrics
from hpcbench.schemas.request import TRAIN, JobRequest
from hpcbench.schemas.states import ALIVE, FINISHED_WELL, JobState
from hpcbench.schemas.suite import Suite
from hpcbench.schemas.suite_folder import PlannedExperiment, SuiteOnDisk
from hpcbench.schemas.views import Collection, JobView
from hpcbench.status.collect import collect_suites

SHOWN_NAMES = 5
"""How many jobs a line names."""


def hash_suite(suite: Suite, save_dir: Path) -> dict[str, str]:
    """Return the hashes of the local files that decide the suite's results."""
    return hash_inputs(unique_local_paths(plan_suite(suite, save_dir=save_dir, inputs={})))


def unique_local_paths(requests: Iterable[JobRequest]) -> set[str]:
    """Return all local inputs that the requests name."""
    return {path for request in requests for path in input_paths(request)}


def planned_experiments(requests: Sequence[JobRequest]) -> tuple[PlannedExperiment, ...]:
    """Return the plan as `suite.json` holds it (pure)."""
    grouped: dict[str, list[JobRequest]] = {}
    for request in requests:
        grouped.setdefault(request.experiment, []).append(request)
    return tuple(
        PlannedExperiment(
            name=name,
            base_experiment=jobs[0].base_experiment,
            cmd=jobs[0].cmd,
            jobs=tuple(job.job for job in jobs),
        )
        for name, jobs in grouped.items()
    )


def look_up(
    suite: SuiteOnDisk | None, requests: Sequence[JobRequest], scheduler: Scheduler | None
) -> tuple[dict[tuple[str, str], JobView], Collection]:
    """Return what is known of each job of the plan, and all of it with the scheduler's warnings."""
    if suite is None:
        return {}, Collection(suites=(), collected_at="")
    planned = suite.plan.model_copy(update={"experiments": planned_experiments(requests)})
    collection = collect_suites([replace(suite, plan=planned)], find_scheduler(scheduler, suite.paths.save_dir))
    return {(view.experiment, view.job): view for view in collection.jobs}, collection


def list_warnings(collection: Collection) -> list[str]:
    """Return the scheduler's warnings, and what earlier versions of the suite left in the queue."""
    others = [job for suite in collection.suites for job in suite.other_jobs]
    if not others:
        return list(collection.warnings)
    names = " ".join(sorted({f"'{job.suite}/{job.experiment}/{job.job}'" for job in others})[:SHOWN_NAMES])
    more = f" and {len(others) - SHOWN_NAMES} more" if len(others) > SHOWN_NAMES else ""
    left = f"not in the suite any more, but still under way: {names}{more}; hpcbench cancel NAME ends them"
    return [*collection.warnings, left]


def decide_suite(
    requests: Sequence[JobRequest], views: Mapping[tuple[str, str], JobView], options: Options, *, cluster: str
) -> list[Decision]:
    """Decide what happens on this cluster to each job that the options mean; looks whether checkpoints are there."""
    wanted = [_adjust(request, options) for request in _only(requests, options)]
    gone = evals_without_checkpoint(wanted, views)
    return decide(wanted, views, options, cluster=cluster, without_checkpoint=gone)


def _only(requests: Sequence[JobRequest], options: Options) -> list[JobRequest]:
    if not options.only:
        return list(requests)
    return [r for r in requests if any(fnmatchcase(r.experiment, pattern) for pattern in options.only)]


def _adjust(request: JobRequest, options: Options) -> JobRequest:
    resources = options.resources.get((request.experiment, request.job))
    return request if resources is None else request.model_copy(update={"resources": resources})


def evals_without_checkpoint(
    requests: Sequence[JobRequest], views: Mapping[tuple[str, str], JobView]
) -> frozenset[tuple[str, str]]:
    """Return the (experiment, job) of evals that are not done and whose completed train job's checkpoint is gone."""
    found = set()
    for request in requests:
        key = (request.experiment, request.job)
        view, train = views.get(key), views.get((request.experiment, TRAIN))
        is_same = view is not None and view.record is not None and view.record.fingerprint == request.fingerprint
        needs_none = view is not None and (view.state in ALIVE or (is_same and view.state in FINISHED_WELL))
        if request.train_folder is None or needs_none or train is None or train.record is None:
            continue
        is_training = isinstance(train.record.metrics, TrainMetrics) and train.state is JobState.COMPLETED
        checkpoint = choose_checkpoint(request, train.record) if is_training else None
        if checkpoint is not None and not checkpoint.is_dir():
            found.add(key)
    return frozenset(found)


def limit_jobs(decisions: Sequence[Decision], max_jobs: int | None) -> list[Decision]:
    """Return the decisions to carry out, a train always before its evals."""
    chosen = [decision for decision in decisions if decision.action is Action.SUBMIT]
    if max_jobs is None or len(chosen) <= max_jobs:
        return chosen
    kept = chosen[: max(max_jobs, 0)]
    left = {d.request.experiment for d in chosen[len(kept) :] if d.request.job == TRAIN}
    return [d for d in kept if not d.after_train or d.request.experiment not in left]


def find_scheduler(scheduler: Scheduler | None, save_dir: Path) -> Callable[[str], Scheduler | None]:
    """Return this scheduler for its own jobs; earlier submits may have gone to other clusters, or to this machine."""

    def find(cluster: str) -> Scheduler | None:
        return scheduler if scheduler is not None and cluster == scheduler.name else scheduler_of(cluster, save_dir)

    return find
