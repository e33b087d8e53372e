"""The check before a job that takes another's model: is that one done, is it the right one, is its model there?

A dependency that Slurm thought satisfied proves nothing (a purged failed job counts as done): the record alone decides.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from hpcbench.schemas.notes import Refusal
from hpcbench.schemas.record import Record, may_come_back, read_record
from hpcbench.schemas.request import JobRequest
from hpcbench.schemas.states import JobState
from hpcbench.schemas.submission import Submission
from hpcbench.storage.paths import JobPaths, SuitePaths

logger = logging.getLogger(__name__)

PATIENCE_S = 130.0  # NFS may show a record two minutes late
POLL_S = 2.0


def check_parent(request: JobRequest, *, patience_s: float = PATIENCE_S) -> tuple[Record | None, str]:
    """Return the parent's completed record, whose model this job may take, or None and the reason why there is none."""
    if request.train_folder is None:
        return None, ""
    parent = JobPaths(Path(request.train_folder))
    deadline = time.monotonic() + patience_s
    while True:
        # Listing the folder makes an NFS client look again.
        entries = sorted(entry.name for entry in parent.folder.iterdir()) if parent.folder.is_dir() else []
        record = read_record(parent.record) if parent.record.name in entries else None
        verdict = judge_parent(request, record)
        if verdict is None and record is not None:
            return record, ""
        # A parent that comes back writes another record, which NFS may show late.
        final = record is not None and record.state is not JobState.COMPLETED and not may_come_back(record)
        if final or time.monotonic() > deadline:
            return None, verdict or "no record"
        time.sleep(POLL_S)


def note_refusal(paths: SuitePaths, submission: Submission, index: int, reason: str) -> None:
    """Write that this job was not run: it has not failed, and a later submit sends it again."""
    try:
        Refusal(reason=reason).write(paths.refusal(submission.key, index))
    except OSError as error:
        logger.warning("%s: cannot be written: %s", paths.refusal(submission.key, index), error)


def judge_parent(request: JobRequest, record: Record | None) -> str | None:
    """Return why the parent's record does not allow the job to run, or None when it does (pure)."""
    if record is None:
        return f"{request.parent_name} has left no record"
    if record.fingerprint != request.train_fingerprint:
        return f"the record of {request.parent_name} belongs to another configuration"
    if record.state is not JobState.COMPLETED:
        return f"{request.parent_name} is {record.state}"
    return None
