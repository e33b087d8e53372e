"""The model that answers: of a checkpoint folder, of another job's training, or as it is; merged where asked.

In: the request. Out: the weights, the tokenizer and the template that go with them, an engine. Data is read elsewhere.
"""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcbench.errors import WorkerError
from hpcbench.hub.models import locate_model
from hpcbench.model_files.adapters import CheckpointFolder, find_other_base, read_checkpoint_folder
from hpcbench.model_files.checks import count_positions
from hpcbench.schemas.arguments import EvalArgs, InferArgs, SftArgs
from hpcbench.schemas.request import Device, JobRequest
from hpcbench.storage.json_files import sync_folder
from hpcbench.storage.paths import JobPaths
from hpcbench.worker.data.templates import Template
from hpcbench.worker.models.checkpoint import find_weights, with_seed_of_training
from hpcbench.worker.models.files import check_files, check_token_ids, count_embeddings, read_files
from hpcbench.worker.models.generation_config import repair_generation_config
from hpcbench.worker.models.loading import load_checkpoint, load_model, load_tokenizer
from hpcbench.worker.placing import flush

logger = logging.getLogger(__name__)

CKPT_DIR = "ckpt_dir"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answering:
    """What answers, not loaded yet."""

    args: SftArgs
    loading: SftArgs
    """The same as its weights are loaded with."""
    infer: InferArgs
    device: Device
    num_gpus: int
    folder: Path | None
    """Of its checkpoint; None is the model itself."""
    choice: str
    found: CheckpointFolder | None
    tokenizer: Any
    template: Template
    num_positions: int | None
    """Size of the model's table of positions, None where it has none."""

    @property
    def is_adapter(self) -> bool:
        """Whether the checkpoint is an adapter, which goes on the base that the arguments name."""
        return self.found is not None and self.found.kind != "model"


def find_answering(request: JobRequest) -> Answering:
    """Return what answers; its tokenizer is the checkpoint's own where it has one.

    Raises:
        WorkerError: the checkpoint is not there, is none, or belongs to another base.
    """
    args, infer = request.args, request.infer
    if args is None or infer is None:
        raise WorkerError("an infer job needs args and infer")
    folder, choice = _find_folder(request, infer)
    found = None if folder is None else read_checkpoint_folder(folder)
    if folder is not None and found is None:
        raise WorkerError(f"{folder}: not a checkpoint: it has no adapter_config.json, tuner.json or config.json")
    if found is not None and infer.ckpt_dir is not None:
        other = find_other_base(found, locate_model(args, os.environ))
        if other is not None:
            raise WorkerError(f"{CKPT_DIR}: {folder} {other.message}", hint=other.hint)
    check_files(args, eval_args=EvalArgs())
    has_tokenizer = folder is not None and (folder / "tokenizer_config.json").is_file()
    tokenizer = load_tokenizer(args, folder if has_tokenizer else None)
    model = read_files(args)
    return Answering(
        args=args,
        loading=args if folder is None else with_seed_of_training(args, folder, request),
        infer=infer,
        device=request.device,
        num_gpus=request.resources.gpu if request.device == "cuda" else 1,
        folder=folder,
        choice=choice,
        found=found,
        tokenizer=tokenizer,
        template=Template.from_args(args, tokenizer, num_embeddings=count_embeddings(args)),
        num_positions=None if model is None else count_positions(model.config, model.weights.names),
    )


def load_answering(answering: Answering, job: JobPaths | None = None) -> Any:
    """Return the model of transformers that answers; with a job its merged form is kept there where asked.

    Raises:
        WorkerError: it cannot be loaded, or not be merged.
    """
    args, folder, device, gpus = answering.loading, answering.folder, answering.device, answering.num_gpus
    if answering.infer.merge_lora_and_save and job is not None:
        folder = merge(answering, job)
    if folder is None:
        model = load_model(args, device, num_gpus=gpus, for_training=False)
    else:
        merges = answering.infer.merge_lora and not answering.infer.merge_lora_and_save
        model = load_checkpoint(args, folder, device, merge=merges, num_gpus=gpus)
    check_token_ids(model, answering.tokenizer)
    return model.eval()


def merge(answering: Answering, job: JobPaths) -> Path:
    """Return the folder of the merged model, made now unless an earlier attempt has made it.

    Raises:
        WorkerError: the checkpoint cannot be merged.
    """
    if job.answered_merged.is_dir():
        return job.answered_merged
    if answering.folder is None or answering.found is None or answering.found.kind != "peft":
        raise WorkerError(
            f"merge_lora_and_save: {answering.folder or 'the model itself'} is not an adapter of peft",
            hint="remove it, or name an adapter in ckpt_dir",
        )
    model = load_checkpoint(
        answering.loading, answering.folder, answering.device, merge=True, num_gpus=answering.num_gpus
    )
    job.checkpoints.mkdir(parents=True, exist_ok=True)
    staging = job.answered_merged.with_name(".merged.tmp")
    shutil.rmtree(staging, ignore_errors=True)
    repair_generation_config(model)
    model.save_pretrained(staging)
    answering.tokenizer.save_pretrained(staging)
    flush(staging)
    staging.rename(job.answered_merged)
    sync_folder(job.checkpoints)
    logger.info("merged: %s", job.answered_merged)
    return job.answered_merged


def _find_folder(request: JobRequest, infer: InferArgs) -> tuple[Path | None, str]:
    if infer.ckpt_dir is not None:
        folder = Path(infer.ckpt_dir)
        if not folder.is_dir():
            raise WorkerError(f"{CKPT_DIR}: no such folder: {folder}", hint="name a folder that jobs see")
        return folder, CKPT_DIR
    weights = find_weights(request)
    return weights.folder, weights.choice
