"""One export from its request to a model folder: an adapter merged, weights quantised.

In: a job request with cmd `export`, for a training's checkpoint, a folder or the model itself. Out: the model folder,
put in place by one rename, then `metrics.json`; or `interrupted.json` where the supervisor asked to stop. A later
attempt goes on after the last stage that was finished. It writes onto no folder that exists, and removes none that
another configuration made.
"""

from __future__ import annotations

import gc
import logging
import math
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from hpcbench.errors import PREFETCH, WorkerError
from hpcbench.hub.models import find_files
from hpcbench.model_files.adapters import find_other_base, read_checkpoint_folder
from hpcbench.model_files.checks import count_layers
from hpcbench.model_files.quantized_checks import check_export
from hpcbench.model_files.weights import read_weights
from hpcbench.schemas import variables
from hpcbench.schemas.arguments import EvalArgs, ExportArgs, SftArgs
from hpcbench.schemas.metrics import GIB, ExportMetrics, Parameters
from hpcbench.schemas.notes import Interrupted
from hpcbench.schemas.request import JobRequest
from hpcbench.storage.json_files import write_json
from hpcbench.storage.paths import PEFT_CONFIG, TUNER_CONFIG, AttemptPaths, JobPaths
from hpcbench.worker.data.batches import pad_rows
from hpcbench.worker.data.processor import copy_processor_files
from hpcbench.worker.export.calibration import CalibrationRows, load_calibration_rows
from hpcbench.worker.export.quantizing import computing_dtype, quantize_calibrated, quantize_rounded
from hpcbench.worker.export.result_folder import ResultFolder
from hpcbench.worker.measure.meter import measure_memory, reset_peaks
from hpcbench.worker.models.checkpoint import find_weights, with_seed_of_training
from hpcbench.worker.models.files import check_files, error_of, read_files
from hpcbench.worker.models.generation_config import repair_generation_config
from hpcbench.worker.models.loading import load_checkpoint, load_tokenizer
from hpcbench.worker.models.quantization import find_dtypes
from hpcbench.worker.models.source import model_place
from hpcbench.worker.progress_file import Progress
from hpcbench.worker.ranks import Ranks
from hpcbench.worker.signals import StopRequestedError, stop_requested

logger = logging.getLogger(__name__)

_NUM_CHECKED_ROWS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What this process was started to do, and where."""

    request: JobRequest
    args: SftArgs
    export: ExportArgs
    job: JobPaths
    attempt: AttemptPaths
    progress: Progress
    result: ResultFolder

    def leave_if_asked(self) -> None:
        """Raise when a stop was asked for.

        Raises:
            StopRequestedError: one was.
        """
        if stop_requested(self.attempt):
            raise StopRequestedError("stopped between two stages of an export")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What is exported."""

    folder: Path
    """A model folder, or an adapter's."""
    choice: str
    """As `ExportMetrics.checkpoint_choice` has it."""

    @property
    def is_adapter(self) -> bool:
        """Whether its weights are an adapter's, to be put on the model that the arguments name."""
        return (self.folder / PEFT_CONFIG).is_file() or (self.folder / TUNER_CONFIG).is_file()


def run(request: JobRequest, job: JobPaths, attempt: AttemptPaths) -> None:
    """Make the model folder and write the attempt's metrics.

    Raises:
        WorkerError: the request cannot be carried out.
    """
    if request.args is None or request.export is None:
        raise WorkerError(f"{job.request}: cmd export without args and export")
    if not Ranks.from_environment().is_alone:
        raise WorkerError("an export runs in one process", hint="set requirements: {ddp: 1}; gpu may be more")
    progress = Progress(job)
    progress.update("loading")
    assignment = Assignment(
        request=request,
        args=request.args,
        export=request.export,
        job=job,
        attempt=attempt,
        progress=progress,
        result=_whole_folder(request, job, find_place(request.export, job)),
    )
    try:
        metrics = _make(assignment)
    except StopRequestedError:
        logger.info("asked to stop; the next attempt goes on after the last finished stage")
        Interrupted(phase="exporting").write(attempt.interrupted)
        return
    write_json(attempt.metrics, metrics.model_dump(mode="json"))
    # After the metrics: a kill in between leaves both, never neither. With `scratch` it is a link.
    shutil.rmtree(job.resume.resolve(), ignore_errors=True)


def find_place(export: ExportArgs, job: JobPaths) -> Path:
    """Return the folder that the model goes to.

    Raises:
        WorkerError: `output_dir` is a relative path, which would depend on where the job was started.
    """
    if export.output_dir is None:
        # With the profile's scratch `checkpoints` is a link, which a record of another job would not follow.
        return job.exported.absolute()
    place = Path(export.output_dir)
    if not place.is_absolute():
        raise WorkerError(f"output_dir: {place} is a relative path", hint="give an absolute one")
    return place


def _whole_folder(request: JobRequest, job: JobPaths, place: Path) -> ResultFolder:
    token = os.environ.get(variables.CLAIM)
    return ResultFolder(place=place, job=job, fingerprint=request.fingerprint, token=token)


def _make(assignment: Assignment) -> ExportMetrics:
    made = assignment.result.find_made()
    if made is not None:
        # A kill came between the rename and the metrics; not where an earlier run of this job was recorded.
        if assignment.job.old_record(assignment.request.fingerprint).exists() and assignment.export.output_dir:
            raise WorkerError(
                f"output_dir: {assignment.result.place} was made by an earlier run of this job; nothing was written",
                hint="move it away, then retry",
            )
        return ExportMetrics.model_validate(made)
    source = find_source(assignment)
    _check_model(assignment)
    merges = source.is_adapter
    if assignment.export.merge_lora and not merges:
        raise WorkerError(
            f"merge_lora: {source.folder} is a whole model and holds no adapter", hint="leave merge_lora out"
        )
    if not merges and not assignment.export.quant_bits:
        raise WorkerError(
            f"nothing to export: {source.folder} is a whole model, and quant_bits is 0", hint="set quant_bits: 4"
        )
    if merges and assignment.export.merge_lora is False:
        raise WorkerError(
            f"merge_lora: false, and {source.folder} is an adapter, which cannot be quantised by itself",
            hint="set merge_lora: true, or leave it out",
        )
    reset_peaks()
    if not merges:
        return _quantize(assignment, source, source.folder)
    if not assignment.export.quant_bits:
        return _merge_alone(assignment, source)
    merged = _whole_folder(assignment.request, assignment.job, assignment.job.merged.absolute())
    notes = merged.find_made()
    if notes is None:
        notes = {"merge_time_s": _merge(assignment, source, merged.begin())}
        merged.finish(notes)
        resumed: tuple[str, ...] = ()
    else:
        logger.info("the adapter was merged by an earlier attempt: %s", merged.place)
        resumed = ("merge",)
    assignment.leave_if_asked()
    return _quantize(assignment, source, merged.place, merge_time_s=notes.get("merge_time_s"), resumed=resumed)


def find_source(assignment: Assignment) -> Source:
    """Return what is exported: a folder, the checkpoint of a training, or the model itself.

    Raises:
        WorkerError: it is not there.
    """
    args, export = assignment.args, assignment.export
    if export.ckpt_dir is not None:
        folder = Path(export.ckpt_dir)
        if not folder.is_dir():
            raise WorkerError(f"ckpt_dir: no such folder: {folder}", hint="give a checkpoint folder that jobs see")
        _check_base(args, folder)
        return Source(folder=folder.resolve(), choice="ckpt_dir")
    if assignment.request.train_folder is not None:
        checkpoint = find_weights(assignment.request)
        if checkpoint.folder is not None:
            return Source(folder=checkpoint.folder, choice=checkpoint.choice)
    place = model_place(args)
    files = find_files(place, os.environ)
    if files is None:
        raise WorkerError(
            f"model: {place} is not in the local cache",
            hint=f"run `{PREFETCH}` where there is internet, or give model_id_or_path: a local folder",
        )
    return Source(folder=files, choice="baseline")


def _check_base(args: SftArgs, folder: Path) -> None:
    """Raise where a folder is not a checkpoint, or the adapter of another model than the arguments name."""
    found = read_checkpoint_folder(folder)
    if found is None:
        raise WorkerError(f"ckpt_dir: {folder} holds neither {PEFT_CONFIG} nor config.json")
    fault = find_other_base(found, model_place(args))
    if fault is not None:
        raise WorkerError(f"ckpt_dir: {folder} {fault.message}", hint=fault.hint)


def _check_model(assignment: Assignment) -> None:
    """Raise where the model's files contradict the request, as plan says where it has them."""
    args = assignment.args
    check_files(args, eval_args=EvalArgs())
    model = read_files(args)
    fault = None if model is None else next(check_export(assignment.export, model), None)
    if fault is not None:
        raise error_of(fault)


def _load_tokenizer(args: SftArgs, folder: Path) -> Any:
    """Return the checkpoint's own tokenizer, with its template and tokens; the model's where it has none."""
    return load_tokenizer(args, folder if (folder / "tokenizer_config.json").is_file() else None)


def _merge_alone(assignment: Assignment, source: Source) -> ExportMetrics:
    staging = assignment.result.begin()
    merge_time_s = _merge(assignment, source, staging)
    return _finish(assignment, source, merge_time_s=merge_time_s, dtypes={"weights": assignment.args.dtype})


def _merge(assignment: Assignment, source: Source, target: Path) -> float:
    """Write the model with its adapter merged in; return the seconds that it took."""
    args, export = assignment.args, assignment.export
    started_s = time.perf_counter()
    assignment.progress.update("merging")
    num_gpus = assignment.request.resources.gpu if assignment.request.device == "cuda" else 1
    held = with_seed_of_training(args, source.folder, assignment.request)
    model = load_checkpoint(held, source.folder, assignment.request.device, merge=True, num_gpus=num_gpus)
    assignment.leave_if_asked()
    repaired = repair_generation_config(model)
    if repaired is not None:
        logger.warning("generation_config.json: %s", repaired)
    model.save_pretrained(target, max_shard_size=export.max_shard_size)
    _load_tokenizer(args, source.folder).save_pretrained(target)
    copy_processor_files(args, target)
    return time.perf_counter() - started_s


def _quantize(
    assignment: Assignment,
    source: Source,
    folder: Path,
    *,
    merge_time_s: float | None = None,
    resumed: tuple[str, ...] = (),
) -> ExportMetrics:
    args, export, request = assignment.args, assignment.export, assignment.request
    started_s = time.perf_counter()
    tokenizer = _load_tokenizer(args, source.folder)
    rows = None
    if export.calibrates:

        def on_row(count: int) -> None:
            assignment.progress.update("tokenizing", done=count, total=export.quant_n_samples)
            assignment.leave_if_asked()

        rows = load_calibration_rows(args, export, tokenizer, on_row=on_row)
    staging = assignment.result.begin()
    if rows is None:
        assignment.progress.update("quantizing")
        quantize_rounded(folder, staging, args=args, export=export, device=request.device)
    else:
        num_layers = _count_layers(args)

        def on_layer(number: int) -> None:
            assignment.progress.update("quantizing", done=number + 1, total=num_layers)
            assignment.leave_if_asked()

        assignment.progress.update("quantizing", done=0, total=num_layers)
        offload = assignment.result.place.with_name(f"{staging.name}.offload")
        quantize_calibrated(
            folder,
            staging,
            args=args,
            export=export,
            rows=rows,
            device=request.device,
            offload=offload,
            on_layer=on_layer,
        )
    tokenizer.save_pretrained(staging)
    gc.collect()  # the layers of gptqmodel refer to one another
    loss, dtypes = check_result(assignment, staging, rows)
    return _finish(
        assignment,
        source,
        merge_time_s=merge_time_s,
        quantize_time_s=time.perf_counter() - started_s,
        resumed=resumed,
        rows=rows,
        calibration_loss=loss,
        dtypes=dtypes,
    )


def _count_layers(args: SftArgs) -> int | None:
    model = read_files(args)
    return None if model is None else count_layers(model.config)


def check_result(
    assignment: Assignment, folder: Path, rows: CalibrationRows | None
) -> tuple[float | None, dict[str, str]]:
    """Load a quantised folder as an eval will; return its loss on rows that it was calibrated on, and its dtypes.

    Raises:
        WorkerError: it cannot be loaded, or does not compute.
    """
    assignment.progress.update("evaluating")
    args = assignment.args.model_copy(update={"quantization_bit": 0})
    model = load_checkpoint(args, folder, assignment.request.device)
    losses = []
    with torch.inference_mode():
        for ids in () if rows is None else rows.ids[:_NUM_CHECKED_ROWS]:
            input_ids = pad_rows([list(ids)], 0, side="right").to(model.device)
            losses.append(float(model(input_ids=input_ids, labels=input_ids).loss))
    loss = sum(losses) / len(losses) if losses else None
    if loss is not None and not math.isfinite(loss):
        raise WorkerError(
            "the quantised model computes no finite loss on the rows that it was calibrated on; it was not kept",
            hint="set quant_bits: 8, another quant_method, or more quant_n_samples",
        )
    return loss, find_dtypes(model)


def _finish(
    assignment: Assignment,
    source: Source,
    *,
    merge_time_s: float | None,
    quantize_time_s: float | None = None,
    resumed: tuple[str, ...] = (),
    rows: CalibrationRows | None = None,
    calibration_loss: float | None = None,
    dtypes: dict[str, str],
) -> ExportMetrics:
    """Put the folder in place, and return what was made and measured."""
    assignment.progress.update("saving")
    export, request, staging = assignment.export, assignment.request, assignment.result.staging
    is_quantized = export.quant_bits > 0
    total = _count_parameters(assignment, source)
    num_bytes = sum(path.stat().st_size for path in staging.rglob("*") if path.is_file())
    weights = sum(path.stat().st_size for path in staging.rglob("*.safetensors"))
    unknown = {}
    if total is None:
        unknown["parameters"] = unknown["bits_per_weight"] = "the weights are not in safetensors, whose header says it"
    deviations = {}
    if is_quantized and computing_dtype(assignment.args, export) != assignment.args.dtype:
        deviations["dtype"] = "awq packs weights of 16 bits; embeddings and norms were saved as bf16, not fp32"
    device = torch.device(request.device)
    num_gpus = request.resources.gpu if request.device == "cuda" else 1
    times = [seconds for seconds in (merge_time_s, quantize_time_s) if seconds is not None]
    values: dict[str, Any] = {
        "output_model": str(assignment.result.place),
        "source": str(source.folder),
        "checkpoint_choice": source.choice,
        "merged": merge_time_s is not None,
        "quant_method": export.quant_method if is_quantized else None,
        "quant_bits": export.quant_bits if is_quantized else None,
        "group_size": export.group_size if export.calibrates else None,
        "calibration_datasets": assignment.args.dataset if export.calibrates else (),
        "num_calibration_samples": None if rows is None else len(rows.ids),
        "num_calibration_tokens": None if rows is None else rows.num_tokens,
        "calibration_loss": calibration_loss,
        "parameters": None if total is None else Parameters(trainable=0, total=total),
        "size_gib": num_bytes / GIB,
        "bits_per_weight": None if total is None else 8 * weights / total,
        "merge_time_s": merge_time_s,
        "quantize_time_s": quantize_time_s,
        "export_time_s": sum(times),
        "resumed_stages": resumed,
        "memory": measure_memory(device, num_gpus=num_gpus),
        "dtypes": dtypes,
        "unknown": unknown,
        "deviations": deviations,
    }
    metrics = ExportMetrics.model_validate(values)
    assignment.result.finish(metrics.model_dump(mode="json"))
    return metrics


def _count_parameters(assignment: Assignment, source: Source) -> int | None:
    """Return the weights of the model that was quantised or merged, by the headers of its files; None without them."""
    folder = source.folder if not source.is_adapter else find_files(model_place(assignment.args), os.environ)
    shapes = {} if folder is None else read_weights(folder).shapes
    return sum(math.prod(shape) for shape in shapes.values()) or None
