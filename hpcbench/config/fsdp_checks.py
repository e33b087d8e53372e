"""What FSDP cannot shard as it is asked for, or would replace: refused before anything waits in a queue.

In: the arguments and resources of a training, and where each was written. Out: problems with file and line (pure).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from hpcbench.errors import Problem, did_you_mean
from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.arguments.parallel import (
    BY_SIZE,
    FSDP_SETTINGS,
    FSDP_WORDS,
    LAYERS,
    STRATEGIES,
    WRAP_POLICIES,
    fsdp_config_of,
)
from hpcbench.schemas.request import Device, Resources
from hpcbench.storage.located_yaml import Located, shorten

AtKey = Callable[[str], Located]

TRAINED: Final = ("full", "lora")
"""Values of `sft_type` whose weights can be sharded."""
_COMPUTED_BY_ELEMENT: Final = ("adamw_torch", "adamw_torch_fused", "sgd", "adagrad", "rmsprop")
"""Optimizers that treat each number by itself, so that a shard is as good as a whole weight."""
_SWITCHES: Final = ("activation_checkpointing", "reshard_after_forward", "cpu_offload")
_COUNTS: Final = ("min_num_params", "dp_replicate_size")
_UNTRIED: Final = (
    "use_liger_kernel",
    "torch_compile",
    "chunked_cross_entropy",
    "use_cce",
    "activation_offloading",
)
"""Arguments for speed that take whole weights or layers to be there."""
_LEFT_OUT: Final = {
    "state_dict_type": "checkpoints hold whole weights, and the optimizer's state as each rank has it",
    "cpu_ram_efficient_loading": "each rank reads the weights from the model's files",
    "use_orig_params": "FSDP2 always keeps the model's own weights",
    "sync_module_states": "all ranks read the same weights",
    "forward_prefetch": "FSDP2 chooses itself what it gathers ahead",
    "backward_prefetch": "FSDP2 chooses itself what it gathers ahead",
    "limit_all_gathers": "FSDP2 always limits them",
}
"""Settings of FSDP1 and of accelerate that change nothing here -> why."""


def check_fsdp(args: SftArgs, resources: Resources, at_key: AtKey, *, device: Device) -> list[Problem]:
    """Return what of a training FSDP would refuse, leave out or replace."""
    if not args.fsdp:
        if not args.fsdp_config:
            return []
        return [at_key("fsdp_config").problem("`fsdp_config` has no effect", expected="fsdp: full_shard")]
    found = list(_check_words(args, at_key("fsdp")))
    found += _check_config(fsdp_config_of(args.fsdp_config), at_key("fsdp_config"))
    if found:
        return found
    return [
        *_check_ranks(args, resources, at_key, device=device),
        *_check_method(args, at_key),
        *_check_training(args, at_key, device=device),
    ]


def _check_words(args: SftArgs, where: Located) -> Iterator[Problem]:
    for word in args.fsdp:
        if word not in FSDP_WORDS:
            message, expected = f"unknown word {shorten(repr(word))} of `fsdp`", ", ".join(FSDP_WORDS)
            yield where.problem(message, expected=expected, hint=did_you_mean(word, FSDP_WORDS))
    strategies = [word for word in args.fsdp if word in STRATEGIES]
    if len(strategies) != 1:
        message = f"`fsdp: {' '.join(args.fsdp)}` names {len(strategies) or 'none'} of the ways to shard"
        yield where.problem(message, expected=f"one of {', '.join(STRATEGIES)}")


def _check_config(given: dict[str, Any], where: Located) -> Iterator[Problem]:
    for name, value in given.items():
        if name in _LEFT_OUT:
            yield where.problem(f"`fsdp_config.{name}` changes nothing: {_LEFT_OUT[name]}", hint="remove it")
        elif name not in FSDP_SETTINGS:
            message, expected = f"unknown setting {shorten(repr(name))} of `fsdp_config`", ", ".join(FSDP_SETTINGS)
            yield where.problem(message, expected=expected, hint=did_you_mean(name, FSDP_SETTINGS))
        elif (wanted := _find_misfit(name, value)) is not None:
            yield where.problem(f"`fsdp_config.{name}`: got {shorten(repr(value))}", expected=wanted)
    policy, size, classes = (
        given.get(name) for name in ("auto_wrap_policy", "min_num_params", "transformer_layer_cls_to_wrap")
    )
    if size is not None and policy not in {None, BY_SIZE}:
        yield where.problem(f"`fsdp_config.min_num_params` has no effect with {policy}", hint="remove one of them")
    if policy == BY_SIZE and size is None:
        yield where.problem(f"`fsdp_config.auto_wrap_policy: {BY_SIZE}` needs `min_num_params`", hint="set it, too")
    if classes is not None and (size is not None or policy not in {None, LAYERS}):
        message = "`fsdp_config.transformer_layer_cls_to_wrap` has no effect where layers are not what is wrapped"
        yield where.problem(message, expected=f"auto_wrap_policy: {LAYERS}")


def _find_misfit(name: str, value: Any) -> str | None:
    """Return what is expected of a setting in place of this value, or None where it fits."""
    is_names = isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value))
    expected = {
        "version": ("2", value == 2 and value is not True),  # noqa: PLR2004  # FSDP2
        "auto_wrap_policy": (", ".join(WRAP_POLICIES), value in WRAP_POLICIES),
        "transformer_layer_cls_to_wrap": ("the name of a class, or a list of names", is_names and bool(value)),
        **{each: ("true or false", isinstance(value, bool)) for each in _SWITCHES},
        **{each: ("1 or more", type(value) is int and value > 0) for each in _COUNTS},
    }
    text, fits = expected[name]
    return None if fits else text


def _check_ranks(args: SftArgs, resources: Resources, at_key: AtKey, *, device: Device) -> Iterator[Problem]:
    where, settings = at_key("fsdp"), args.fsdp_settings
    if resources.ddp == 1:
        message = f"`fsdp: {settings.strategy}` shards over ranks, and ddp is 1"
        yield where.problem(message, expected="requirements: {ddp: 2} or more, with as many GPUs")
        return
    if device == "cuda" and resources.gpu != resources.ddp:
        message = f"`fsdp` with gpu {resources.gpu} and ddp {resources.ddp}: each rank of it has one GPU"
        yield where.problem(message, expected="requirements.gpu and ddp alike")
    if device == "cpu" and settings.offload:
        message = "`fsdp` with offload and `device: cpu`, where shards lie in host memory anyway"
        yield where.problem(message, hint="remove offload")
    if settings.dp_replicate_size is not None and not settings.is_hybrid:
        message = f"`fsdp_config.dp_replicate_size` has no effect with {settings.strategy}"
        yield at_key("fsdp_config").problem(message, expected="fsdp: hybrid_shard")
        return
    num_replicas = settings.count_replicas(num_nodes=resources.nodes)
    if settings.is_hybrid and num_replicas == 1:
        message = f"`fsdp: {settings.strategy}` holds the model once per node, and there is one node"
        hint = "set fsdp: full_shard, or fsdp_config: {dp_replicate_size: 2}"
        yield where.problem(message, expected="requirements.nodes: 2 or more", hint=hint)
    elif settings.is_hybrid and (resources.ddp % num_replicas or resources.ddp == num_replicas):
        message = f"{resources.ddp} ranks cannot hold the model {num_replicas} times, each in shards"
        expected = f"ddp a multiple of {num_replicas}, and more than that"
        yield where.problem(message, expected=expected)


def _check_method(args: SftArgs, at_key: AtKey) -> Iterator[Problem]:
    if args.tuner_backend != "peft":
        yield at_key("tuner_backend").problem("`fsdp` with tuner_backend unsloth", hint="remove one of them")
    elif args.tuner not in TRAINED:
        message = f"`fsdp` does not train `{args.tuner}`, which has an optimizer or weights of its own"
        yield at_key("fsdp").problem(message, expected="sft_type: full or lora", hint="or remove fsdp")
    if args.rlhf_type is not None:
        yield at_key("fsdp").problem("`fsdp` trains by supervised fine-tuning alone", hint="remove it")
    for name in ("quantization_bit", "quant_method"):
        if args.differs_from_default(name):
            message = f"`{name}` with `fsdp`, which shards weights of 16 or 32 bits"
            yield at_key(name).problem(message, hint="remove one of them")
    if args.lora_dtype not in {None, "fp32"}:
        message = f"`lora_dtype: {args.lora_dtype}` with `fsdp`, which keeps what it trains beside a base in fp32"
        yield at_key("lora_dtype").problem(message, expected="lora_dtype: fp32")
    for name in ("lora_modules_to_save", "lora_bias_trainable"):
        if args.differs_from_default(name) and args.dtype != "fp32":
            message = f"`{name}` trains weights of the base in {args.dtype}, and `fsdp` would keep them in fp32"
            yield at_key(name).problem(message, hint="set dtype: fp32, or remove one of them")
    if args.lora_lr_ratio is not None:
        message = "`lora_lr_ratio` makes an optimizer of its own, which `fsdp` does not shard"
        yield at_key("lora_lr_ratio").problem(message, hint="remove one of them")


def _check_training(args: SftArgs, at_key: AtKey, *, device: Device) -> Iterator[Problem]:
    if args.dtype == "fp16":
        yield at_key("dtype").problem("`fsdp` with fp16, whose gradients it does not scale", expected="bf16 or fp32")
    if args.optim not in _COMPUTED_BY_ELEMENT:
        message = f"`optim: {args.optim}` with `fsdp`, which gives an optimizer shards of weights"
        yield at_key("optim").problem(message, expected=", ".join(_COMPUTED_BY_ELEMENT))
    if args.predict_with_generate:
        message = "`predict_with_generate` needs whole weights on each rank, and `fsdp` gives it shards"
        yield at_key("predict_with_generate").problem(message, hint="remove one of them; `eval_dataset` generates")
    if device == "cuda" and args.packing and args.attn_impl not in {"sdpa", "eager"}:
        message = "`packing` with `fsdp`, where samples are kept apart by masks"
        yield at_key("packing").problem(message, expected="attn_impl: sdpa")
    for name in _UNTRIED:
        if args.differs_from_default(name):
            yield at_key(name).problem(f"`{name}` has not been tried on shards", hint="remove it, or fsdp")
    for name in ("ddp_find_unused_parameters", "ddp_broadcast_buffers"):
        if args.differs_from_default(name):
            yield at_key(name).problem(f"`{name}` is for DDP and has no effect with `fsdp`", hint="remove it")
    asked = fsdp_config_of(args.fsdp_config).get("activation_checkpointing")
    if asked is False and args.gradient_checkpointing:
        message = "`gradient_checkpointing: true` and `fsdp_config.activation_checkpointing: false` are the same switch"
        yield at_key("fsdp_config").problem(message, hint="keep one of them")
