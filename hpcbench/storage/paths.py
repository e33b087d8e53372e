"""The names of all files that hpcbench keeps, and nothing else.

In: a save directory, suite, experiment, job. Out: paths, also of what a folder holds by number or by fingerprint. It
lists folders, and never reads or writes a file.

    <save_dir>/<suite>/suite.json
                       submissions/<key>.json  .sh          one per sbatch call
                       submissions/<key>.started/<index>    start marks, dropped by the batch script's first line
                       submissions/<key>.evals/<key>        evals that wait for this submission
                       submissions/<key>.started/<index>.after    wishes of a job in a container
                       slurm/%A_%a.out                      Slurm's own logs
    <save_dir>/local/queue/ elements/ cancels/ runner.json       the local queue, for all suites of the save directory
    <save_dir>/<suite>/<experiment>/<job>/job.json claim.json progress.json record.json attempt-N/ resume/
                                              checkpoints/ cancelled.json (noted before scancel)
                                              old-<fingerprint>/    attempts of an earlier configuration
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

PEFT_CONFIG = "adapter_config.json"
TUNER_CONFIG = "tuner.json"
"""In an adapter folder of hpcbench's own form, for methods whose adapter neither peft nor transformers can save."""
TUNER_STATE = "tuner_state.safetensors"
"""In a resumable checkpoint: what a method's callbacks need to go on, beside the optimizer's state."""
MANIFEST = "hpcbench.json"
"""In a resumable checkpoint: whose it is, its step, its files with their sizes."""
RESERVED_EXPERIMENT_NAMES = frozenset({"submissions", "slurm", "cancelled", "suite.json", "local"})

FolderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_+=][A-Za-z0-9._+=-]*$", max_length=128)]
"""A suite, experiment or job as our own files name it: one folder, never another place or no place at all."""


@dataclass(frozen=True, slots=True)
class JobPaths:
    """The files of one job."""

    folder: Path

    @property
    def request(self) -> Path:
        return self.folder / "job.json"

    @property
    def claim(self) -> Path:
        return self.folder / "claim.json"

    @property
    def progress(self) -> Path:
        return self.folder / "progress.json"

    @property
    def record(self) -> Path:
        return self.folder / "record.json"

    @property
    def cancelled(self) -> Path:
        return self.folder / "cancelled.json"

    @property
    def resume(self) -> Path:
        """Checkpoints that a running job resumes from; deleted at completion."""
        return self.folder / "resume"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints that are the job's result: `best` and `last`."""
        return self.folder / "checkpoints"

    @property
    def hub(self) -> Path:
        """What is pushed to a model hub; beside the checkpoints, so that its files are links to theirs."""
        return self.checkpoints / "hub"

    def old_record(self, fingerprint: str) -> Path:
        """Where the record of an earlier configuration is kept after `--force`."""
        return self.folder / f"record.{fingerprint[:12]}.json"

    def old_folder(self, fingerprint: str) -> Path:
        """Where the attempts and checkpoints of an earlier configuration are kept."""
        return self.folder / f"old-{re.sub(r'[^0-9a-zA-Z]', '', fingerprint)[:12] or 'unknown'}"

    def old_folders(self) -> list[Path]:
        return sorted(self.folder.glob("old-*"))

    def attempt(self, number: int) -> AttemptPaths:
        return AttemptPaths(self.folder / f"attempt-{number}")

    def attempts(self) -> list[AttemptPaths]:
        """Return the attempts that left a folder, oldest first."""
        numbers = (entry.name.removeprefix("attempt-") for entry in self.folder.glob("attempt-*"))
        return [self.attempt(number) for number in sorted(int(text) for text in numbers if text.isdecimal())]


@dataclass(frozen=True, slots=True)
class AttemptPaths:
    """The files of one attempt (numbered from 1)."""

    folder: Path

    @property
    def number(self) -> int:
        return int(self.folder.name.removeprefix("attempt-"))

    @property
    def log(self) -> Path:
        """Everything that launcher and workers print."""
        return self.folder / "output.log"

    @property
    def claim(self) -> Path:
        """Who began this attempt, and when: all that is left of one that was killed at once."""
        return self.folder / "claim.json"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.json"

    @property
    def started(self) -> Path:
        """Written by rank 0 when training starts: the fingerprint and the step it resumes from."""
        return self.folder / "started.json"

    @property
    def history(self) -> Path:
        """One JSON object per optimizer step."""
        return self.folder / "history.jsonl"

    def failure(self, rank: int) -> Path:
        """Error type, message and traceback, written by the rank that failed."""
        return self.folder / f"failure-rank{rank}.json"

    def failures(self) -> list[Path]:
        """Return the failures that ranks have written."""
        return list(self.folder.glob("failure-rank*.json"))

    @property
    def stop(self) -> Path:
        """Written by the supervisor to ask the worker to checkpoint and leave; see `job/supervisor.py`."""
        return self.folder / "stop.json"

    @property
    def interrupted(self) -> Path:
        """Written by rank 0 once it has left early because of `stop`."""
        return self.folder / "interrupted.json"

    @property
    def record(self) -> Path:
        return self.folder / "record.json"

    @property
    def reserve(self) -> Path:
        """Space kept for the record on a disk that fills up; see `job/disk.py`."""
        return self.folder / "reserve.bin"

    @property
    def push(self) -> Path:
        """How the push to a model hub ended: `url` or `error`."""
        return self.folder / "push.json"

    @property
    def push_log(self) -> Path:
        return self.folder / "push.log"

    @property
    def values(self) -> Path:
        """Where a `command` writes its own figures (HPCBENCH_METRICS)."""
        return self.folder / "values.json"

    @property
    def samples(self) -> Path:
        """lm-eval's per-document outputs."""
        return self.folder / "samples.jsonl"


@dataclass(frozen=True, slots=True)
class SuitePaths:
    """The files of one suite below a save directory."""

    save_dir: Path
    suite: str

    @property
    def folder(self) -> Path:
        return self.save_dir / self.suite

    @property
    def plan(self) -> Path:
        return self.folder / "suite.json"

    @property
    def submissions(self) -> Path:
        return self.folder / "submissions"

    @property
    def claim(self) -> Path:
        """Held while one process submits."""
        return self.submissions / "claim.json"

    @property
    def slurm_logs(self) -> Path:
        return self.folder / "slurm"

    def submission(self, key: str) -> Path:
        return self.submissions / f"{key}.json"

    def script(self, key: str) -> Path:
        return self.submissions / f"{key}.sh"

    def start_marks(self, key: str) -> Path:
        return self.submissions / f"{key}.started"

    def start_mark(self, key: str, index: int) -> Path:
        return self.start_marks(key) / str(index)

    def scheduler_log(self, scheduler_id: str) -> Path:
        """Return the scheduler's own log of a job: all that failing setup lines leave."""
        return self.slurm_logs / f"{scheduler_id}.out"

    def evals_of(self, key: str) -> Path:
        """Folder of empty files, one for each submission of evals after this one, by its key."""
        return self.submissions / f"{key}.evals"

    def wishes(self, key: str, index: int) -> Path:
        """What a job in a container leaves for the batch script to do."""
        return self.start_marks(key) / f"{index}.after"

    def refusal(self, key: str, index: int) -> Path:
        """Left by an eval that started although its train job was not done, and so did not run."""
        return self.start_marks(key) / f"{index}.refused"

    def job(self, experiment: str, job: str) -> JobPaths:
        return JobPaths(self.folder / experiment / job)


def plan_files(save_dir: Path) -> Iterator[Path]:
    """Yield the plans of all suites below a save directory."""
    return save_dir.glob("*/suite.json")


def job_folders(experiment: Path, prefix: str = "") -> list[JobPaths]:
    """Return the jobs below an experiment's folder that have a request, by name."""
    return [JobPaths(file.parent) for file in sorted(experiment.glob(f"{prefix}*/job.json"))]


@dataclass(frozen=True, slots=True)
class LocalPaths:
    """The files of the local queue, `<save_dir>/local/`."""

    save_dir: Path

    @property
    def folder(self) -> Path:
        return self.save_dir / "local"

    @property
    def queue(self) -> Path:
        """One file per submission."""
        return self.folder / "queue"

    @property
    def elements(self) -> Path:
        """One state file per started or ended job, written by the runner alone."""
        return self.folder / "elements"

    @property
    def cancels(self) -> Path:
        """Requests to cancel, which the runner takes away when it has acted."""
        return self.folder / "cancels"

    @property
    def runner(self) -> Path:
        """Held by the one process that runs the queue."""
        return self.folder / "runner.json"

    @property
    def stopped(self) -> Path:
        """Left by a runner that was asked to stop before its queue was empty."""
        return self.folder / "stopped.json"

    @property
    def log(self) -> Path:
        """Output of a detached runner."""
        return self.folder / "runner.log"

    def entry(self, submission_id: str) -> Path:
        return self.queue / f"{submission_id}.json"

    def element(self, element_id: str) -> Path:
        return self.elements / f"{element_id}.json"

    def cancel(self, element_id: str) -> Path:
        return self.cancels / f"{element_id}.json"


@dataclass(frozen=True, slots=True)
class DoctorPaths:
    """The files of one `hpcbench doctor`, removed when it is done."""

    save_dir: Path
    token: str

    @property
    def folder(self) -> Path:
        return self.save_dir / f".doctor-{self.token}"

    @property
    def probe(self) -> Path:
        """Copy of the program that checks a compute node."""
        return self.folder / "probe.py"

    @property
    def script(self) -> Path:
        return self.folder / "probe.sh"

    @property
    def log(self) -> Path:
        return self.folder / "slurm.out"

    @property
    def result(self) -> Path:
        return self.folder / "probe.json"
