"""Where a model's files are: what transformers' `from_pretrained` takes.

In: the training arguments. Out: a folder, or a Hugging Face id that the local cache resolves. A model of ModelScope is
read from the folder of its cache, by its files alone.
"""

from __future__ import annotations

import os
from pathlib import Path

from hpcbench.catalog.hubs import OnHub
from hpcbench.catalog.models import MODELS
from hpcbench.errors import PREFETCH, NotInCacheError, WorkerError
from hpcbench.hub.models import find_files, locate_model
from hpcbench.schemas.arguments import SftArgs
from hpcbench.storage import huggingface_cache, modelscope_cache


def model_source(args: SftArgs) -> str:
    """Return the folder or Hugging Face id to load.

    Raises:
        WorkerError: the model is none that can be loaded, or one of ModelScope that is not in its cache.
    """
    place = model_place(args)
    if not isinstance(place, OnHub):
        return str(place)
    if place.hub == "huggingface" and place.revision is None:
        return place.id
    folder = find_files(place, os.environ)
    if folder is None:
        cache = (modelscope_cache if place.hub == "modelscope" else huggingface_cache).cache_folder(os.environ)
        raise NotInCacheError(
            f"model: {place} is not in the local cache ({cache})",
            hint=f"run `{PREFETCH}` where there is internet, or give model_id_or_path: a local folder",
        )
    return str(folder)


def model_place(args: SftArgs) -> Path | OnHub:
    """Return where the model is, downloaded or not.

    Raises:
        WorkerError: the model type is not in the catalog and no path is given, or is one that cannot be trained.
    """
    if args.model_id_or_path is None:
        _check_entry(args)
    place = locate_model(args, os.environ)
    if place is None:
        raise WorkerError(
            f"model_type: no id is known for {args.model_type} on Hugging Face or ModelScope",
            hint="download it and give model_id_or_path: its folder",
        )
    return place


def _check_entry(args: SftArgs) -> None:
    entry = MODELS.lookup(args.model_type or "")
    if entry is None:
        raise WorkerError(
            f"model_type: {args.model_type!r} is not in the catalog", hint="give model_id_or_path: a hub id or a folder"
        )
    if entry.multimodal:
        raise WorkerError(
            f"model_type: {args.model_type} takes images or sound by code of its own, which this version does not run",
            hint="choose a text model, or an image model such as qwen2-vl-2b-instruct",
        )
    if entry.needs_remote_code and not args.trust_remote_code:
        raise WorkerError(
            f"model_type: {args.model_type} needs Python code from its hub folder", hint="set trust_remote_code: true"
        )
