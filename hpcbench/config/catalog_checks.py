"""What the catalog knows of an experiment's model: refused here with its reason, before anything waits.

In: training arguments, and the place of each as it was written. Out: problems. Names that the catalog lacks are
`request_checks`' business, datasets `data_checks`', files of models that of others.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from hpcbench.catalog.models import MODELS, ModelEntry
from hpcbench.errors import Problem
from hpcbench.schemas.arguments import SftArgs
from hpcbench.storage.located_yaml import Located

AtKey = Callable[[str], Located]
IMAGE_MODEL: Final = "qwen2-vl-2b-instruct"
"""What to take in place of an image model that is not trained."""


def check_model_entry(args: SftArgs, at_key: AtKey) -> list[Problem]:
    """Return why a model of the catalog, or a hub id that it has, cannot run as asked; folders are judged by others."""
    argument = "model_type" if args.model_id_or_path is None else "model_id_or_path"
    name = args.model_id_or_path or args.model_type or ""
    entry = MODELS.lookup(name) if argument == "model_type" else _entry_of_id(name)
    if entry is None:
        return []
    place = at_key(argument)
    if entry.multimodal:
        message = f"{name} takes images or sound by code of its own, which this version does not run"
        return [place.problem(message, expected=f"a text model, or an image model such as {IMAGE_MODEL}")]
    if entry.cannot_run is not None:
        hint = (
            "a model whose code is in transformers; or adapt its folder's code and give model_id_or_path: that folder"
        )
        return [place.problem(f"{name} cannot be loaded: {entry.cannot_run}", expected=_relatives(name), hint=hint)]
    if entry.needs_remote_code and not args.trust_remote_code:
        message = f"{name}: its Python code comes with its weights, and runs only where you trust it"
        hint = f"args: {{trust_remote_code: true}}, if you trust {entry.huggingface or entry.modelscope}"
        return [place.problem(message, expected="trust_remote_code: true", hint=hint)]
    return []


def remark_on_code(args: SftArgs) -> str | None:
    """Return what is not known of a model that brings its own Python code, or None."""
    entry = (
        MODELS.lookup(args.model_type or "") if args.model_id_or_path is None else _entry_of_id(args.model_id_or_path)
    )
    if entry is None or not entry.needs_remote_code or entry.loaded:
        return None
    name = args.model_id_or_path or args.model_type
    return f"not checked: {name}: its own Python code, from its folder, was never run here with transformers 5"


def _entry_of_id(name: str) -> ModelEntry | None:
    return next(iter(MODELS.with_id(name)), None)


def _relatives(name: str) -> str:
    """Return models of the catalog of the same family that can run, or of which kind they have to be."""
    family = re.match(r"[a-z]+", name.rpartition("/")[2].lower())
    found = [
        other
        for other in MODELS.names()
        if family is not None and other.startswith(family.group()) and _is_plain(MODELS.lookup(other))
    ]
    return f"for example {', '.join(found[:4])}" if found else "a model of transformers' own architectures"


def _is_plain(entry: ModelEntry | None) -> bool:
    return (
        entry is not None
        and entry.cannot_run is None
        and not (entry.needs or entry.needs_remote_code or entry.multimodal or entry.reads_images)
    )
