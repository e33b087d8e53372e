"""A suite as it lies on disk: what was planned last, and what was submitted.

In: a save directory. Out: `SuiteOnDisk`. A plan that cannot be read is made up from the folders, so that no job is
dropped because of it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hpcbench.schemas.report_options import ReportOptions
from hpcbench.schemas.request import EVAL_PREFIX, TRAIN, JobRef
from hpcbench.schemas.submission import Submission, read_submissions
from hpcbench.storage.json_files import read_json
from hpcbench.storage.paths import FolderName, SuitePaths, job_folders

logger = logging.getLogger(__name__)


class PlannedExperiment(BaseModel):
    """One experiment of `suite.json`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: FolderName
    base_experiment: str | None = None
    cmd: str
    jobs: tuple[FolderName, ...]
    """Its main job, if any, before its evals."""
    takes: JobRef | None = None
    """The job of another experiment whose model its main job takes."""

    @property
    def main(self) -> str | None:
        """The job that makes its model, None for a baseline."""
        return next((job for job in self.jobs if not job.startswith(EVAL_PREFIX)), None)

    def parent_of(self, job: str) -> JobRef | None:
        """Return the job whose model one of its jobs takes."""
        return self.takes if self.main in {None, job} else (self.name, self.main)


class PlannedSuite(BaseModel):
    """`suite.json`: what was planned last, in file order."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: int = 1
    suite: str
    suite_file: str = ""
    cluster: str = ""
    profile_file: str = ""
    """The cluster's profile, where its name alone does not lead there."""
    planned_at: str = ""
    overrides: tuple[str, ...] = ()
    typed_in: str = ""
    """Folder in which they were typed."""
    report: ReportOptions = Field(default_factory=ReportOptions)
    """How its results are to be shown."""
    experiments: tuple[PlannedExperiment, ...] = Field(default=())

    @property
    def submit_options(self) -> tuple[str, ...]:
        """The options that another submit of the suite's file needs to mean the same jobs at the same place."""
        cluster = self.profile_file or self.cluster
        named = ("--cluster", cluster) if cluster else ()
        return (*named, *(word for override in self.overrides for word in ("--set", override)))


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteOnDisk:
    """One suite's plan and submissions as they were read."""

    paths: SuitePaths
    plan: PlannedSuite
    submissions: tuple[Submission, ...]

    def latest(self) -> dict[JobRef, tuple[Submission, int]]:
        """Return the newest submission and index of each job."""
        return {
            job.ref: (submission, index)
            for submission in self.submissions
            for index, element in submission.elements.items()
            for job in element.jobs
            if submission.state != "abandoned"
        }


def read_suites(save_dir: Path, names: Sequence[str] = ()) -> list[SuiteOnDisk]:
    """Return the suites below a save directory that were planned at least once, by name; names may be globs."""
    found = sorted(entry.name for entry in save_dir.iterdir() if entry.is_dir()) if save_dir.is_dir() else []
    wanted = [name for name in found if not names or any(fnmatchcase(name, pattern) for pattern in names)]
    return [suite for name in wanted if (suite := read_suite(SuitePaths(save_dir, name))) is not None]


def read_suite(paths: SuitePaths) -> SuiteOnDisk | None:
    """Return one suite, or None when it was never planned."""
    plan = read_plan(paths)
    return None if plan is None else SuiteOnDisk(paths=paths, plan=plan, submissions=tuple(read_submissions(paths)))


def names_taken(save_dir: Path, suite: str) -> frozenset[str]:
    """Return the names of a suite's experiments, and of groups of repeats, that were planned or have a folder."""
    paths = SuitePaths(save_dir, suite)
    try:
        names = {entry.name for entry in paths.folder.iterdir()}
    except OSError:  # it is not there, or cannot be: the one who submits there says so
        return frozenset()
    plan = read_plan(paths)
    for experiment in () if plan is None else plan.experiments:
        names |= {experiment.name, experiment.base_experiment or experiment.name}
    return frozenset(names)


def read_plan(paths: SuitePaths) -> PlannedSuite | None:
    """Return a suite's plan, or None when it was never planned; a broken one is made up from the folders."""
    value = read_json(paths.plan)
    plan: PlannedSuite | None = None
    if value is not None:
        try:
            plan = PlannedSuite.model_validate(value)
        except ValidationError:
            logger.warning("%s: not a plan; the experiments are taken from the folders", paths.plan)
    if plan is None:
        if not paths.submissions.is_dir() and not paths.plan.exists():
            return None
        plan = PlannedSuite(suite=paths.suite, experiments=tuple(_experiments_from_folders(paths)))
    # A folder that was copied still holds the name of the first one.
    return plan.model_copy(update={"suite": paths.suite})


def _cmd_of(job: str) -> str:
    """Return a command that has a job of this name."""
    return "sft" if job == TRAIN else "eval" if job.startswith(EVAL_PREFIX) else job


def _experiments_from_folders(paths: SuitePaths) -> Iterator[PlannedExperiment]:
    for folder in sorted(entry for entry in paths.folder.iterdir() if entry.is_dir()):
        names = (job.folder.name for job in job_folders(folder))
        jobs = sorted(names, key=lambda name: (name.startswith(EVAL_PREFIX), name))
        if jobs:
            yield PlannedExperiment(name=folder.name, cmd=_cmd_of(jobs[0]), jobs=tuple(jobs))
