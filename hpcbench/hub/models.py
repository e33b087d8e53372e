"""Where a model is: a folder, or a repository on one of the hubs.

In: the training arguments and the environment. Out: a path or an id with its hub; why there is none. Login node and
worker ask here, so that both know the same. Nothing is downloaded or loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from hpcbench.catalog.hubs import OnHub, ids_of, pick_hub
from hpcbench.catalog.models import MODELS
from hpcbench.schemas.arguments import SftArgs
from hpcbench.storage.huggingface_cache import find_snapshot
from hpcbench.storage.modelscope_cache import find_repository


def locate_model(args: SftArgs, environ: Mapping[str, str]) -> Path | OnHub | None:
    """Return the folder or the repository of a model, or None where the catalog does not have it.

    A path that does not exist is a path all the same where it is absolute: no hub has ids of that form.

    Raises:
        ConfigError: the user's catalog is broken.
    """
    if args.model_id_or_path is not None:
        path = Path(args.model_id_or_path)
        if path.is_absolute():  # a suite's own folders are by now; a relative one may bear a repository's name
            return path
        place = pick_hub(*ids_of(args.model_id_or_path, MODELS), environ)
    else:
        entry = MODELS.lookup(args.model_type or "")
        place = None if entry is None else pick_hub(entry.huggingface, entry.modelscope, environ)
    return place if place is None or args.model_revision is None else replace(place, revision=args.model_revision)


def find_files(place: Path | OnHub, environ: Mapping[str, str]) -> Path | None:
    """Return the folder that holds a model's files on this machine, its own or one of a hub's cache, or None."""
    if isinstance(place, Path):
        return place if place.is_dir() else None
    if place.hub == "huggingface":
        return find_snapshot(place.id, environ, place.revision)
    return find_repository("models", place.id, environ, place.revision)
