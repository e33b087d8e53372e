"""What an eval looks at, loaded: the weights, the tokenizer, the training's template.

In: a job request. Out: a `Subject`, the one of the eval before it where nothing that decides the loading differs. It
evaluates nothing.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass

from accelerate.utils.memory import clear_device_cache
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import EvalArgs, SftArgs
from hpcbench.schemas.metrics import Parameters
from hpcbench.schemas.request import JobRequest
from hpcbench.worker.data.templates import Template
from hpcbench.worker.models.checkpoint import Checkpoint, find_weights
from hpcbench.worker.models.files import check_files, check_token_ids
from hpcbench.worker.models.loading import load_checkpoint, load_model, load_tokenizer
from hpcbench.worker.models.quantization import count_weights
from hpcbench.worker.ranks import ALONE, Ranks

logger = logging.getLogger(__name__)

DECIDE_LOADING = {"args", "train_folder", "train_fingerprint", "device", "resources", "env"}
"""The fields of a request that decide what is loaded and where to, beside two of its `eval_args`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is evaluated, loaded."""

    checkpoint: Checkpoint
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    template: Template
    num_gpus: int = 1
    """Of this rank."""
    ranks: Ranks = ALONE


def take_subject(request: JobRequest, ranks: Ranks = ALONE, loaded: dict[str, Subject] | None = None) -> Subject:
    """Return the subject that an eval of the same weights left in `loaded`, or load it in place of what is there."""
    args, eval_args = arguments_of(request)
    loaded = {} if loaded is None else loaded
    key = loading_key(request)
    subject = loaded.get(key)
    if subject is None:
        loaded.clear()
        subject = loaded[key] = load_subject(args, eval_args, request, ranks)
        return subject
    check_files(subject.checkpoint.fit_arguments(args), eval_args=eval_args)
    clear_device_cache(garbage_collection=True)  # what the eval before it needed is none of this one's memory
    logger.info("the model is loaded already")
    return subject


def loading_key(request: JobRequest) -> str:
    """Return what two evals share only where they evaluate the same loaded model."""
    _, eval_args = arguments_of(request)
    values = request.model_dump(mode="json", include=DECIDE_LOADING)
    return json.dumps([values, eval_args.checkpoint, eval_args.merge_lora], sort_keys=True)


def load_subject(args: SftArgs, eval_args: EvalArgs, request: JobRequest, ranks: Ranks = ALONE) -> Subject:
    """Load the weights, the tokenizer and the training's template."""
    checkpoint = find_weights(request)
    args = checkpoint.fit_arguments(args)
    check_files(args, eval_args=eval_args)
    tokenizer = load_tokenizer(args)
    num_gpus = request.resources.gpu // ranks.count if request.device == "cuda" else 1
    if checkpoint.folder is None:
        model = load_model(args, request.device, num_gpus=num_gpus, for_training=False)
    else:
        merge = eval_args.merge_lora
        model = load_checkpoint(args, checkpoint.folder, request.device, merge=merge, num_gpus=num_gpus)
    check_token_ids(model, tokenizer)
    template = Template.from_args(args, tokenizer)
    return Subject(
        checkpoint=checkpoint,
        model=model.eval(),
        tokenizer=tokenizer,
        template=template,
        num_gpus=num_gpus,
        ranks=ranks,
    )


def find_parameters(subject: Subject) -> Parameters | None:
    """Return what the training counted, for a baseline the model's own size with nothing trained."""
    if subject.checkpoint.train_metrics is not None:
        return subject.checkpoint.train_metrics.parameters
    if subject.checkpoint.export_metrics is not None:
        return subject.checkpoint.export_metrics.parameters
    if subject.checkpoint.choice == "output_model":
        return None
    return Parameters(trainable=0, total=count_weights(subject.model))


def arguments_of(request: JobRequest) -> tuple[SftArgs, EvalArgs]:
    """Return the arguments of an eval.

    Raises:
        WorkerError: the request is not one.
    """
    if request.args is None or request.eval_dataset is None:
        raise WorkerError("an eval needs eval_dataset and args")
    return request.args, request.eval_args or EvalArgs()
