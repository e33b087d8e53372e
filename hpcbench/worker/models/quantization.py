"""Base weights of few bits under an adapter: quantised while they are loaded, or held so by the model's folder.

In: the arguments, a loaded model. Out: what loads the linear layers quantised (bitsandbytes: QLoRA, arXiv:2305.14314,
and LLM.int8(), 2208.07339), and what a loaded model really holds, bitsandbytes' weights or packed ones (GPTQ, AWQ,
AQLM). All else stays as without quantisation: embeddings, norms and head keep `dtype`, the adapter fp32.
"""

from __future__ import annotations

import importlib.metadata
import logging
import math
import os
import sys
from typing import Any, Final

import torch
from torch import nn

from hpcbench.errors import WorkerError
from hpcbench.model_files.quantized import Quantized
from hpcbench.schemas.arguments import TORCH_DTYPES, Dtype, SftArgs
from hpcbench.worker.packed_weights import PackedWeight, Weight, is_packed, named_weights
from hpcbench.worker.requirements import require

GPTQMODEL: Final = "gptqmodel"
_MOST_WORKERS: Final = 12


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


def trainable_kernel(held: Quantized) -> Any | None:
    """Return what makes transformers choose a kernel of gptqmodel with gradients, None where the form has but one."""
    if held.method not in {"gptq", "awq"} or held.bits is None:
        return None
    from transformers import AwqConfig, GPTQConfig
    from transformers.utils.quantization_config import AwqBackend

    # By itself it chooses the fastest one, and on GPUs that has no backward pass.
    if held.method == "gptq":
        return GPTQConfig(bits=held.bits, backend="auto_trainable")
    return AwqConfig(bits=held.bits, backend=AwqBackend.AUTO_TRAINABLE)


def settle(model: Any) -> None:
    """Let layers of 4 bits compute in evaluation as in training, and right.

    Raises:
        WorkerError: the weights of a layer would be read wrongly on the CPU.
    """
    for name, module in model.named_modules():
        # peft 0.21 adds to the output of AQLM's layers in place, which autograd forbids for a view.
        if hasattr(module, "codes") and is_packed(module):
            module.register_forward_hook(lambda _module, _inputs, output: output.clone())
        # In its first pass without gradients gptqmodel 7.6 rewrites the weights of a layer on the CPU for a kernel
        # without gradients, which rounds to bf16: an evaluation before the first step would end the training.
        if getattr(module, "linear_mode", "") is None:
            module.linear_mode = "train"
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


def check_loadable(quantized: Quantized, *, on_cpu: bool) -> None:
    """Raise where the weights of a folder cannot be loaded here, before transformers tries.

    Raises:
        WorkerError: nothing is known of their form, a library for it is missing, or it needs a GPU.
    """
    form = quantized.form
    if form is None:
        raise WorkerError(f"model: its weights are quantised by {quantized.method!r}, which hpcbench does not load")
    for module in form.modules:
        if module == GPTQMODEL:
            limit_gptqmodel_workers()
        require(module, for_what=f"the model (quantised: {quantized.name})")
    if on_cpu and not form.on_cpu:
        raise WorkerError(f"model: weights quantised by {quantized.method} need a GPU", hint="set device: cuda")


def limit_gptqmodel_workers() -> None:
    """Give gptqmodel as many threads as this job may use, which it reads when it is imported; two at least."""
    # It takes half of the node's cores, not of the job's; and with a single worker it refuses to pack (7.6).
    usable = len(os.sched_getaffinity(0))
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", str(min(_MOST_WORKERS, max(2, usable))))


def show_gptqmodel_to_peft(*, needed: bool) -> None:
    """Let peft find gptqmodel only where a base has layers of its own.

    peft 0.21 imports it for every lora where it is installed, and the import sets PYTORCH_ALLOC_CONF and
    CUDA_DEVICE_ORDER for the whole process: a plain training would be measured with another allocator than asked for.
    """
    from peft.import_utils import is_gptqmodel_available

    is_gptqmodel_available.cache_clear()
    if needed or GPTQMODEL in sys.modules:
        return
    sys.modules[GPTQMODEL] = None  # type: ignore[assignment]  # how Python marks a module that is not to be found
    try:
        is_gptqmodel_available()  # remembers that there is none
    finally:
        del sys.modules[GPTQMODEL]


def logical_size(weight: Weight) -> int:
    """Return how many weights a parameter holds; two weights of 4 bits share a byte."""
    state = getattr(weight, "quant_state", None)
    return weight.numel() if state is None else math.prod(state.shape)


def count_weights(model: nn.Module) -> int:
    """Return how many weights a model has, each once, as if none were packed."""
    return sum(map(logical_size, {id(weight): weight for _, weight in named_weights(model)}.values()))


def dtype_name(weight: Weight) -> str:
    """Return the dtype of a parameter's weights, such as bfloat16, int8 or nf4."""
    if isinstance(weight, PackedWeight):
        return weight.dtype_name
    state = getattr(weight, "quant_state", None)  # of bitsandbytes' Params4bit
    if state is not None:
        return str(state.quant_type)
    return str(weight.dtype).removeprefix("torch.")


def find_dtypes(model: torch.nn.Module) -> dict[str, str]:
    """Return the dtypes of the base's weights and, where it is not merged, of the adapter; and how it is quantised."""
    found: dict[str, set[str]] = {}
    for name, parameter in named_weights(model):
        part = "adapter" if "lora_" in name else "weights"
        found.setdefault(part, set()).add(dtype_name(parameter))
    by_part = {part: "+".join(sorted(dtypes)) for part, dtypes in found.items()}
    quantization = describe(model)
    return by_part if quantization is None else {**by_part, "quantization": quantization}


def describe(model: Any) -> str | None:
    """Return how the model's linear layers are quantised, or None: `4 bit nf4, double, computed in bfloat16`."""
    packed = next((module for module in model.modules() if is_packed(module)), None)
    if packed is not None:
        return _describe_packed(model, packed)
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


def _describe_packed(model: Any, layer: Any) -> str:
    """Return `4 bit gptq, groups of 128, TorchLinear, gptqmodel 7.6.0`: the form, and the kernel that computes."""
    config = getattr(model.config, "quantization_config", None)
    values = config if isinstance(config, dict) else getattr(config, "__dict__", {})
    method = str(getattr(values.get("quant_method"), "value", values.get("quant_method")) or "packed")
    bits, groups = getattr(layer, "bits", None), getattr(layer, "group_size", None)
    package = type(layer).__module__.partition(".")[0]
    return ", ".join(
        part
        for part in (
            f"{bits} bit {method}" if isinstance(bits, int) else method,
            f"groups of {groups}" if isinstance(groups, int) and groups > 0 else "",
            type(layer).__name__,
            f"{package} {importlib.metadata.version(package)}",
        )
        if part
    )


def _is_quantized(module: Any) -> bool:
    # A peft layer around it has its weight too.
    weight = dict(module.named_parameters(recurse=False)).get("weight")
    return type(weight).__name__ in {"Params4bit", "Int8Params"}
