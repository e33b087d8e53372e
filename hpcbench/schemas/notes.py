"""Notes: small files by which the processes of a job, and hpcbench on a login node, leave word for one another.

In: what is to be noted, or the path of a note. Out: a file with `schema_version` and the time, or the note. What cannot
be read, or lacks what the note is about, is not there; keys that this version does not have are ignored. A reader never
waits for a note and never changes one.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from hpcbench.storage.clock import now_text
from hpcbench.storage.json_files import read_json, write_json

logger = logging.getLogger(__name__)

WAITS: Final = "--wait"
"""Argument of a worker that is to wait for a `NextTurn` once it is done."""


class Note(BaseModel):
    """A note that only says that it is there."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    schema_version: int = 1
    at: str | None = None
    """When it was written."""

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Return the note in a file, or None when there is none that can be used."""
        value = read_json(path)
        try:
            return None if value is None else cls.model_validate(value)
        except ValidationError as error:
            logger.warning("%s: not usable (%s problems); treated as not there yet", path, error.error_count())
            return None

    def write(self, path: Path, *, sync: bool = True) -> None:
        """Write the note with the time; what was not given has no key."""
        value = self.model_dump(mode="json", exclude_unset=True)
        write_json(path, {"schema_version": self.schema_version, "at": now_text(), **value}, sync=sync)


class Stop(Note):
    """`stop.json`: the supervisor asks its worker to save a checkpoint and leave."""

    reason: str


class NextTurn(Note):
    """`next.json`: the supervisor gives a worker that has written its metrics another job with the same model."""

    job_folder: str
    attempt_folder: str
    waits: bool = False
    """Whether the worker is to wait for one more after that."""


class Interrupted(Note):
    """`interrupted.json`: rank 0 has left early because of a stop."""

    step: int | None = None
    """Optimizer step of the checkpoint that it saved; an eval saves none."""
    phase: str | None = None


class Started(Note):
    """`started.json`: training begins."""

    fingerprint: str
    resumed_from_step: int


class Failure(Note):
    """`failure-rank<N>.json`: the error that ended a rank."""

    type: str = "Exception"
    message: str = ""
    hint: str | None = None
    traceback: str = ""
    rank: int | None = None


class Push(Note):
    """`push.json`: the push to a model hub has ended, with the repository's address or an error."""

    url: str | None = None
    error: str | None = None


class Cancelled(Note):
    """`cancelled.json`: hpcbench is about to cancel the job; a cancelled job that never ran leaves nothing else."""

    scheduler_id: str | None


class Refusal(Note):
    """`<index>.refused`: a job did not run because the one whose model it takes is not done, and has not failed."""

    reason: str
