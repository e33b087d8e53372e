"""Carrying out a plan: what is not running and not done goes to the scheduler, once, whatever happens in between.

For every call of the scheduler an intent is written and synced first and the id after it; a submit killed in between is
completed by the next one, which finds the job by its name.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path

from hpcbench.errors import PlanError, RecordError, SchedulerError
from hpcbench.plan.decide import Options
from hpcbench.retention import remove
from hpcbench.scheduler.protocol import cluster_elsewhere
from hpcbench.schemas.collection import Collection
from hpcbench.schemas.submission import Submission, read_submissions, submitted_by_other, unusable_submissions
from hpcbench.schemas.suite import Suite
from hpcbench.schemas.suite_folder import SuiteOnDisk
from hpcbench.status.collect import collect_suites
from hpcbench.status.held_jobs import release_held_jobs
from hpcbench.storage.clock import file_age_s
from hpcbench.storage.json_files import read_json, write_json
from hpcbench.storage.paths import SuitePaths
from hpcbench.submit.destination import Destination
from hpcbench.submit.send_arrays import ArraySender, SubmitResult, abandon, complete
from hpcbench.submit.submit_plan import SubmitPlan, build_plan, make_requests
from hpcbench.submit.suite_claim import claim_suite

MARKED_ID = re.compile(r"[1-9][0-9]*(?=[ _])")
"""What a start mark begins with: the id of a single job, or of the array."""

INTENT_MIN_AGE_S = 1.0
"""How old an intent has to be before the queue's silence means anything: a submit that was killed between fork and exec
leaves a child that nobody can tell for its sbatch yet (seen on 22.05: it was taken 100 ms later, and doubled)."""

Sleep = Callable[[float], None]


def submit_suite(
    suite: Suite,
    destination: Destination,
    options: Options,
    *,
    max_jobs: int | None = None,
    sleep: Sleep = time.sleep,
) -> SubmitResult:
    """Submit what is neither under way nor done; see `claim_plan`."""
    with claim_plan(suite, destination, options, max_jobs=max_jobs, sleep=sleep) as plan:
        return carry_out(plan, sleep=sleep)


@contextmanager
def claim_plan(
    suite: Suite,
    destination: Destination,
    options: Options,
    *,
    max_jobs: int | None = None,
    sleep: Sleep = time.sleep,
) -> Iterator[SubmitPlan]:
    """Claim the suite, complete what an interrupted submit left, and yield the plan; `carry_out` may follow.

    Raises:
        PlanError: the save directory cannot be used, or another submit holds it.
        RecordError: a file of an earlier submission cannot be read, so its jobs might be doubled.
        SchedulerError: the scheduler does not answer, so nothing may be concluded.
    """
    paths = SuitePaths(destination.save_dir, suite.name)
    requests = make_requests(suite, destination.save_dir)
    try:
        paths.submissions.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PlanError(
            f"{paths.submissions}: cannot be made: {error.strerror}", hint="name another --save-dir"
        ) from error
    with claim_suite(paths):
        submissions = _read_all_submissions(paths)  # once: the claim keeps other submits out
        completed = complete_intents(paths, submissions, destination, sleep=sleep)
        submissions = [completed.get(submission.key, submission) for submission in submissions]
        plan = build_plan(suite, requests, submissions, destination, options, max_jobs=max_jobs)
        adopted = tuple(submission for submission in completed.values() if submission.state == "submitted")
        yield replace(plan, adopted=adopted)


def carry_out(plan: SubmitPlan, *, sleep: Sleep = time.sleep) -> SubmitResult:
    """Send what the plan decided, under the keys that it shows; the suite is claimed.

    Raises:
        PlanError: another submit has taken the suite over.
        SchedulerError: the scheduler does not answer.
    """
    destination, on_disk = plan.destination, plan.on_disk
    scheduler = destination.scheduler
    result = SubmitResult(plan, num_left=plan.num_left)
    write_json(on_disk.paths.plan, on_disk.plan.model_dump(mode="json"))
    _refuse_silence(plan.collection)
    release_held_jobs([on_disk], plan.collection, scheduler)
    result.not_removed = remove(plan.removals)
    sender = ArraySender(paths=on_disk.paths, scheduler=scheduler, result=result, sleep=sleep)
    sender.send_all(plan.arrays)
    for parent, array in plan.late_children:
        sender.send_child(array, parent)
    if any(submission.after_key for submission in result.submitted):
        # A quick job may have ended before those that take its model were in the queue.
        release_children_of(replace(on_disk, submissions=(*on_disk.submissions, *result.submitted)), destination)
    return result


def _read_all_submissions(paths: SuitePaths) -> list[Submission]:
    submissions = read_submissions(paths)
    if broken := unusable_submissions(paths, submissions):
        raise RecordError(
            f"{broken[0]}: cannot be read, so its jobs would be submitted a second time",
            hint=f"repair it, or move it away once `squeue --me --name={broken[0].stem}` shows nothing",
        )
    return submissions


def _refuse_silence(collection: Collection) -> None:
    if collection.unanswered:
        failures = "; ".join(f"{cluster}: {message}" for cluster, message in collection.unanswered.items())
        hint = "nothing was submitted; run the same command again later"
        raise SchedulerError(f"the scheduler did not answer ({failures})", hint=hint)


def release_children_of(suite: SuiteOnDisk, destination: Destination) -> None:
    """Release or cancel jobs whose parent is over."""
    if any(submission.after_key for submission in suite.submissions):
        release_held_jobs([suite], collect_suites([suite], destination.find_scheduler), destination.scheduler)


def complete_intents(
    paths: SuitePaths, submissions: Sequence[Submission], destination: Destination, *, sleep: Sleep
) -> dict[str, Submission]:
    """Adopt interrupted submissions that the scheduler had taken, abandon the others; return all of them by key.

    Raises:
        SchedulerError: the scheduler did not answer, so it is not known what became of them.
    """
    open_intents = [found for found in submissions if found.state == "intent" and submitted_by_other(found) is None]
    _wait_until_old_enough([paths.submission(intent.key) for intent in open_intents], sleep)
    completed = {}
    for submission in open_intents:
        scheduler = destination.find_scheduler(submission.cluster)
        if scheduler is None or cluster_elsewhere(submission, scheduler.cluster_name) is not None:
            continue
        scheduler_id = scheduler.find([submission.key]).get(submission.key) or _id_from_its_jobs(paths, submission)
        completed[submission.key] = (
            abandon(paths, submission) if scheduler_id is None else complete(paths, submission, scheduler_id)
        )
    return completed


def _wait_until_old_enough(intents: Sequence[Path], sleep: Sleep) -> None:
    for intent in intents:
        age_s = file_age_s(intent)
        if age_s is not None and age_s < INTENT_MIN_AGE_S:
            sleep(min(INTENT_MIN_AGE_S - age_s, INTENT_MIN_AGE_S))


def _id_from_its_jobs(paths: SuitePaths, submission: Submission) -> str | None:
    """Return the scheduler's id when a job of this submission has started, whatever the queue says now."""
    for job in chain.from_iterable(element.jobs for element in submission.elements.values()):
        claim = read_json(paths.job(*job.ref).claim)
        if claim is not None and claim.get("key") == submission.key and claim.get("scheduler_id"):
            return str(claim["scheduler_id"]).partition("_")[0]
    for index in submission.elements:  # a start mark is written before the profile's setup lines run
        try:
            mark = paths.start_mark(submission.key, index).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if match := MARKED_ID.match(mark):
            return match[0]
    return None
