"""Training with DeepSpeed's ZeRO (arXiv:1910.02054), through transformers and accelerate.

In: the arguments of a training, its prepared model, later what accelerate made of it. Out: settings of transformers'
TrainingArguments, a model that is divided among the ranks, and an error where something else runs than was asked for.
It reads no file but the configuration that `deepspeed` names.
"""

from __future__ import annotations

import copy
import os
import sys
from typing import Any, Final

import torch

from hpcbench.catalog.deepspeed import LAST_STAGE, DeepSpeedConfig, read_deepspeed
from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import TORCH_DTYPES, SftArgs
from hpcbench.schemas.request import Device
from hpcbench.worker.packed_weights import is_packed

STATE_FILES: Final = ("global_step*", "latest")
"""What DeepSpeed adds to a checkpoint; all of it is state of the training."""
_BY_ARGUMENTS: Final = (
    *("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "train_batch_size"),
    "gradient_clipping",
)
"""What the arguments decide of a configuration."""


def import_if_asked(args: SftArgs | None, device: Device) -> None:
    """Prepare the import of DeepSpeed, or keep accelerate from importing it where nothing asks for it.

    accelerate imports it wherever it is installed: a second and 70 MiB of host memory of each rank, and a failure where
    its CUDA toolkit is missing. Call it before transformers is imported.
    """
    if args is None or args.deepspeed is None:
        # None is how Python marks a module as not importable, which find_spec sees too.
        sys.modules.setdefault("deepspeed", None)  # type: ignore[arg-type]  # typeshed knows only modules
    elif device == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"  # it would take a GPU that torch sees


def read_config(args: SftArgs) -> DeepSpeedConfig | None:
    """Return the configuration that the arguments name, or None without one."""
    return None if args.deepspeed is None else read_deepspeed(args.deepspeed)


def shares_weights(args: SftArgs) -> bool:
    """Return whether each rank has a part of the weights alone, so that all of them are needed for a forward pass."""
    config = read_config(args)
    return config is not None and config.stage == LAST_STAGE


def training_arguments(args: SftArgs, device: Device) -> dict[str, Any]:
    """Return what transformers' TrainingArguments need to train with DeepSpeed; empty without it."""
    config = read_config(args)
    if config is None:
        return {}
    if device == "cpu":
        _start_cpu_ranks()
    # What a file leaves out DeepSpeed would not take from the arguments: gradients, for one, would not be clipped.
    values = {**dict.fromkeys(_BY_ARGUMENTS, "auto"), **copy.deepcopy(config.values)}
    # The engine has no autocast.
    return {"deepspeed": values, "bf16": args.dtype == "bf16", "fp16": args.dtype == "fp16"}


def _start_cpu_ranks() -> None:
    import deepspeed

    # Its collectives in shared memory are compiled when the ranks start, which takes minutes; gloo's are there.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend="gloo")


def cast_weights(model: Any, args: SftArgs) -> None:
    """Give all weights the dtype that DeepSpeed computes in, as its engine would later: what is recorded is what runs.

    Its optimizer keeps fp32 copies of those that are trained. Without DeepSpeed nothing changes.
    """
    if args.deepspeed is None:
        return
    dtype = getattr(torch, TORCH_DTYPES[args.dtype])
    for weight in model.parameters():
        if weight.is_floating_point():
            weight.data = weight.data.to(dtype)


def divide_weights(model: Any, training_args: Any, args: SftArgs) -> None:
    """Give each rank its part of the weights under ZeRO-3, one weight at a time: no rank's GPU holds the whole model.

    Raises:
        WorkerError: the weights are packed, which is not tried with DeepSpeed.
    """
    if args.deepspeed is not None and any(map(is_packed, model.modules())):
        raise WorkerError(
            "deepspeed: this model's weights have few bits",
            hint="name the model before it was quantised",
        )
    if not shares_weights(args):
        return
    import deepspeed

    config = training_args.hf_deepspeed_config
    config.trainer_config_finalize(training_args, model, 1)  # sizes that depend on the model's
    deepspeed.zero.Init(module=model, config_dict_or_path=config.config)


def check_engine(wrapped: Any, args: SftArgs, *, num_ranks: int) -> str | None:
    """Return what ZeRO shares among the ranks, as the engine has it, or None without DeepSpeed.

    Raises:
        WorkerError: DeepSpeed does not run, or runs otherwise than asked.
    """
    config = read_config(args)
    if config is None:
        return None
    from deepspeed import DeepSpeedEngine

    if not isinstance(wrapped, DeepSpeedEngine):
        raise WorkerError(f"deepspeed: {config.description} was asked for, and {type(wrapped).__name__} would train")
    zero = wrapped.zero_optimization_stage()
    ranks = wrapped.dp_world_size
    offloads = (bool(wrapped.zero_use_cpu_optimizer()), wrapped.zero_offload_param() is not None)
    asked = (config.offloads_optimizer, config.offloads_weights)
    if (zero, ranks, offloads) != (config.stage, num_ranks, asked):
        raise WorkerError(
            f"deepspeed: {config.description} over {num_ranks} ranks was asked for, and the engine has stage {zero}, "
            f"{ranks} ranks, optimizer offloaded: {offloads[0]}, weights offloaded: {offloads[1]}"
        )
    return config.description
