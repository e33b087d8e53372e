"""What state a job is in, concluded from all that is known of it.

In: the record, the scheduler's words, our own notes. Out: a state and the reason in words. No disk, no scheduler, no
clock. The record decides first, then the scheduler, then silence; a question that was not answered decides nothing.
"""

from __future__ import annotations

import os
import pwd
import re
import signal
from dataclasses import dataclass

from hpcbench.scheduler.protocol import SchedulerJob
from hpcbench.schemas.record import TERMINATED, Record, may_come_back
from hpcbench.schemas.states import ALIVE, FAILED_STATES, FINISHED_WELL, JobState
from hpcbench.schemas.views import JobView

GRACE_S = 150
"""How long a record may stay unseen after its job left the queue: NFS caches attributes for up to a minute or two."""

SCHEDULER_KNOWS_BETTER = frozenset({JobState.CANCELLED, JobState.PREEMPTED, JobState.TIMEOUT, JobState.NODE_FAILED})
"""Cancel and preemption look alike inside a job; only the scheduler can tell them apart."""

WITHOUT_RECORD = {
    JobState.HOST_OUT_OF_MEMORY: "the node's memory was not enough",
    JobState.NODE_FAILED: "its node failed, and Slurm did not put it back into the queue",
    JobState.PREEMPTED: "another job took its place",
    JobState.TIMEOUT: "the time limit was reached",
}
"""What the scheduler's word means where nothing else says what happened."""

CANCELLED_BY = re.compile(r"^CANCELLED by (\d+)")
"""How accounting names who cancelled a job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that may decide a job's state."""

    record: Record | None = None
    submitted: bool = False
    intended: bool = False
    """Written down as about to be submitted, outcome not yet known."""
    answered: bool = True
    """Whether the scheduler answered at all."""
    elsewhere: str | None = None
    """The other cluster that the job went to, of which this one knows nothing."""
    submitter: str | None = None
    """The other user who submitted it, and of whose jobs the scheduler tells this one nothing."""
    history_known: bool = True
    """Whether it also knows of ended jobs."""
    history_failed: bool = False
    """Whether it could not say what became of ended jobs."""
    told: SchedulerJob | None = None
    started: bool = False
    refused: str | None = None
    """Why it left without running: its train job was not done."""
    seen_late: bool = False
    """Whether the file system may show a record some time after it was written."""
    cancelled: bool = False
    """A note of our own, made before scancel."""
    age_s: float = 0.0
    """Time since anything was last heard of the job."""
    train: JobView | None = None


def conclude_state(evidence: Evidence) -> tuple[JobState, str]:  # one rule a line
    """Return a job's state and the reason in words. The record decides first, then the scheduler, then silence."""
    record, told, train = evidence.record, evidence.told, evidence.train
    alive = told is not None and told.state in ALIVE
    if evidence.submitted and (record is None or not is_final(record)) and (why := _why_unheard(evidence)):
        return JobState.UNKNOWN, why
    if record is not None and (record.state in FINISHED_WELL or not alive):
        return _conclude_from_record(record, evidence)
    train_failed = train is not None and (train.state in FAILED_STATES or train.state is JobState.OUT_OF_MEMORY)
    if train is not None and train_failed and not (told is not None and told.state is JobState.RUNNING):
        return JobState.BLOCKED, f"its train job is {train.state}"
    if evidence.cancelled and not alive:
        return JobState.CANCELLED, _name_canceller(evidence)
    if not evidence.submitted:
        return (JobState.UNKNOWN, "was being submitted") if evidence.intended else (JobState.PLANNED, "")
    if evidence.refused is not None and not alive:
        return JobState.PLANNED, f"started too early and did not run ({evidence.refused})"
    if told is None:
        return _conclude_from_silence(evidence)
    return _conclude_from_scheduler(told, evidence)


def is_final(record: Record) -> bool:
    """Say whether nothing that a scheduler says can add to a record (pure)."""
    # Where Slurm counts memory, only Slurm knows what a SIGKILL was for.
    killed = record.cause is not None and record.cause.signal == signal.SIGKILL
    return record.state in FINISHED_WELL or not (killed or may_come_back(record))


def _why_unheard(evidence: Evidence) -> str:
    """Say why nobody here can tell what the scheduler knows of a job; nothing when it was told."""
    if evidence.elsewhere is not None:
        return f"was submitted to the cluster {evidence.elsewhere}, whose own login nodes alone can ask"
    if evidence.submitter is not None:
        return f"was submitted by {evidence.submitter}, who alone can ask"
    return "" if evidence.answered else "the scheduler does not answer"


def _conclude_from_record(record: Record, evidence: Evidence) -> tuple[JobState, str]:
    """Return what a record says, and what only the scheduler or we ourselves can add: who ended it."""
    cause, told = record.cause, evidence.told
    if cause is None:
        return record.state, ""
    state = record.state
    if cause.type == "interrupted" and told is not None and told.state in SCHEDULER_KNOWS_BETTER:
        state = told.state
    if cause.type == "interrupted" and evidence.cancelled:
        # After its time limit or a preemption it was back in the queue, where nobody writes a record.
        state = JobState.CANCELLED
    if cause.signal == signal.SIGKILL and told is not None and told.state is JobState.HOST_OUT_OF_MEMORY:
        return told.state, f"the node's memory was not enough ({cause.message})"
    if cause.type == "interrupted" and state is JobState.CANCELLED:
        who = _name_canceller(evidence)
        later = record.state is not JobState.CANCELLED
        return state, f"{who}; before: {cause.message}" if later else cause.message.replace(TERMINATED, who)
    return state, cause.message.replace(TERMINATED, WITHOUT_RECORD.get(state, TERMINATED))


def _name_canceller(evidence: Evidence) -> str:
    """Say who cancelled a job, as far as our own note and accounting tell."""
    if evidence.cancelled:
        return "cancelled by hpcbench"
    match = CANCELLED_BY.search("" if evidence.told is None else evidence.told.raw_state)
    if match is None:
        return "cancelled with scancel, by you or an administrator"
    if int(match[1]) == os.getuid():
        return "cancelled with scancel, by you"
    try:
        return f"cancelled with scancel, by {pwd.getpwuid(int(match[1])).pw_name}"
    except KeyError:
        return f"cancelled with scancel, by the user with id {match[1]}"


def _conclude_from_scheduler(told: SchedulerJob, evidence: Evidence) -> tuple[JobState, str]:
    alive = told.state in ALIVE
    if told.state is JobState.BLOCKED:
        return JobState.PENDING, "is held back; the next hpcbench submit or status releases it"
    if evidence.train is not None and not evidence.started and told.state is JobState.CANCELLED:
        return JobState.PLANNED, "never ran, although its train job did not fail"
    may_have_record = told.state is JobState.COMPLETED or (evidence.started and evidence.seen_late and not alive)
    if may_have_record and evidence.age_s < GRACE_S:
        return JobState.RUNNING, "has ended; its record is not visible yet"
    if told.state is JobState.COMPLETED:
        return JobState.FAILED, "ended without a record"
    if told.state is JobState.CANCELLED:
        return told.state, _name_canceller(evidence)
    exit_code = f", exit code {told.exit_code}" if told.exit_code and told.state is JobState.FAILED else ""
    words = f"{WITHOUT_RECORD.get(told.state, 'it ended')} ({told.raw_state}{exit_code}); it left no record"
    return told.state, told.reason or ("" if alive else words)


def _conclude_from_silence(evidence: Evidence) -> tuple[JobState, str]:
    if evidence.age_s < GRACE_S:
        return JobState.UNKNOWN, "the scheduler no longer lists it; waiting for its record"
    if evidence.history_failed:
        return JobState.UNKNOWN, "the scheduler no longer lists it, and accounting does not answer"
    if evidence.train is not None and not evidence.started:
        return JobState.PLANNED, "left the queue without ever running"
    if evidence.started or evidence.history_known:
        return JobState.LOST, "the scheduler forgot it and there is no record"
    return JobState.LOST, "the scheduler forgot it, accounting is off and there is no record"
