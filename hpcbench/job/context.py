"""Who and where this job is: its submission, its folder, its scheduler ids, its node.

A scheduler job that runs several jobs, one after the other, has a context for each: `in_turn`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hpcbench.errors import RecordError
from hpcbench.schemas import variables
from hpcbench.schemas.submission import ElementJob, JobSettings, Submission, read_submission
from hpcbench.storage.paths import JobPaths, SuitePaths


@dataclass(frozen=True, slots=True, kw_only=True)
class JobContext:
    """One start of one job on one node."""

    submission: Submission
    index: int
    job: ElementJob
    """Which of the element's jobs this is."""
    paths: JobPaths
    suite_paths: SuitePaths
    settings: JobSettings
    scheduler_id: str  # of an array element as the user sees it, for example `712_3`
    restart_count: int  # how often the scheduler has requeued this job
    node_rank: int
    num_nodes: int
    host: str
    on_slurm: bool

    @property
    def is_head(self) -> bool:
        """Whether this node's supervisor writes the record."""
        return self.node_rank == 0

    @property
    def has_companions(self) -> bool:
        """Whether the same scheduler job runs others before or after this one."""
        return bool(self.submission.elements[self.index].companions)

    def in_turn(self) -> list[JobContext]:
        """Return a context for each job of the element, in the order in which they run."""
        jobs = self.submission.elements[self.index].jobs
        return [replace(self, job=job, paths=self.suite_paths.job(*job.ref)) for job in jobs]


def read_context(submission_file: Path, index: int | None, environ: Mapping[str, str] = os.environ) -> JobContext:
    """Work out which job this process is.

    Raises:
        RecordError: the submission cannot be read, or has no such index.
    """
    submission = read_submission(submission_file)
    if submission is None:
        raise RecordError(f"{submission_file}: no valid submission")
    if index is None:
        index = int(environ.get("SLURM_ARRAY_TASK_ID", "0"))
    if index not in submission.elements:
        raise RecordError(f"{submission_file}: has no job with index {index}")
    element = submission.elements[index]
    suite_paths = SuitePaths(submission_file.parents[2], submission_file.parents[1].name)
    return JobContext(
        submission=submission,
        index=index,
        job=element,
        paths=suite_paths.job(*element.ref),
        suite_paths=suite_paths,
        settings=submission.settings or _settings_of_the_script(environ),
        scheduler_id=_scheduler_id(environ, index),
        # sbatch(1): SLURM_RESTART_COUNT is set only in a job that was restarted.
        restart_count=int(environ.get("SLURM_RESTART_COUNT") or environ.get(variables.LOCAL_RESTART_COUNT) or "0"),
        node_rank=int(environ.get("SLURM_NODEID", "0")) if "SLURM_JOB_ID" in environ else 0,
        num_nodes=int(environ.get("SLURM_NNODES", "1")) if "SLURM_JOB_ID" in environ else 1,
        host=socket.gethostname(),
        on_slurm="SLURM_JOB_ID" in environ and variables.LOCAL_ID not in environ,
    )


def _settings_of_the_script(environ: Mapping[str, str]) -> JobSettings:
    """Return what batch scripts of hpcbench 0.1 export, which had no place for it in the submission."""
    names = {"signal_lead_s": "HPCBENCH_SIGNAL_LEAD_S", "scratch": "HPCBENCH_SCRATCH", "keep": "HPCBENCH_KEEP"}
    given = {field: value for field, name in names.items() if (value := environ.get(name))}
    return JobSettings.model_validate({**given, "release_evals": environ.get("HPCBENCH_RELEASE_EVALS") != "0"})


def _scheduler_id(environ: Mapping[str, str], index: int) -> str:
    if local := environ.get(variables.LOCAL_ID):
        return local
    if array := environ.get("SLURM_ARRAY_JOB_ID"):
        # An element's SLURM_JOB_ID is a number that squeue does not show.
        return f"{array}_{environ.get('SLURM_ARRAY_TASK_ID', index)}"
    return environ.get("SLURM_JOB_ID", f"process-{os.getpid()}")
