"""Any dataset to rows: local files by the code that plan reads them with, hub datasets from the local caches.

In: where a dataset is. Out: its rows as they are there, one at a time. In a job it never downloads: Hugging
Face is off there, and of ModelScope only files of its cache are read.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hpcbench.catalog.hubs import OnHub, pick_hub
from hpcbench.data.arrow_files import BATCH_ROWS, plain_rows
from hpcbench.data.dataset_source import DatasetSource
from hpcbench.data.file_kinds import DataFile
from hpcbench.data.files import read_file, read_rows
from hpcbench.data.repository_files import find_split_files
from hpcbench.data.rows import Place, PlacedRow
from hpcbench.errors import PREFETCH, NotInCacheError, WorkerError
from hpcbench.storage.hash_cache import hash_file
from hpcbench.storage.json_files import JsonObject
from hpcbench.storage.modelscope_cache import cache_folder, find_repository

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)


def read_dataset(source: DatasetSource) -> Iterator[PlacedRow]:
    """Yield the rows of one dataset as they are there.

    Raises:
        WorkerError: it is not there, or not readable.
    """
    if source.path is not None:
        yield from read_rows(source.path, split=source.splits[0])
        return
    on_hub = hub_of(source)
    num_left_out = 0
    for row, place in (
        _read_modelscope(source, on_hub) if on_hub.hub == "modelscope" else _read_huggingface(source, on_hub)
    ):
        if (prepared := source.preparation.apply(row)) is None:
            num_left_out += 1
        else:
            yield PlacedRow(prepared, place)
    if num_left_out:
        logger.warning("dataset %r: %d rows left out that SWIFT 2.x leaves out too", source.name, num_left_out)


def find_state(source: DatasetSource) -> JsonObject | None:
    """Return what changes whenever the cached rows of a hub's dataset do, without reading them; None if unknown.

    Raises:
        WorkerError: it is not there, or not readable.
    """
    on_hub = hub_of(source)
    if on_hub.hub == "modelscope":
        hashes = [hash_file(file.path) for file in _modelscope_files(source, on_hub)]
        return {"hub": str(on_hub), "hashes": hashes}
    # The folders of their cache are named by the dataset's configuration, version and commit.
    files = [file["filename"] for loaded in _load_huggingface(source, on_hub) for file in loaded.cache_files]
    return {"hub": str(on_hub), "files": [[file, Path(file).stat().st_size] for file in files]} if files else None


def hub_of(source: DatasetSource) -> OnHub:
    """Return the hub that a dataset is read from.

    Raises:
        WorkerError: no hub is known to have it.
    """
    place = pick_hub(source.huggingface, source.modelscope, os.environ)
    if place is None:
        raise WorkerError(
            f"dataset {source.name!r}: no id is known on Hugging Face or ModelScope",
            hint="add it to ~/.config/hpcbench/datasets.yaml, or name a local file",
        )
    return place


def _read_huggingface(source: DatasetSource, on_hub: OnHub) -> Iterator[PlacedRow]:
    number = 0
    for loaded in _load_huggingface(source, on_hub):
        for table in loaded.with_format("arrow").iter(batch_size=BATCH_ROWS):
            for row in plain_rows(table, origin=source.name):
                number += 1
                yield PlacedRow(row, Place(source.name, "row", number))


def _load_huggingface(source: DatasetSource, on_hub: OnHub) -> Iterator[Dataset]:
    from datasets import load_dataset

    for subset in source.subsets:
        try:
            loaded = load_dataset(on_hub.id, subset, data_dir=source.folder, split="+".join(source.splits))
        except Exception as error:  # the hub's client raises its own, requests', OSError and ValueError
            raise _not_readable(source, on_hub, error) from error
        yield loaded


def _not_readable(source: DatasetSource, on_hub: OnHub, error: Exception) -> WorkerError:
    reason = f"{type(error).__name__}: {error}"
    if "Dataset scripts are no longer supported" in str(error):
        other = "set USE_MODELSCOPE_HUB=1 to read it from ModelScope, or " if source.modelscope is not None else ""
        return WorkerError(
            f"dataset {source.name!r}: {on_hub} is made by Python code of the dataset, which is not run: {reason}",
            hint=f"{other}download its data and name the local file",
        )
    if isinstance(error, OSError) or "Couldn't find cache" in str(error):
        return WorkerError(
            f"dataset {source.name!r}: no such local file, and {on_hub} is not in the local cache: {reason}",
            hint=f"run `{PREFETCH}` where there is internet, or name a local file",
        )
    return WorkerError(
        f"dataset {source.name!r}: {on_hub} cannot be read: {reason}",
        hint="name its subset and split in ~/.config/hpcbench/datasets.yaml, or download it and name its data files",
    )


def _read_modelscope(source: DatasetSource, on_hub: OnHub) -> Iterator[PlacedRow]:
    for file in _modelscope_files(source, on_hub):
        yield from read_file(file)


def _modelscope_files(source: DatasetSource, on_hub: OnHub) -> Iterator[DataFile]:
    folder = find_repository("datasets", on_hub.id, os.environ)
    if folder is None:
        raise NotInCacheError(
            f"dataset {source.name!r}: no such local file, and {on_hub} is not in the local cache "
            f"({cache_folder(os.environ)})",
            hint=f"run `{PREFETCH}` where there is internet, or name a local file",
        )
    if source.folder is not None and not (folder / source.folder).resolve().is_relative_to(folder.resolve()):
        raise WorkerError(f"dataset {source.name!r}: folder {source.folder!r} is outside of the dataset")
    folder /= source.folder or "."
    for subset in source.subsets:
        yield from find_split_files(folder, subset=subset, splits=source.splits)
