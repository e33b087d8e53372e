"""A model folder: its configuration, weights and tokenizer as one value, read once.

In: a folder. Out: `ModelFolder`, or the first file that is missing or broken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hpcbench.model_files.image_models import IMAGE_PROCESSOR
from hpcbench.model_files.tokenizer import Tokenizer, read_object, read_tokenizer
from hpcbench.model_files.weights import ModelFileError, Weights, read_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """What the files of a model say."""

    name: str
    """For messages: its path or hub id."""
    config: Mapping[str, Any]
    weights: Weights
    tokenizer: Tokenizer
    has_image_processor: bool | None = None
    """Whether there is a file that says how pictures become pixels; None where files may be missing here."""


def read_model_folder(path: Path, *, name: str | None = None, is_complete: bool = True) -> ModelFolder:
    """Return what the files of a model say; `is_complete` where all of them must be there.

    Raises:
        ModelFileError: a file is missing or cannot be used.
    """
    config = read_object(path / "config.json")
    try:
        weights = read_weights(path)
        tokenizer = read_tokenizer(path)
    except ModelFileError:
        if is_complete:
            raise
        weights, tokenizer = Weights(shapes={}), Tokenizer()
    if not is_complete and not tokenizer.templates:
        tokenizer = replace(tokenizer, templates=None)
    return ModelFolder(
        name=name or str(path),
        config=config,
        weights=weights,
        tokenizer=tokenizer,
        has_image_processor=_has_image_processor(path) if is_complete else None,
    )


def _has_image_processor(path: Path) -> bool:
    # transformers 5 writes it into the processor's file.
    return (path / IMAGE_PROCESSOR).is_file() or "image_processor" in read_object(path / "processor_config.json")
