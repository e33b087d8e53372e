"""Submitting a plan: what is not running and not done goes to the scheduler, once, whatever happens in between.

In: suites and a scheduler. Out: submissions on disk and in the queue. For every call of the scheduler an intent is
written and synced first and the id after it; a submit killed in between is completed by the next one, which finds the
job by its name.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from hpcbench.batches import Batch, describe_batch, make_batches, make_late_batches, take_part
from hpcbench.clock import now_text
from hpcbench.collect import FindScheduler, PlannedExperiment, PlannedSuite, SuiteOnDisk, collect_suites, read_suite
from hpcbench.collection import JobView
from hpcbench.errors import PlanError, RecordError, SchedulerError, SubmitError
from hpcbench.inputs import hash_inputs
from hpcbench.jsonfile import read_json, write_json
from hpcbench.paths import SuitePaths
from hpcbench.plan import TRAIN, Action, Decision, Options, decide, plan_suite, unique_local_paths
from hpcbench.request import JobRequest
from hpcbench.scheduler.choose import scheduler_of
from hpcbench.scheduler.protocol import Scheduler
from hpcbench.settle import settle_evals
from hpcbench.submission import Submission, read_submissions, unusable_submissions, write_submission
from hpcbench.suite import Suite
from hpcbench.suite_claim import claim_suite

logger = logging.getLogger(__name__)

SUBMIT_TRIES = 4


@dataclass(slots=True)
class Outcome:
    """What one submit did."""

    decisions: list[Decision] = field(default_factory=list)
    submitted: list[Submission] = field(default_factory=list)
    adopted: list[Submission] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """The scheduler's words for what it did not take; those jobs stay planned."""
    warnings: list[str] = field(default_factory=list)
    num_left: int = 0
    """Jobs that stay planned because no more may go out now."""

    @property
    def num_jobs(self) -> int:
        """Jobs that are with the scheduler because of this submit."""
        return sum(len(submission.elements) for submission in self.submitted)


def plan_and_decide(
    suite: Suite, *, save_dir: Path, scheduler: Scheduler | None, options: Options
) -> tuple[tuple[JobRequest, ...], list[Decision], list[str]]:
    """Return the suite's jobs, what a submit would do with each, and warnings. Changes nothing."""
    requests = plan_suite(suite, save_dir=save_dir, inputs=_hash_suite(suite, save_dir))
    views, warnings = _views(SuitePaths(save_dir, suite.name), requests, scheduler)
    return requests, decide(_only(requests, options), views, options), warnings


def preview_submissions(
    decisions: Sequence[Decision], scheduler: Scheduler, max_array: int
) -> list[tuple[Submission, str]]:
    """Return the submissions that these decisions would make, each with its exact text. Changes nothing."""
    previews: list[tuple[Submission, str]] = []
    for number, batch in enumerate(make_batches(_limit(decisions, None), max_array)):
        parent = describe_batch(batch, scheduler.name, None)
        previews.append((parent, scheduler.render(parent, None)))
        for evals in batch.evals:
            child = describe_batch(evals, scheduler.name, parent)
            previews.append((child, scheduler.render(child, f"<id-of-train-array-{number}>")))
    return previews


def submit_suite(
    suite: Suite,
    *,
    save_dir: Path,
    scheduler: Scheduler,
    options: Options,
    max_jobs: int | None = None,
    max_array: int = 1001,
) -> Outcome:
    """Submit what is neither under way nor done.

    Args:
        suite: the experiments.
        save_dir: root of everything on disk.
        scheduler: where jobs go.
        options: what to run again, and which experiments.
        max_jobs: how many jobs may go out at most; the rest stays planned.
        max_array: one more than the largest array index; 1 submits single jobs.

    Raises:
        PlanError: the save directory cannot be used, or another submit holds it.
        RecordError: a file of an earlier submission cannot be read, so its jobs might be doubled.
        SchedulerError: the scheduler does not answer, so nothing may be concluded.
    """
    paths = SuitePaths(save_dir, suite.name)
    requests = plan_suite(suite, save_dir=save_dir, inputs=_hash_suite(suite, save_dir))
    try:
        paths.submissions.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PlanError(
            f"{paths.submissions}: cannot be made: {error.strerror}", hint="name another --save-dir"
        ) from error
    outcome = Outcome()
    with claim_suite(paths):
        _refuse_unreadable(paths)
        outcome.adopted = adopt_intents(paths, scheduler)
        write_json(paths.plan, _plan_value(suite, requests, scheduler))
        settle_suite(paths, scheduler)
        views, warnings = _views(paths, requests, scheduler)
        if any("did not answer" in warning for warning in warnings):
            raise SchedulerError(warnings[0], hint="nothing was submitted; run the same command again later")
        outcome.warnings += warnings
        outcome.decisions = decide([_adjust(r, options) for r in _only(requests, options)], views, options)
        chosen = _limit(outcome.decisions, max_jobs)
        outcome.num_left = len(_limit(outcome.decisions, None)) - len(chosen)
        _submit_batches(make_batches(chosen, max_array), paths, scheduler, outcome)
        on_disk = read_suite(paths)
        latest = {} if on_disk is None else on_disk.latest()
        for parent, evals in make_late_batches(chosen, latest):
            _submit_evals(evals, parent, paths, scheduler, outcome)
        if any(submission.after_key for submission in outcome.submitted):
            # A quick train job may have ended before its evals were in the queue.
            settle_suite(paths, scheduler)
    return outcome


def _refuse_unreadable(paths: SuitePaths) -> None:
    broken = unusable_submissions(paths)
    if broken:
        raise RecordError(
            f"{broken[0]}: cannot be read, so its jobs would be submitted a second time",
            hint=f"mend it, or move it away once `squeue --me --name={broken[0].stem}` shows nothing",
        )


def _hash_suite(suite: Suite, save_dir: Path) -> dict[str, str]:
    return hash_inputs(unique_local_paths(plan_suite(suite, save_dir=save_dir, inputs={})))


def _only(requests: Sequence[JobRequest], options: Options) -> list[JobRequest]:
    if not options.only:
        return list(requests)
    return [r for r in requests if any(fnmatchcase(r.experiment, pattern) for pattern in options.only)]


def _adjust(request: JobRequest, options: Options) -> JobRequest:
    resources = options.resources.get((request.experiment, request.job))
    return request if resources is None else request.model_copy(update={"resources": resources})


def _views(
    paths: SuitePaths, requests: Sequence[JobRequest], scheduler: Scheduler | None
) -> tuple[dict[tuple[str, str], JobView], list[str]]:
    """Return what is known of each job of the plan, and the scheduler's warnings."""
    suite = read_suite(paths)
    if suite is None:
        return {}, []
    planned = _plan_value_of(requests)
    suite = SuiteOnDisk(
        paths=paths,
        plan=suite.plan.model_copy(update={"experiments": planned}),
        submissions=suite.submissions,
    )
    collection = collect_suites([suite], _finder(scheduler, paths.save_dir))
    return {(view.experiment, view.job): view for view in collection.jobs}, list(collection.warnings)


def _finder(scheduler: Scheduler | None, save_dir: Path) -> FindScheduler:
    """Return this scheduler for its own jobs; earlier submits may have gone to other clusters, or to this machine."""

    def find(cluster: str) -> Scheduler | None:
        return scheduler if scheduler is not None and cluster == scheduler.name else scheduler_of(cluster, save_dir)

    return find


def settle_suite(paths: SuitePaths, scheduler: Scheduler) -> None:
    """Release or cancel evals whose train job is over."""
    suite = read_suite(paths)
    if suite is not None and any(submission.after_key for submission in suite.submissions):
        settle_evals([suite], collect_suites([suite], _finder(scheduler, paths.save_dir)), scheduler)


def _limit(decisions: Sequence[Decision], max_jobs: int | None) -> list[Decision]:
    """Return the decisions to carry out, a train always before its evals."""
    chosen = [decision for decision in decisions if decision.action is Action.SUBMIT]
    if max_jobs is None or len(chosen) <= max_jobs:
        return chosen
    kept = chosen[: max(max_jobs, 0)]
    trains = {d.request.experiment for d in kept if d.request.job == TRAIN}
    return [d for d in kept if not d.after_train or d.request.experiment in trains]


def _submit_batches(batches: Sequence[Batch], paths: SuitePaths, scheduler: Scheduler, outcome: Outcome) -> None:
    """Submit all batches; where jobs go out one by one, a limit that refuses one is not asked again for each other."""
    for number, batch in enumerate(batches):
        before = len(outcome.refused)
        _submit_batch(batch, paths, scheduler, outcome)
        met = len(outcome.refused) > before and LIMIT_ERROR.search(outcome.refused[-1])
        rest = sum(len(b.requests) + sum(len(e.requests) for e in b.evals) for b in batches[number + 1 :])
        if met and not batch.array and rest:
            outcome.refused.append(f"{rest} more jobs: not tried after the limit was met")
            return


def _submit_batch(batch: Batch, paths: SuitePaths, scheduler: Scheduler, outcome: Outcome) -> None:
    """Submit one array with its eval arrays; on a limit error halve it, trains and evals together."""
    try:
        parent = _submit_array(batch, paths, scheduler, after=None)
    except SubmitError as error:
        _halve_or_report(batch, error, paths, scheduler, outcome)
        return
    outcome.submitted.append(parent)
    for evals in batch.evals:
        _submit_evals(evals, parent, paths, scheduler, outcome)


def _submit_evals(evals: Batch, parent: Submission, paths: SuitePaths, scheduler: Scheduler, outcome: Outcome) -> None:
    """Submit one eval array after its train array; refused, it stays planned and goes out with a later submit."""
    try:
        outcome.submitted.append(_submit_array(evals, paths, scheduler, after=parent))
    except SubmitError as error:
        outcome.refused.append(f"{evals.job} ({len(evals.requests)} jobs): {error.message}")


LIMIT_ERROR = re.compile(r"limit|MaxSubmit|MaxArray|invalid job array|QOSMax|AssocMax|too many", re.IGNORECASE)


def _halve_or_report(
    batch: Batch, error: SubmitError, paths: SuitePaths, scheduler: Scheduler, outcome: Outcome
) -> None:
    if len(batch.requests) == 1 or not LIMIT_ERROR.search(error.message):
        outcome.refused.append(f"{batch.job} ({len(batch.requests)} jobs): {error.message}")
        return
    indices = sorted(batch.requests)
    half = len(indices) // 2
    before = len(outcome.refused)
    for part in (indices[:half], indices[half:]):
        if len(outcome.refused) > before:
            outcome.refused.append(f"{batch.job} ({len(part)} jobs): not tried after the limit was met")
            return
        _submit_batch(take_part(batch, part), paths, scheduler, outcome)


def _submit_array(batch: Batch, paths: SuitePaths, scheduler: Scheduler, *, after: Submission | None) -> Submission:
    """Write the requests and the intent, call the scheduler, write the id."""
    submission = describe_batch(batch, scheduler.name, after)
    for request in batch.requests.values():
        _prepare_job(paths, request)
    write_submission(paths, submission)
    try:
        scheduler_id = _call_scheduler(scheduler, submission, None if after is None else after.scheduler_id)
    except SubmitError:
        _abandon(paths, submission)
        raise
    return _complete(paths, submission, scheduler_id)


def _abandon(paths: SuitePaths, submission: Submission) -> None:
    """Note that the scheduler never took it; its jobs are again what their last attempts made them."""
    for element in submission.elements.values():
        job = paths.job(element.experiment, element.job)
        attempts = sorted(job.folder.glob("attempt-*/record.json"), key=lambda file: file.stat().st_mtime)
        if attempts and not job.record.exists() and (last := read_json(attempts[-1])) is not None:
            write_json(job.record, last)
    write_submission(paths, submission.model_copy(update={"state": "abandoned"}))


def _complete(paths: SuitePaths, submission: Submission, scheduler_id: str) -> Submission:
    done = submission.model_copy(
        update={"state": "submitted", "scheduler_id": scheduler_id, "submitted_at": now_text()}
    )
    write_submission(paths, done)
    return done


def _call_scheduler(scheduler: Scheduler, submission: Submission, after_id: str | None) -> str:
    """Submit; when it is not known whether the scheduler took it, look for the job by its name before trying again."""
    for attempt in range(SUBMIT_TRIES):
        try:
            return scheduler.submit(submission, after_id)
        except SchedulerError as error:
            logger.warning("%s; looking for %s before trying again", error.message, submission.key)
            time.sleep(2.0**attempt)
            found = scheduler.find([submission.key])
            if submission.key in found:
                return found[submission.key]
    # It may still turn up: the intent stays open, and the next submit looks for it again before anything else.
    raise SchedulerError(
        f"the scheduler did not take {submission.key} in {SUBMIT_TRIES} tries", hint="run the same command again later"
    )


def _prepare_job(paths: SuitePaths, request: JobRequest) -> None:
    """Write job.json and put away what an earlier run of this job left in the way of the new one."""
    job = paths.job(request.experiment, request.job)
    job.folder.mkdir(parents=True, exist_ok=True)
    old = read_json(job.request)
    if old is not None and old.get("fingerprint") != request.fingerprint:
        fingerprint = str(old.get("fingerprint", "unknown"))
        if job.record.exists():
            job.record.replace(job.old_record(fingerprint))
        _put_away_attempts(job.folder, fingerprint)
    else:
        # The record of a failed run stays in its attempt's folder. Its owner is over, whatever the clocks say.
        job.record.unlink(missing_ok=True)
        job.claim.unlink(missing_ok=True)
    job.progress.unlink(missing_ok=True)
    job.cancelled.unlink(missing_ok=True)
    write_json(job.request, request.model_dump(mode="json"), sync=False)


def _put_away_attempts(folder: Path, fingerprint: str) -> None:
    """Move what belongs to another configuration aside, so that nothing resumes from it."""
    target = folder / f"old-{re.sub(r'[^0-9a-zA-Z]', '', fingerprint)[:12] or 'unknown'}"
    for entry in [*folder.glob("attempt-*"), folder / "resume", folder / "checkpoints", folder / "claim.json"]:
        if entry.exists():
            target.mkdir(exist_ok=True)
            entry.rename(_free_name(target / entry.name))


def _free_name(path: Path) -> Path:
    number = 1
    free = path
    while free.exists():
        free = path.with_name(f"{path.name}.{number}")
        number += 1
    return free


def adopt_intents(paths: SuitePaths, scheduler: Scheduler) -> list[Submission]:
    """Complete submissions that were interrupted between intent and id; return those that the scheduler had taken.

    Raises:
        SchedulerError: the scheduler did not answer, so it is not known what became of them.
    """
    open_intents = [s for s in read_submissions(paths) if s.state == "intent"]
    find = _finder(scheduler, paths.save_dir)
    adopted = []
    for submission in open_intents:
        place = find(submission.cluster)
        if place is None:
            continue
        found = place.find([submission.key])
        if submission.key in found:
            adopted.append(_complete(paths, submission, found[submission.key]))
        elif (marked := _id_from_start_marks(paths, submission)) is not None:
            adopted.append(_complete(paths, submission, marked))
        else:
            _abandon(paths, submission)
    return adopted


def _id_from_start_marks(paths: SuitePaths, submission: Submission) -> str | None:
    """Return a claim's scheduler id when a job of this submission has started, whatever the queue says now."""
    for element in submission.elements.values():
        claim = read_json(paths.job(element.experiment, element.job).claim)
        if claim is not None and claim.get("key") == submission.key and claim.get("scheduler_id"):
            return str(claim["scheduler_id"]).partition("_")[0]
    return None


def _plan_value_of(requests: Sequence[JobRequest]) -> tuple[PlannedExperiment, ...]:
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


def _plan_value(suite: Suite, requests: Sequence[JobRequest], scheduler: Scheduler) -> dict[str, object]:
    experiments = _plan_value_of(requests)
    plan = PlannedSuite.model_validate(
        {
            "suite": suite.name,
            "suite_file": str(suite.file),
            "cluster": scheduler.name,
            "planned_at": now_text(),
            "overrides": suite.overrides,
            "experiments": experiments,
        }
    )
    return plan.model_dump(mode="json")
