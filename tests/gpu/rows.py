"""What `make gpu-check` tries, in the order of their weight: a run that is cut short has tried the first ones.

In: nothing. Out: rows of arguments as a suite has them. `tests/unit/test_gpu_rows.py` holds them to the README's table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

OUT_OF_MEMORY: Final = "OutOfMemoryError"
REFERENCE: Final = "lora"
NO_FUSED_LOSS: Final = {"fused_linear_cross_entropy": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuRow:
    """One thing to try."""

    name: str
    args: Mapping[str, Any] = field(default_factory=dict)
    cmd: str = "sft"
    requirements: Mapping[str, int] = field(default_factory=lambda: {"gpu": 1, "ddp": 1})
    same_losses_as: str | None = None
    """The row whose losses it must have: what makes a training faster must not change what it learns."""
    fails_with: str | None = None
    """The error that it must end with."""
    whole_job: bool = False
    """Whether it runs as `hpcbench sft`, with supervisor, sampler and record, and not as a worker alone."""


def _fast(name: str, /, **args: Any) -> GpuRow:
    return GpuRow(name=name, args=args, same_losses_as=REFERENCE)


def _row(name: str, /, **args: Any) -> GpuRow:
    return GpuRow(name=name, args=args)


def _spread(name: str, gpu: int, ddp: int, /, **args: Any) -> GpuRow:
    return GpuRow(name=name, args=args, requirements={"gpu": gpu, "ddp": ddp})


_PREFERENCES: Final = {"rlhf_type": "dpo", "dataset": "pairs.jsonl"}
_FULL: Final = {"sft_type": "full"}

ROWS: Final = (
    _row(REFERENCE),
    GpuRow(name="record and energy of a whole job", whole_job=True),
    _fast("flash attention 2", attn_impl="flash_attention_2"),
    _fast("flash attention 3", attn_impl="flash_attention_3"),
    _fast("flex attention", attn_impl="flex_attention"),
    _fast("hub's flash attention", attn_impl="kernels-community/flash-attn2"),
    _fast("liger kernels", use_liger_kernel=True),
    _fast("liger kernels without fused loss", use_liger_kernel=True, liger_kernel_config=NO_FUSED_LOSS),
    _fast("chunked loss", chunked_cross_entropy=True),
    _fast("cut cross-entropy", use_cce=True),
    _fast("fused AdamW", optim="adamw_torch_fused"),
    _fast("torch.compile", torch_compile=True),
    _fast("torch.compile and chunked loss", torch_compile=True, chunked_cross_entropy=True),
    _fast("gradient checkpointing", gradient_checkpointing=True),
    _fast("activation offloading", activation_offloading=True),
    _fast("activation offloading and checkpointing", activation_offloading=True, gradient_checkpointing=True),
    _row("full", **_FULL),
    GpuRow(name="full and fused AdamW", args={**_FULL, "optim": "adamw_torch_fused"}, same_losses_as="full"),
    GpuRow(name="full and torch.compile", args={**_FULL, "torch_compile": True}, same_losses_as="full"),
    GpuRow(name="full and chunked loss", args={**_FULL, "chunked_cross_entropy": True}, same_losses_as="full"),
    _row("fp16", dtype="fp16"),
    _fast("fp32", dtype="fp32"),
    _row("packing", packing=True),
    GpuRow(
        name="packing and flash attention 2",
        args={"packing": True, "attn_impl": "flash_attention_2"},
        same_losses_as="packing",
    ),
    GpuRow(
        name="packing and flex attention",
        args={"packing": True, "attn_impl": "flex_attention"},
        same_losses_as="packing",
    ),
    GpuRow(
        name="packing and liger kernels", args={"packing": True, "use_liger_kernel": True}, same_losses_as="packing"
    ),
    _row("nf4 base", quantization_bit=4),
    _row("int8 base", quantization_bit=8),
    _row("8-bit AdamW of bitsandbytes", optim="adamw_bnb_8bit", **_FULL),
    _row("paged AdamW of bitsandbytes", optim="paged_adamw_8bit", **_FULL),
    _row("galore", use_galore=True, galore_rank=32, **_FULL),
    _row("dora", use_dora=True),
    GpuRow(
        name="out of memory is seen",
        args={"gpu_memory_fraction": 0.005, "batch_size": 64, **_FULL},
        fails_with=OUT_OF_MEMORY,
    ),
    GpuRow(name="dpo", cmd="rlhf", args=_PREFERENCES),
    GpuRow(name="infer", cmd="infer", args={"max_batch_size": 8, "max_new_tokens": 32, "do_sample": False}),
    _spread("model parallel", 2, 1),
    _spread("DDP", 2, 2),
    _spread("FSDP", 2, 2, fsdp="full_shard"),
    _spread("DeepSpeed ZeRO-2", 2, 2, deepspeed="default-zero2"),
    _spread("DeepSpeed ZeRO-3", 2, 2, deepspeed="default-zero3"),
    _spread("DeepSpeed ZeRO-3 with offload", 2, 2, deepspeed="zero3_offload"),
)
