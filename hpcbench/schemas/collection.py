"""What is known about all jobs of some suites at one moment: the value that status, why and report read.

In: plans, records, submissions and one scheduler query, by `status/collect.py`. Out: plain values, no disk, no clock.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from hpcbench.schemas.record import Record
from hpcbench.schemas.report_options import ReportOptions
from hpcbench.schemas.request import EVAL_PREFIX, JobRef, JobRequest
from hpcbench.schemas.states import ALIVE, JobState

MATRIX_SUFFIX = re.compile(r"-[A-Za-z_][\w.]*=.*$")
"""What a matrix adds to the name of an experiment, as in `lora-lora_rank=8`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """One job: what was asked, where it stands, what it left."""

    suite: str
    experiment: str
    job: str
    """`train` or `eval-<dataset>`."""
    state: JobState
    reason: str = ""
    """Why it is in this state, in words: a pending reason, a failure's cause, or what blocks it."""
    hint: str = ""
    """What fixes it, where no record says so; of a pending job what a person has to do before it can start."""
    command: str = ""
    """What to type for that, where the scheduler's word tells."""
    folder: Path
    request: JobRequest | None = None
    record: Record | None = None
    """Only a record that belongs to the current fingerprint; see `recorded_request` for what it was asked."""
    progress: Mapping[str, Any] = field(default_factory=dict)
    """The running job's progress.json, empty when there is none."""
    scheduler_id: str | None = None
    cluster: str | None = None
    """Where it was submitted last."""
    submitted_at: str | None = None
    """When that was, UTC, ISO 8601."""
    elsewhere: str | None = None
    """Name of the other cluster that it was submitted to, which cannot be asked from here."""
    submitter: str | None = None
    """Name of the other user who submitted it: only that user can query and cancel it."""
    companions: tuple[JobRef, ...] = ()
    """The other jobs that its scheduler job runs, before it or after it."""
    parent: JobRef | None = None
    """The job whose model it takes, and which it waits for."""
    held: bool = False
    """Whether the scheduler said just now that it waits for its parent, or waits for one that cannot complete."""
    expected_start: str | None = None
    submit_options: tuple[str, ...] = ()
    """What its suite was submitted with last: `--cluster` and `--set`; another submit means the same jobs with them."""
    in_suite: bool = True
    """False for a job that a later version of the suite no longer has."""
    node: str | None = None
    """Where it ran last, by the scheduler's name, of a job that failed."""

    @property
    def ref(self) -> JobRef:
        """Its experiment and job."""
        return self.experiment, self.job

    @property
    def job_names(self) -> tuple[str, ...]:
        """Its name, and the one with its eval dataset's whole name where the folder's is shortened."""
        dataset = None if self.request is None else self.request.eval_dataset
        return tuple(dict.fromkeys((self.job, self.job if dataset is None else f"{EVAL_PREFIX}{dataset}")))

    @property
    def recorded_request(self) -> Mapping[str, Any]:
        """The request as the record holds it, which is not held twice where it equals `request`."""
        if self.record is None:
            return {}
        if self.request is None or self.record.request.keys() - {"max_attempts"}:
            return self.record.request
        return self.request.model_dump(mode="json")

    @property
    def is_out_of_reach(self) -> bool:
        """Whether its scheduler job is another user's or on another cluster, so that nobody here can ask about it."""
        return self.submitter is not None or self.elsewhere is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentView:
    """One experiment with its jobs, in the suite's order."""

    suite: str
    name: str
    base_experiment: str | None = None
    cmd: str
    main: JobView | None = None
    """The job that makes its model: the training, export or command; None for a baseline row."""
    evals: tuple[JobView, ...] = ()

    @property
    def jobs(self) -> tuple[JobView, ...]:
        """The main job, if any, before the evals."""
        return self.evals if self.main is None else (self.main, *self.evals)


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteView:
    """One suite's experiments, in file order."""

    name: str
    experiments: tuple[ExperimentView, ...]
    others: tuple[ExperimentView, ...] = ()
    """Of experiments that an earlier version of the suite had: jobs in the queue, and what they wait for."""
    report: ReportOptions = field(default_factory=ReportOptions)
    """How the suite's file wants its results shown."""
    num_left_out: int = 0
    """Experiments that an earlier version of the suite submitted and this one does not have, under way or over."""

    @property
    def jobs(self) -> dict[JobRef, JobView]:
        """All its jobs, by experiment and job; those under way that are not in the suite any more come first."""
        return {job.ref: job for experiment in (*self.others, *self.experiments) for job in experiment.jobs}

    @property
    def other_jobs(self) -> tuple[JobView, ...]:
        """The jobs under way that are not in the suite any more."""
        return tuple(
            job for experiment in self.others for job in experiment.jobs if not job.in_suite and job.state in ALIVE
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """Everything that was found."""

    suites: tuple[SuiteView, ...]
    collected_at: str
    """UTC, ISO 8601."""
    warnings: tuple[str, ...] = ()
    unanswered: Mapping[str, str] = field(default_factory=dict)
    """Clusters whose scheduler was asked and did not answer, each with what was said instead."""

    @property
    def jobs(self) -> tuple[JobView, ...]:
        """All jobs of all suites, in file order."""
        return tuple(job for suite in self.suites for experiment in suite.experiments for job in experiment.jobs)

    @property
    def all_jobs(self) -> tuple[JobView, ...]:
        """Each suite's jobs and, after them, those under way that it does not have any more."""
        return tuple(
            job
            for suite in self.suites
            for jobs in (*(experiment.jobs for experiment in suite.experiments), suite.other_jobs)
            for job in jobs
        )


def choose_jobs(collection: Collection, patterns: Sequence[str] = (), states: Sequence[JobState] = ()) -> list[JobView]:
    """Return the jobs in these states whose `experiment` or `suite/experiment[/job]` matches a glob.

    Jobs under way that are not in the suite any more are among them.
    """
    jobs = collection.all_jobs
    named = {(job.suite, *job.ref) for pattern in patterns for job in jobs_named(jobs, pattern)}
    return [
        job for job in jobs if (not states or job.state in states) and (not patterns or (job.suite, *job.ref) in named)
    ]


def jobs_named(jobs: Sequence[JobView], pattern: str) -> list[JobView]:
    """Return the jobs that a name or a name glob means.

    Where it means none as it is, it may be the name that the suite's file has, before matrix and repeats were expanded.
    """
    return [job for job in jobs if matches(job, pattern)] or [
        job for job in jobs for name in _written_names(job) if matches(replace(job, experiment=name), pattern)
    ]


def _written_names(job: JobView) -> set[str]:
    base = None if job.request is None else job.request.base_experiment
    expanded = {job.experiment} if base is None else {job.experiment, base}
    return {MATRIX_SUFFIX.sub("", name) for name in expanded} - {job.experiment} | ({base} if base else set())


def matches(job: JobView, pattern: str) -> bool:
    """Return whether a name or a name glob means this job."""
    experiment = f"{job.suite}/{job.experiment}"
    names = [job.suite, job.experiment, experiment]
    names += [f"{place}/{name}" for place in (job.experiment, experiment) for name in job.job_names]
    # Names of lm-eval may hold what a glob takes for a sign.
    return any(name == pattern or fnmatchcase(name, pattern) for name in names)
