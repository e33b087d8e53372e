"""The one plan of a submit: what happens to each job, and the arrays that go out.

Building it changes nothing: a dry run prints it, `submit` and the single run carry it out, keys and texts included.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from hpcbench.cluster.save_dir import warn_of_open_folders
from hpcbench.errors import ConfigError, PlanError, name_first
from hpcbench.invocation import quoted
from hpcbench.plan.arrays import JobArray, describe_array, make_arrays, make_late_arrays, sharing_key
from hpcbench.plan.decide import MODEL_GONE, Action, Decision, Options, decide
from hpcbench.plan.fingerprint import input_paths
from hpcbench.plan.inputs import count_unread_bytes, hash_inputs
from hpcbench.plan.requests import plan_suite
from hpcbench.retention import Removal, find_model, find_removals
from hpcbench.schemas.collection import Collection, JobView
from hpcbench.schemas.metrics import CommandMetrics
from hpcbench.schemas.request import JobRef, JobRequest
from hpcbench.schemas.states import JobState
from hpcbench.schemas.submission import Submission, read_submissions
from hpcbench.schemas.suite import Suite
from hpcbench.schemas.suite_folder import PlannedExperiment, PlannedSuite, SuiteOnDisk, read_plan
from hpcbench.status.collect import collect_suites
from hpcbench.storage.clock import now_text
from hpcbench.storage.hash_cache import HashCache, find_cache_file
from hpcbench.storage.paths import JobPaths, SuitePaths
from hpcbench.submit.destination import Destination
from hpcbench.submit.export_folders import find_taken_folders

logger = logging.getLogger(__name__)

SAID_BYTES = 1 << 30
READ_FOR_NOTHING_BYTES = 64 << 20
SHOWN_NAMES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitPlan:
    """What one submit does, decided and not yet done."""

    suite: Suite
    destination: Destination
    on_disk: SuiteOnDisk
    """The new content of `suite.json`, and the submissions so far."""
    collection: Collection
    """What was known of the suite's jobs."""
    decisions: tuple[Decision, ...]
    arrays: tuple[JobArray, ...]
    """What goes out, with what waits for it."""
    late_children: tuple[tuple[Submission, JobArray], ...]
    """What waits for jobs that an earlier submit sent, with that submission."""
    num_left: int
    """Jobs that stay planned because no more may go out now."""
    removals: tuple[Removal, ...]
    """Checkpoints of finished experiments that the profile's `keep` leaves out."""
    warnings: tuple[str, ...]
    adopted: tuple[Submission, ...] = ()
    """Submissions of an interrupted submit that the scheduler had taken."""

    @property
    def num_jobs(self) -> int:
        """Jobs that go out."""
        return sum(array.num_jobs for array in self._all_arrays)

    @property
    def num_elements(self) -> int:
        """What the scheduler will count as jobs of it."""
        return sum(array.num_elements for array in self._all_arrays)

    @property
    def _all_arrays(self) -> tuple[JobArray, ...]:
        return (*self.arrays, *(array for _, array in self.late_children))

    @property
    def changed(self) -> tuple[Decision, ...]:
        """Jobs that do not run because there is a result of other arguments; they make a submit fail."""
        return tuple(decision for decision in self.decisions if decision.action is Action.CHANGED)

    def render(self) -> list[tuple[Submission, str]]:
        """Return what goes to the scheduler, each submission with its exact text."""
        found: list[tuple[Submission, str]] = []
        for array in self.arrays:
            self._render(array, None, found)
        for parent, array in self.late_children:
            self._render(array, parent, found)
        return found

    def _render(self, array: JobArray, parent: Submission | None, found: list[tuple[Submission, str]]) -> None:
        scheduler = self.destination.scheduler
        submission = describe_array(array, scheduler.name, parent)
        after = None if parent is None else parent.scheduler_id or f"<id-of-{parent.key}>"
        found.append((submission, scheduler.render(submission, after)))
        for child in array.children:
            self._render(child, submission, found)


def prepare(suite: Suite, destination: Destination, options: Options, *, max_jobs: int | None = None) -> SubmitPlan:
    """Return what submitting a suite would do now, without changing anything; at most `max_jobs` jobs go out."""
    requests = preview_requests(suite, destination.save_dir)
    submissions = read_submissions(SuitePaths(destination.save_dir, suite.name))
    return build_plan(suite, requests, submissions, destination, options, max_jobs=max_jobs)


def prepare_in_turn(
    suites: Sequence[Suite], destination: Destination, options: Options, *, max_jobs: int | None = None
) -> list[SubmitPlan]:
    """Return what submitting these suites, one after the other, would do within the scheduler's limits."""
    room = destination.jobs_allowed(max_jobs)
    plans = []
    for suite in suites:
        plan = prepare(suite, destination, options, max_jobs=room)
        room = None if room is None else room - plan.num_elements
        plans.append(plan)
    return plans


def build_plan(
    suite: Suite,
    requests: Sequence[JobRequest],
    submissions: Sequence[Submission],
    destination: Destination,
    options: Options,
    *,
    max_jobs: int | None,
) -> SubmitPlan:
    """Return the plan, given the suite's jobs and its submissions so far; see `prepare`.

    Raises:
        PlanError: the folder holds the results of another suite of this name.
        ConfigError: an export is to write to a folder that is there already.
    """
    paths, scheduler = SuitePaths(destination.save_dir, suite.name), destination.scheduler
    if not options.force:
        refuse_other_file(suite, paths)
    on_disk = SuiteOnDisk(
        paths=paths, plan=_describe_suite(suite, requests, paths, destination), submissions=tuple(submissions)
    )
    collection = _collect(on_disk, requests, destination)
    keep = destination.keep
    removals = () if keep is None else tuple(find_removals(collection, (), keep))
    views = {view.ref: view for view in collection.jobs}
    going = frozenset(removal.folder for removal in removals)
    decisions = decide_suite(requests, views, options, cluster=scheduler.name, going=going)
    if problems := find_taken_folders(suite, decisions):
        raise ConfigError(problems)
    chosen = limit_jobs(decisions, max_jobs)
    asked = {request.experiment for request in requests}
    return SubmitPlan(
        suite=suite,
        destination=destination,
        on_disk=on_disk,
        collection=collection,
        decisions=tuple(decisions),
        arrays=tuple(make_arrays(chosen, scheduler.max_array_size())),
        late_children=tuple(make_late_arrays(chosen, on_disk.latest())),
        num_left=len(limit_jobs(decisions, None)) - len(chosen),
        removals=removals,
        warnings=(
            *warn_of_open_folders((destination.save_dir, paths.folder)),
            *_list_warnings(collection, other_runs={found.name for found in on_disk.plan.experiments} - asked),
        ),
    )


def refuse_other_file(suite: Suite, paths: SuitePaths) -> None:
    """Refuse a suite whose folder holds the results of another file of its name: one report would show both.

    A file that was moved or copied is the same suite.

    Raises:
        PlanError: both files are there and differ.
    """
    before = read_plan(paths)
    if before is None or not before.suite_file:
        return
    other = Path(before.suite_file)
    try:
        is_same = other.samefile(suite.file) or other.read_bytes() == suite.file.read_bytes()
    except OSError:  # one of them is gone: it was moved, or never was a file
        return
    if not is_same:
        raise PlanError(
            f"{paths.folder}: holds the results of {other}, and {suite.file} is another suite of the same name",
            hint="rename one of the files, name another --save-dir, or go on with this one with --force",
        )


def make_requests(suite: Suite, save_dir: Path) -> tuple[JobRequest, ...]:
    """Return the suite's jobs, with the hashes of the local files that decide their results."""
    paths = unique_local_paths(plan_suite(suite, save_dir=save_dir, inputs={}))
    cache = HashCache(find_cache_file(os.environ))
    num_bytes = count_unread_bytes(paths, cache)
    if num_bytes > SAID_BYTES:
        logger.warning("reading %.1f GB of data and models for their hashes", num_bytes / 1e9)
    return plan_suite(suite, save_dir=save_dir, inputs=hash_inputs(paths, cache=cache))


def preview_requests(suite: Suite, save_dir: Path) -> tuple[JobRequest, ...]:
    """Return the suite's jobs as `make_requests`, but without a fingerprint where it costs much and decides nothing.

    That is so of new experiments, which there is nothing to compare with, if their files are large and not read before.
    """
    drafts = plan_suite(suite, save_dir=save_dir, inputs={})
    paths = SuitePaths(save_dir, suite.name)
    known = {draft.experiment for draft in drafts if _was_planned(paths.job(draft.experiment, draft.job))}
    cache = HashCache(find_cache_file(os.environ))
    asked = unique_local_paths(draft for draft in drafts if draft.experiment not in known)
    left = asked - unique_local_paths(draft for draft in drafts if draft.experiment in known)
    skipped = {path for path in left if count_unread_bytes([path], cache) > READ_FOR_NOTHING_BYTES}
    inputs = hash_inputs(unique_local_paths(drafts) - skipped, cache=cache)
    unsigned: set[str] = set()
    for draft in drafts:
        above = () if draft.parent is None else draft.parent[:1]
        if not skipped.isdisjoint(input_paths(draft)) or not unsigned.isdisjoint(above):
            unsigned.add(draft.experiment)
    return tuple(
        request.model_copy(update={"fingerprint": ""}) if request.experiment in unsigned else request
        for request in plan_suite(suite, save_dir=save_dir, inputs=inputs)
    )


def _was_planned(job: JobPaths) -> bool:
    return job.request.exists() or job.record.exists()


def unique_local_paths(requests: Iterable[JobRequest]) -> set[str]:
    """Return all local inputs that the requests name."""
    return {path for request in requests for path in input_paths(request)}


def _planned_experiments(requests: Sequence[JobRequest]) -> tuple[PlannedExperiment, ...]:
    grouped: dict[str, list[JobRequest]] = {}
    for request in requests:
        grouped.setdefault(request.experiment, []).append(request)
    return tuple(
        PlannedExperiment(
            name=name,
            base_experiment=jobs[0].base_experiment,
            cmd=jobs[0].cmd,
            jobs=tuple(job.job for job in jobs),
            takes=_taken_from_another(jobs[0]),
        )
        for name, jobs in grouped.items()
    )


def _taken_from_another(request: JobRequest) -> JobRef | None:
    parent = request.parent
    return None if parent is None or parent[0] == request.experiment else parent


def _describe_suite(
    suite: Suite, requests: Sequence[JobRequest], paths: SuitePaths, destination: Destination
) -> PlannedSuite:
    """Return what `suite.json` is to say; in a suite that grows, what was planned before keeps its place."""
    before = read_plan(paths) if suite.grows else None
    planned = {} if before is None else {experiment.name: experiment for experiment in before.experiments}
    planned |= {experiment.name: experiment for experiment in _planned_experiments(requests)}
    return PlannedSuite.model_validate(
        {
            "suite": suite.name,
            "suite_file": str(suite.file),
            "cluster": destination.scheduler.name,
            "profile_file": "" if destination.profile_file is None else str(destination.profile_file),
            "planned_at": now_text(),
            "overrides": suite.overrides,
            "typed_in": "" if suite.typed_in is None else str(suite.typed_in),
            "report": suite.report,
            "experiments": tuple(planned.values()),
        }
    )


def _collect(on_disk: SuiteOnDisk, requests: Sequence[JobRequest], destination: Destination) -> Collection:
    asked = on_disk.plan.model_copy(update={"experiments": _planned_experiments(requests)})
    return collect_suites([replace(on_disk, plan=asked)], destination.find_scheduler)


def _list_warnings(collection: Collection, *, other_runs: AbstractSet[str]) -> list[str]:
    """Return the scheduler's warnings, and what earlier versions of the suite left in the queue."""
    others = [job for suite in collection.suites for job in suite.other_jobs if job.experiment not in other_runs]
    if not others:
        return list(collection.warnings)
    names = sorted({f"{job.suite}/{job.experiment}/{job.job}" for job in others})
    ends = quoted("cancel", *names[:SHOWN_NAMES])
    left = f"not in the suite any more, but still under way: {name_first(names, SHOWN_NAMES)}; {ends} ends them"
    return [*collection.warnings, left]


def decide_suite(
    requests: Sequence[JobRequest],
    views: Mapping[JobRef, JobView],
    options: Options,
    *,
    cluster: str,
    going: AbstractSet[Path] = frozenset(),
) -> list[Decision]:
    """Decide on each job that the options mean; checkpoints in `going` are removed before anything is submitted."""
    wanted = [_adjust(request, options) for request in _only(requests, options)]
    return decide(wanted, views, options, cluster=cluster, no_model=jobs_without_model(wanted, views, going))


def _only(requests: Sequence[JobRequest], options: Options) -> list[JobRequest]:
    if not options.only:
        return list(requests)
    return [r for r in requests if any(fnmatchcase(r.experiment, pattern) for pattern in options.only)]


def _adjust(request: JobRequest, options: Options) -> JobRequest:
    resources = options.resources.get(request.ref)
    return request if resources is None else request.model_copy(update={"resources": resources})


def jobs_without_model(
    requests: Sequence[JobRequest], views: Mapping[JobRef, JobView], going: AbstractSet[Path] = frozenset()
) -> dict[JobRef, str]:
    """Return the jobs whose completed parent has no model for them, each with why."""
    found = {}
    for request in requests:
        parent = None if request.parent is None else views.get(request.parent)
        if parent is None or parent.record is None or parent.state is not JobState.COMPLETED:
            continue
        if isinstance(parent.record.metrics, CommandMetrics):
            continue  # a program may keep its model where only its nodes see it
        model, missing = find_model(request, parent.record)
        if missing:
            found[request.ref] = missing
        elif model is not None and (model in going or not model.is_dir()):
            found[request.ref] = MODEL_GONE
    return found


def limit_jobs(decisions: Sequence[Decision], max_jobs: int | None) -> list[Decision]:
    """Return the decisions to carry out: the first ones, and so a parent always before its children.

    Evals that share a job count as one.
    """
    chosen = [decision for decision in decisions if decision.action is Action.SUBMIT]
    if max_jobs is None:
        return chosen
    places = [sharing_key(decision.request) or decision.request.ref for decision in chosen]
    going = set(list(dict.fromkeys(places))[: max(max_jobs, 0)])
    return [decision for decision, place in zip(chosen, places, strict=True) if place in going]
