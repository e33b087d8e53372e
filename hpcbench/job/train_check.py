"""The check that an eval makes before it starts: is its train job really done, is it the right one, is its model there?

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


def check_train(request: JobRequest, *, patience_s: float = PATIENCE_S) -> tuple[Record | None, str]:
    """Return the completed train record that this eval may use, or None and the reason why there is none."""
    if request.train_folder is None:
        return None, ""
    train = JobPaths(Path(request.train_folder))
    deadline = time.monotonic() + patience_s
    while True:
        # Listing the folder makes an NFS client look again.
        entries = sorted(entry.name for entry in train.folder.iterdir()) if train.folder.is_dir() else []
        record = read_record(train.record) if train.record.name in entries else None
        verdict = judge_train(request, record)
        if verdict is None and record is not None:
            return record, ""
        # A train job that comes back writes another record, which NFS may show late.
        final = record is not None and record.state is not JobState.COMPLETED and not may_come_back(record)
        if final or time.monotonic() > deadline:
            return None, verdict or "no record"
        time.sleep(POLL_S)


def note_refusal(paths: SuitePaths, submission: Submission, index: int, reason: str) -> None:
    """Write that this eval was not run: it has not failed, and a later submit sends it again."""
    try:
        Refusal(reason=reason).write(paths.refusal(submission.key, index))
    except OSError as error:
        logger.warning("%s: cannot be written: %s", paths.refusal(submission.key, index), error)


def judge_train(request: JobRequest, record: Record | None) -> str | None:
    """Return why the record does not allow the eval to run, or None when it does (pure)."""
    if record is None:
        return "its train job has left no record"
    if record.fingerprint != request.train_fingerprint:
        return "its train job's record belongs to another configuration"
    if record.state is not JobState.COMPLETED:
        return f"its train job is {record.state}"
    return None
