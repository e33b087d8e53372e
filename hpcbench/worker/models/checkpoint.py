"""Which weights a job takes: another job's best or last checkpoint, a command's model, or the untouched base.

In: the request of a job that takes a model, and the record of the job that made it. Out: a folder and why it was
chosen. It never loads weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hpcbench.errors import WorkerError
from hpcbench.invocation import quoted
from hpcbench.schemas.arguments import EvalArgs
from hpcbench.schemas.record import CommandMetrics, Record, TrainMetrics, read_record
from hpcbench.schemas.request import JobRequest
from hpcbench.schemas.states import JobState
from hpcbench.storage.paths import JobPaths

Choice = Literal["best", "last", "baseline", "output_model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The weights to evaluate."""

    choice: Choice
    folder: Path | None = None
    """Absolute; None for the base model."""
    train_metrics: TrainMetrics | None = None
    """What the train job measured, when it was a training of hpcbench's."""


def find_weights(request: JobRequest) -> Checkpoint:
    """Return the weights that an eval job is about.

    `eval_args.checkpoint` decides where it is set; else it is the checkpoint with the lowest eval_loss where there was
    a validation split, else the last one.

    Raises:
        WorkerError: the train job has no completed record, or the checkpoint is gone.
    """
    if request.train_folder is None:
        return Checkpoint(choice="baseline")
    job = JobPaths(Path(request.train_folder))
    record = _completed_record(job)
    match record.metrics:
        case TrainMetrics() as metrics:
            return _trained(job, metrics, request.eval_args or EvalArgs())
        case CommandMetrics(output_model=str(folder)):
            return Checkpoint(choice="output_model", folder=_existing(Path(folder)))
        case CommandMetrics():
            raise WorkerError(f"{job.record}: the command left no model", hint="set command.output_model to its folder")
        case _:
            raise WorkerError(f"{job.record}: not the record of a job that makes a model")


def _completed_record(job: JobPaths) -> Record:
    record = read_record(job.record)
    if record is None:
        raise WorkerError(f"{job.record}: no record of the train job yet", hint=f"see {quoted('status')}")
    if record.state is not JobState.COMPLETED:
        raise WorkerError(f"{job.record}: the train job is {record.state}, not completed", hint=f"see {quoted('why')}")
    return record


def _trained(job: JobPaths, metrics: TrainMetrics, eval_args: EvalArgs) -> Checkpoint:
    choice, relative = metrics.choose_checkpoint(eval_args.checkpoint)
    if relative is None:
        hint = "without a validation split there is no best one: use last" if choice == "best" else None
        raise WorkerError(f"{job.record}: the training kept no {choice} checkpoint", hint=hint)
    return Checkpoint(choice=choice, folder=_existing(job.folder / relative), train_metrics=metrics)


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        raise WorkerError(
            f"{folder}: the checkpoint is gone", hint="train again if `keep:` or `hpcbench clean` removed it"
        )
    return folder.resolve()
