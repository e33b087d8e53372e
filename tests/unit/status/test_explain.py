"""What `why` says of jobs that did not come back: only what is true of them."""

from __future__ import annotations

from typing import Any

import pytest

from hpcbench.scheduler.protocol import SchedulerJob
from hpcbench.schemas.record import TERMINATED, Attempt, Cause, Record
from hpcbench.schemas.states import JobState
from hpcbench.status.explain import explain
from hpcbench.status.job_state import Evidence, conclude_state
from tests.support.job_cases import command, experiment, record, view
from tests.unit.plan.test_plan import plan


def interrupted(
    state: JobState, *, message: str = "the time limit came near", restart_count: int = 0, exit_code: int | None = None
) -> Record:
    """Return the record of a job whose last start was interrupted."""
    cause = Cause(type="interrupted", message=message, exit_code=exit_code)
    attempt = Attempt(
        number=restart_count + 1,
        state=state,
        started_at="2026-11-21T00:00:00.000Z",
        finished_at="2026-11-21T00:01:00.000Z",
        duration_s=60,
        restart_count=restart_count,
        host="node1",
        cause=cause,
    )
    return record(state, attempts=(attempt,), cause=cause)


@pytest.mark.parametrize(
    ("planned", "state", "left", "words"),
    [
        (experiment("a"), JobState.TIMEOUT, {}, "the time limit was reached; it was not put back into the queue"),
        (
            experiment("a", max_attempts=3),
            JobState.TIMEOUT,
            {"restart_count": 2},
            "the time limit was reached; no attempts are left (max_attempts: 3)",
        ),
        (
            experiment("a", max_attempts=3),
            JobState.TIMEOUT,
            {"restart_count": 1},
            "the time limit was reached; it was not put back into the queue",
        ),
        (
            command("a"),
            JobState.TIMEOUT,
            {"exit_code": 1},
            "the time limit was reached; the program did not ask to be started again (exit code 75)",
        ),
        (
            command("a"),
            JobState.TIMEOUT,
            {"exit_code": 75, "restart_count": 9},
            "the time limit was reached; no attempts are left (max_attempts: 10)",
        ),
        (command("a"), JobState.PREEMPTED, {}, "another job took its place; it was not put back into the queue"),
        (
            command("a"),
            JobState.PREEMPTED,
            {"restart_count": 9},
            "another job took its place; no attempts are left (max_attempts: 10)",
        ),
    ],
)
def test_why_a_job_did_not_come_back(planned: Any, state: JobState, left: dict[str, Any], words: str) -> None:
    request = plan(planned)[0]
    told = explain(view(request, state, record=interrupted(state, **left)))
    assert told.splitlines()[0] == f"tuners/a/train: {state} ({words})"


def test_without_a_record_nothing_is_said_of_attempts() -> None:
    told = explain(view(plan(command("a"))[0], JobState.TIMEOUT))
    assert told.splitlines()[0] == "tuners/a/train: timeout (the time limit was reached)"


CANCELLED = SchedulerJob(state=JobState.CANCELLED, raw_state="CANCELLED")
PREEMPTED = SchedulerJob(state=JobState.PREEMPTED, raw_state="PREEMPTED")


@pytest.mark.parametrize(
    ("found", "told", "is_noted", "expected"),
    [
        # Back in the queue after its time limit, and cancelled there.
        (
            interrupted(JobState.TIMEOUT),
            None,
            True,
            (JobState.CANCELLED, "cancelled by hpcbench; before: the time limit came near"),
        ),
        (
            interrupted(JobState.TIMEOUT),
            CANCELLED,
            False,
            (
                JobState.CANCELLED,
                "cancelled with scancel, by you or an administrator; before: the time limit came near",
            ),
        ),
        (interrupted(JobState.TIMEOUT), None, False, (JobState.TIMEOUT, "the time limit came near")),
        (
            interrupted(JobState.CANCELLED, message=f"{TERMINATED}; the program left at TERM"),
            PREEMPTED,
            False,
            (JobState.PREEMPTED, "another job took its place; the program left at TERM"),
        ),
    ],
)
def test_who_ended_an_interrupted_job(
    found: Record, told: SchedulerJob | None, is_noted: bool, expected: tuple[JobState, str]
) -> None:
    assert conclude_state(Evidence(record=found, submitted=True, reported=told, cancelled=is_noted)) == expected
