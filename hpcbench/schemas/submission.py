"""A submission: one call of the scheduler's submit command, as `submissions/<key>.json`.

In: what is about to be submitted. Out: the file that is written before the call (intent) and completed after it (id),
so that a submit killed at any moment is found again by its key, which is the scheduler's job name. It never talks to a
scheduler.
"""

from __future__ import annotations

import logging
import os
import pwd
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, ValidationError, model_serializer

from hpcbench.schemas.cluster_profile import LOCAL, Keep, TokenizedDataPlace
from hpcbench.schemas.request import JobRef, Resources
from hpcbench.storage.clock import LONG_AGO, parse_moment
from hpcbench.storage.json_files import read_json, write_json
from hpcbench.storage.paths import FolderName, SuitePaths

logger = logging.getLogger(__name__)


class ElementJob(BaseModel):
    """One job folder of an element, and the configuration that it was submitted with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    experiment: FolderName
    job: FolderName
    fingerprint: str

    @property
    def ref(self) -> JobRef:
        """Its experiment and job."""
        return self.experiment, self.job


class Element(ElementJob):
    """What one scheduler job of a submission runs; its index is the array index.

    Most run one job; evals with `together` run one after the other.
    """

    companions: tuple[ElementJob, ...] = ()
    """The jobs after the first, in the order in which they run."""

    @property
    def jobs(self) -> tuple[ElementJob, ...]:
        """All its jobs, in the order in which they run."""
        return (self, *self.companions)

    @model_serializer(mode="wrap")
    def _leave_out_no_companions(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Jobs may run an earlier hpcbench than the one that submitted them, which refuses keys that it does not know.
        value: dict[str, Any] = write(self)
        return value if self.companions else {name: kept for name, kept in value.items() if name != "companions"}


class Submitter(BaseModel):
    """The user of the machine who submitted: a scheduler shows users only their own jobs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uid: int
    name: str


class JobSettings(BaseModel):
    """What the cluster's profile decides inside jobs."""

    # A job that waited may be started by an earlier hpcbench than the one that submitted it.
    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    signal_lead_s: float = 300.0
    """How long before the time limit Slurm sends USR2."""
    release_evals: bool = True
    """Whether compute nodes may call scontrol."""
    scratch: str | None = None
    """Folder where checkpoints go instead of the save directory."""
    tokenized_data: TokenizedDataPlace = "shared"
    """Whether tokenized rows are kept on shared storage or on each node."""
    setup_failure: Literal["stop", "warn"] = "warn"
    """Whether the job fails where a `setup` line of the profile did."""
    keep: Keep | None = None
    """The checkpoint that stays once all jobs of the experiment are recorded."""
    environments: dict[str, str] = Field(default_factory=dict)
    """Pythons for libraries that cannot share the usual one, by name."""


class Submission(BaseModel):
    """One scheduler call and the jobs in it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    schema_version: Literal[1] = 1
    key: FolderName
    """Unique name of the scheduler job, `[A-Za-z0-9._-]`, at most 64 characters."""
    suite: FolderName
    cluster: str
    """Profile name, or `local`."""
    cluster_name: str | None = None
    """What the cluster calls itself (Slurm's ClusterName): ids mean something there alone, and profiles of two clusters
    may have one name. None where it did not say."""
    submitter: Submitter | None = None
    """None in files of earlier versions."""
    state: Literal["intent", "submitted", "abandoned"] = "intent"
    """abandoned: it is certain that the scheduler never took it."""
    scheduler_id: str | None = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64, default=None)
    created_at: str
    submitted_at: str | None = None
    array: bool = True
    """Whether the scheduler job is an array; a single job has index 0."""
    after_key: FolderName | None = None
    """Submission whose element of the same index must complete first."""
    resources: Resources
    settings: JobSettings | None = None
    """None in files of earlier versions, whose batch scripts export them; see `job/context.py`."""
    elements: dict[int, Element] = Field(min_length=1)

    def job_at(self, index: int, ref: JobRef) -> ElementJob:
        """Return one of the jobs of an element."""
        return next(job for job in self.elements[index].jobs if job.ref == ref)

    def companions_of(self, index: int, ref: JobRef) -> tuple[JobRef, ...]:
        """Return the other jobs of the element that one of its jobs is in."""
        return tuple(job.ref for job in self.elements[index].jobs if job.ref != ref)

    @property
    def num_jobs(self) -> int:
        """Its jobs, of which an element may have several."""
        return sum(len(element.jobs) for element in self.elements.values())

    def element_id(self, index: int) -> str | None:
        """The scheduler's name for one element, or None before submission."""
        if self.scheduler_id is None:
            return None
        return f"{self.scheduler_id}_{index}" if self.array else self.scheduler_id


def this_user() -> Submitter:
    """Return who runs this process."""
    uid = os.getuid()
    try:
        return Submitter(uid=uid, name=pwd.getpwuid(uid).pw_name)
    except KeyError:
        return Submitter(uid=uid, name=f"the user with id {uid}")


def submitted_by_other(submission: Submission) -> str | None:
    """Return the name of the other user whose submission this is, or None when it can be asked for by this one.

    The local queue is made of files, which tell everybody who may read them.
    """
    submitter = submission.submitter
    if submitter is None or submission.cluster == LOCAL or submitter.uid == os.getuid():
        return None
    return submitter.name


def read_submission(path: Path) -> Submission | None:
    """Return the submission in `path`, or None when it is missing or unusable."""
    value = read_json(path)
    if value is None:
        return None
    try:
        return Submission.model_validate(value)
    except ValidationError as error:
        logger.warning("%s: not a submission (%s problems); treated as not there yet", path, error.error_count())
        return None


def read_submissions(paths: SuitePaths) -> list[Submission]:
    """Return all usable submissions of a suite, oldest first."""
    try:
        files = [entry for entry in paths.submissions.iterdir() if entry.suffix == ".json" and entry != paths.claim]
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = [submission for file in files if (submission := read_submission(file)) is not None]
    return sorted(found, key=lambda submission: (parse_moment(submission.created_at) or LONG_AGO, submission.key))


def read_children_of(paths: SuitePaths, key: str) -> list[Submission]:
    """Return the submissions of jobs that wait for those of this one, without reading those of a thousand others."""
    try:
        keys = sorted(entry.name for entry in paths.children_of(key).iterdir())
    except FileNotFoundError:
        return []
    return [submission for name in keys if (submission := read_submission(paths.submission(name))) is not None]


def unusable_submissions(paths: SuitePaths, usable: Iterable[Submission]) -> list[Path]:
    """Return the submission files that are there but cannot be used; those of the usable ones are not read again."""
    known = {paths.submission(submission.key) for submission in usable} | {paths.claim}
    files = [entry for entry in paths.submissions.glob("*.json") if entry not in known and entry.name[0] != "."]
    return sorted(file for file in files if read_submission(file) is None)


def write_submission(paths: SuitePaths, submission: Submission) -> None:
    """Write the submission's file, synced to disk before this returns; what it waits for gets a note of it first."""
    if submission.after_key is not None:
        note = paths.children_of(submission.after_key) / submission.key
        note.parent.mkdir(parents=True, exist_ok=True)
        note.touch()
    write_json(paths.submission(submission.key), submission.model_dump(mode="json"))
