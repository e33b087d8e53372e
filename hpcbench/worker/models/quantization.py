"""Base weights of 4 or 8 bits under an adapter, by bitsandbytes (QLoRA, arXiv:2305.14314; LLM.int8(), 2208.07339).

In: the arguments. Out: what loads the linear layers quantised, and what a loaded model really holds. All else stays as
without quantisation: embeddings, norms and head keep `dtype`, the adapter fp32.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import torch

from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import TORCH_DTYPES, Dtype, SftArgs
from hpcbench.worker.requirements import require


def torch_dtype(name: Dtype) -> torch.dtype:
    """Return torch's dtype for a name of the arguments."""
    dtype: torch.dtype = getattr(torch, TORCH_DTYPES[name])
    return dtype


def quantization_config(args: SftArgs) -> Any | None:
    """Return what `from_pretrained` takes as `quantization_config`, or None where weights are loaded as they are.

    Raises:
        WorkerError: bitsandbytes is not installed.
    """
    if not args.quantization_bit:
        return None
    require("bitsandbytes", for_what=f"quantization_bit: {args.quantization_bit}")
    from transformers import BitsAndBytesConfig

    # bitsandbytes 0.50 would warn in every layer of every pass that LLM.int8() computes in fp16.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    if args.quantization_bit == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_compute_dtype=torch_dtype(args.bnb_4bit_comp_dtype or args.dtype),
        bnb_4bit_quant_type=args.bnb_4bit_quant_type,
        bnb_4bit_use_double_quant=args.bnb_4bit_use_double_quant,
    )


def settle(model: Any) -> None:
    """Let layers of 4 bits compute in evaluation as in training, and right.

    Raises:
        WorkerError: the weights of a layer would be read wrongly on the CPU.
    """
    for name, module in model.named_modules():
        # In its first evaluation on a CPU with AVX-512 BF16 bitsandbytes 0.50 rewrites the weights for a kernel without
        # gradients, whose scales are rounded to bf16: training would learn nothing below such a layer afterwards.
        if getattr(module, "support_avx512bf16_for_cpu", False):
            module.support_avx512bf16_for_cpu = False
        # Its kernel for CPUs takes each row's first weight for the first of a block; blocks may cross rows.
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if state is not None and module.weight.device.type == "cpu" and state.shape[-1] % state.blocksize:
            raise WorkerError(
                f"quantization_bit: 4 does not work with this model on the CPU: {name} has {state.shape[-1]} inputs, "
                f"and bitsandbytes reads weights right only in whole blocks of {state.blocksize}",
                hint="set quantization_bit: 8, or train on a GPU",
            )


def logical_size(parameter: torch.Tensor) -> int:
    """Return how many weights a parameter holds; two weights of 4 bits share a byte."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else math.prod(state.shape)


def dtype_name(parameter: torch.Tensor) -> str:
    """Return the dtype of a parameter's weights, such as bfloat16, int8 or nf4."""
    state = getattr(parameter, "quant_state", None)  # of bitsandbytes' Params4bit
    if state is not None:
        return str(state.quant_type)
    return str(parameter.dtype).removeprefix("torch.")


def find_dtypes(model: torch.nn.Module) -> dict[str, str]:
    """Return the dtypes of the base's weights and, where it is not merged, of the adapter; and how it is quantised."""
    found: dict[str, set[str]] = {}
    for name, parameter in model.named_parameters():
        part = "adapter" if "lora_" in name else "weights"
        found.setdefault(part, set()).add(dtype_name(parameter))
    by_part = {part: "+".join(sorted(dtypes)) for part, dtypes in found.items()}
    quantization = describe(model)
    return by_part if quantization is None else {**by_part, "quantization": quantization}


def describe(model: Any) -> str | None:
    """Return how the model's linear layers are quantised, or None: `4 bit nf4, double, computed in bfloat16`."""
    layer = next((module for module in model.modules() if _is_quantized(module)), None)
    if layer is None:
        return None
    import bitsandbytes

    by = f"bitsandbytes {bitsandbytes.__version__}"
    state = getattr(layer.weight, "quant_state", None)
    if state is None:
        return f"8 bit, LLM.int8(), {by}"
    double = ", double" if state.nested else ""
    return f"4 bit {state.quant_type}{double}, computed in {str(layer.compute_dtype).removeprefix('torch.')}, {by}"


def _is_quantized(module: Any) -> bool:
    # A peft layer around it has its weight too.
    weight = dict(module.named_parameters(recurse=False)).get("weight")
    return type(weight).__name__ in {"Params4bit", "Int8Params"}
