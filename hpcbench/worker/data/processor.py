"""The processor of a model that reads pictures: transformers' own, from the model's folder.

In: the training arguments, the tokenizer. Out: a processor of transformers, or None for a text model. Without
torchvision, which processors need for videos alone, it is put together from its other parts.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import transformers
from transformers.utils.import_utils import is_torchvision_available

from hpcbench.errors import WorkerError, first_line
from hpcbench.hub.models import find_files, locate_model
from hpcbench.model_files.image_models import PROCESSOR_FILES, ImageModel, find_image_model
from hpcbench.model_files.tokenizer import read_object
from hpcbench.schemas.arguments import SftArgs


def find_model_type(args: SftArgs) -> ImageModel | None:
    """Return what kind of image model the arguments name; None for a text model, and for one that is not here."""
    folder = _find_folder(args)
    return None if folder is None else find_image_model(read_object(folder / "config.json"))


def _find_folder(args: SftArgs) -> Path | None:
    place = locate_model(args, os.environ)
    return None if place is None else find_files(place, os.environ)


def load_processor(args: SftArgs, tokenizer: Any) -> Any | None:
    """Return the model's processor, or None where the model reads no pictures.

    Raises:
        WorkerError: its files or a library that it needs are missing.
    """
    kind, source = find_model_type(args), _find_folder(args)
    if kind is None or source is None:
        return None
    try:
        if is_torchvision_available():
            processor = transformers.AutoProcessor.from_pretrained(source)
            processor.tokenizer = tokenizer
            return processor
        return _assemble(kind, source, tokenizer)
    except ImportError as error:
        raise WorkerError(
            f"model: the processor of {source} needs a library: {first_line(error)}",
            hint="pip install 'hpcbench-llm[images]' in the jobs' environment",
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WorkerError(
            f"model: the processor of {source} cannot be loaded: {first_line(error)}",
            hint="download the model again, with all of its JSON files",
        ) from error


def copy_processor_files(args: SftArgs, folder: Path) -> None:
    """Put the processor's files beside the saved weights of an image model, which cannot be loaded by itself else."""
    base = _find_folder(args)
    if base is None or find_model_type(args) is None:
        return
    for name in PROCESSOR_FILES:
        if (base / name).is_file() and not (folder / name).exists():
            shutil.copyfile(base / name, folder / name)


def _assemble(kind: ImageModel, source: Path, tokenizer: Any) -> Any:
    """Return a processor without the part for videos, which asks for torchvision as soon as it is made."""
    base: Any = getattr(transformers, kind.processor)

    class WithoutVideos(base):  # type: ignore[misc]  # its class is known at run time only
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            # transformers 5.23 cannot even name the class of video processors then.
            return type(None) if argument is None else super().check_argument_for_proper_class(argument_name, argument)

    images = transformers.AutoImageProcessor.from_pretrained(source)
    parts = {"image_processor": images, "tokenizer": tokenizer, "video_processor": None}
    found, _ = base.get_processor_dict(source)
    return WithoutVideos.from_args_and_dict([parts[name] for name in WithoutVideos.get_attributes()], found)
