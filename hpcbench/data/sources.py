"""Where a dataset is: a file or folder, a name of a `dataset_info.json`, a name of the catalog, a hub id.

In: a dataset's name as the arguments give it, a registry file. Out: a `DatasetSource`. Data itself is never read here.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from hpcbench.catalog.dataset_words import DatasetWord, split_word
from hpcbench.catalog.datasets import DATASETS, DatasetEntry
from hpcbench.catalog.hubs import HUB_NAMES, Hub, ids_of
from hpcbench.data.columns import layout_of
from hpcbench.data.dataset_source import DatasetSource
from hpcbench.data.preparation import Preparation
from hpcbench.data.registry import find_registered
from hpcbench.errors import WorkerError, did_you_mean

REGISTRY_MARK: Final = "#"
"""Between a registry's path and a dataset's name, where the two are one input of a job."""
WRITTEN: Final = {"prompt": "query", "response": "response"}
"""Columns of rows whose texts the catalog writes; a row that lacks what they need has not got them."""


def find_dataset(name: str, *, registry: str | None) -> DatasetSource:
    """Return where a dataset is.

    Args:
        name: as in the arguments, with its hub, subsets and number of rows.
        registry: `dataset_info.json`, or None.

    Raises:
        WorkerError: the registry is broken, or the dataset is one that cannot be trained on.
        ConfigError: the user's catalog is broken.
    """
    # Plan makes the paths of files absolute: what else is in the folder that a job runs in is none of its data.
    word = split_word(name)
    if word.num_samples is not None and word.num_samples < 1:
        raise WorkerError(f"dataset {name!r}: {word.num_samples} rows to draw", hint="write at least #1")
    if Path(word.name).is_absolute():
        return DatasetSource(name=name, path=Path(word.name), num_samples=word.num_samples)
    found = None
    if registry is not None and word.hub is None and not word.subsets:
        found = find_registered(word.name, Path(registry))
    if found is None:
        found = _choose(find_on_hub(word.name), word)
    return replace(found, name=name, num_samples=word.num_samples or found.num_samples)


def _choose(source: DatasetSource, word: DatasetWord) -> DatasetSource:
    """Return the dataset on the hub and with the subsets that its word names."""
    if word.subsets:
        source = replace(source, subsets=word.subsets)
    if word.hub is None:
        return source
    other: Hub = "modelscope" if word.hub == "huggingface" else "huggingface"
    if getattr(source, word.hub) is None:
        raise WorkerError(
            f"dataset {word.name!r}: it is not known on {HUB_NAMES[word.hub]}",
            hint=f"write {word.name} without a prefix, which reads it from {HUB_NAMES[other]}",
        )
    if word.hub == "huggingface":
        return replace(source, modelscope=None)
    return replace(source, huggingface=None)


def find_on_hub(name: str) -> DatasetSource:
    """Return where a dataset is that is neither a file nor registered: a name of the catalog, or a hub id.

    Raises:
        WorkerError: it is one that cannot be trained on.
        ConfigError: the user's catalog is broken.
    """
    entry = DATASETS.lookup(name)
    if entry is not None:
        return _from_catalog(name, entry, entry.huggingface, entry.modelscope)
    if "/" not in name and (similar := did_you_mean(name, DATASETS.names())) is not None:
        raise WorkerError(
            f"dataset {name!r}: no such file, and none of that name in the catalog",
            hint=f"{similar} A dataset of a hub is written OWNER/NAME",
        )
    huggingface, modelscope = ids_of(name, DATASETS)
    known = DATASETS.with_id(name)
    if len(known) == 1:
        return _from_catalog(name, known[0], huggingface, modelscope)
    return DatasetSource(name=name, huggingface=huggingface, modelscope=modelscope)


def _from_catalog(name: str, entry: DatasetEntry, huggingface: str | None, modelscope: str | None) -> DatasetSource:
    if entry.multimodal:
        raise WorkerError(
            f"dataset {name!r} holds images or sound in a form that its hub's own code alone reads",
            hint='write its rows to a file, as {"query": "<image>...", "response": ..., "images": [...]}, and name it',
        )
    columns = WRITTEN if entry.response is not None else entry.columns
    return DatasetSource(
        name=name,
        huggingface=huggingface,
        modelscope=modelscope,
        subsets=entry.subsets,
        splits=entry.splits,
        num_samples=entry.num_samples,
        preparation=Preparation(step=entry.prepare, labels=entry.labels, query=entry.query, response=entry.response),
        layout=layout_of(entry.formatting, columns, entry.tags, origin=f"the catalog's entry {name}"),
    )
