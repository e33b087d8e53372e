"""What DeepSpeed cannot train as it is asked for, or would replace: refused before anything waits in a queue.

In: the arguments and resources of a training, and where each was written. Out: problems with file and line. Of the
configuration it reads the file that `deepspeed` names; whether DeepSpeed is installed is for the job to know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from hpcbench.catalog.deepspeed import LAST_STAGE, DeepSpeedConfig, DeepSpeedFileError, read_deepspeed
from hpcbench.errors import Problem
from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.request import Device, Resources
from hpcbench.storage.located_yaml import Located

AtKey = Callable[[str], Located]

TRAINED: Final = ("full", "lora")
"""Values of `sft_type` whose weights DeepSpeed's optimizers take as they are."""
OPTIMIZERS_OF_PIECES: Final = ("adamw_torch", "adamw_torch_fused", "sgd", "adagrad", "rmsprop")
"""Optimizers that treat each number by itself: ZeRO gives them flat pieces of many weights."""
_WHOLE_WEIGHTS: Final = ("predict_with_generate", "packing")
"""Arguments that need all weights on one rank, which ZeRO-3 has not."""
_EXCLUDED: Final[Mapping[str, str]] = {
    **dict.fromkeys(("ddp_find_unused_parameters", "ddp_broadcast_buffers"), "is for DDP and has no effect"),
    **dict.fromkeys(
        ("use_liger_kernel", "torch_compile", "chunked_cross_entropy", "use_cce", "activation_offloading"),
        "is not tried",
    ),
    **dict.fromkeys(("quantization_bit", "quant_method"), "is not tried"),
    "rlhf_type": "trains with a loss on preferences, which is not tried",
    "lora_lr_ratio": "makes an optimizer of its own, which DeepSpeed would replace,",
    "fsdp": "says too what ranks share, which does not go",
}
"""Arguments that cannot go with DeepSpeed -> why, before `with deepspeed`."""
_INSTEAD: Final[Mapping[str, str]] = {
    "optimizer": "set optim, learning_rate, weight_decay and adam_beta1 as arguments",
    "scheduler": "set lr_scheduler_type and warmup_ratio as arguments",
    "amp": "set dtype",
    "activation_checkpointing": "set gradient_checkpointing: true",
    "tensor_parallel": "hpcbench divides no layers among ranks",
}
"""Sections of DeepSpeed's file that arguments decide, or that have no effect on models of transformers."""


def check_deepspeed(args: SftArgs, resources: Resources, at_key: AtKey, *, device: Device) -> list[Problem]:
    """Return what of a training DeepSpeed would refuse, leave out or replace."""
    if args.deepspeed is None:
        return []
    try:
        config = read_deepspeed(args.deepspeed)
    except DeepSpeedFileError:  # reported where the file was looked for
        return []
    where = at_key("deepspeed")
    found = [where.problem(message, hint=hint) for message, hint in _check_file(args, resources, config)]
    found += _check_ranks(args, resources, where, device=device)
    found += [at_key(name).problem(message, hint=hint) for name, message, hint in _list_refused(args, config)]
    if args.tuner_backend == "peft" and args.tuner not in TRAINED:
        text = f"`deepspeed` does not train `{args.tuner}`, which has an optimizer or weights of its own"
        found.append(where.problem(text, expected="sft_type: full or lora", hint="or remove deepspeed"))
    if config.stage and args.optim not in OPTIMIZERS_OF_PIECES:
        text = f"`optim: {args.optim}`: ZeRO gives an optimizer flat pieces of many weights"
        found.append(at_key("optim").problem(text, expected=", ".join(OPTIMIZERS_OF_PIECES)))
    return found


def _check_ranks(args: SftArgs, resources: Resources, where: Located, *, device: Device) -> list[Problem]:
    if resources.ddp == 1:
        message = f"`deepspeed: {args.deepspeed}` shares a training among ranks, and ddp is 1"
        return [where.problem(message, expected="requirements: {ddp: 2} or more, with as many GPUs")]
    if device == "cuda" and resources.gpu != resources.ddp:
        message = f"`deepspeed` with gpu {resources.gpu} and ddp {resources.ddp}: each rank of it has one GPU"
        return [where.problem(message, expected="requirements.gpu and ddp alike")]
    return []


def _list_refused(args: SftArgs, config: DeepSpeedConfig) -> Iterator[tuple[str, str, str]]:
    """Yield the arguments that cannot go with DeepSpeed: name, message and hint."""
    if args.tuner_backend != "peft":
        yield "tuner_backend", "`deepspeed` with tuner_backend unsloth, which trains on one GPU", "remove one of them"
    if args.lora_dtype not in {None, args.dtype}:
        message = f"`lora_dtype: {args.lora_dtype}`: DeepSpeed computes with all weights in {args.dtype}"
        yield "lora_dtype", message, f"set lora_dtype: {args.dtype}; the optimizer keeps fp32 copies of them"
    for name, why in _EXCLUDED.items():
        if args.differs_from_default(name):
            yield name, f"`{name}` {why} with `deepspeed`", "remove one of them"
    if args.resume_from_checkpoint is not None and not (args.resume_only_model and config.stage < LAST_STAGE):
        message = "`resume_from_checkpoint` with `deepspeed`, which goes on from a job's own checkpoints alone"
        hint = "set resume_only_model: true to take its weights" if config.stage < LAST_STAGE else "remove one of them"
        yield "resume_from_checkpoint", message, hint
    for name in _WHOLE_WEIGHTS if config.stage == LAST_STAGE else ():
        if getattr(args, name):
            message = f"`{name}` needs whole weights, and ZeRO-3 gives each rank a part"
            yield name, message, f"take deepspeed: zero2, or remove {name}"


def _check_file(args: SftArgs, resources: Resources, config: DeepSpeedConfig) -> Iterator[tuple[str, str]]:
    """Yield what the file decides otherwise than the arguments, with a hint each."""
    for section, hint in _INSTEAD.items():
        if section in config.values:
            yield f"{args.deepspeed} has a section `{section}`, which arguments decide here", f"remove it; {hint}"
    wanted: Mapping[str, object] = {
        "train_micro_batch_size_per_gpu": args.batch_size,
        "gradient_accumulation_steps": args.gradient_accumulation_steps,
        "train_batch_size": args.batch_size * args.gradient_accumulation_steps * resources.ddp,
        "gradient_clipping": args.max_grad_norm,
        "bf16.enabled": args.dtype == "bf16",
        "fp16.enabled": args.dtype == "fp16",
    }
    for name, value in wanted.items():
        written = _find(config.values, name)
        if written not in (None, "auto", value):
            message = f"{args.deepspeed} has {name}: {written!r}, and the arguments say {value!r}"
            yield message, f'write "{name.rsplit(".", 1)[-1]}": "auto"'
    for name in ("offload_optimizer", "offload_param"):
        device = _find(config.zero, f"{name}.device")
        if device not in (None, "none", "cpu"):
            yield f"{args.deepspeed} offloads to {device!r}", f'write "{name}": {{"device": "cpu"}}'
    gathers = "stage3_gather_16bit_weights_on_model_save"
    if config.stage == LAST_STAGE and config.zero.get(gathers) is not True:
        yield f"{args.deepspeed} leaves no weights that an eval could load", f'write "{gathers}": true'


def _find(values: Mapping[str, Any], path: str) -> object:
    found: Any = values
    for key in path.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found
