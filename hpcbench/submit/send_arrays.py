"""Batches on their way to the scheduler: an intent on disk, the call, the id on disk; halved where a limit refuses.

In: batches. Out: submissions on disk and in the queue, and in an `Outcome` what was taken, refused and left for later.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from hpcbench.errors import SchedulerError, SubmitError
from hpcbench.plan.arrays import Batch, describe_batch, take_part
from hpcbench.plan.decide import Decision
from hpcbench.retention import Removal
from hpcbench.scheduler.protocol import Scheduler
from hpcbench.schemas.submission import Submission, write_submission
from hpcbench.storage.clock import now_text
from hpcbench.storage.json_files import read_json, write_json
from hpcbench.storage.paths import SuitePaths
from hpcbench.submit.job_folder import prepare_job
from hpcbench.submit.limits import job_limit, may_fit_smaller
from hpcbench.submit.suite_claim import renew_claim

logger = logging.getLogger(__name__)

WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0)
"""After each try that the scheduler did not answer; Slurm's commands wait some seconds more by themselves."""


@dataclass(slots=True)
class Outcome:
    """What one submit did."""

    decisions: list[Decision] = field(default_factory=list)
    submitted: list[Submission] = field(default_factory=list)
    adopted: list[Submission] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """The scheduler's words for what it did not take; those jobs stay planned."""
    warnings: list[str] = field(default_factory=list)
    removed: list[Removal] = field(default_factory=list)
    """Checkpoints of finished experiments that the profile's `keep` left out."""
    num_left: int = 0
    """Jobs that stay planned because no more may go out now."""
    limit: str = ""
    """The scheduler's word for the limit on the number of jobs that was met; later submits top up."""

    @property
    def num_jobs(self) -> int:
        """Jobs that are with the scheduler because of this submit."""
        return sum(len(submission.elements) for submission in self.submitted)


def count_jobs(batch: Batch) -> int:
    """Return how many jobs a batch has, evals included."""
    return len(batch.requests) + sum(len(evals.requests) for evals in batch.evals)


def submit_batches(batches: Sequence[Batch], paths: SuitePaths, scheduler: Scheduler, outcome: Outcome) -> None:
    """Submit all batches; once a limit on the number of jobs is met, the rest is counted and not tried."""
    for number, batch in enumerate(batches):
        refused = len(outcome.refused)
        _submit_batch(batch, paths, scheduler, outcome)
        rest = sum(count_jobs(other) for other in batches[number + 1 :])
        if rest and not batch.array and len(outcome.refused) > refused and may_fit_smaller(outcome.refused[-1]):
            # Where jobs go out one by one, what refused one is not asked again for each other.
            outcome.refused.append(f"{rest} more jobs: not tried after that")
            return


def submit_late_evals(
    batches: Sequence[tuple[Submission, Batch]], paths: SuitePaths, scheduler: Scheduler, outcome: Outcome
) -> None:
    """Submit evals after train jobs of earlier submissions."""
    for parent, evals in batches:
        _submit_evals(evals, parent, paths, scheduler, outcome)


def _submit_batch(batch: Batch, paths: SuitePaths, scheduler: Scheduler, outcome: Outcome) -> None:
    """Submit one array with its eval arrays; on a limit error halve it, trains and evals together."""
    if outcome.limit:
        outcome.num_left += count_jobs(batch)
        return
    try:
        parent = submit_array(batch, paths, scheduler, after=None)
    except SubmitError as error:
        if len(batch.requests) == 1 or not may_fit_smaller(error.message):
            _note_refusal(batch, error, outcome)
            return
        indices = sorted(batch.requests)
        half = len(indices) // 2
        refused = len(outcome.refused)
        for part in (indices[:half], indices[half:]):
            smaller = take_part(batch, part)
            if len(outcome.refused) > refused:
                # What refused the smallest part of the first half refuses the second.
                outcome.refused.append(f"{batch.job} ({count_jobs(smaller)} jobs): not tried after that")
                return
            _submit_batch(smaller, paths, scheduler, outcome)
        return
    outcome.submitted.append(parent)
    for evals in batch.evals:
        _submit_evals(evals, parent, paths, scheduler, outcome)


def _submit_evals(evals: Batch, parent: Submission, paths: SuitePaths, scheduler: Scheduler, outcome: Outcome) -> None:
    """Submit one eval array after its train array; refused, it stays planned and goes out with a later submit."""
    if outcome.limit:
        outcome.num_left += count_jobs(evals)
        return
    try:
        outcome.submitted.append(submit_array(evals, paths, scheduler, after=parent))
    except SubmitError as error:
        _note_refusal(evals, error, outcome)


def _note_refusal(batch: Batch, error: SubmitError, outcome: Outcome) -> None:
    limit = job_limit(error.message, some_were_taken=bool(outcome.submitted))
    if limit is None:
        outcome.refused.append(f"{batch.job} ({count_jobs(batch)} jobs): {error.message}")
    else:
        outcome.limit = limit
        outcome.num_left += count_jobs(batch)


def submit_array(batch: Batch, paths: SuitePaths, scheduler: Scheduler, *, after: Submission | None) -> Submission:
    """Write the intent and the requests, call the scheduler, write the id; the suite is claimed.

    The intent goes first: what is killed while old records are put away is found by the next submit, which brings
    them back.
    """
    renew_claim(paths)
    submission = describe_batch(batch, scheduler.name, after)
    facts = {"cluster_name": scheduler.cluster_name, "settings": scheduler.job_settings(submission.resources)}
    submission = submission.model_copy(update=facts)
    write_submission(paths, submission)
    for request in batch.requests.values():
        prepare_job(paths, request)
    try:
        scheduler_id = _call_scheduler(scheduler, submission, paths, None if after is None else after.scheduler_id)
    except SubmitError:
        abandon(paths, submission)
        raise
    return complete(paths, submission, scheduler_id)


def abandon(paths: SuitePaths, submission: Submission) -> None:
    """Note that the scheduler never took it; its jobs are again what their last attempts made them."""
    for element in submission.elements.values():
        job = paths.job(element.experiment, element.job)
        records = (attempt.record for attempt in job.attempts())
        attempts = sorted((file for file in records if file.exists()), key=lambda file: file.stat().st_mtime)
        if attempts and not job.record.exists() and (last := read_json(attempts[-1])) is not None:
            write_json(job.record, last)
    write_submission(paths, submission.model_copy(update={"state": "abandoned"}))


def complete(paths: SuitePaths, submission: Submission, scheduler_id: str) -> Submission:
    """Note the id that the scheduler gave it."""
    done = submission.model_copy(
        update={"state": "submitted", "scheduler_id": scheduler_id, "submitted_at": now_text()}
    )
    write_submission(paths, done)
    return done


def _call_scheduler(scheduler: Scheduler, submission: Submission, paths: SuitePaths, after_id: str | None) -> str:
    """Submit, trying again while the scheduler does not answer.

    After a try of which it is not known what became, nothing is submitted before a query that worked has not found it.
    """
    may_be_there = False
    said = ""
    for wait_s in WAITS_S:
        try:
            if may_be_there and (found := scheduler.find([submission.key]).get(submission.key)) is not None:
                return found
            may_be_there = False
            renew_claim(paths)
            return scheduler.submit(submission, after_id)
        except SchedulerError as error:
            may_be_there, said = True, error.message
            again = f"looking for {submission.key} before trying again"
            logger.warning("%s; %s in %.0f s", error.message, again, wait_s)
            time.sleep(wait_s)
    try:
        found = scheduler.find([submission.key]).get(submission.key)
    except SchedulerError as error:
        logger.warning("%s", error.message)
        found = None
    if found is not None:
        return found
    # It may still turn up: the intent stays open, and the next submit looks for it again before anything else.
    raise SchedulerError(
        f"the scheduler did not take {submission.key} in {len(WAITS_S)} tries; it said at last: {said}",
        hint="run the same command again later",
    )
