"""The parts of an image model, and which of them a training leaves as they are (`freeze_llm`, `freeze_vit`, ...).

In: a loaded model, the training arguments. Out: names of modules, or weights that take no gradient. A text model is all
of one part, and nothing is changed for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from torch import nn

from hpcbench.errors import WorkerError, name_first
from hpcbench.model_files.image_models import PARTS, ImageModel, find_image_model, part_of
from hpcbench.schemas.arguments import SftArgs

ALL_LINEAR: Final = "all-linear"
"""peft's word for every linear layer but the head."""


def kind_of(model: Any) -> ImageModel | None:
    """Return what is known of a loaded image model; None for a text model."""
    return find_image_model({"model_type": model.config.model_type})


def find_frozen(model: Any, args: SftArgs) -> frozenset[str]:
    """Return the names of the weights in an image model's frozen parts; none of a text model."""
    if (kind := kind_of(model)) is None:
        return frozenset()
    frozen = _frozen(args)
    return frozenset(name for name, _ in model.named_parameters() if part_of(name, kind) in frozen)


def limit_targets(model: Any, args: SftArgs, targets: str | Iterable[str]) -> str | list[str]:
    """Return peft's target_modules without those in frozen parts of an image model.

    Args:
        model: the base.
        args: its `freeze_llm`, `freeze_vit` and `freeze_aligner`.
        targets: names as peft takes them, or `all-linear`; a regular expression names exactly what it matches.

    Raises:
        WorkerError: none is left.
    """
    words = targets if isinstance(targets, str) else list(targets)
    kind = kind_of(model)
    if kind is None or (isinstance(words, str) and words != ALL_LINEAR):
        return words
    named = [name for name, module in model.named_modules() if _is_target(name, module, words, model)]
    frozen = _frozen(args)
    # In full: the encoder of images has modules of the same names as the language model.
    found = [name for name in named if part_of(name, kind) not in frozen]
    if not found:
        asked = words if isinstance(words, str) else name_first(words)
        raise WorkerError(
            f"lora_target_modules: of {asked} all modules are in parts that are frozen: {', '.join(sorted(frozen))}",
            hint="set freeze_llm: false, freeze_vit: false or freeze_aligner: false",
        )
    return found


def _frozen(args: SftArgs) -> set[str]:
    return {part for part in PARTS if getattr(args, f"freeze_{part}")}


def _is_target(name: str, module: Any, words: str | list[str], model: Any) -> bool:
    if isinstance(words, str):
        return isinstance(module, nn.Linear) and module is not model.get_output_embeddings()
    return any(f".{name}".endswith(f".{word}") for word in words)
