"""The names of all files that hpcbench keeps, and nothing else.

In: a save directory, suite, experiment, job. Out: paths, also of what a folder holds by number or by fingerprint. It
lists folders, and never reads or writes a file.

    <save_dir>/<suite>/suite.json
                       submissions/<key>.json  .sh          one per sbatch call
                       submissions/<key>.started/<index>    start marks, dropped by the batch script's first line
                       submissions/<key>.evals/<key>        submissions of jobs that wait for this one
                       submissions/<key>.started/<index>.after    wishes of a job in a container
                       slurm/%A_%a.out                      Slurm's own logs
    <save_dir>/.tokens/<key>/                            tokenized rows that trainings share
    <save_dir>/local/queue/ elements/ cancels/ runner.json       the local queue, for all suites of the save directory
    <save_dir>/<suite>/<experiment>/<job>/job.json claim.json progress.json record.json attempt-N/ resume/
                                              checkpoints/ cancelled.json (noted before scancel)
                                              old-<fingerprint>/    attempts of an earlier configuration
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol

from pydantic import Field

PEFT_CONFIG = "adapter_config.json"
TUNER_CONFIG = "tuner.json"
"""In an adapter folder of hpcbench's own form, for methods whose adapter neither peft nor transformers can save."""
TUNER_STATE = "tuner_state.safetensors"
"""In a resumable checkpoint: what a method's callbacks need to go on, beside the optimizer's state."""
TRAINER_STATE = "trainer_state.json"
"""In a resumable checkpoint: how far transformers' Trainer was."""
MANIFEST = "hpcbench.json"
"""In a resumable checkpoint: whose it is, its step, its files with their sizes."""
TOKENS = ".tokens"
"""In a save directory or on scratch: tokenized rows; no suite has a name that begins with a dot."""
RESERVED_EXPERIMENT_NAMES = frozenset({"submissions", "slurm", "cancelled", "suite.json", "local"})

FolderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_+=][A-Za-z0-9._+=-]*$", max_length=128)]
"""A suite, experiment or job as our own files name it: one folder, never another place or no place at all."""


MAX_FOLDER_NAME = 64
_PLAIN_NAME = re.compile(r"[A-Za-z0-9._+=-]+")


def folder_name(name: str, limit: int = MAX_FOLDER_NAME) -> str:
    """Return the name where a folder may have it, else a readable part of it with a hash of the whole.

    The same name always gives the same folder, and names that differ give folders that differ.
    """
    if len(name) <= limit and _PLAIN_NAME.fullmatch(name) is not None:
        return name
    odd = r"_*[^A-Za-z0-9._+=-]+"
    readable = re.sub(rf"{odd}_*", "_", re.sub(rf"{odd}$", "", name)) or "name"
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{readable[: limit - len(digest) - 1]}-{digest}"


class _HasFolder(Protocol):
    @property
    def folder(self) -> Path: ...


class _Entry:
    """A file or folder below the `folder` of the class that names it."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def __get__(self, paths: _HasFolder, owner: type) -> Path:
        return paths.folder.joinpath(*self._names)


@dataclass(frozen=True, slots=True)
class JobPaths:
    """The files of one job."""

    folder: Path

    request = _Entry("job.json")
    claim = _Entry("claim.json")
    progress = _Entry("progress.json")
    record = _Entry("record.json")
    cancelled = _Entry("cancelled.json")
    cancelled_before = _Entry("cancelled-before.json")
    """The note of a job that was submitted again since: it holds for the scheduler job that was to run it, if that goes
    on with others."""
    resume = _Entry("resume")
    """Checkpoints that a running job resumes from; deleted at completion."""
    checkpoints = _Entry("checkpoints")
    """Checkpoints that are the job's result: `best` and `last`."""
    exported = _Entry("checkpoints", "export")
    """The model folder that an export makes, where no other was asked for."""
    merged = _Entry("resume", "merged")
    """The model with its adapter in it, from which an export that was stopped goes on."""
    predictions = _Entry("predictions")
    """Answers that a training generated to the validation prompts, a file per evaluation that is kept."""
    results = _Entry("results.jsonl")
    """Prompts and answers of an infer job, over all its attempts."""
    generation_config = _Entry("generation_config.json")
    """How an infer job generated."""
    answered_merged = _Entry("checkpoints", "merged")
    """The merged model that an infer job was asked to keep."""
    hub = _Entry("checkpoints", "hub")
    """What is pushed to a model hub; beside the checkpoints, so that its files are links to theirs."""

    def predictions_of(self, step: int) -> Path:
        """Where the answers of a step's evaluation are."""
        return self.predictions / f"step-{step}.jsonl"

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

    log = _Entry("output.log")
    """Everything that launcher and workers print."""
    claim = _Entry("claim.json")
    """Who began this attempt, and when: all that is left of one that was killed at once."""
    metrics = _Entry("metrics.json")
    started = _Entry("started.json")
    """Written by rank 0 when training starts: the fingerprint and the step it resumes from."""
    history = _Entry("history.jsonl")
    """One JSON object per optimizer step."""

    def failure(self, rank: int) -> Path:
        """Error type, message and traceback, written by the rank that failed."""
        return self.folder / f"failure-rank{rank}.json"

    def failures(self) -> list[Path]:
        """Return the failures that ranks have written."""
        return list(self.folder.glob("failure-rank*.json"))

    stop = _Entry("stop.json")
    """Written by the supervisor to ask the worker to checkpoint and leave; see `job/supervisor.py`."""
    next = _Entry("next.json")
    """Written by the supervisor: the job that this attempt's worker runs next; see `job/worker_process.py`."""
    interrupted = _Entry("interrupted.json")
    """Written by rank 0 once it has left early because of `stop`."""
    record = _Entry("record.json")
    reserve = _Entry("reserve.bin")
    """Space kept for the record on a disk that fills up; see `job/disk.py`."""
    push = _Entry("push.json")
    """How the push to a model hub ended: `url` or `error`."""
    push_log = _Entry("push.log")
    values = _Entry("values.json")
    """Where a `command` writes its own figures (HPCBENCH_METRICS)."""
    samples = _Entry("samples.jsonl")
    """lm-eval's per-document outputs."""


@dataclass(frozen=True, slots=True)
class SuitePaths:
    """The files of one suite below a save directory."""

    save_dir: Path
    suite: str

    @property
    def folder(self) -> Path:
        return self.save_dir / self.suite

    plan = _Entry("suite.json")
    submissions = _Entry("submissions")
    claim = _Entry("submissions", "claim.json")
    """Held while one process submits."""
    slurm_logs = _Entry("slurm")

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

    def children_of(self, key: str) -> Path:
        """Folder of empty files, one for each submission of jobs that wait for those of this one, by its key."""
        return self.submissions / f"{key}.evals"

    def wishes(self, key: str, index: int) -> Path:
        """What a job in a container leaves for the batch script to do."""
        return self.start_marks(key) / f"{index}.after"

    def refusal(self, key: str, index: int) -> Path:
        """Left by a job that started although the one whose model it takes was not done, and so did not run."""
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

    queue = _Entry("queue")
    """One file per submission."""
    elements = _Entry("elements")
    """One state file per started or ended job, written by the runner alone."""
    cancels = _Entry("cancels")
    """Requests to cancel, which the runner takes away when it has acted."""
    runner = _Entry("runner.json")
    """Held by the one process that runs the queue."""
    stopped = _Entry("stopped.json")
    """Left by a runner that was asked to stop before its queue was empty."""
    log = _Entry("runner.log")
    """Output of a detached runner."""

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

    probe = _Entry("probe.py")
    """Copy of the program that checks a compute node."""
    script = _Entry("probe.sh")
    log = _Entry("slurm.out")
    result = _Entry("probe.json")
