"""`cmd: infer` before it waits in a queue: what a checkpoint folder says of its model, and what cannot be answered.

In: the arguments of an experiment and where each was written. Out: the arguments that its checkpoint fills in, problems
with file and line. Of the checkpoint only its small files are read; what another job trains is not there yet.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcbench.config.checkpoint_arguments import (
    CKPT_DIR,
    MODEL_NAMES,
    name_model,
    open_checkpoint,
    take_arguments,
)
from hpcbench.errors import Problem
from hpcbench.hub.models import locate_model
from hpcbench.model_files.adapters import CheckpointFolder, find_other_base, read_checkpoint_folder
from hpcbench.schemas.arguments import GENERATION_ARGUMENTS, DataArgs, InferArgs, ModelArgs, SftArgs
from hpcbench.schemas.request import Device, Resources
from hpcbench.storage.json_files import read_json
from hpcbench.storage.located_yaml import Located
from hpcbench.storage.paths import PEFT_CONFIG

_OF_THE_ROWS: Final = (
    *("dataset", "val_dataset", "dataset_split_seed", "dataset_test_ratio", "val_dataset_sample", "dataset_info"),
    *("max_length", "truncation_strategy", "check_dataset_strategy", "agent_template", "columns"),
)
READ_ARGUMENTS: Final = tuple(
    name for name in SftArgs.model_fields if name in {*ModelArgs.model_fields, *_OF_THE_ROWS, *GENERATION_ARGUMENTS}
)
"""The arguments of a training that an infer job reads too."""
_WRITTEN_BY_SWIFT: Final = frozenset({"sft_type", "tuner_backend", "train_dataset_sample"})
"""Arguments of SWIFT's infer.sh that a checkpoint says by itself, or that are for its other half of the rows."""
_OF_VLLM: Final = (
    *("gpu_memory_utilization", "tensor_parallel_size", "max_num_seqs", "max_model_len", "enforce_eager"),
    *("disable_custom_all_reduce", "vllm_max_lora_rank"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class InferRequest:
    """What an experiment of `cmd: infer` asks for, with the places of its arguments."""

    infer: InferArgs
    given: Mapping[str, Located]
    at: Located
    """The experiment."""

    def at_key(self, name: str) -> Located:
        """Return where an argument is written, the experiment where it is not."""
        return self.given.get(name, self.at)

    @property
    def folder(self) -> Path | None:
        """The checkpoint's folder, where one is named."""
        return None if self.infer.ckpt_dir is None else Path(self.infer.ckpt_dir)

    @property
    def found(self) -> CheckpointFolder | None:
        """What it holds."""
        return None if self.folder is None else read_checkpoint_folder(self.folder)


def fill_in(request: InferRequest, problems: list[Problem]) -> dict[str, Located]:
    """Return the arguments with what the checkpoint says of its model, template and data where they leave it open."""
    given = dict(request.given)
    where, infer = request.at_key(CKPT_DIR), request.infer
    checkpoint = None if request.folder is None else open_checkpoint(request.folder, where, problems)
    if checkpoint is None:
        return given
    trained = checkpoint.training
    if trained is not None and infer.load_args_from_ckpt_dir:
        take_arguments(given, trained, ModelArgs.model_fields, where)
    if infer.load_dataset_config and trained is None:
        message = f"`load_dataset_config`: {checkpoint.folder} lies in no training's folder of hpcbench any more"
        problems.append(request.at_key("load_dataset_config").problem(message, hint="name the rows in val_dataset"))
    elif infer.load_dataset_config and trained is not None:
        unread = {"dataset"} if trained.val_dataset or "val_dataset" in given else set()
        names = [name for name in DataArgs.model_fields if name in _OF_THE_ROWS and name not in unread]
        take_arguments(given, trained, names, where)
    name_model(given, checkpoint, problems)
    return given


def check_infer(
    request: InferRequest,
    args: SftArgs,
    *,
    requirements: Resources | None,
    device: Device,
    has_evals: bool,
    has_person: bool,
) -> list[Problem]:
    """Return what cannot be answered as asked.

    Args:
        request: the experiment's own arguments of `cmd: infer`.
        args: its other arguments.
        requirements: its resources.
        device: its device.
        has_evals: whether it names eval datasets.
        has_person: whether a person types the prompts.
    """
    found = [
        *_check_checkpoint(request, args),
        *_check_merge(request),
        *_check_generation(request, args),
        *_check_backend(request, args, requirements, device),
        *_check_idle(request),
    ]
    found += _check_person(request) if has_person else _check_rows(request, args)
    if has_evals:
        hint = "`eval_dataset: []` here; `cmd: eval`, or the training that made the checkpoint, has it evaluated"
        found.append(request.at.problem("`cmd: infer` leaves no model for `eval_dataset` to evaluate", hint=hint))
    if requirements is not None and requirements.ddp > 1:
        message = f"ddp {requirements.ddp}: answers are generated in one process, with its model on all of its GPUs"
        found.append(request.at.problem(message, expected="requirements: {ddp: 1}"))
    return found


def _check_checkpoint(request: InferRequest, args: SftArgs) -> list[Problem]:
    infer, folder, found = request.infer, request.folder, request.found
    if infer.ckpt_dir is not None and infer.ckpt_from is not None:
        message = "`ckpt_dir` and `ckpt_from` both say which checkpoint answers"
        return [request.at_key(CKPT_DIR).problem(message, hint="keep one of them")]
    problems = []
    if infer.checkpoint is not None and infer.ckpt_from is None:
        message = "`checkpoint` chooses among those of a training, and `ckpt_from` names none"
        problems.append(request.at_key("checkpoint").problem(message, hint="name the folder itself in ckpt_dir"))
    if infer.load_dataset_config and infer.ckpt_dir is None:
        message = "`load_dataset_config` takes the data of the training in `ckpt_dir`, which is not given"
        problems.append(request.at_key("load_dataset_config").problem(message, hint="name the rows in val_dataset"))
    if found is not None and (other := find_other_base(found, locate_model(args, os.environ))) is not None:
        where = next((request.given[name] for name in MODEL_NAMES if name in request.given), request.at)
        problems.append(where.problem(f"{folder} {other.message}", expected=other.expected, hint=other.hint))
    return problems


def _check_merge(request: InferRequest) -> list[Problem]:
    infer, found = request.infer, request.found
    for name in ("merge_lora", "merge_lora_and_save"):
        if not getattr(infer, name) or infer.ckpt_from is not None:
            continue
        if found is None:
            message = f"`{name}` with no adapter to merge"
            return [request.at_key(name).problem(message, expected="`ckpt_dir` or `ckpt_from`, or no merge")]
        if found.kind != "peft":
            what = "a whole model" if found.kind == "model" else "an adapter of a kind that cannot be merged"
            return [request.at_key(name).problem(f"`{name}`: {request.folder} is {what}", hint="remove it")]
    return []


def _check_generation(request: InferRequest, args: SftArgs) -> list[Problem]:
    if args.num_beams > 1 and args.samples_answers:
        message = "`num_beams` searches for the likeliest answer, and `do_sample` draws one"
        return [request.at_key("num_beams").problem(message, expected="do_sample: false, or num_beams: 1")]
    return []


def _check_person(request: InferRequest) -> list[Problem]:
    """Return what a dialogue at a terminal does not do."""
    problems = []
    if request.infer.infer_backend == "vllm":
        message = "`infer_backend: vllm` answers the rows of a dataset, not a person"
        problems.append(request.at_key("infer_backend").problem(message, expected="pt, or val_dataset"))
    if request.infer.merge_lora_and_save:
        message = "`merge_lora_and_save` keeps a model beside the answers of a job, and a dialogue leaves none"
        expected = "merge_lora, which merges in memory"
        problems.append(request.at_key("merge_lora_and_save").problem(message, expected=expected))
    return problems


def _check_rows(request: InferRequest, args: SftArgs) -> list[Problem]:
    infer = request.infer
    if infer.eval_human:
        message = "`eval_human: true`: nobody types prompts into a job that waits in a queue"
        hint = "name the prompts in val_dataset; `hpcbench infer` without a dataset answers a person"
        return [request.at_key("eval_human").problem(message, hint=hint)]
    if not args.dataset and not args.val_dataset:
        message = "no prompts to answer"
        return [request.at.problem(message, expected="`args.val_dataset`, or `args.dataset` for a part of it")]
    if not args.val_dataset and args.dataset_test_ratio == 0:
        message = "`dataset_test_ratio: 0` leaves no rows of `dataset` to answer"
        where = request.at_key("dataset_test_ratio")
        return [where.problem(message, hint="name the rows in val_dataset, which takes all of them")]
    counts = {"val_dataset_sample": args.val_dataset_sample, "show_dataset_sample": infer.show_dataset_sample}
    for name, count in counts.items():
        if count == 0:
            return [request.at_key(name).problem(f"`{name}: 0` leaves nothing to answer", expected="1 or more, or -1")]
    return []


def _check_backend(
    request: InferRequest, args: SftArgs, requirements: Resources | None, device: Device
) -> list[Problem]:
    infer, found = request.infer, request.found
    problems = []
    if infer.infer_backend != "vllm":
        idle = [name for name in _OF_VLLM if infer.differs_from_default(name)]
        return [_no_effect(request, name, "infer_backend: vllm") for name in idle if name in request.given]
    refused = {
        "quantization_bit": (args.quantization_bit != 0, "vLLM loads weights as they are", "quantization_bit: 0"),
        "merge_lora": (infer.merge_lora, "vLLM merges nothing, and runs adapters as they are", "merge_lora: false"),
        "merge_lora_and_save": (infer.merge_lora_and_save, "vLLM merges nothing", "`cmd: export`, which merges"),
        "num_beams": (args.num_beams > 1, "vLLM searches no beams here", "num_beams: 1"),
        CKPT_DIR: (
            found is not None and found.kind == "hpcbench",
            "vLLM loads no adapter but lora's",
            "infer_backend: pt",
        ),
    }
    for name, (is_asked, why, expected) in refused.items():
        if is_asked:
            problems.append(request.at_key(name).problem(f"`infer_backend: vllm`: {why}", expected=expected))
    rank = _rank_of(request)
    if rank is not None and rank > infer.vllm_max_lora_rank:
        message = f"the adapter has rank {rank}, and `vllm_max_lora_rank` is {infer.vllm_max_lora_rank}"
        where = request.at_key("vllm_max_lora_rank")
        problems.append(where.problem(message, expected=f"vllm_max_lora_rank: {max(8, 1 << (rank - 1).bit_length())}"))
    if requirements is not None and device == "cuda" and requirements.gpu != infer.tensor_parallel_size:
        message = f"gpu {requirements.gpu}, and `tensor_parallel_size` is {infer.tensor_parallel_size}"
        problems.append(request.at_key("tensor_parallel_size").problem(message, expected="the same number in both"))
    return problems


def _rank_of(request: InferRequest) -> int | None:
    if request.folder is None or request.found is None or request.found.kind != "peft":
        return None
    rank = (read_json(request.folder / PEFT_CONFIG) or {}).get("r")
    return rank if isinstance(rank, int) else None


def _check_idle(request: InferRequest) -> list[Problem]:
    """Return what an experiment names for itself and only a training reads; what all share is for others."""
    read = {*READ_ARGUMENTS, *InferArgs.model_fields, *_WRITTEN_BY_SWIFT}
    return [
        _no_effect(request, name, "a training")
        for name, value in request.given.items()
        if name not in read and name in SftArgs.model_fields and value.source in {"experiment", "matrix"}
    ]


def _no_effect(request: InferRequest, name: str, needs: str) -> Problem:
    hint = "remove it where it has none"
    return request.at_key(name).problem(f"`{name}` has no effect", expected=needs, hint=hint)
