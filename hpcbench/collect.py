"""What is known of every job: records first, then one look at the scheduler.

In: a save directory, and a scheduler's answer. Out: a `Collection`. It reads; it never changes anything. Files that
cannot be read are "not there yet" and named in the warnings, and no job is dropped because of them.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hpcbench.clues import explain_without_record
from hpcbench.collection import Collection, ExperimentView, JobView, SuiteView
from hpcbench.conclude import Evidence, conclude_state
from hpcbench.errors import RecordError, SchedulerError
from hpcbench.jsonfile import read_json
from hpcbench.logs import log_tail, telling_log
from hpcbench.paths import JobPaths, SuitePaths
from hpcbench.plan import TRAIN
from hpcbench.record import read_record
from hpcbench.request import JobRequest, read_request
from hpcbench.scheduler.protocol import Answer, Queue
from hpcbench.states import ALIVE, FAILED_STATES, FINISHED_WELL, JobState
from hpcbench.submission import Submission, read_submissions

logger = logging.getLogger(__name__)

CANNOT_ASK = "{cluster}: its scheduler cannot be asked from this machine; unfinished jobs are shown as unknown"

NOT_IN_SUITE = "not in the suite any more"

FindQueue = Callable[[str], Queue | None]
"""From a cluster's name to its queue, or None when it cannot be asked from this machine."""


class PlannedExperiment(BaseModel):
    """One experiment of `suite.json`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    base_experiment: str | None = None
    cmd: str
    jobs: tuple[str, ...]


class PlannedSuite(BaseModel):
    """`suite.json`: what was planned last, in file order."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: int = 1
    suite: str
    suite_file: str = ""
    cluster: str = ""
    profile_file: str = ""
    """The cluster's profile, where its name alone does not lead there."""
    planned_at: str = ""
    overrides: tuple[str, ...] = ()
    experiments: tuple[PlannedExperiment, ...] = Field(default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteOnDisk:
    """One suite's plan and submissions as they were read."""

    paths: SuitePaths
    plan: PlannedSuite
    submissions: tuple[Submission, ...]

    def latest(self) -> dict[tuple[str, str], tuple[Submission, int]]:
        """Return the newest submission and index of each job."""
        return {
            (element.experiment, element.job): (submission, index)
            for submission in self.submissions
            for index, element in submission.elements.items()
            if submission.state != "abandoned"
        }


def read_suites(save_dir: Path, names: Sequence[str] = ()) -> list[SuiteOnDisk]:
    """Return the suites below a save directory that were planned at least once, by name."""
    found = sorted(entry.name for entry in save_dir.iterdir() if entry.is_dir()) if save_dir.is_dir() else []
    wanted = [name for name in found if not names or name in names]
    return [suite for name in wanted if (suite := read_suite(SuitePaths(save_dir, name))) is not None]


def read_suite(paths: SuitePaths) -> SuiteOnDisk | None:
    """Return one suite, or None when it was never planned."""
    plan = read_plan(paths)
    return None if plan is None else SuiteOnDisk(paths=paths, plan=plan, submissions=tuple(read_submissions(paths)))


def read_plan(paths: SuitePaths) -> PlannedSuite | None:
    """Return a suite's plan, or None when it was never planned; a broken one is made up from the folders."""
    value = read_json(paths.plan)
    plan: PlannedSuite | None = None
    if value is not None:
        try:
            plan = PlannedSuite.model_validate(value)
        except ValidationError:
            logger.warning("%s: not a plan; the experiments are taken from the folders", paths.plan)
    if plan is None:
        if not paths.submissions.is_dir() and not paths.plan.exists():
            return None
        plan = PlannedSuite(suite=paths.suite, experiments=tuple(_experiments_from_folders(paths)))
    # A folder that was copied still holds the name of the first one.
    return plan.model_copy(update={"suite": paths.suite})


def _experiments_from_folders(paths: SuitePaths) -> Iterator[PlannedExperiment]:
    for folder in sorted(entry for entry in paths.folder.iterdir() if entry.is_dir()):
        jobs = sorted(
            (job.name for job in folder.iterdir() if (job / "job.json").exists()), key=lambda j: (j != TRAIN, j)
        )
        if jobs:
            yield PlannedExperiment(name=folder.name, cmd="sft" if TRAIN in jobs else "eval", jobs=tuple(jobs))


def ask_schedulers(suites: Sequence[SuiteOnDisk], find: FindQueue) -> tuple[dict[str, Answer], tuple[str, ...]]:
    """Ask each cluster once about its jobs that no record settles; return the answers that came, and warnings."""
    by_cluster: dict[str, list[Submission]] = {}
    for submission in (submission for suite in suites for submission in _unsettled(suite)):
        by_cluster.setdefault(submission.cluster, []).append(submission)
    answers: dict[str, Answer] = {}
    warnings: list[str] = []
    for cluster, submissions in by_cluster.items():
        scheduler = find(cluster)
        if scheduler is None:
            warnings.append(CANNOT_ASK.format(cluster=cluster))
            continue
        try:
            answers[cluster] = scheduler.query(submissions)
        except SchedulerError as error:
            warnings.append(f"the scheduler did not answer ({error.message}); unfinished jobs are shown as unknown")
            continue
        warnings += answers[cluster].warnings
    return answers, tuple(warnings)


def _unsettled(suite: SuiteOnDisk) -> list[Submission]:
    latest = suite.latest()
    keys = {
        submission.key
        for (experiment, job), (submission, _) in latest.items()
        if not _is_settled(suite.paths.job(experiment, job))
    }
    return [
        submission for submission in suite.submissions if submission.key in keys and submission.scheduler_id is not None
    ]


def _is_settled(job: JobPaths) -> bool:
    record = read_record(job.record)
    if record is None:
        return False
    # Where Slurm counts memory, only Slurm knows what a SIGKILL was for.
    killed = record.cause is not None and record.cause.signal == signal.SIGKILL
    return record.state in FINISHED_WELL or (record.state is JobState.FAILED and not killed)


def collect_suites(suites: Sequence[SuiteOnDisk], find: FindQueue, now: datetime | None = None) -> Collection:
    """Return everything that is known about the jobs of these suites."""
    now = datetime.now(UTC) if now is None else now
    answers, warnings = ask_schedulers(suites, find)
    views = tuple(_view_suite(suite, answers, now) for suite in suites)
    return Collection(suites=views, collected_at=now.strftime("%Y-%m-%dT%H:%M:%SZ"), warnings=warnings)


def _view_suite(suite: SuiteOnDisk, answers: Mapping[str, Answer], now: datetime) -> SuiteView:
    latest = suite.latest()
    look = _Look(suite=suite, latest=latest, answers=answers, now=now)
    experiments = tuple(_view_experiment(planned, look) for planned in suite.plan.experiments)
    planned_jobs = {(planned.name, job) for planned in suite.plan.experiments for job in planned.jobs}
    names = {planned.name for planned in suite.plan.experiments}
    return SuiteView(
        name=suite.plan.suite,
        experiments=experiments,
        others=tuple(_view_others(look, planned_jobs, experiments)),
        num_left_out=len({name for name, _ in latest} - names),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """What one look at a suite goes by."""

    suite: SuiteOnDisk
    latest: Mapping[tuple[str, str], tuple[Submission, int]]
    answers: Mapping[str, Answer]
    now: datetime

    def view(self, experiment: str, job: str, train: JobView | None) -> JobView:
        place = self.latest.get((experiment, job))
        return _view_job(self.suite, experiment, job, place, self.answers, train, self.now)


def _view_experiment(planned: PlannedExperiment, look: _Look) -> ExperimentView:
    train: JobView | None = None
    evals: list[JobView] = []
    for job in planned.jobs:
        view = look.view(planned.name, job, train)
        if job == TRAIN:
            train = view
        else:
            evals.append(view)
    return ExperimentView(
        suite=look.suite.plan.suite,
        name=planned.name,
        base_experiment=planned.base_experiment,
        cmd=planned.cmd,
        train=train,
        evals=tuple(evals),
    )


def _view_others(
    look: _Look, planned: AbstractSet[tuple[str, str]], experiments: Sequence[ExperimentView]
) -> Iterator[ExperimentView]:
    """Yield what an earlier version of the suite submitted, this one does not have, and is still under way."""
    gone = sorted(look.latest.keys() - planned)
    for name in dict.fromkeys(experiment for experiment, _ in gone):
        train = next((found.train for found in experiments if found.name == name), None)
        jobs = [job for experiment, job in gone if experiment == name]
        if TRAIN in jobs:
            train = _not_in_suite(look.view(name, TRAIN, None))
        evals = [_not_in_suite(look.view(name, job, train)) for job in jobs if job != TRAIN]
        alive = tuple(view for view in evals if view.state in ALIVE or view.held)
        if alive or (train is not None and not train.in_suite and train.state in ALIVE):
            cmd = "eval" if train is None else "sft"
            yield ExperimentView(suite=look.suite.plan.suite, name=name, cmd=cmd, train=train, evals=alive)


def _not_in_suite(view: JobView) -> JobView:
    reason = "; ".join(part for part in (NOT_IN_SUITE, view.reason) if part)
    return replace(view, in_suite=False, reason=reason)


def _view_job(  # noqa: PLR0917
    suite: SuiteOnDisk,
    experiment: str,
    job: str,
    place: tuple[Submission, int] | None,
    answers: Mapping[str, Answer],
    train: JobView | None,
    now: datetime,
) -> JobView:
    paths = suite.paths.job(experiment, job)
    request = _try_request(paths.request)
    record = read_record(paths.record)
    if record is not None and request is not None and record.fingerprint != request.fingerprint:
        record = None
    if place is not None and request is not None and place[0].elements[place[1]].fingerprint != request.fingerprint:
        # The submission of this configuration was refused; the one before it was of another.
        place = None
    answer = None if place is None else answers.get(place[0].cluster)
    told = None if place is None or answer is None else answer.jobs.get((place[0].key, place[1]))
    elsewhere = None if place is None or answer is None else answer.elsewhere.get(place[0].key)
    started = place is not None and (suite.paths.start_marks(place[0].key) / str(place[1])).exists()
    evidence = Evidence(
        record=record,
        submitted=place is not None and place[0].state == "submitted",
        intended=place is not None and place[0].state == "intent",
        answered=answer is not None,
        elsewhere=elsewhere,
        history_known=answer is not None and answer.history_known,
        history_failed=answer is not None and answer.history_failed,
        told=told,
        started=started,
        cancelled=paths.cancelled.exists(),
        age_s=0.0 if place is None else _age_s(place[0], paths, now),
        train=train,
    )
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
        # How far it came says how much more time it needs.
        progress=(read_json(paths.progress) or {}) if state in {JobState.RUNNING, JobState.TIMEOUT} else {},
        scheduler_id=None if place is None else place[0].element_id(place[1]),
        cluster=None if place is None else place[0].cluster,
        elsewhere=elsewhere,
        held=told is not None and told.held_by_dependency,
        expected_start=None if told is None else told.expected_start,
        node=_read_node(paths) if state in FAILED_STATES else None,
    )
    return view if record is not None or state not in FAILED_STATES else _explain_from_log(view)


def _read_node(job: JobPaths) -> str | None:
    """Return the node of the last attempt; a start that found no attempts left has claimed the job, but not run it."""
    names = (entry.name.removeprefix("attempt-") for entry in job.folder.glob("attempt-*"))
    last = max((int(name) for name in names if name.isdecimal()), default=None)
    node = (read_json(job.claim if last is None else job.attempt(last).claim) or {}).get("node")
    return node if isinstance(node, str) else None


def _explain_from_log(view: JobView) -> JobView:
    """Let Slurm's own log say why a job left no record."""
    log = telling_log(view)
    has_gpu = view.request is not None and view.request.resources.gpu > 0
    clue = None if log is None else explain_without_record(view.state, log_tail(log), has_gpu=has_gpu)
    if clue is None:
        return view
    return replace(view, state=clue.state or view.state, reason=clue.message, hint=clue.hint or "")


def _try_request(path: Path) -> JobRequest | None:
    try:
        return read_request(path)
    except RecordError:
        return None


def _age_s(submission: Submission, job: JobPaths, now: datetime) -> float:
    moments = [submission.submitted_at or submission.created_at]
    for path in (job.claim, job.progress, job.record):
        try:
            moments.append(datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat())
        except OSError:
            continue
    times = [moment for text in moments if (moment := _parse_time(text)) is not None]
    return (now - max(times)).total_seconds() if times else float("inf")


def _parse_time(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def index_views(collection: Collection) -> Mapping[tuple[str, str, str], JobView]:
    """Return all jobs by (suite, experiment, job)."""
    return {(view.suite, view.experiment, view.job): view for view in collection.jobs}
