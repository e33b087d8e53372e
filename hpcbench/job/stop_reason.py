"""Why a job was asked to stop: signals alone leave it open, so the user's note and Slurm's answer decide.

Only a time limit leads to a requeue of ours; see `judge_stop` for the rule.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Literal

from hpcbench.job.context import JobContext
from hpcbench.scheduler.slurm.own_job import OwnJob, ask_own_job
from hpcbench.schemas.notes import Cancelled

StopReason = Literal["timeout", "terminate", "preempted"]


@dataclass(slots=True)
class StopRequest:
    """Which signals came; handlers only note them, so they may come twice, together, and in any order."""

    warned_at: float | None = None  # when the first USR2 came, by time.monotonic()
    term_at: float | None = None  # when the first TERM or INT came

    def note(self, number: int, _frame: FrameType | None = None) -> None:
        """Remember a signal."""
        if number == signal.SIGUSR2:
            # USR2 may come twice: from the time limit and from a preemption.
            self.warned_at = self.warned_at or time.monotonic()
        else:
            self.term_at = self.term_at or time.monotonic()

    @property
    def reason(self) -> StopReason | None:
        """The reason by the signals alone: TERM beats USR2, whichever came first; None while there was neither."""
        if self.term_at is not None:
            return "terminate"
        return None if self.warned_at is None else "timeout"


def install_handlers(stop: StopRequest) -> None:
    """Note USR2, TERM and INT instead of dying of them."""
    handler: Callable[[int, FrameType | None], None] = stop.note
    for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handler)


def judge_stop(stop: StopRequest, *, is_noted: bool, own: OwnJob | None, restart_count: int = 0) -> StopReason | None:
    """Return why the job was asked to stop, or None when it was not (pure).

    USR2 is the notice of a time limit or, with preempt_send_user_signal, of a preemption. TERM is a cancellation, a
    preemption or the time limit itself, and may follow a USR2 after minutes or come with it. A job that is requeued
    after its user cancelled it has come back to life, so a time limit has to be certain, by the first that applies:

    1. The note of `hpcbench cancel` for this very job: terminated, whatever came or comes.
    2. Slurm says that the job runs: preempted where it also names a PreemptTime (the job stays, and Slurm requeues it);
       else what the signals say, so USR2 alone is a time limit and TERM, which somebody else sent, is none.
    3. Slurm is ending the job, even if its TERM has not arrived yet: a time limit where it gives that as its reason;
       preempted where it has counted one more requeue than this start knows of; else terminated.
    4. Slurm cannot be asked (in a container): what the signals say. There a preemption is put down as a cancellation,
       and corrected by the next attempt; the batch script outside sees to it that there is one, see
       `child_release.stay_if_preempted`.
    """
    if stop.reason is None:
        return None
    if is_noted:
        return "terminate"
    if own is None:
        return stop.reason
    if own.is_running:
        return "preempted" if own.is_being_preempted else stop.reason
    if own.is_at_limit:
        return "timeout"
    return "preempted" if own.num_requeues > restart_count else "terminate"


def find_stop_reason(stop: StopRequest, context: JobContext) -> tuple[StopReason | None, OwnJob | None]:
    """Return why the job was asked to stop, and Slurm's word on it where that was asked for."""
    if stop.reason is None or not context.on_slurm:
        return stop.reason, None
    is_noted = is_cancelled(context)
    own = None if is_noted else ask_own_job(context.scheduler_id)
    return judge_stop(stop, is_noted=is_noted, own=own, restart_count=context.restart_count), own


def is_cancelled(context: JobContext) -> bool:
    """Return whether `hpcbench cancel` has left its note for this very scheduler job; a retry does not take it back."""
    notes = map(Cancelled.read, (context.paths.cancelled, context.paths.cancelled_before))
    return any(note is not None and note.scheduler_id == context.scheduler_id for note in notes)
