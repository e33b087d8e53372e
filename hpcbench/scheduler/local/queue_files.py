"""The local queue on disk: what was queued, the state of each job, what is to be cancelled.

Only the runner writes states; everybody else asks through files of their own (a queue entry, a cancel request).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hpcbench.errors import name_first
from hpcbench.processes.process_tree import ProcessIdentity
from hpcbench.schemas.notes import Note
from hpcbench.schemas.record import Record, read_record
from hpcbench.schemas.request import name_parent
from hpcbench.schemas.states import FINISHED_WELL
from hpcbench.schemas.submission import Submission, read_submission
from hpcbench.storage.clock import now_text
from hpcbench.storage.json_files import create_json, read_json, write_json
from hpcbench.storage.paths import JobPaths, LocalPaths, SuitePaths

logger = logging.getLogger(__name__)

SCHEMA = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
ENTRY_ID = re.compile(r"^local-(\d{14})-(\d+)$")
SHOWN_JOBS = 2
SAFE_ID = re.compile(r"^[A-Za-z0-9._-]+$")


class ElementStatus(StrEnum):
    """The state of one job of the local queue."""

    PENDING = "pending"
    RUNNING = "running"
    ENDED = "ended"  # with an exit code
    LOST = "lost"  # its runner died, so its exit code is not known
    REFUSED = "refused"  # could not be started, or can never run on this machine
    BLOCKED = "blocked"  # the job it depends on did not complete
    CANCELLED = "cancelled"


OPEN = frozenset({ElementStatus.PENDING, ElementStatus.RUNNING})  # something is left to do


class QueueEntry(BaseModel):
    """One queued submission (`queue/<id>.json`)."""

    model_config = SCHEMA

    schema_version: Literal[1] = 1
    id: str
    suite: str
    key: str
    after_id: str | None = None
    """Queued submission whose element of the same index must end with exit code 0 first."""
    queued_at: str

    @property
    def order(self) -> tuple[str, int]:
        """Sorts entries as they were queued."""
        match = ENTRY_ID.match(self.id)
        return (self.id, 0) if match is None else (match.group(1), int(match.group(2)))


class ElementState(BaseModel):
    """State of one job (`elements/<id>_<index>.json`); no file means pending."""

    model_config = SCHEMA

    schema_version: Literal[1] = 1
    status: ElementStatus = ElementStatus.PENDING
    reason: str = ""
    exit_code: int | None = None
    """Negative: the signal that ended it."""
    process: ProcessIdentity | None = None
    token: str | None = None
    """Marks the processes of the last start; see `processes.TOKEN_VARIABLE`."""
    gpus: tuple[str, ...] = ()
    cpus: int = 0
    num_starts: int = Field(ge=0, default=0)
    started_at: str | None = None
    """UTC, ISO 8601."""
    ended_at: str | None = None


NOT_STARTED = ElementState()


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedElement:
    """One job of the queue."""

    element_id: str
    entry: QueueEntry
    submission: Submission
    index: int
    save_dir: Path

    @property
    def name(self) -> str:
        """For people: `suite/experiment job`, or the names of all jobs that run in it."""
        element = self.submission.elements[self.index]
        names = name_first([job.job for job in element.jobs], SHOWN_JOBS)
        return f"{self.entry.suite}/{element.experiment} {names}"

    @property
    def suite_paths(self) -> SuitePaths:
        """The files of its suite."""
        return SuitePaths(self.save_dir, self.entry.suite)

    @property
    def paths(self) -> JobPaths:
        """The job's files; of several jobs those of the one that began last."""
        jobs = self._all_paths
        begun = [job for job in jobs[1:] if (read_json(job.claim) or {}).get("key") == self.submission.key]
        return begun[-1] if begun else jobs[0]

    @property
    def _all_paths(self) -> list[JobPaths]:
        return [self.suite_paths.job(*job.ref) for job in self.submission.elements[self.index].jobs]

    @property
    def log(self) -> Path:
        """Where the job's supervisor prints."""
        return self.suite_paths.scheduler_log(self.element_id)

    def read_records(self) -> list[Record | None]:
        """Return the record of each of its jobs, None where there is none of this submission's configuration."""
        jobs = self.submission.elements[self.index].jobs
        found = [(job, read_record(paths.record)) for job, paths in zip(jobs, self._all_paths, strict=True)]
        return [record if record is None or record.fingerprint == job.fingerprint else None for job, record in found]

    def read_record(self) -> Record | None:
        """Return the record that tells how it ended: the first of a run that did not end well, else the last."""
        found = [record for record in self.read_records() if record is not None]
        return next((record for record in found if record.state not in FINISHED_WELL), found[-1] if found else None)


class Dependency(StrEnum):
    """Whether a job's dependency lets it start."""

    READY = "ready"
    WAITING = "waiting"
    BROKEN = "broken"


@dataclass(slots=True)
class LocalQueue:
    """All entries and states, as last read; the runner also writes states through it."""

    save_dir: Path
    entries: dict[str, QueueEntry] = field(default_factory=dict)
    elements: dict[str, QueuedElement] = field(default_factory=dict)  # in queue order
    _states: dict[str, ElementState] = field(default_factory=dict)
    _modified: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def paths(self) -> LocalPaths:
        """The queue's files."""
        return LocalPaths(self.save_dir)

    def reload(self) -> None:
        """Read what has changed on disk."""
        self.scan_entries()
        self.reload_states()

    def scan_entries(self) -> None:
        """Take in submissions that were queued since the last look."""
        known = set(self.entries)
        for entry in read_entries(self.paths, skip=known):
            submission = read_submission(SuitePaths(self.save_dir, entry.suite).submission(entry.key))
            if submission is None:
                continue
            self.entries[entry.id] = entry
            for index in sorted(submission.elements):
                name = f"{entry.id}_{index}" if submission.array else entry.id
                self.elements[name] = QueuedElement(
                    element_id=name, entry=entry, submission=submission, index=index, save_dir=self.save_dir
                )

    def reload_states(self) -> None:
        """Read the states that have changed on disk."""
        try:
            files = list(self.paths.elements.iterdir())
        except FileNotFoundError:
            return
        for file in files:
            if file.suffix != ".json" or file.stem.startswith("."):
                continue
            try:
                stat = file.stat()
            except FileNotFoundError:
                continue
            # Every write is a new inode; two of them may fall into one tick of the file system's clock.
            modified = (stat.st_mtime_ns, stat.st_ino)
            if self._modified.get(file.stem) != modified and (state := _read_state(file)) is not None:
                self._states[file.stem] = state
                self._modified[file.stem] = modified

    def state(self, element_id: str) -> ElementState:
        """Return the state of one job."""
        return self._states.get(element_id, NOT_STARTED)

    def write_state(self, element_id: str, state: ElementState) -> None:
        """Keep a state and put it on disk; for the runner alone."""
        self._states[element_id] = state
        write_json(self.paths.element(element_id), state.model_dump(mode="json"))

    def end(self, element: QueuedElement, status: ElementStatus, *, code: int | None = None, reason: str = "") -> None:
        """Write the final state of a job; for the runner alone."""
        ended = {"status": status, "exit_code": code, "reason": reason, "ended_at": now_text()}
        self.write_state(element.element_id, self.state(element.element_id).model_copy(update=ended))

    def open_elements(self) -> list[QueuedElement]:
        """Return the jobs that still wait or run, in queue order."""
        return [element for name, element in self.elements.items() if self.state(name).status in OPEN]

    def parent_of(self, element: QueuedElement) -> str | None:
        """Return the id of the job that this one depends on, or None: then its own checks decide."""
        after_id, after_key = element.entry.after_id, element.submission.after_key
        if after_id is None and after_key is not None:
            after_id = next((entry.id for entry in self.entries.values() if entry.key == after_key), None)
        if after_id is None:
            return None
        return next((name for name in (f"{after_id}_{element.index}", after_id) if name in self.elements), None)

    def check_dependency(self, element: QueuedElement) -> Dependency:
        """Return whether a job may start as far as its dependency goes."""
        parent = self.parent_of(element)
        if parent is None:
            return Dependency.READY
        state = self.state(parent)
        if state.status in OPEN:
            return Dependency.WAITING
        return Dependency.READY if state.status is ElementStatus.ENDED and state.exit_code == 0 else Dependency.BROKEN

    def parent_name(self, element: QueuedElement) -> str:
        """Return how a message about a job names the one that it depends on."""
        parent = self.parent_of(element)
        mine = element.submission.elements[element.index].experiment
        if parent is None:
            return "the job that it depends on"
        other = self.elements[parent]
        found = other.submission.elements[other.index]
        return name_parent(mine, (found.experiment, found.job))

    def is_failure(self, element_id: str) -> bool:
        """Return whether an ended job failed: exit code not 0, and neither its record nor its blocker's is a result."""
        state, element = self.state(element_id), self.elements[element_id]
        if state.status in OPEN or (state.status is ElementStatus.ENDED and state.exit_code == 0):
            return False
        if state.status is ElementStatus.BLOCKED:
            parent = self.parent_of(element)
            return parent is None or self.is_failure(parent)
        return not has_result(element)


def has_result(element: QueuedElement) -> bool:
    """Return whether each of its jobs has left a record that leaves nothing to do."""
    return all(record is not None and record.state in FINISHED_WELL for record in element.read_records())


def add_entry(paths: LocalPaths, submission: Submission, after_id: str | None) -> QueueEntry:
    """Queue a submission under a new id; one that is queued already keeps its id."""
    for known in read_entries(paths):
        if known.key == submission.key:
            return known
    now = datetime.now(UTC)
    number = 0
    while True:
        number += 1
        entry = QueueEntry(
            id=f"local-{now.strftime('%Y%m%d%H%M%S')}-{number}",
            suite=submission.suite,
            key=submission.key,
            after_id=after_id,
            queued_at=now_text(),
        )
        # Another submit may take the same number first.
        if create_json(paths.entry(entry.id), entry.model_dump(mode="json")):
            return entry


def read_entries(paths: LocalPaths, skip: set[str] | None = None) -> list[QueueEntry]:
    """Return the queued submissions in order, without those whose ids are in `skip`.

    Raises:
        OSError: the queue's folder is there and cannot be listed.
    """
    try:
        files = list(paths.queue.iterdir())
    except FileNotFoundError:
        return []
    found: list[QueueEntry] = []
    for file in files:
        # A temporary file of `json_files` begins with a dot.
        if not ENTRY_ID.match(file.stem) or file.suffix != ".json" or (skip is not None and file.stem in skip):
            continue
        value = read_json(file)
        try:
            found += [] if value is None else [QueueEntry.model_validate(value)]
        except ValidationError:
            logger.warning("%s: not a queue entry; skipped", file)
    return sorted(found, key=lambda entry: entry.order)


def request_cancel(paths: LocalPaths, element_id: str) -> None:
    """Ask for a job, or with a submission's id for all its jobs, to be cancelled."""
    if SAFE_ID.match(element_id):
        Note().write(paths.cancel(element_id))


def read_cancels(paths: LocalPaths) -> frozenset[str]:
    """Return the ids whose cancellation was asked for and not yet acted on."""
    try:
        return frozenset(
            file.stem for file in paths.cancels.iterdir() if file.suffix == ".json" and file.name[0] != "."
        )
    except FileNotFoundError:
        return frozenset()


def asked_to_cancel(element: QueuedElement, cancels: frozenset[str]) -> Iterator[str]:
    """Yield the requests that mean this job."""
    for name in dict.fromkeys((element.element_id, element.entry.id)):
        if name in cancels:
            yield name


def _read_state(file: Path) -> ElementState | None:
    value = read_json(file)
    try:
        return None if value is None else ElementState.model_validate(value)
    except ValidationError:
        logger.warning("%s: not a state of the local queue; treated as not there yet", file)
        return None
