"""Requests that quantised weights, or a quantisation, cannot carry out, found in a model's files.

In: arguments and a model's folder. Out: faults, each at the argument that it contradicts (pure).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from hpcbench.model_files.fault import Fault
from hpcbench.model_files.folder import ModelFolder
from hpcbench.model_files.image_models import find_image_model
from hpcbench.model_files.quantized import BITSANDBYTES, FORMS, Quantized, bitsandbytes_bits, find_quantized
from hpcbench.schemas.arguments import TORCH_DTYPES, ExportArgs, SftArgs

_MODEL: Final = "model_id_or_path"
_FOUR_BITS: Final = 4
_AWQ_OUTPUTS: Final = 64
"""gptqmodel searches AWQ's clipping in steps of so many outputs, and fails on a rest."""
_IN_A_LAYER: Final = re.compile(r"\.\d+\.(?!.*(?:norm|router|gate\.)).*\.weight$")
"""Tensors of decoder layers that are quantised, where they are matrices."""
_TRANSPOSED: Final = frozenset({"gpt2", "gpt-sw3", "imagegpt", "openai-gpt"})
"""Types of models that hold a matrix as inputs x outputs."""


def check_quantized(args: SftArgs, model: ModelFolder, *, trains: bool) -> Iterator[Fault]:
    """Yield what the weights of a folder, as its config.json says they are quantised, do not allow."""
    held = find_quantized(model.config)
    if held is None:
        if args.quant_method is not None and args.quant_method != "bnb":
            message = f"{model.name} is not quantised, and quant_method says {args.quant_method}"
            hint = f"leave quant_method out; `cmd: export` with quant_method: {args.quant_method} quantises a model"
            if args.quant_method == "aqlm":
                hint = "take a model whose folder holds AQLM's weights, or leave quant_method out"
            yield Fault(argument="quant_method", message=message, hint=hint)
        return
    if held.form is None:
        message = f"{model.name} is quantised ({held.method or 'quantization_config'} in its config.json)"
        hint = "take the model that it was made of; quantization_bit: 4 quantises it when it is loaded"
        known = ", ".join(sorted(FORMS))
        yield Fault(argument=_MODEL, message=message, expected=f"plain weights, or those of {known}", hint=hint)
    elif held.method == BITSANDBYTES:
        yield from _check_bitsandbytes(args, model, held.config)
    else:
        yield from _check_held(args, model, held)
    if trains and held.form is not None:
        yield from _check_tuner(args, model, held)
    if trains and args.quant_method is None:  # where it is named, that is what is refused
        for name in ("fsdp", "deepspeed"):
            if getattr(args, name):
                message = f"{model.name} is quantised ({held.name}), and `{name}` shares weights of 16 or 32 bits"
                yield Fault(
                    argument=name, message=message, hint=f"take the model that it was made of, or remove {name}"
                )


def _check_held(args: SftArgs, model: ModelFolder, held: Quantized) -> Iterator[Fault]:
    if args.quantization_bit:
        message = f"{model.name} is quantised already ({held.name}), and quantization_bit would do it again"
        yield Fault(argument="quantization_bit", message=message, expected="quantization_bit: 0")
    if args.quant_method is not None and args.quant_method != held.method:
        message = f"{model.name} is quantised by {held.method}, and quant_method says {args.quant_method}"
        yield Fault(argument="quant_method", message=message, expected=f"{held.method}, or no quant_method")


def _check_tuner(args: SftArgs, model: ModelFolder, held: Quantized) -> Iterator[Fault]:
    form = held.form
    if form is None:
        return
    if args.tuner not in form.tuners:
        message = f"{model.name} is quantised ({held.name}), and sft_type {args.tuner} cannot train on such weights"
        hint = "take one of these, or the model that it was made of"
        yield Fault(argument="sft_type", message=message, expected=", ".join(form.tuners), hint=hint)
    elif args.use_dora and not form.takes_dora:
        message = f"{model.name} is quantised ({held.name}), whose weights dora cannot take apart"
        yield Fault(argument="use_dora", message=message, expected="use_dora: false")
    elif args.lora_bias_trainable != "none":
        message = f"{model.name} is quantised ({held.name}), and such layers keep their biases frozen"
        yield Fault(argument="lora_bias_trainable", message=message, expected="none")


def check_merging(argument: str, model: ModelFolder) -> Fault | None:
    """Return why no adapter can be merged into the weights of this folder, or None where one can."""
    held = find_quantized(model.config)
    if held is None or held.form is None or held.form.merges:
        return None
    message = f"{model.name} is quantised ({held.name}), and no adapter can be merged into such weights"
    return Fault(argument=argument, message=message, expected=f"{argument}: false")


def check_export(export: ExportArgs, model: ModelFolder) -> Iterator[Fault]:
    """Yield what stands against an export of this model, or of an adapter on it."""
    if export.quant_bits and find_image_model(model.config) is not None:
        message = f"{model.name} reads images, and exports quantise text models"
        yield Fault(argument="quant_bits", message=message, expected="a text model", hint="merge_lora alone merges")
        return
    held = find_quantized(model.config)
    has_checkpoint = export.ckpt_from is not None or export.ckpt_dir is not None
    if held is not None and held.method != BITSANDBYTES:
        if export.quant_bits and not has_checkpoint:
            message = f"{model.name} is quantised already ({held.name})"
            yield Fault(argument="quant_bits", message=message, expected="a model of plain weights")
        elif (fault := check_merging("merge_lora", model)) is not None and has_checkpoint:
            hint = "evaluate the adapter on its base, without an export"
            yield Fault(argument="merge_lora", message=fault.message, expected="an adapter of plain weights", hint=hint)
        return
    if export.calibrates:
        yield from _check_sizes(export, model)


def _check_sizes(export: ExportArgs, model: ModelFolder) -> Iterator[Fault]:
    """Yield the first matrix whose inputs do not come in whole groups, or whose outputs AWQ cannot take."""
    is_transposed = model.config.get("model_type") in _TRANSPOSED
    for name, shape in sorted(model.weights.shapes.items()):
        if len(shape) != 2 or _IN_A_LAYER.search(name) is None:  # noqa: PLR2004  # a matrix
            continue
        outputs, inputs = reversed(shape) if is_transposed else shape
        layer = name.removesuffix(".weight")
        if export.group_size > 0 and inputs % export.group_size:
            message = f"{model.name}: {layer} has {inputs} inputs, which groups of {export.group_size} do not divide"
            sizes = [size for size in (128, 64, 32, 16) if inputs % size == 0]
            expected = f"group_size {', '.join(map(str, sizes))}" if sizes else "quant_method: bnb"
            yield Fault(argument="group_size", message=message, expected=expected)
            return
        if export.quant_method == "awq" and outputs % _AWQ_OUTPUTS:
            message = f"{model.name}: {layer} has {outputs} outputs, and awq takes multiples of {_AWQ_OUTPUTS} alone"
            yield Fault(argument="quant_method", message=message, expected="gptq or bnb")
            return


def _check_bitsandbytes(args: SftArgs, model: ModelFolder, quantization: Any) -> Iterator[Fault]:
    # transformers would take these over the arguments, with a warning.
    bits = bitsandbytes_bits(quantization)
    saved: dict[str, Any] = {"quantization_bit": bits}
    asked: dict[str, Any] = {"quantization_bit": args.quantization_bit}
    if bits == _FOUR_BITS:
        dtypes = {torch_name: name for name, torch_name in TORCH_DTYPES.items()}
        saved["bnb_4bit_comp_dtype"] = dtypes.get(str(quantization.get("bnb_4bit_compute_dtype", "float32")))
        saved["bnb_4bit_quant_type"] = quantization.get("bnb_4bit_quant_type", "fp4")
        saved["bnb_4bit_use_double_quant"] = bool(quantization.get("bnb_4bit_use_double_quant", False))
        asked["bnb_4bit_comp_dtype"] = args.bnb_4bit_comp_dtype or args.dtype
        asked["bnb_4bit_quant_type"] = args.bnb_4bit_quant_type
        asked["bnb_4bit_use_double_quant"] = args.bnb_4bit_use_double_quant
    different = {name: value for name, value in saved.items() if asked[name] != value}
    if different:
        name = next(iter(different))
        message = f"{model.name} is quantised by bitsandbytes as its config.json says, and the arguments say otherwise"
        wanted = ", ".join(f"{key}: {str(value).lower()}" for key, value in different.items())
        yield Fault(argument=name, message=message, expected=wanted)
