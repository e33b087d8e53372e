"""The claim: which start of which scheduler job owns a job folder.

It is read again before a record or checkpoint is put in place: after a node failure an old process may still run.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hpcbench.job.context import JobContext
from hpcbench.processes.process_tree import is_alive
from hpcbench.schemas.record import read_record
from hpcbench.schemas.states import FINISHED_WELL
from hpcbench.storage.claims import holder_fields, holder_of, replace_claim
from hpcbench.storage.clock import LONG_AGO, now_text, parse_moment
from hpcbench.storage.json_files import JsonObject, create_json, read_json

logger = logging.getLogger(__name__)

CLAIM_TRIES = 5
PAUSE_S = 1.0  # before a claim that is not valid is read again: without hard links it may be half written


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A claim as its owner keeps it."""

    token: str
    attempt: int  # from 1


def take_claim(context: JobContext, *, sleep: Callable[[float], None] = time.sleep) -> Claim | None:
    """Claim the job folder for this start, or return None when another start owns it or the job is done.

    The same scheduler job with a higher restart count takes over; another job only once the owner is certainly gone.
    """
    paths = context.paths
    fingerprint = context.job.fingerprint
    record = read_record(paths.record)
    if record is not None and record.fingerprint == fingerprint and record.state in FINISHED_WELL:
        logger.info("%s is %s already; leaving", paths.folder, record.state)
        return None
    for number in range(1, CLAIM_TRIES + 1):
        claim = Claim(
            token=secrets.token_hex(8), attempt=max((attempt.number for attempt in paths.attempts()), default=0) + 1
        )
        value = _claim_value(context, claim)
        if create_json(paths.claim, value):  # atomic: of two starts one gets it
            return claim
        owner = read_json(paths.claim)
        if owner is None and number < CLAIM_TRIES:
            sleep(PAUSE_S)
            continue
        # A writer that began and did not finish is dead, or finds this claim in its place.
        if owner is not None and not may_take_over(context, owner):
            logger.warning("%s belongs to job %s; leaving", paths.folder, owner.get("scheduler_id"))
            return None
        if replace_claim(paths.claim, value):
            return claim
    return None


def may_take_over(context: JobContext, owner: Mapping[str, object]) -> bool:
    """Return whether this start may replace the owner in the claim."""
    if owner.get("scheduler_id") == context.scheduler_id and owner.get("key") == context.submission.key:
        count = owner.get("restart_count")
        return isinstance(count, int) and (context.restart_count > count or _is_dead_here(context, owner))
    if _is_dead_here(context, owner):
        return True
    created_at = parse_moment(context.submission.created_at)  # made only after the earlier owner was seen to be over
    return created_at is not None and created_at > (parse_moment(owner.get("claimed_at")) or LONG_AGO)


def _is_dead_here(context: JobContext, owner: Mapping[str, object]) -> bool:
    holder = holder_of(owner)
    return holder is not None and holder.host == context.host and not is_alive(holder)


def holds_claim(path: Path, token: str) -> bool:
    """Return whether the claim on disk is still the one with this token."""
    found = read_json(path)
    return found is not None and found.get("token") == token


def wait_for_head_claim(context: JobContext, timeout_s: float = 120.0) -> Claim | None:
    """On nodes other than the first: return the claim that the head node's supervisor took for this start."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = read_json(context.paths.claim)
        same = found is not None and found.get("scheduler_id") == context.scheduler_id
        if found is not None and same and found.get("restart_count") == context.restart_count:
            return Claim(token=str(found["token"]), attempt=int(found["attempt"]))
        time.sleep(0.5)
    return None


def _claim_value(context: JobContext, claim: Claim) -> JsonObject:
    return {
        **holder_fields(),
        "schema_version": 1,
        "token": claim.token,
        "attempt": claim.attempt,
        "key": context.submission.key,
        "scheduler_id": context.scheduler_id,
        "restart_count": context.restart_count,
        "host": context.host,
        # Slurm's NodeName, which may differ from the host's name (slurm.conf, NodeHostname).
        "node": os.environ.get("SLURMD_NODENAME"),
        "claimed_at": now_text(),
    }
