"""Arguments for speed that cannot take effect: refused before anything waits in a queue.

In: the arguments of an experiment, where it runs, and where each was written. Out: problems with file and line. Whether
the model has the kernels is left to the job, which ends before its first step where it has not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hpcbench.errors import Problem
from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.request import Device
from hpcbench.storage.located_yaml import Located

AtKey = Callable[[str], Located]

GPU_ONLY: Final = {
    "use_liger_kernel": "its kernels are written in Triton",
    "activation_offloading": "activations are in host memory anyway",
}
"""Arguments that need a GPU -> why."""
OF_SUPERVISED_LOSS: Final = {
    **dict.fromkeys(("chunked_cross_entropy", "use_cce"), "replaces the loss of supervised fine-tuning"),
    "use_liger_kernel": "brings a loss of its own",
    "activation_offloading": "is tried with supervised fine-tuning alone",
}
"""Arguments that do not go with a loss on preferences -> why."""


def check_attention(args: SftArgs, at_key: AtKey, *, device: Device) -> list[Problem]:
    """Return why the attention that is asked for by name cannot run here."""
    name = args.attn_impl
    if name is None or name in {"sdpa", "eager"}:
        return []
    needs_half = "flash" in name
    obstacle = "runs on GPUs only" if device == "cpu" else None
    if obstacle is None and needs_half and args.dtype == "fp32":
        obstacle = "needs dtype bf16 or fp16"
    if obstacle is None:
        return []
    return [at_key("attn_impl").problem(f"{name} {obstacle}", expected="sdpa or eager")]


def check_speed(args: SftArgs, at_key: AtKey, *, device: Device) -> list[Problem]:
    """Return which arguments for speed contradict the device, the loss or each other."""
    found: list[Problem] = []
    if device == "cpu":
        found += [
            at_key(name).problem(f"`{name}` runs on GPUs only: {why}", hint="remove it, or train on a GPU")
            for name, why in GPU_ONLY.items()
            if getattr(args, name)
        ]
    if args.rlhf_type is not None:
        found += [
            at_key(name).problem(f"`{name}` {why}, and this is `rlhf_type: {args.rlhf_type}`", hint="remove it")
            for name, why in OF_SUPERVISED_LOSS.items()
            if getattr(args, name)
        ]
    if args.use_loss_scale and args.head_loss is not None:
        message = f"`{args.head_loss}` takes all predicted tokens alike, and `use_loss_scale` weighs them"
        found.append(at_key(args.head_loss).problem(message, hint="remove one of them"))
    if args.use_loss_scale and args.use_liger_kernel and args.liger_fuses_loss:
        message = "`use_liger_kernel` takes all predicted tokens alike, and `use_loss_scale` weighs them"
        hint = "set liger_kernel_config: {fused_linear_cross_entropy: false}"
        found.append(at_key("use_liger_kernel").problem(message, hint=hint))
    if args.torch_compile and args.activation_offloading:
        message = "`activation_offloading` does not see the activations of compiled code"
        found.append(at_key("activation_offloading").problem(message, hint="set torch_compile: false, or remove it"))
    if args.use_galore and args.optim == "adamw_torch_fused":
        message = "`use_galore` has an AdamW of its own, which is not fused"
        found.append(at_key("optim").problem(message, expected="adamw_torch"))
    return [*found, *_check_compiler(args, at_key, device=device)]


def _check_compiler(args: SftArgs, at_key: AtKey, *, device: Device) -> list[Problem]:
    found: list[Problem] = []
    backend, mode = args.torch_compile_backend or "inductor", args.torch_compile_mode
    if mode not in {None, "default"} and backend != "inductor":
        message = f"`torch_compile_mode` is inductor's, and `torch_compile_backend` is {backend}, which ignores it"
        found.append(at_key("torch_compile_mode").problem(message, hint="remove one of them"))
    if device == "cpu":
        for name, value in (("torch_compile_backend", "cudagraphs"), ("torch_compile_mode", "reduce-overhead")):
            if getattr(args, name) == value:
                message = f"`{name}: {value}` records CUDA graphs, which torch leaves out on a CPU"
                found.append(at_key(name).problem(message, hint="remove it, or train on a GPU"))
    return found
