"""What verbs print with `--json`, one class each; `hpcbench schema VERB` prints its JSON Schema.

Values only. A new field does not change `schema_version`; a field that changes or goes away does.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, RootModel

from hpcbench.schemas.request import Resources
from hpcbench.schemas.states import JobState


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class _Answer(_Part):
    schema_version: int = 1


class NamedJob(_Part):
    """One job by its names."""

    suite: str
    experiment: str
    job: str
    """`train`, `export`, `infer`, or `eval-<dataset>`."""


class NextCommand(_Part):
    """One command to type next."""

    command: str
    remark: str = ""
    """What to know or change before it."""


class StatusJob(NamedJob):
    """Where one job stands."""

    state: JobState
    scheduler_id: str
    """The scheduler's name for it, `-` where it has none."""
    progress: str
    """How far a running job is, or the main figures of one that is done, in words."""
    reason: str
    """Why it is in its state."""
    expected_start: str | None = None
    """The scheduler's local time."""
    in_suite: bool = True
    """False for a job that a later version of the suite does not have any more."""
    progress_values: dict[str, Any] = Field(default_factory=dict)
    """The running job's progress.json."""


class StatusAnswer(_Answer):
    """What `status --json` prints; with `--watch` one line of it whenever something changed."""

    collected_at: str
    """UTC, ISO 8601."""
    warnings: tuple[str, ...] = ()
    jobs: tuple[StatusJob, ...]


class CauseOfJobs(_Part):
    """Jobs that are in the same state for the same cause."""

    state: JobState
    meaning: str
    """What the state means."""
    cause: str
    """Of the first of the jobs."""
    hint: str | None = None
    jobs: tuple[NamedJob, ...]
    blocked: tuple[NamedJob, ...] = ()
    """Jobs that cannot run because of them."""
    log: str | None = None
    """File of the first job."""
    log_lines: tuple[str, ...] = ()
    """The last lines of that file that tell something."""
    next: tuple[NextCommand, ...] = ()
    """The likeliest first."""


class WhyAnswer(_Answer):
    """What `why --json` prints."""

    collected_at: str
    """UTC, ISO 8601."""
    warnings: tuple[str, ...] = ()
    causes: tuple[CauseOfJobs, ...]
    """Empty where nothing has failed; with `--all` one for each job."""


class PlannedJob(_Part):
    """What happens to one job of a suite."""

    experiment: str
    job: str
    action: str
    """submit, skip, wait or changed."""
    why: str
    fingerprint: str | None = None
    """None where it would take reading large files."""
    resources: Resources | None = None
    """What it asks the scheduler for."""


class PlannedSuiteAnswer(_Answer):
    """What submitting one suite would do."""

    suite: str
    file: str
    cluster: str = ""
    """The profile's name, or `local`."""
    jobs: tuple[PlannedJob, ...]
    remarks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    num_left: int = 0
    """Jobs that would stay planned, since no more may go out now."""
    environment: tuple[str, ...] = ()
    """What jobs get of this shell's environment, in words."""


class PlanAnswer(RootModel[tuple[PlannedSuiteAnswer, ...]]):
    """What `plan --json` and `submit --dry-run --json` print: a list of suites."""


class SubmittedJob(_Part):
    """One job that is with the scheduler."""

    experiment: str
    job: str
    scheduler_id: str | None = None
    """The scheduler's name for it: `4711_3` is element 3 of array 4711."""


class SubmissionAnswer(_Part):
    """One call of the scheduler."""

    key: str
    """Name of the scheduler's job."""
    scheduler_id: str | None = None
    """The job's id, or its array's."""
    jobs: tuple[SubmittedJob, ...]


class SubmittedSuite(_Part):
    """What was submitted of one suite."""

    suite: str
    save_dir: str
    """Folder of the suite's results."""
    cluster: str
    submissions: tuple[SubmissionAnswer, ...] = ()
    adopted: tuple[SubmissionAnswer, ...] = ()
    """Submissions of an interrupted submit that the scheduler had taken."""
    skipped: tuple[PlannedJob, ...] = ()
    """Jobs that were not submitted, and why."""
    refused: tuple[str, ...] = ()
    """The scheduler's messages about what it did not take; those jobs stay planned."""
    num_left: int = 0
    """Jobs that stay planned, since no more may go out now."""
    limit: str = ""
    """The limit on the number of jobs that was met."""
    removed_folders: int = 0
    """Checkpoints of finished experiments that were removed, as the profile's `keep` says."""
    warnings: tuple[str, ...] = ()


class SubmitAnswer(_Answer):
    """What `submit --json` prints."""

    suites: tuple[SubmittedSuite, ...]
    not_submitted: tuple[str, ...] = ()
    """Suites after one that failed."""
    error: str | None = None
    """Why it ended early."""


class RetriedJob(NamedJob):
    """One failed job, and what would help."""

    state: JobState
    """Before the retry."""
    reason: str
    change: str | None = None
    """What would help, or with `--adjust` was changed."""
    resources: Resources | None = None
    """What it asks for with that change."""


class RetryAnswer(_Answer):
    """What `retry --json` prints."""

    dry_run: bool
    adjusted: bool
    """Whether the changes were asked for."""
    jobs: tuple[RetriedJob, ...]
    suites: tuple[SubmittedSuite, ...] = ()
    """Empty for a dry run."""


class CancelledJob(NamedJob):
    """One job that was cancelled."""

    scheduler_id: str | None = None


class NotCancelled(_Part):
    """Jobs that could not be cancelled from here."""

    jobs: tuple[NamedJob, ...]
    reason: str
    hint: str | None = None


class CancelAnswer(_Answer):
    """What `cancel --json` prints."""

    cancelled: tuple[CancelledJob, ...]
    not_cancelled: tuple[NotCancelled, ...] = ()


class RemovedFolder(_Part):
    """A folder of checkpoints."""

    experiment: str
    """`suite/experiment`."""
    folder: str


class CleanAnswer(_Answer):
    """What `clean --json` prints."""

    dry_run: bool
    keep: str
    freed_bytes: int
    """What removing all these folders frees."""
    folders: tuple[RemovedFolder, ...]
    not_removed: tuple[str, ...] = ()
    """What could not be removed, in words."""


class JobLogs(NamedJob):
    """The logs of one job."""

    state: JobState
    files: tuple[str, ...]
    """The scheduler's own, then that of each attempt; the last is the one that `logs` prints."""


class LogsAnswer(_Answer):
    """What `logs --json` prints: where the logs are."""

    jobs: tuple[JobLogs, ...]


class CheckAnswer(_Part):
    """One check of `doctor`."""

    name: str
    level: str
    """ok, warning or error."""
    message: str
    remedy: str = ""


class DoctorAnswer(_Answer):
    """What `doctor --json` prints."""

    cluster: str
    save_dir: str
    checks: tuple[CheckAnswer, ...]
    ok: int
    """Number of checks at this level."""
    warning: int
    error: int


class InitAnswer(_Answer):
    """What `init --json` prints."""

    name: str
    """What `--cluster` takes."""
    file: str
    """The profile that was written."""
    warnings: tuple[str, ...] = ()


ANSWERS: dict[str, type[BaseModel]] = {
    "submit": SubmitAnswer,
    "plan": PlanAnswer,
    "cancel": CancelAnswer,
    "retry": RetryAnswer,
    "status": StatusAnswer,
    "why": WhyAnswer,
    "logs": LogsAnswer,
    "clean": CleanAnswer,
    "init": InitAnswer,
    "doctor": DoctorAnswer,
}
"""By verb."""
