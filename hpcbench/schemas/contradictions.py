"""Training arguments that cannot go together, each with what to choose instead.

In: the arguments of one training. Out: the first contradiction in words, or None. What one argument may be alone is
said where it is defined (`arguments.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hpcbench.schemas.arguments import SftArgs

QUANTIZABLE: Final = ("lora", "adalora", "ia3")
"""Values of `sft_type` that leave the base frozen in linear layers, which quantization_bit needs."""
OWN_ADAMW: Final = ("adamw_torch", "adamw_torch_fused", "adamw_hf")
LORA_ONLY: Final = (
    *("use_dora", "use_rslora", "lora_lr_ratio"),
    *("lora_bias_trainable", "lora_modules_to_save", "init_lora_weights"),
)
"""Arguments of lora that adalora, which takes the others of lora's, does not have."""


def find_contradiction(args: SftArgs) -> str | None:
    """Return what contradicts what, or None (pure)."""
    return _in_full(args) or _in_quantization(args) or _in_lora(args) or _in_adalora(args)


def _in_full(args: SftArgs) -> str | None:
    for name in ("galore_quantization", "galore_proj_quant"):
        if getattr(args, name) and not args.use_galore:
            return f"{name} is for galore: set use_galore: true"
    switches = {"use_galore": args.use_galore, "lisa_activated_layers": args.lisa_activated_layers > 0}
    for name in (name for name, is_on in switches.items() if is_on):
        if args.sft_type != "full":
            return f"{name} is for sft_type full, not {args.sft_type}"
    if all(switches.values()):
        return "use_galore and lisa_activated_layers are two methods: choose one"
    if args.use_galore and args.optim not in OWN_ADAMW:
        return f"use_galore has an AdamW of its own and cannot use optim {args.optim}"
    return None


def _in_quantization(args: SftArgs) -> str | None:
    if args.quantization_bit and args.sft_type not in QUANTIZABLE:
        return (
            f"quantization_bit freezes the base and cannot go with sft_type {args.sft_type}: "
            f"take {', '.join(QUANTIZABLE)}, or quantization_bit: 0"
        )
    if args.quantization_bit and args.lora_bias_trainable != "none":
        return "quantised layers keep their biases frozen: lora_bias_trainable: none, or quantization_bit: 0"
    return None


def _in_lora(args: SftArgs) -> str | None:
    trained = [name for name in ("lora_bias_trainable", "lora_modules_to_save") if _is_set(args, name)]
    if trained and args.dtype == "fp16":
        # The scaler of fp16 needs fp32 weights, and these have the base's dtype.
        return f"{trained[0]} trains weights in the base's dtype, which fp16 cannot be: set dtype: bf16 or fp32"
    return None


def _in_adalora(args: SftArgs) -> str | None:
    if args.sft_type != "adalora":
        return None
    if args.adalora_target_r >= args.adalora_init_r:
        return (
            f"adalora_init_r ({args.adalora_init_r}) must be larger than adalora_target_r "
            f"({args.adalora_target_r}): ranks only shrink"
        )
    changed = [name for name in LORA_ONLY if _is_set(args, name)]
    return f"{', '.join(changed)}: for sft_type lora, not adalora" if changed else None


def _is_set(args: SftArgs, name: str) -> bool:
    """Say whether an argument is other than its default."""
    value: object = getattr(args, name)
    default: object = type(args).model_fields[name].default
    return value != default
