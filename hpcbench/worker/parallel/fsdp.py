"""Sharding of weights, gradients and optimizer state over ranks by FSDP2 (arXiv:2304.11277), through accelerate.

In: the arguments of a training; later its model and optimizer, sharded. Out: options of transformers'
TrainingArguments, whole weights for a checkpoint, each rank's part of the optimizer's state in a file of its own. It
wraps no module itself, and says of a model that is not sharded as asked that it is not.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy
from torch.distributed.tensor import DTensor, Shard

from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.request import Device
from hpcbench.worker.ranks import Ranks

if TYPE_CHECKING:
    from transformers import TrainingArguments

WHOLE_STATE: Final = "optimizer.pt"
"""transformers' file of an optimizer that each rank has all of."""


def is_sharded(model: Any) -> bool:
    """Return whether other ranks hold parts of this model's weights."""
    return isinstance(model, FSDPModule)


def training_options(args: SftArgs, *, num_ranks: int, num_nodes: int) -> dict[str, Any]:
    """Return what transformers' TrainingArguments take for the sharding that is asked for."""
    settings = args.fsdp_settings
    config: dict[str, Any] = {
        "version": 2,
        "reshard_after_forward": settings.reshard_after_forward,
        "cpu_offload": settings.offload,
        "auto_wrap_policy": settings.auto_wrap_policy,
        "state_dict_type": "FULL_STATE_DICT",
    }
    if settings.min_num_params is not None:
        config["min_num_params"] = settings.min_num_params
    if settings.layer_classes:
        config["transformer_layer_cls_to_wrap"] = list(settings.layer_classes)
    options: dict[str, Any] = {"fsdp": True, "fsdp_config": config}
    num_replicas = settings.count_replicas(num_nodes=num_nodes)
    if num_replicas > 1:
        from accelerate import ParallelismConfig

        options["parallelism_config"] = ParallelismConfig(
            dp_replicate_size=num_replicas, dp_shard_size=num_ranks // num_replicas
        )
    return options


def settle(training_args: TrainingArguments, *, device: Device, autocasts: bool) -> None:
    """Make accelerate shard as asked, once the arguments have started the process group.

    Args:
        training_args: made with `training_options`.
        device: of the training.
        autocasts: whether layers compute in bf16 with trained weights in fp32.
    """
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    plugin_args = training_args.fsdp_plugin_args
    if autocasts and plugin_args is not None:
        # accelerate's own would sum gradients in bf16, and round the loss to it; DDP does neither with fp32 weights.
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        plugin_args["mixed_precision_policy"] = policy
    if device == "cpu":
        # accelerate shards for GPUs alone, and trains plain DDP on other devices without saying so.
        PartialState().distributed_type = DistributedType.MULTI_GPU


def describe(model: Any, args: SftArgs, ranks: Ranks) -> str:
    """Return how a model lies on its ranks.

    Raises:
        WorkerError: it is not sharded, or not all of it.
    """
    weights = dict(model.named_parameters())
    whole = [name for name, weight in weights.items() if not isinstance(weight, DTensor)]
    if not is_sharded(model) or whole:
        found = f"{type(model).__name__}, and these weights are whole: {', '.join(whole[:3])}" if whole else "none is"
        raise WorkerError(f"fsdp: {' '.join(args.fsdp)} was asked for, and the model is not sharded: {found}")
    mesh, placements = next((weight.device_mesh, weight.placements) for weight in weights.values())
    num_shards = next(mesh.size(i) for i, placement in enumerate(placements) if isinstance(placement, Shard))
    num_replicas = mesh.size() // num_shards
    if mesh.size() != ranks.count:
        raise WorkerError(f"fsdp: the model is sharded over {mesh.size()} of {ranks.count} ranks")
    over = f"over {num_shards} ranks" if num_replicas == 1 else f"over {num_shards} ranks, {num_replicas} times"
    return f"FSDP2 {args.fsdp_settings.strategy} {over}{', offloaded' if args.fsdp_settings.offload else ''}"


def gather_weights(model: Any) -> dict[str, Any] | None:
    """Return the whole weights on rank 0, of a peft model the trained ones; None of a model that is not sharded.

    All ranks must call it; the others get nothing.
    """
    if not is_sharded(model):
        return None
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(
        full_state_dict=True, cpu_offload=True, ignore_frozen_params=hasattr(model, "peft_config")
    )
    gathered: dict[str, Any] = get_model_state_dict(model, options=options)
    # Each name of a tied weight was gathered by itself: transformers writes equal tensors once if they are one.
    first_names: dict[int, str] = {}
    for name, weight in model.named_parameters(remove_duplicate=False):
        first = first_names.setdefault(id(weight), name)
        if first != name and first in gathered:
            gathered[name] = gathered[first]
    return gathered


def save_optimizer(optimizer: Any, folder: Path, ranks: Ranks) -> None:
    """Write this rank's part of the optimizer's state."""
    folder.mkdir(parents=True, exist_ok=True)
    state = optimizer.state_dict()
    local = {
        index: {name: value.to_local() if isinstance(value, DTensor) else value for name, value in entry.items()}
        for index, entry in state["state"].items()
    }
    torch.save({**state, "state": local, "num_ranks": ranks.count}, folder / _own_file(ranks))


def load_optimizer(optimizer: Any, folder: Path, ranks: Ranks) -> None:
    """Put this rank's part of a saved state into an optimizer of sharded weights.

    Raises:
        ValueError: it is of other weights, or of another number of ranks.
    """
    found = torch.load(folder / _own_file(ranks), map_location="cpu", weights_only=True)
    if (num_ranks := found.pop("num_ranks")) != ranks.count:
        raise ValueError(f"its state is sharded over {num_ranks} ranks, and this training has {ranks.count}")
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for index, entry in found["state"].items():
        weight = weights[index]
        for name, value in entry.items():
            if isinstance(weight, DTensor) and value.ndim > 0:
                if value.shape != weight.to_local().shape:
                    raise ValueError(f"its state is of weights of other sizes: {tuple(value.shape)}")
                entry[name] = DTensor.from_local(
                    value.to(weight.to_local().device),
                    weight.device_mesh,
                    weight.placements,
                    run_check=False,
                    shape=weight.shape,
                    stride=weight.stride(),
                )
    optimizer.load_state_dict(found)


def check_state(folder: Path, *, sharded: bool, ranks: Ranks) -> None:
    """Raise where a checkpoint's optimizer state is of the other kind: it would be left out.

    Raises:
        WorkerError: it is whole and this training is sharded, or the other way round.
    """
    if sharded and not (folder / _own_file(ranks)).is_file():
        raise WorkerError(
            f"resume_from_checkpoint: {folder} holds no optimizer state of {ranks.count} sharded ranks",
            hint="train with the fsdp and ranks that it was trained with, or set resume_only_model: true",
        )
    if not sharded and not (folder / WHOLE_STATE).is_file():
        raise WorkerError(
            f"resume_from_checkpoint: {folder} holds no {WHOLE_STATE}",
            hint="set the fsdp that it was trained with, or resume_only_model: true",
        )


def _own_file(ranks: Ranks) -> str:
    return f"optimizer_{ranks.rank}.pt"
