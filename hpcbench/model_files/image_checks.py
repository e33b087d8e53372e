"""Requests about pictures that a model cannot carry out: an image model's limits, and those of a text model.

In: training arguments and a model's folder. Out: faults (pure). Rows with pictures are judged where rows are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from hpcbench.model_files.fault import Fault
from hpcbench.model_files.folder import ModelFolder
from hpcbench.model_files.image_models import IMAGE_MODELS, IMAGE_PROCESSOR, PARTS, find_image_model
from hpcbench.schemas.arguments import SftArgs

IMAGE_ARGUMENTS: Final = ("max_pixels", *(f"freeze_{part}" for part in PARTS))
"""Arguments that only image models have an effect of."""
TUNERS: Final = ("lora", "adalora", "full")
"""Methods that train image models; the others have not been tried on their layers."""
_MODEL: Final = "model_id_or_path"


def check_images(args: SftArgs, model: ModelFolder, *, trains: bool) -> Iterator[Fault]:
    """Yield what the model cannot do of what the arguments ask for, as far as pictures are concerned."""
    if find_image_model(model.config) is None:
        yield from _check_text_model(args, model)
        return
    if model.has_image_processor is False:
        message = f"{model.name} has no {IMAGE_PROCESSOR}, by which images become pixels"
        yield Fault(argument=_MODEL, message=message, hint="download the model again, with all of its JSON files")
    if model.tokenizer.templates == {}:
        message = f"{model.name} has no chat template, which alone says where images stand in a prompt"
        yield Fault(
            argument=_MODEL, message=message, hint="add chat_template.jinja, or take the chat model of its kind"
        )
    if args.template_type is not None:
        message = f"{model.name} reads images, and its prompts are written by its processor's own chat template"
        yield Fault(argument="template_type", message=message, expected="none", hint="leave template_type out")
    if args.rope_scaling is not None:
        message = f"rope_scaling stretches positions of one dimension, and {model.name} reads images"
        yield Fault(argument="rope_scaling", message=message, expected="a text model", hint="leave rope_scaling out")
    if trains:
        yield from _check_training(args, model)


def _check_text_model(args: SftArgs, model: ModelFolder) -> Iterator[Fault]:
    for name in IMAGE_ARGUMENTS:
        if args.differs_from_default(name):
            message = f"`{name}` has no effect: {model.name} reads no images"
            expected = f"an image model, of type {', '.join(IMAGE_MODELS)}"
            yield Fault(argument=name, message=message, expected=expected, hint=f"remove {name}")


def _check_training(args: SftArgs, model: ModelFolder) -> Iterator[Fault]:
    if args.tuner not in TUNERS:
        message = f"{args.tuner} trains text models, and {model.name} reads images"
        yield Fault(argument="sft_type", message=message, expected=", ".join(TUNERS))
    for name in ("fsdp", "deepspeed"):
        if getattr(args, name):
            message = f"{name} shards text models, and {model.name} reads images"
            yield Fault(argument=name, message=message, expected=f"a text model, or no {name}")
    if args.rlhf_type is not None:
        message = f"preference tuning reads text, and {model.name} reads images"
        yield Fault(argument="rlhf_type", message=message, expected="a text model, or cmd: sft")
    if args.packing:
        # Qwen2-VL's positions have three dimensions, and no model here separates samples in its encoder.
        message = f"samples with images cannot share a sequence, and {model.name} reads images"
        yield Fault(argument="packing", message=message, expected="packing: false")
    if all(getattr(args, f"freeze_{part}") for part in PARTS):
        message = "freeze_llm, freeze_vit and freeze_aligner together leave nothing to train"
        yield Fault(argument="freeze_llm", message=message, expected="one of them false")
