"""The states that a job can be in, and what each means for the rest of hpcbench.

In: a state. Out: facts about it. The mapping from a scheduler's own words stands in `scheduler/`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import StrEnum


class JobState(StrEnum):
    """State of one job; the values stand in records and reports."""

    PLANNED = "planned"
    """Not submitted yet."""
    PENDING = "pending"
    """Submitted, waiting for resources, or for the job whose model it takes."""
    RUNNING = "running"
    COMPLETED = "completed"
    """A valid record with its metrics is there."""
    FAILED = "failed"
    OUT_OF_MEMORY = "out_of_memory"
    """GPU memory was not enough: a result, final, not retried."""
    HOST_OUT_OF_MEMORY = "host_out_of_memory"
    """The node's memory was not enough; more memory fixes it."""
    TIMEOUT = "timeout"
    PREEMPTED = "preempted"
    NODE_FAILED = "node_failed"
    CANCELLED = "cancelled"
    BLOCKED = "blocked"
    """The job whose model this one takes did not complete."""
    LOST = "lost"
    """The scheduler forgot the job, there is no record, and the grace period is over."""
    UNKNOWN = "unknown"
    """The scheduler does not answer; nothing is concluded."""


ALIVE = frozenset({JobState.PENDING, JobState.RUNNING, JobState.UNKNOWN})
"""A new submission would double the job."""

FINISHED_WELL = frozenset({JobState.COMPLETED, JobState.OUT_OF_MEMORY})
"""Nothing is left to do: a result is there (running out of GPU memory is one)."""

FAILED_STATES = frozenset(
    {
        JobState.FAILED,
        JobState.HOST_OUT_OF_MEMORY,
        JobState.TIMEOUT,
        JobState.PREEMPTED,
        JobState.NODE_FAILED,
        JobState.CANCELLED,
        JobState.LOST,
    }
)
"""Ended without a result; only a person's `retry` runs them again."""

STATE_STYLES: Mapping[JobState, str] = {
    JobState.COMPLETED: "green",
    JobState.RUNNING: "cyan",
    JobState.OUT_OF_MEMORY: "magenta",
    JobState.BLOCKED: "dim",
    JobState.PLANNED: "dim",
    **dict.fromkeys(ALIVE - {JobState.RUNNING}, "yellow"),
    **dict.fromkeys(FAILED_STATES, "red"),
}
"""How a terminal shows each state, in rich's words."""

COMES_BACK = frozenset({JobState.TIMEOUT, JobState.PREEMPTED})
"""Ends after which Slurm may put the job back into the queue."""

EXIT_START_ME_AGAIN = os.EX_TEMPFAIL
"""With this code (75) a program that was told to stop says that, started again, it goes on where it stopped."""
