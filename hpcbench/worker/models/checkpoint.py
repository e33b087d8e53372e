"""Which weights a job takes: a train job's best or last checkpoint, the model of an export or command, or the base.

In: the request of an eval, export or infer, and the record of the job that it follows. Out: a folder and why it was
chosen. It never loads weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hpcbench.errors import HpcbenchError, WorkerError
from hpcbench.invocation import quoted
from hpcbench.model_files.adapters import read_checkpoint_folder
from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.metrics import CommandMetrics, ExportMetrics, TrainMetrics
from hpcbench.schemas.record import Record, read_record
from hpcbench.schemas.request import JobRequest, read_request
from hpcbench.schemas.states import JobState
from hpcbench.storage.paths import JobPaths

Choice = Literal["best", "last", "baseline", "output_model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The weights to take."""

    choice: Choice
    folder: Path | None = None
    """Absolute; None for the base model."""
    train_metrics: TrainMetrics | None = None
    """What the train job measured, when it was a training of hpcbench's."""
    export_metrics: ExportMetrics | None = None
    """What the export measured that made the model."""

    def fit_arguments(self, args: SftArgs) -> SftArgs:
        """Return the arguments to load these weights with: what an export has written says itself how it is held."""
        if self.export_metrics is None or not args.quantization_bit:
            return args
        return args.model_copy(update={"quantization_bit": 0})


def find_weights(request: JobRequest) -> Checkpoint:
    """Return the weights that an eval, export or infer job is about.

    `checkpoint` of its arguments decides where it is set; else it is the checkpoint with the lowest eval_loss where
    there was a validation split, else the last one.

    Raises:
        WorkerError: the train job has no completed record, or the checkpoint is gone.
    """
    if request.train_folder is None:
        return Checkpoint(choice="baseline")
    job = JobPaths(Path(request.train_folder))
    record = _completed_record(job)
    match record.metrics:
        case TrainMetrics() as metrics:
            return _trained(job, metrics, _wanted(request))
        case ExportMetrics() as made:
            return Checkpoint(choice="output_model", folder=_existing(Path(made.output_model)), export_metrics=made)
        case CommandMetrics(output_model=str(folder)):
            return Checkpoint(choice="output_model", folder=_existing(Path(folder)))
        case CommandMetrics():
            raise WorkerError(f"{job.record}: the command left no model", hint="set command.output_model to its folder")
        case _:
            raise WorkerError(f"{job.record}: not the record of a job that makes a model")


def with_seed_of_training(args: SftArgs, folder: Path, request: JobRequest) -> SftArgs:
    """Return the arguments with the seed of the training that made an adapter, where that training is known.

    PiSSA's fast SVD draws numbers: with others another part is taken out of the base.
    """
    found = read_checkpoint_folder(folder)
    of_folder = None if found is None else found.job
    job = of_folder if request.train_folder is None else JobPaths(Path(request.train_folder))
    if job is None or not job.request.is_file():
        return args
    try:
        trained = read_request(job.request).args
    except HpcbenchError:  # of another version
        return args
    return args if trained is None else args.model_copy(update={"seed": trained.seed})


def _completed_record(job: JobPaths) -> Record:
    record = read_record(job.record)
    if record is None:
        raise WorkerError(f"{job.record}: no record of the train job yet", hint=f"see {quoted('status')}")
    if record.state is not JobState.COMPLETED:
        raise WorkerError(f"{job.record}: the train job is {record.state}, not completed", hint=f"see {quoted('why')}")
    return record


def _wanted(request: JobRequest) -> Literal["best", "last"] | None:
    own = request.export or request.infer or request.eval_args
    return None if own is None else own.checkpoint


def _trained(job: JobPaths, metrics: TrainMetrics, wanted: Literal["best", "last"] | None) -> Checkpoint:
    choice, relative = metrics.choose_checkpoint(wanted)
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
