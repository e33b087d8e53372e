"""The record: what one job leaves behind, as `record.json`, schema version 1.

In: what the supervisor knows and what the worker measured (`metrics.json`). Out: validated values for status, report.
Unknown figures are null with a reason in `unknown`; NaN and Infinity never get in. Units are in the names; GiB is 2^30.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from hpcbench.schemas.metrics import STRICT, Finite, Metrics
from hpcbench.schemas.states import JobState
from hpcbench.storage.json_files import read_json, write_json

SCHEMA_VERSION = 1
PUSH_PENDING = "not pushed: the job ended before"
"""Why a training has no repository until its push is over."""
TERMINATED = "terminated by the scheduler or the user"
"""What a job knows of its cancellation; readers of its record may know more."""
ATTEMPTS_USED_UP = "attempts_used_up"
"""`cause.type` of the record that a start leaves instead of running."""


# Types of causes that decide what retry and report suggest.
DISK_FULL = "disk_full"
BAD_NODE = "bad_node"
INPUTS_CHANGED = "inputs_changed"
SETUP_FAILED = "setup"


class Cause(BaseModel):
    """Why a job did not complete."""

    model_config = STRICT

    type: str
    """Exception class, `exit_code`, `signal`, `gpu_not_found`, ..."""
    message: str
    exit_code: int | None = None
    signal: int | None = None
    log: str | None = None
    """File to look at, relative to the job's folder."""
    hint: str | None = None
    lines: tuple[str, ...] = ()
    """The last lines of the log that show it."""


class SampledMemory(BaseModel):
    """What the supervisor saw from outside; works for any framework."""

    model_config = STRICT

    gpu_peak_gib: tuple[Finite, ...] = ()
    """Per visible GPU, NVML's used memory."""
    gpu_utilization_mean_pct: Finite | None = None
    gpu_power_mean_w: Finite | None = None
    gpu_energy_wh: Finite | None = None
    host_rss_peak_gib: Finite | None = None
    """Largest sum of resident sets of the job's processes on node 0."""


class Attempt(BaseModel):
    """One start of a job."""

    model_config = STRICT

    number: int = Field(ge=1)
    state: JobState
    started_at: str
    """UTC, ISO 8601."""
    finished_at: str
    duration_s: Finite
    scheduler_id: str | None = None
    restart_count: int = 0
    host: str
    cause: Cause | None = None
    sampled: SampledMemory | None = None


class Record(BaseModel):
    """One job's result (`record.json`), in every outcome that the job survives to tell."""

    model_config = STRICT

    schema_version: Literal[1] = 1
    hpcbench_version: str
    suite: str
    experiment: str
    job: str
    cmd: str
    state: JobState
    fingerprint: str
    cause: Cause | None = None
    attempts: tuple[Attempt, ...] = ()
    metrics: Metrics | None = None
    request: dict[str, Any] = Field(default_factory=dict)
    """The job request as it ran."""
    argv: tuple[str, ...] = ()
    """The launcher's command line."""
    environment: dict[str, Any] = Field(default_factory=dict)
    """Versions, git, GPUs, driver, host, scheduler ids of the last attempt."""
    started_at: str
    finished_at: str


def may_come_back(record: Record) -> bool:
    """Return whether the scheduler may start the job once more after it has left this record (pure).

    Preemption and cancellation look alike inside a job, and only the scheduler knows whether it requeues. After a time
    limit the job requeues itself while attempts are left.
    """
    if record.cause is not None and record.cause.type == ATTEMPTS_USED_UP:
        return False
    if record.state is JobState.TIMEOUT:
        most = record.request.get("max_attempts")
        used = record.attempts[-1].restart_count + 1 if record.attempts else 0
        return not isinstance(most, int) or used < most
    return record.state in {JobState.PREEMPTED, JobState.CANCELLED}


def parse_record(value: object) -> Record | None:
    """Return the record in `value`, or None when it is none of this schema version."""
    try:
        return Record.model_validate(value)
    except ValidationError:
        return None


def write_record(record: Record, *paths: Path) -> None:
    """Write a record to each path: the job's own, which only the holder of its claim may write, and its attempt's."""
    for path in paths:
        write_json(path, record.model_dump(mode="json"))


def read_record(path: Path) -> Record | None:
    """Return the record in `path`, or None when it is missing or unusable; broken files are logged by the JSON door."""
    value = read_json(path)
    return None if value is None else parse_record(value)
