"""A job's folder before it runs: the request is written, earlier runs are put aside; never removes a result."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from hpcbench.schemas.record import read_record
from hpcbench.schemas.request import JobRequest
from hpcbench.schemas.states import FINISHED_WELL
from hpcbench.storage.json_files import read_json, write_json
from hpcbench.storage.paths import JobPaths, SuitePaths


def prepare_job(paths: SuitePaths, request: JobRequest, *, takes_new_model: bool = False) -> None:
    """Write job.json and put away what an earlier run of this job left in the way of the new one.

    `takes_new_model`: the job whose model it takes runs once more, so that nothing of the earlier run goes on.
    """
    job = paths.job(request.experiment, request.job)
    job.folder.mkdir(parents=True, exist_ok=True)
    old = read_json(job.request)
    if old is not None and old.get("fingerprint") != request.fingerprint:
        fingerprint = str(old.get("fingerprint", "unknown"))
        if job.record.exists():
            job.record.replace(_free_name(job.old_record(fingerprint)))
        _put_away_attempts(job, fingerprint)
    else:
        # The record of a failed run stays in its attempt's folder, that of a good one under its fingerprint as well.
        record = read_record(job.record)
        if record is not None and record.state in FINISHED_WELL:
            job.record.replace(_free_name(job.old_record(record.fingerprint)))
        is_done = record is not None and record.state in FINISHED_WELL
        if (request.export or request.infer) and (takes_new_model or is_done):
            # What is run once more although it is done, or for another model, makes and answers all of it again.
            _put_away([job.results, job.resume, job.checkpoints], job.old_folder(request.fingerprint))
        job.record.unlink(missing_ok=True)
        # Its owner is over, whatever the clocks say.
        job.claim.unlink(missing_ok=True)
    job.progress.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        job.cancelled.replace(job.cancelled_before)
    write_json(job.request, request.model_dump(mode="json"), sync=False)


def _put_away_attempts(job: JobPaths, fingerprint: str) -> None:
    entries = [
        *(attempt.folder for attempt in job.attempts()),
        job.resume,
        job.checkpoints,
        job.predictions,
        job.results,
        job.generation_config,
        job.claim,
    ]
    _put_away(entries, job.old_folder(fingerprint))


def _put_away(entries: Iterable[Path], target: Path) -> None:
    for entry in entries:
        if entry.exists():
            target.mkdir(exist_ok=True)
            entry.rename(_free_name(target / entry.name))  # so that nothing resumes from it


def _free_name(path: Path) -> Path:
    number = 1
    free = path
    while free.exists():
        free = path.with_name(f"{path.name}.{number}")
        number += 1
    return free
