"""Where a dataset is: a file or folder, a name of a `dataset_info.json`, a name of the catalog, a hub id.

In: a dataset's name as the arguments give it, a registry file. Out: a `DatasetSource`. Data itself is never read here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from hpcbench.catalog.datasets import DATASETS, DatasetEntry
from hpcbench.catalog.hubs import PREFERS_MODELSCOPE, PREFIXES, ids_of, prefix_of
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
        name: as in the arguments.
        registry: `dataset_info.json`, or None.

    Raises:
        WorkerError: the registry is broken, or the dataset is one that cannot be trained on.
        ConfigError: the user's catalog is broken.
    """
    # Plan makes the paths of files absolute: what else is in the folder that a job runs in is none of its data.
    if Path(name).is_absolute():
        return DatasetSource(name=name, path=Path(name))
    if registry is not None and (found := find_registered(name, Path(registry))) is not None:
        return found
    return find_on_hub(name)


def find_on_hub(name: str) -> DatasetSource:
    """Return where a dataset is that is neither a file nor registered: a name of the catalog, or a hub id.

    Raises:
        WorkerError: it is one that cannot be trained on.
        ConfigError: the user's catalog is broken.
    """
    if (prefix := prefix_of(name)) is not None:
        raise WorkerError(
            f"dataset {name!r}: prefixes of hubs ({', '.join(PREFIXES)}) are not read by this version",
            hint=f"write {name[len(prefix) :]}"
            + (f", and set {PREFERS_MODELSCOPE}=1 to read it from ModelScope" if prefix == "MS::" else ""),
        )
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
            f"dataset {name!r} holds images or sound; hpcbench trains on text only", hint="choose a dataset of text"
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
