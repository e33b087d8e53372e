"""The attempts of a job before this one, as its record lists them.

In: the folders of earlier attempts. Out: their `Attempt`s, one for each start that claimed the job, also for those that
were killed before they could tell. It writes nothing.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from pydantic import ValidationError

from hpcbench.jsonfile import JsonObject, read_json
from hpcbench.paths import AttemptPaths, JobPaths
from hpcbench.record import Attempt, Cause
from hpcbench.states import JobState

logger = logging.getLogger(__name__)


def earlier_attempts(job: JobPaths, *, before: int, scheduler_id: str) -> tuple[Attempt, ...]:
    """Return the attempts with numbers below `before`, oldest first.

    Args:
        job: the job's files.
        before: number of the attempt that asks.
        scheduler_id: its scheduler job; an earlier attempt of the same one was put back into the queue.
    """
    found = (_read_attempt(job.attempt(number), number) for number in range(1, before))
    return tuple(_name_preemption(attempt, scheduler_id) for attempt in found if attempt is not None)


def _read_attempt(paths: AttemptPaths, number: int) -> Attempt | None:
    value = read_json(paths.record)
    attempts = value.get("attempts") if value is not None else None
    if isinstance(attempts, list) and attempts:
        try:
            return Attempt.model_validate(attempts[-1])
        except ValidationError:
            logger.warning("%s: no usable record", paths.folder)
    claim = read_json(paths.claim)
    return None if claim is None else _describe_killed(paths, claim, number)


def _describe_killed(paths: AttemptPaths, claim: JsonObject, number: int) -> Attempt | None:
    """Return an attempt that left no record; its last sign of life counts as its end."""
    try:
        started = datetime.fromisoformat(str(claim["claimed_at"]))
        finished = max([started, *(datetime.fromtimestamp(e.stat().st_mtime, UTC) for e in paths.folder.iterdir())])
        return Attempt(
            number=number,
            state=JobState.LOST,
            started_at=str(claim["claimed_at"]),
            finished_at=finished.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
            duration_s=(finished - started).total_seconds(),
            scheduler_id=str(claim["scheduler_id"]),
            restart_count=int(claim["restart_count"]),
            host=str(claim["host"]),
            cause=Cause(
                type="killed", message="killed without time for a record: its node failed, or it was preempted"
            ),
        )
    except (KeyError, TypeError, ValueError, OSError):
        logger.warning("%s: says neither how it began nor how it ended", paths.folder)
        return None


def _name_preemption(attempt: Attempt, scheduler_id: str) -> Attempt:
    """Tell preemption from cancellation: both are a TERM, but only a preempted job comes back with its id."""
    cause = attempt.cause
    if attempt.state is not JobState.CANCELLED or cause is None or attempt.scheduler_id != scheduler_id:
        return attempt
    message = cause.message.replace("terminated by the scheduler or the user", "preempted")
    return attempt.model_copy(
        update={"state": JobState.PREEMPTED, "cause": cause.model_copy(update={"message": message})}
    )
