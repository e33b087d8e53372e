"""Collect what is known about every job: records first, then one query of each scheduler. It never changes anything.

Files that cannot be read are "not there yet" and named in the warnings; no job is dropped because of them.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from hpcbench.errors import SchedulerError
from hpcbench.invocation import quoted
from hpcbench.scheduler.protocol import Answer, Queue
from hpcbench.schemas.cluster_profile import LOCAL
from hpcbench.schemas.collection import Collection, ExperimentView, JobView, SuiteView
from hpcbench.schemas.notes import Cancelled, Refusal
from hpcbench.schemas.record import Record, may_come_back
from hpcbench.schemas.request import EVAL_PREFIX, JobRef, JobRequest
from hpcbench.schemas.states import ALIVE, FAILED_STATES, JobState
from hpcbench.schemas.submission import Submission, submitted_by_other
from hpcbench.schemas.suite_folder import PlannedExperiment, SuiteOnDisk
from hpcbench.status.job_files import IndexPlace, JobFiles, Latest
from hpcbench.status.job_state import Evidence, conclude_state, is_final, tells_all
from hpcbench.status.log_patterns import find_cause_without_record
from hpcbench.status.logs import log_tail, telling_log
from hpcbench.storage.clock import moment_text, parse_moment
from hpcbench.storage.json_files import read_json
from hpcbench.storage.mounts import is_own_disk
from hpcbench.storage.paths import JobPaths, SuitePaths

CANNOT_ASK = "{cluster}: its scheduler cannot be queried from this machine; unfinished jobs are shown as unknown"

NO_LOG_EXIT_CODE = "exit code 0:53"
"""Of a job whose log Slurm could not open (seen on 22.05)."""

NOT_IN_SUITE = "not in the suite any more"

MANY_VALUES = 100_000
"""About a thousand jobs; a search for cycles among fewer takes some hundredths of a second."""

FindQueue = Callable[[str], Queue | None]
"""From a cluster's name to its queue, or None when it cannot be queried from this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _OpenSuite:
    """A suite with the files of its jobs."""

    on_disk: SuiteOnDisk
    latest: Latest
    files: JobFiles


def ask_schedulers(
    suites: Sequence[SuiteOnDisk], find: FindQueue
) -> tuple[dict[str, Answer], tuple[str, ...], dict[str, str]]:
    """Query each queue once for its unfinished jobs; return answers by profile, warnings, and errors by profile."""
    return _ask([_open(suite) for suite in suites], find)


def _open(suite: SuiteOnDisk, index: IndexPlace | None = None) -> _OpenSuite:
    latest = suite.latest()
    return _OpenSuite(on_disk=suite, latest=latest, files=JobFiles(suite.paths.folder, latest, index))


def _ask(suites: Sequence[_OpenSuite], find: FindQueue) -> tuple[dict[str, Answer], tuple[str, ...], dict[str, str]]:
    by_cluster: dict[str, list[Submission]] = {}
    for submission in (submission for suite in suites for submission in _submissions_to_query(suite)):
        by_cluster.setdefault(submission.cluster, []).append(submission)
    queues: dict[str, Queue] = {}
    clusters: dict[str, list[str]] = {}
    warnings: list[str] = []
    unanswered: dict[str, str] = {}
    for cluster in by_cluster:
        queue = find(cluster)
        if queue is None:
            warnings.append(CANNOT_ASK.format(cluster=cluster))
            continue
        queues.setdefault(queue.queue_name, queue)
        clusters.setdefault(queue.queue_name, []).append(cluster)
    answers: dict[str, Answer] = {}
    for name, queue in queues.items():
        try:
            answer = queue.query([submission for cluster in clusters[name] for submission in by_cluster[cluster]])
        except SchedulerError as error:
            unanswered |= dict.fromkeys(clusters[name], error.message)
            warnings.append(f"the scheduler did not answer ({error.message}); unfinished jobs are shown as unknown")
            continue
        answers |= dict.fromkeys(clusters[name], answer)
        warnings += answer.warnings
    return answers, tuple(warnings), unanswered


def _submissions_to_query(suite: _OpenSuite) -> list[Submission]:
    keys = {
        suite.latest[ref][0].key
        for ref in sorted(suite.latest)  # the jobs of an experiment, which share arguments, one after the other
        if (record := suite.files.record(ref)) is None or not is_final(record)
    }
    return [
        submission
        for submission in suite.on_disk.submissions
        if submission.key in keys and submission.scheduler_id is not None and submitted_by_other(submission) is None
    ]


def collect_suites(
    suites: Sequence[SuiteOnDisk], find: FindQueue, now: datetime | None = None, *, cache_folder: Path | None = None
) -> Collection:
    """Return everything that is known about the jobs of these suites.

    Args:
        suites: as they were read.
        find: gives the queue of each cluster.
        now: the time; by default the clock's.
        cache_folder: where what large suites hold is kept from one time to the next; by default nowhere.
    """
    with _without_garbage_collection():
        return _collect(suites, find, datetime.now(UTC) if now is None else now, cache_folder)


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Pause the search for unreachable cycles, which would look at a million new values again and again.

    What large suites hold is not looked at later either; it is freed as all else is once nobody refers to it.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if gc.get_count()[0] > MANY_VALUES:
            gc.freeze()
        if was_on:
            gc.enable()


def _collect(suites: Sequence[SuiteOnDisk], find: FindQueue, now: datetime, cache_folder: Path | None) -> Collection:
    index = None if cache_folder is None else IndexPlace(cache_folder=cache_folder, now_s=now.timestamp())
    opened = [_open(suite, index) for suite in suites]
    answers, warnings, unanswered = _ask(opened, find)
    views = tuple(_view_suite(suite, answers, now) for suite in opened)
    for suite in opened:
        suite.files.write_index()
    return Collection(suites=views, collected_at=moment_text(now), warnings=warnings, unanswered=unanswered)


def _view_suite(opened: _OpenSuite, answers: Mapping[str, Answer], now: datetime) -> SuiteView:
    suite, latest = opened.on_disk, opened.latest
    snapshot = _SuiteSnapshot(
        suite=suite,
        folder=suite.paths.folder,
        files=opened.files,
        latest=latest,
        answers=answers,
        now=now,
        own_disk=is_own_disk(suite.paths.folder),
    )
    experiments = tuple(_view_experiment(planned, snapshot) for planned in suite.plan.experiments)  # parents first
    planned_jobs = {(planned.name, job) for planned in suite.plan.experiments for job in planned.jobs}
    names = {planned.name for planned in suite.plan.experiments}
    return SuiteView(
        name=suite.plan.suite,
        experiments=experiments,
        report=suite.plan.report,
        others=tuple(_view_others(snapshot, planned_jobs, experiments)),
        num_left_out=len({name for name, _ in latest} - names),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _SuiteSnapshot:
    suite: SuiteOnDisk
    folder: Path
    files: JobFiles
    latest: Latest
    answers: Mapping[str, Answer]
    now: datetime
    own_disk: bool
    """Whether the files are on a disk of this machine, which shows none of them late."""
    views: dict[JobRef, JobView] = field(default_factory=dict)
    """The jobs that were looked at so far: the state of a job may follow from its parent's."""


def _view_experiment(planned: PlannedExperiment, snapshot: _SuiteSnapshot) -> ExperimentView:
    views = [_view_job(snapshot, planned.name, job, planned.parent_of(job)) for job in planned.jobs]
    return ExperimentView(
        suite=snapshot.suite.plan.suite,
        name=planned.name,
        base_experiment=planned.base_experiment,
        cmd=planned.cmd,
        main=next((view for view in views if view.job == planned.main), None),
        evals=tuple(view for view in views if view.job != planned.main),
    )


def _view_others(
    snapshot: _SuiteSnapshot, planned: AbstractSet[JobRef], experiments: Sequence[ExperimentView]
) -> Iterator[ExperimentView]:
    """Yield what an earlier version of the suite submitted, this one does not have, and is still under way."""
    gone = [ref for ref in snapshot.latest if ref not in planned]  # as they were submitted: parents first
    for name in dict.fromkeys(experiment for experiment, _ in gone):
        known = next((found for found in experiments if found.name == name), None)
        main = None if known is None else known.main
        # A main job is looked at before its evals.
        jobs = sorted((job for experiment, job in gone if experiment == name), key=_is_eval)
        views = [_not_in_suite(_view_job(snapshot, name, job, None)) for job in jobs]
        main = next((view for view in views if not _is_eval(view.job)), main)
        alive = tuple(view for view in views if _is_eval(view.job) and (view.state in ALIVE or view.held))
        if alive or (main is not None and not main.in_suite and main.state in ALIVE):
            cmd = "eval" if main is None else "sft" if main.request is None else main.request.cmd
            yield ExperimentView(suite=snapshot.suite.plan.suite, name=name, cmd=cmd, main=main, evals=alive)


def _is_eval(job: str) -> bool:
    return job.startswith(EVAL_PREFIX)


def _not_in_suite(view: JobView) -> JobView:
    reason = "; ".join(part for part in (NOT_IN_SUITE, view.reason) if part)
    return replace(view, in_suite=False, reason=reason)


def _view_job(snapshot: _SuiteSnapshot, experiment: str, job: str, parent: JobRef | None) -> JobView:
    """Return one job's view; where the plan does not know its parent, its request does."""
    suite, place = snapshot.suite, snapshot.latest.get((experiment, job))
    paths = JobPaths(snapshot.folder.joinpath(experiment, job))
    request = snapshot.files.request((experiment, job))
    submitted = None if place is None else place[0].job_at(place[1], (experiment, job))
    if submitted is not None and request is not None and submitted.fingerprint != request.fingerprint:
        # The submission of this configuration was refused; the one before it was of another.
        place = None
    if parent is None and request is not None:
        parent = request.parent
    above = None if parent is None else snapshot.views.get(parent)
    evidence = _gather_evidence(snapshot, (experiment, job), request, place, above)
    record, reported = evidence.record, evidence.reported
    state, reason = conclude_state(evidence)
    view = JobView(
        suite=suite.plan.suite,
        experiment=experiment,
        job=job,
        state=state,
        reason=reason,
        folder=paths.folder,
        request=request,
        record=record,
        # After a timeout, its progress shows how much more time it needs.
        progress=(read_json(paths.progress) or {}) if state in {JobState.RUNNING, JobState.TIMEOUT} else {},
        scheduler_id=None if place is None else place[0].element_id(place[1]),
        cluster=None if place is None else place[0].cluster,
        submitted_at=None if place is None else place[0].submitted_at,
        submit_options=suite.plan.submit_options,
        elsewhere=evidence.elsewhere,
        submitter=evidence.submitter,
        companions=() if place is None else place[0].companions_of(place[1], (experiment, job)),
        parent=parent,
        held=reported is not None and reported.held_by_dependency,
        expected_start=None if reported is None else reported.expected_start,
        hint=reported.hint if reported is not None and state is JobState.PENDING else "",
        command=reported.command if reported is not None and state is JobState.PENDING else "",
        node=_read_node(paths) if state in FAILED_STATES else None,
    )
    view = view if record is not None or state not in FAILED_STATES else _explain_from_log(view)
    snapshot.views[view.ref] = view
    return view


def _gather_evidence(
    snapshot: _SuiteSnapshot,
    ref: JobRef,
    request: JobRequest | None,
    place: tuple[Submission, int] | None,
    parent: JobView | None,
) -> Evidence:
    record = _own_record(snapshot.files, ref, request)
    if place is None:
        return Evidence(record=record, experiment=ref[0], parent=parent)
    submission, index = place
    answer = snapshot.answers.get(submission.cluster)
    reported = None if answer is None else answer.jobs.get((submission.key, index))
    evidence = Evidence(
        record=record,
        submitted=submission.state == "submitted",
        intended=submission.state == "intent",
        answered=answer is not None,
        elsewhere=None if answer is None else answer.elsewhere.get(submission.key),
        submitter=submitted_by_other(submission),
        history_known=answer is not None and answer.history_known,
        history_failed=answer is not None and answer.history_failed,
        reported=reported,
        experiment=ref[0],
        parent=parent,
        shares=bool(submission.elements[index].companions),
        turn_is_over=_has_had_its_turn(record, submission, index),
    )
    # Of most jobs the record tells all, and the rest would be six more questions each to the file system.
    return evidence if tells_all(evidence) else _look_further(evidence, snapshot, ref, request, place)


def _look_further(
    evidence: Evidence,
    snapshot: _SuiteSnapshot,
    ref: JobRef,
    request: JobRequest | None,
    place: tuple[Submission, int],
) -> Evidence:
    """Return the evidence with what the job's files and the batch script's marks show."""
    submission, index = place
    record, reported, job = evidence.record, evidence.reported, snapshot.suite.paths.job(*ref)
    has_ended = evidence.answered and (reported is None or reported.state not in ALIVE)
    # While the scheduler job waits there is no turn, and each of many evals would ask for all others.
    waits = reported is not None and reported.state is JobState.PENDING
    companions = [] if waits else [snapshot.suite.paths.job(*other) for other in submission.companions_of(index, ref)]
    if record is None and evidence.submitted and has_ended and _is_listed(job.record):
        record = _own_record(snapshot.files, ref, request)
    return replace(
        evidence,
        record=record,
        started=snapshot.suite.paths.start_mark(submission.key, index).exists(),
        refused=_read_refusal(snapshot.suite.paths, job, submission, index) if has_ended else None,
        # The local queue's jobs write their files on the machine that looks at them.
        seen_late=not snapshot.own_disk and submission.cluster != LOCAL,
        cancelled=_is_cancelled(job, submission, index),
        began=not evidence.shares or _has_begun(job, submission.key),
        others_began=any(_has_begun(other, submission.key) for other in companions),
        age_s=_age_s(submission, job, snapshot.now),
    )


def _has_had_its_turn(record: Record | None, submission: Submission, index: int) -> bool:
    """Return whether the record is of this scheduler job, which has others to run and does not come to it again."""
    if record is None or not submission.elements[index].companions or not record.attempts:
        return False
    return record.attempts[-1].scheduler_id == submission.element_id(index) and not may_come_back(record)


def _has_begun(job: JobPaths, key: str) -> bool:
    """Return whether a job was started by a submission, by the claims that are there or were."""
    claims = (job.claim, *(attempt.claim for attempt in reversed(job.attempts())))
    return any((read_json(claim) or {}).get("key") == key for claim in claims)


def _own_record(files: JobFiles, ref: JobRef, request: JobRequest | None) -> Record | None:
    record = files.record_by_now(ref)
    if record is not None and request is not None and record.fingerprint != request.fingerprint:
        return None
    return record


def _is_listed(path: Path) -> bool:
    """Return whether a file exists now."""
    try:
        return path in path.parent.iterdir()  # NFS remembers absence for up to a minute, unless the folder is listed
    except OSError:
        return False


def _is_cancelled(job: JobPaths, submission: Submission, index: int) -> bool:
    note = Cancelled.read(job.cancelled)
    scheduler_id = submission.element_id(index)
    return note is not None and scheduler_id is not None and note.scheduler_id == scheduler_id


def _read_refusal(paths: SuitePaths, job: JobPaths, submission: Submission, index: int) -> str | None:
    """Return why this submission of a job has not run; None when it has, perhaps at another start."""
    note = Refusal.read(paths.refusal(submission.key, index))
    if note is None or (read_json(job.claim) or {}).get("key") == submission.key:
        return None
    return note.reason


def _read_node(job: JobPaths) -> str | None:
    """Return the node of the last attempt; a start that found no attempts left has claimed the job, but not run it."""
    attempts = job.attempts()
    node = (read_json(attempts[-1].claim if attempts else job.claim) or {}).get("node")
    return node if isinstance(node, str) else None


def _explain_from_log(view: JobView) -> JobView:
    log = telling_log(view)
    has_gpu = view.request is not None and view.request.resources.gpu > 0
    cause = None if log is None else find_cause_without_record(view.state, log_tail(log), has_gpu=has_gpu)
    if cause is None:
        return _explain_without_log(view) if log is None else view
    return replace(view, state=cause.state or view.state, reason=cause.message, hint=cause.hint or "")


def _explain_without_log(view: JobView) -> JobView:
    """Return the view of a job without any log, with the reason where Slurm could not open one."""
    folder = SuitePaths(view.folder.parents[2], view.suite).slurm_logs
    is_gone = not folder.is_dir()
    # It may be there again, made by a later submit.
    never_began = NO_LOG_EXIT_CODE in view.reason or (is_gone and not JobPaths(view.folder).attempts())
    if view.scheduler_id is None or view.cluster == LOCAL or not never_began:
        return view
    reason = f"Slurm could not start it: the folder of its log {'is' if is_gone else 'was'} not there: {folder}"
    again = quoted("retry", f"{view.suite}/{view.experiment}")
    return replace(view, reason=reason, hint=f"{again} makes it anew; find out what removes files there")


def _age_s(submission: Submission, job: JobPaths, now: datetime) -> float:
    sent_at = parse_moment(submission.submitted_at or submission.created_at)
    moments = [] if sent_at is None else [sent_at]
    for path in (job.claim, job.progress, job.record):
        try:
            moments.append(datetime.fromtimestamp(path.stat().st_mtime, UTC))
        except OSError:
            continue
    return (now - max(moments)).total_seconds() if moments else float("inf")
