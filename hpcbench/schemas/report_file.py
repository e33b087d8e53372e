"""The JSON report that `collect` writes, as programs read it, `compare` among them.

In: a report's JSON. Out: the same as values; keys of later versions are ignored. It renders nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

SCHEMA_VERSION: Final = 2
"""2: jobs have their records in full reports alone."""
KIND: Final = "hpcbench-report"

Raw = bool | int | float | str | None


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


class ReportedScore(_Part):
    """The headline figure of an eval dataset, or of one of its tasks."""

    dataset: str
    task: str | None = None
    """None for the dataset as a whole."""
    metric: str
    """lm-eval's name without the filter `none`."""
    lm_eval_key: str | None = None
    """lm-eval's name with its filter."""
    value: float | None
    stderr: float | None = None
    higher_is_better: bool
    num_samples: int | None = None
    num_fewshot: int | None = None
    version: str | None = None
    """The task's, as its author counts."""
    debug: bool = False
    """Whether a limit cut the dataset."""
    num_prompts_cut: int = 0
    """Prompts that were longer than the model takes."""


class ReportedJob(_Part):
    """One job of an experiment."""

    job: str
    state: str
    reason: str | None = None
    """Why it is in this state, as the scheduler says."""
    folder: Path | None = None
    scheduler_id: str | None = None
    expected_start: str | None = None
    progress: dict[str, JsonValue] = Field(default_factory=dict)
    cause: dict[str, JsonValue] | None = None
    """What ended it, as in its record."""
    num_starts: int = 0
    started_at: str | None = None
    finished_at: str | None = None
    record: dict[str, JsonValue] | None = None
    """Its whole record (`hpcbench schema record`); in full reports alone."""


class ReportedExperiment(_Part):
    """One experiment with its figures."""

    name: str
    base_experiment: str | None = None
    """The experiment whose repeat it is."""
    cmd: str = ""
    state: str
    values: dict[str, Raw]
    """Figures and settings by the keys of CSV's columns; null where there is none."""
    reported: dict[str, JsonValue] = Field(default_factory=dict)
    """Figures that a program of `cmd: command` reported."""
    evals: dict[str, Raw] = Field(default_factory=dict)
    """Scores by CSV's columns."""
    scores: tuple[ReportedScore, ...]
    arguments: dict[str, Any]
    """Arguments that the suite sets."""
    environment: dict[str, JsonValue]
    """Host, GPUs, driver and versions of the main job, as in its record."""
    jobs: tuple[ReportedJob, ...] = ()


class MeanOfRepeats(_Part):
    """Mean and sample standard deviation of a figure."""

    mean: float
    std: float | None
    """None of a single value."""
    n: int


class Repeats(_Part):
    """The runs of one experiment with `repeats`."""

    base_experiment: str
    experiments: tuple[str, ...]
    values: dict[str, MeanOfRepeats]


class ReportedCost(_Part):
    """What all jobs of a suite took; null is what no record tells."""

    gpu_hours: float | None
    energy_wh: float | None
    queue_wait_s: float | None
    wall_time_s: float | None
    num_jobs: int
    """Jobs with a record."""
    num_energy_unknown: int
    """Of them those with GPUs whose energy nothing measured."""


class ReportedSuite(_Part):
    """One suite."""

    name: str
    cost: ReportedCost | None = None
    experiments: tuple[ReportedExperiment, ...]
    repeats: tuple[Repeats, ...] = ()


class ReportFile(_Part):
    """What `hpcbench collect --format json` writes."""

    schema_version: int = SCHEMA_VERSION
    kind: Literal["hpcbench-report"]
    full: bool = False
    """Whether each job has its record."""
    collected_at: str
    """UTC, ISO 8601."""
    warnings: tuple[str, ...] = ()
    suites: tuple[ReportedSuite, ...]
