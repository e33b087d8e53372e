"""Arrays on their way to the scheduler: an intent on disk, the call, the id on disk; halved where a limit refuses.

Slurm names a limit on a line of its own (`QOSMaxSubmitJobPerUserLimit`) and then always says the same: `Job violates
accounting/QOS policy (job submit limit, user's size and/or time limits)`. Releases before 20.11 say only the latter.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain

from hpcbench.errors import SchedulerError, SubmitError
from hpcbench.plan.arrays import JobArray, describe_array, take_part
from hpcbench.scheduler.protocol import Scheduler
from hpcbench.schemas.submission import Submission, write_submission
from hpcbench.storage.clock import now_text
from hpcbench.storage.json_files import read_json, write_json
from hpcbench.storage.paths import SuitePaths
from hpcbench.submit.job_folder import prepare_job
from hpcbench.submit.submit_plan import SubmitPlan
from hpcbench.submit.suite_claim import renew_claim

logger = logging.getLogger(__name__)

WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0)
"""After each try that the scheduler did not answer; Slurm's commands wait some seconds more by themselves."""
LIMIT_ERROR = re.compile(r"limit|MaxSubmit|MaxArray|invalid job array|QOSMax|AssocMax|too many", re.IGNORECASE)
_NAMED_LIMIT = re.compile(r"\b(?:QOS|Assoc)(?:Max|Min|Grp)\w*")
_PERHAPS_JOBS = re.compile(
    r"submit limit|MaxSubmit|too many (?:\w+ )?jobs|limit (?:of|on|for) [^;.]*\bjobs?\b", re.IGNORECASE
)


@dataclass(slots=True)
class SubmitResult:
    """What one submit did."""

    plan: SubmitPlan
    submitted: list[Submission] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """The scheduler's messages about what it did not take; those jobs stay planned."""
    not_removed: Sequence[str] = ()
    """Why checkpoints of the plan's removals are still there."""
    num_left: int = 0
    """Jobs that stay planned because no more may go out now."""
    limit: str = ""
    """The scheduler's name for the limit on the number of jobs that was met; later submits top up."""

    @property
    def num_jobs(self) -> int:
        """Jobs that are with the scheduler because of this submit."""
        return sum(submission.num_jobs for submission in self.submitted)

    @property
    def num_elements(self) -> int:
        """What the scheduler counts as jobs of them."""
        return sum(len(submission.elements) for submission in self.submitted)

    @property
    def has_failed(self) -> bool:
        """Whether something was refused or changed; a limit that leaves jobs is neither."""
        return bool(self.plan.changed or self.refused)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArraySender:
    """Sends arrays of one suite, which is claimed, and notes in `result` what became of them."""

    paths: SuitePaths
    scheduler: Scheduler
    result: SubmitResult
    sleep: Callable[[float], None] = time.sleep

    def send_all(self, arrays: Sequence[JobArray]) -> None:
        """Submit all arrays; once a limit on the number of jobs is met, the rest is counted and not tried."""
        refused = self.result.refused
        for number, array in enumerate(arrays):
            num_refused = len(refused)
            self._send_array(array)
            rest = sum(other.num_jobs for other in arrays[number + 1 :])
            if rest and not array.array and len(refused) > num_refused and may_fit_smaller(refused[-1]):
                # Where jobs go out one by one, what refused one is not asked again for each other.
                refused.append(f"{rest} more jobs: not tried after that")
                return

    def _send_array(self, array: JobArray) -> None:
        """Submit one array with those behind it; on a limit error halve it, parents and children together."""
        result = self.result
        if result.limit:
            result.num_left += array.num_jobs
            return
        try:
            parent = self.submit_array(array, after=None)
        except SubmitError as error:
            if len(array.requests) == 1 or not may_fit_smaller(error.message):
                self._note_refusal(array, error)
                return
            indices = sorted(array.requests)
            half = len(indices) // 2
            num_refused = len(result.refused)
            for part in (indices[:half], indices[half:]):
                smaller = take_part(array, part)
                if len(result.refused) > num_refused:
                    # What refused the smallest part of the first half refuses the second.
                    result.refused.append(f"{array.job} ({smaller.num_jobs} jobs): not tried after that")
                    return
                self._send_array(smaller)
            return
        result.submitted.append(parent)
        for child in array.children:
            self.send_child(child, parent)

    def send_child(self, array: JobArray, parent: Submission) -> None:
        """Submit one array after its parent's, and those behind it; refused, they go out with a later submit."""
        if self.result.limit:
            self.result.num_left += array.num_jobs
            return
        try:
            sent = self.submit_array(array, after=parent)
        except SubmitError as error:
            self._note_refusal(array, error)
            return
        self.result.submitted.append(sent)
        for child in array.children:
            self.send_child(child, sent)

    def _note_refusal(self, array: JobArray, error: SubmitError) -> None:
        limit = job_limit(error.message, some_were_taken=bool(self.result.submitted))
        if limit is None:
            self.result.refused.append(f"{array.job} ({array.num_jobs} jobs): {error.message}")
        else:
            self.result.limit = limit
            self.result.num_left += array.num_jobs

    def submit_array(self, array: JobArray, *, after: Submission | None) -> Submission:
        """Write the intent and the requests, call the scheduler, write the id."""
        renew_claim(self.paths)
        submission = describe_array(array, self.scheduler.name, after)
        settings = self.scheduler.job_settings(submission.resources)
        facts = {"cluster_name": self.scheduler.cluster_name, "settings": settings}
        submission = submission.model_copy(update=facts)
        write_submission(self.paths, submission)  # first: the next submit finds it and brings back records put away
        for request in chain.from_iterable(array.requests.values()):
            prepare_job(self.paths, request, takes_new_model=after is not None)
        try:
            scheduler_id = self._call_scheduler(submission, None if after is None else after.scheduler_id)
        except SubmitError:
            abandon(self.paths, submission)
            raise
        return complete(self.paths, submission, scheduler_id)

    def _call_scheduler(self, submission: Submission, after_id: str | None) -> str:
        """Submit, trying again while the scheduler does not answer, but never before a query has not found the job."""
        scheduler = self.scheduler
        may_be_there = False
        said = ""
        for wait_s in WAITS_S:
            try:
                if may_be_there and (found := scheduler.find([submission.key]).get(submission.key)) is not None:
                    return found
                may_be_there = False
                renew_claim(self.paths)
                return scheduler.submit(submission, after_id)
            except SchedulerError as error:
                may_be_there, said = True, error.message
                again = f"looking for {submission.key} before trying again"
                logger.warning("%s; %s in %.0f s", error.message, again, wait_s)
                self.sleep(wait_s)
        try:
            found = scheduler.find([submission.key]).get(submission.key)
        except SchedulerError as error:
            logger.warning("%s", error.message)
            found = None
        if found is not None:
            return found
        # It may still turn up: the intent stays open, and the next submit looks for it again before anything else.
        raise SchedulerError(
            f"the scheduler did not take {submission.key} in {len(WAITS_S)} tries; its last message: {said}",
            hint="run the same command again later",
        )


def abandon(paths: SuitePaths, submission: Submission) -> Submission:
    """Note that the scheduler never took it; its jobs are again what their last attempts made them."""
    for element_job in chain.from_iterable(element.jobs for element in submission.elements.values()):
        job = paths.job(*element_job.ref)
        records = (attempt.record for attempt in job.attempts())
        attempts = sorted((file for file in records if file.exists()), key=lambda file: file.stat().st_mtime)
        if attempts and not job.record.exists() and (last := read_json(attempts[-1])) is not None:
            write_json(job.record, last)
    abandoned = submission.model_copy(update={"state": "abandoned"})
    write_submission(paths, abandoned)
    return abandoned


def complete(paths: SuitePaths, submission: Submission, scheduler_id: str) -> Submission:
    """Note the id that the scheduler gave it."""
    done = submission.model_copy(
        update={"state": "submitted", "scheduler_id": scheduler_id, "submitted_at": now_text()}
    )
    write_submission(paths, done)
    return done


def may_fit_smaller(message: str) -> bool:
    """Return whether a part of what was refused may be taken."""
    return LIMIT_ERROR.search(message) is not None


def job_limit(message: str, *, some_were_taken: bool) -> str | None:
    """Return the limit on the number of jobs that a refusal of a single job names, or None when it is another refusal.

    Words that may mean any limit mean this one only if others of the same submit were taken.
    """
    named = list(dict.fromkeys(_NAMED_LIMIT.findall(message)))
    if named:
        submit = [name for name in named if "submit" in name.lower()]
        return ", ".join(submit) or None
    return message if some_were_taken and _PERHAPS_JOBS.search(message) else None
