"""Conclude the state of a job from all that is known about it. No disk, no scheduler, no clock.

The record decides first, then the scheduler, then silence; a question that was not answered decides nothing.
"""

from __future__ import annotations

import os
import pwd
import re
import signal
from dataclasses import dataclass

from hpcbench.scheduler.protocol import SchedulerJob
from hpcbench.schemas.collection import JobView
from hpcbench.schemas.record import TERMINATED, Record, may_come_back
from hpcbench.schemas.request import name_parent
from hpcbench.schemas.states import ALIVE, FAILED_STATES, FINISHED_WELL, JobState

GRACE_S = 150
"""How long a record may stay unseen after its job left the queue: NFS caches attributes for up to a minute or two."""

SCHEDULER_KNOWS_BETTER = frozenset({JobState.CANCELLED, JobState.PREEMPTED, JobState.TIMEOUT, JobState.NODE_FAILED})
"""Cancellation and preemption look alike inside a job, both are a SIGTERM: only the scheduler distinguishes them."""

WAITS_FOR_TURN = "waits for its turn in the job that it shares with others"
NO_TURN = "did not run: the job that it shares with others ended before its turn"

WITHOUT_RECORD = {
    JobState.HOST_OUT_OF_MEMORY: "the node's memory was not enough",
    JobState.NODE_FAILED: "its node failed, and Slurm did not put it back into the queue",
    JobState.PREEMPTED: "another job took its place",
    JobState.TIMEOUT: "the time limit was reached",
}
"""What the scheduler's state means where nothing else shows what happened."""

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
    """The other cluster that the job went to, whose queue cannot be queried from here."""
    submitter: str | None = None
    """The other user who submitted it: a scheduler shows users only their own jobs (squeue --me)."""
    history_known: bool = True
    """Whether its answer covers ended jobs."""
    history_failed: bool = False
    """Whether the query for ended jobs failed."""
    reported: SchedulerJob | None = None
    """The job as the scheduler reports it."""
    started: bool = False
    refused: str | None = None
    """Why it left without running: its parent was not done."""
    seen_late: bool = False
    """Whether the file system may show a record some time after it was written."""
    cancelled: bool = False
    """A note of our own, made before scancel."""
    age_s: float = 0.0
    """Time since the last sign of life of the job."""
    experiment: str = ""
    """Whose job it is."""
    parent: JobView | None = None
    """The job whose model it takes."""
    shares: bool = False
    """Whether its scheduler job runs others too, one after the other."""
    began: bool = True
    """Whether its turn has come, of a job that shares a scheduler job."""
    others_began: bool = False
    """Whether that of another one has."""
    turn_is_over: bool = False
    """Whether the record is of its turn in this scheduler job, which does not come to it again."""

    @property
    def waits_for_turn(self) -> bool:
        """Whether its scheduler job has run others so far."""
        return self.shares and not self.began and self.others_began

    @property
    def parent_name(self) -> str:
        """How a message names its parent."""
        return "" if self.parent is None else name_parent(self.experiment or self.parent.experiment, self.parent.ref)


CANNOT_FOLLOW = FAILED_STATES | {JobState.OUT_OF_MEMORY, JobState.BLOCKED}
"""States of a parent that leave no model."""


def conclude_state(evidence: Evidence) -> tuple[JobState, str]:  # one rule a line
    """Return a job's state and its reason. The record decides first, then the scheduler, then silence."""
    record, reported, parent = evidence.record, evidence.reported, evidence.parent
    alive = reported is not None and reported.state in ALIVE
    if evidence.submitted and (record is None or not is_final(record)) and (why := _why_no_answer(evidence)):
        return _conclude_without_answer(evidence, why)
    cancelled_alone = evidence.cancelled and evidence.shares
    if record is not None and (record.state in FINISHED_WELL or not alive or evidence.turn_is_over or cancelled_alone):
        return _conclude_from_record(record, evidence)
    runs = reported is not None and reported.state is JobState.RUNNING
    if parent is not None and parent.state in CANNOT_FOLLOW and not runs:
        return JobState.BLOCKED, f"{evidence.parent_name} is {parent.state}"
    if evidence.cancelled and (not alive or not evidence.began):
        return JobState.CANCELLED, _name_canceller(evidence)
    if not evidence.submitted:
        return (JobState.UNKNOWN, "was being submitted") if evidence.intended else (JobState.PLANNED, "")
    if evidence.refused is not None and not alive:
        return JobState.PLANNED, f"did not run: {evidence.refused}"
    if reported is None:
        return _conclude_from_silence(evidence)
    return _conclude_from_scheduler(reported, evidence)


def tells_all(evidence: Evidence) -> bool:
    """Return whether the record, with what the scheduler says, decides the state whatever the job's other files say."""
    record, reported = evidence.record, evidence.reported
    if record is None or not is_final(record):
        return False
    alive = reported is not None and reported.state in ALIVE
    is_interrupted = record.cause is not None and record.cause.type == "interrupted"  # by whom, a note may tell
    return not is_interrupted and (record.state in FINISHED_WELL or not alive or evidence.turn_is_over)


def is_final(record: Record) -> bool:
    """Return whether no answer of a scheduler can change what a record means (pure)."""
    # Where Slurm limits memory, only its own state shows whether a SIGKILL was its out-of-memory kill.
    killed = record.cause is not None and record.cause.signal == signal.SIGKILL
    return record.state in FINISHED_WELL or not (killed or may_come_back(record))


def _conclude_without_answer(evidence: Evidence, why: str) -> tuple[JobState, str]:
    """Return blocked for a job whose parent left no model by its final record, else unknown."""
    parent, near = evidence.parent, evidence.elsewhere is None and evidence.submitter is None
    if parent is not None and near and evidence.record is None and parent.state in CANNOT_FOLLOW:
        by_record = parent.record is not None and is_final(parent.record)
        if by_record or parent.state is JobState.BLOCKED:
            return JobState.BLOCKED, f"{evidence.parent_name} is {parent.state}"
    return JobState.UNKNOWN, why


def _why_no_answer(evidence: Evidence) -> str:
    """Return why there is no answer about a job, or an empty string if there is one."""
    if evidence.elsewhere is not None:
        return f"was submitted to the cluster {evidence.elsewhere}; query it from a login node there"
    if evidence.submitter is not None:
        return f"was submitted by {evidence.submitter}; a scheduler shows users only their own jobs"
    return "" if evidence.answered else "the scheduler does not answer"


def _conclude_from_record(record: Record, evidence: Evidence) -> tuple[JobState, str]:
    """Return the state and reason of a record, with what only the scheduler or our own note shows: who ended it."""
    cause, reported = record.cause, evidence.reported
    if cause is None:
        return record.state, ""
    state = record.state
    if cause.type == "interrupted" and reported is not None and reported.state in SCHEDULER_KNOWS_BETTER:
        state = reported.state
    if cause.type == "interrupted" and evidence.cancelled:
        # After its time limit or a preemption it was back in the queue, and a pending job writes no record.
        state = JobState.CANCELLED
    if cause.signal == signal.SIGKILL and reported is not None and reported.state is JobState.HOST_OUT_OF_MEMORY:
        return reported.state, f"the node's memory was not enough ({cause.message})"
    if cause.type == "interrupted" and state is JobState.CANCELLED:
        who = _name_canceller(evidence)
        later = record.state is not JobState.CANCELLED
        return state, f"{who}; before: {cause.message}" if later else cause.message.replace(TERMINATED, who)
    return state, cause.message.replace(TERMINATED, WITHOUT_RECORD.get(state, TERMINATED))


def _name_canceller(evidence: Evidence) -> str:
    """Return who cancelled a job, as far as our own note and accounting show."""
    if evidence.cancelled:
        return "cancelled by hpcbench"
    match = CANCELLED_BY.search("" if evidence.reported is None else evidence.reported.raw_state)
    if match is None:
        return "cancelled with scancel, by you or an administrator"
    if int(match[1]) == os.getuid():
        return "cancelled with scancel, by you"
    try:
        return f"cancelled with scancel, by {pwd.getpwuid(int(match[1])).pw_name}"
    except KeyError:
        return f"cancelled with scancel, by the user with id {match[1]}"


def _conclude_from_scheduler(reported: SchedulerJob, evidence: Evidence) -> tuple[JobState, str]:
    alive = reported.state in ALIVE
    if evidence.waits_for_turn and reported.state is JobState.RUNNING:
        return JobState.PENDING, WAITS_FOR_TURN
    if evidence.waits_for_turn and not alive and not (evidence.seen_late and evidence.age_s < GRACE_S):
        return JobState.PLANNED, NO_TURN
    if reported.state is JobState.BLOCKED:
        return JobState.PENDING, "is held back; the next hpcbench submit or status releases it"
    if evidence.parent is not None and not evidence.started and reported.state is JobState.CANCELLED:
        return JobState.PLANNED, f"never ran, although {evidence.parent_name} did not fail"
    may_have_record = reported.state is JobState.COMPLETED or (evidence.started and evidence.seen_late and not alive)
    if may_have_record and evidence.age_s < GRACE_S:
        return JobState.RUNNING, "has ended; its record is not visible yet"
    if reported.state is JobState.COMPLETED:
        return JobState.FAILED, "ended without a record"
    if reported.state is JobState.CANCELLED:
        return reported.state, _name_canceller(evidence)
    exit_code = f", exit code {reported.exit_code}" if reported.exit_code and reported.state is JobState.FAILED else ""
    words = f"{WITHOUT_RECORD.get(reported.state, 'it ended')} ({reported.raw_state}{exit_code}); it left no record"
    return reported.state, reported.reason or ("" if alive else words)


def _conclude_from_silence(evidence: Evidence) -> tuple[JobState, str]:
    if evidence.age_s < GRACE_S:
        return JobState.UNKNOWN, "the scheduler no longer lists it; waiting for its record"
    if evidence.history_failed:
        return JobState.UNKNOWN, "the scheduler no longer lists it, and accounting does not answer"
    if evidence.waits_for_turn:
        return JobState.PLANNED, NO_TURN
    if evidence.parent is not None and not evidence.started:
        return JobState.PLANNED, "left the queue without ever running"
    if evidence.started or evidence.history_known:
        return JobState.LOST, "left the queue, and there is no record"
    return JobState.LOST, "left the queue, accounting is off, and there is no record"
