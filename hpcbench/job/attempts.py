"""The attempts of a job before this one, as its record lists them: one for each start that claimed the job."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from pydantic import ValidationError

import hpcbench
from hpcbench.job.context import JobContext
from hpcbench.job.environment import MachineQuestion, describe_environment
from hpcbench.schemas.record import ATTEMPTS_USED_UP, TERMINATED, Attempt, Cause, Record, write_record
from hpcbench.schemas.request import JobRequest
from hpcbench.schemas.states import JobState
from hpcbench.storage.clock import moment_text, now_text, parse_moment
from hpcbench.storage.json_files import JsonObject, read_json
from hpcbench.storage.paths import AttemptPaths, JobPaths

logger = logging.getLogger(__name__)


def earlier_attempts(job: JobPaths, *, before: int, scheduler_id: str) -> tuple[Attempt, ...]:
    """Return the attempts before number `before`, oldest first; those of the same `scheduler_id` were requeued."""
    found = (_read_attempt(job.attempt(number), number) for number in range(1, before))
    return tuple(_name_preemption(attempt, scheduler_id) for attempt in found if attempt is not None)


def give_up(context: JobContext, request: JobRequest, *, before: int) -> Record:
    """Write and return the record of a job that comes back although its attempts are used up."""
    earlier = earlier_attempts(context.paths, before=before, scheduler_id=context.scheduler_id)
    last = earlier[-1] if earlier else None
    why = "" if last is None or last.cause is None else f"; the last one: {last.cause.message}"
    record = Record(
        hpcbench_version=hpcbench.__version__,
        suite=request.suite,
        experiment=request.experiment,
        job=request.job,
        cmd=request.cmd,
        # A preemption leaves time for a record, so an attempt without one is taken for a node failure.
        state=JobState.NODE_FAILED if last is None or last.state is JobState.LOST else last.state,
        fingerprint=request.fingerprint,
        cause=Cause(
            type=ATTEMPTS_USED_UP,
            message=f"all attempts are used up (max_attempts: {request.max_attempts}){why}",
            hint="a retry has as many attempts again, and goes on from the last checkpoint",
        ),
        attempts=earlier,
        request=request.model_dump(mode="json"),
        environment=describe_environment(MachineQuestion(request.suite_file)),
        started_at=earlier[0].started_at if earlier else now_text(),
        finished_at=now_text(),
    )
    write_record(record, context.paths.record)
    return record


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
    started = parse_moment(claim.get("claimed_at"))
    if started is None:
        logger.warning("%s: neither its start nor its end is known", paths.folder)
        return None
    try:
        finished = max([started, *(datetime.fromtimestamp(e.stat().st_mtime, UTC) for e in paths.folder.iterdir())])
        return Attempt(
            number=number,
            state=JobState.LOST,
            started_at=str(claim["claimed_at"]),
            finished_at=moment_text(finished),
            duration_s=(finished - started).total_seconds(),
            scheduler_id=str(claim["scheduler_id"]),
            restart_count=int(claim["restart_count"]),
            host=str(claim["host"]),
            cause=Cause(
                type="killed", message="killed without time for a record: its node failed, or it was preempted"
            ),
        )
    except (KeyError, TypeError, ValueError, OSError):
        logger.warning("%s: neither its start nor its end is known", paths.folder)
        return None


def _name_preemption(attempt: Attempt, scheduler_id: str) -> Attempt:
    """Distinguish preemption from cancellation: both are a TERM, but only a preempted job comes back with its id."""
    cause = attempt.cause
    if attempt.state is not JobState.CANCELLED or cause is None or attempt.scheduler_id != scheduler_id:
        return attempt
    message = cause.message.replace(TERMINATED, "preempted")
    return attempt.model_copy(
        update={"state": JobState.PREEMPTED, "cause": cause.model_copy(update={"message": message})}
    )
