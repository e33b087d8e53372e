"""Registries of datasets: `dataset_info.json` as LLaMA-Factory defines it.

In: a registry's file, the name of an entry. Out: the entry's `DatasetSource`, or an error that names file, entry and
key; each key is honoured or refused. The format: https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md.
Data itself is not read here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from hpcbench.data.columns import (
    ALPACA,
    KEY_TAGS,
    REGISTRY_COLUMNS,
    REGISTRY_PREFERENCES,
    REGISTRY_TAGS,
    Formatting,
    layout_of,
)
from hpcbench.data.dataset_source import DatasetSource
from hpcbench.data.values import describe, show
from hpcbench.errors import WorkerError, did_you_mean

REGISTRY_NAME: Final = "dataset_info.json"

_REMOVE: Final = "remove it; today's LLaMA-Factory does not read it either"
_HUBS: Final = ("hf_hub_url", "ms_hub_url")
_KEYS: Final = frozenset(
    {"file_name", *_HUBS, "om_hub_url", "script_url", "cloud_file_name", "formatting", "ranking"}
    | {"subset", "split", "folder", "num_samples", "columns", "tags"}
)
_MEDIA: Final = ("videos", "audios")
_REFUSED_PLACES: Final = {
    "om_hub_url": "datasets of the Modelers hub are not read",
    "script_url": "datasets made by a script are not read, since that would run its code",
    "cloud_file_name": "files in cloud storage are not read",
}


def read_registry(file: Path) -> Mapping[str, Any]:
    """Return a registry's entries as they stand in the file.

    Raises:
        WorkerError: it cannot be read, or is not a mapping of names to entries.
    """
    try:
        return _read_registry(file, file.stat().st_mtime_ns)
    except OSError as error:
        raise WorkerError(f"dataset_info: {file} cannot be read: {error.strerror}") from error


@cache
def _read_registry(file: Path, _changed_at: int) -> Mapping[str, Any]:
    try:
        entries = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise WorkerError(f"dataset_info: {file} is not valid JSON: {error}") from error
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise WorkerError(f"dataset_info: {file} is not a mapping of dataset names to entries")
    return entries


def is_of_datasets(file: Path) -> bool:
    """Return whether a file of the registry's name is the one that datasets' save_to_disk writes beside its rows."""
    try:
        found = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and isinstance(found.get("citation"), str) and "features" in found


def find_registered(name: str, file: Path) -> DatasetSource | None:
    """Return the dataset of that name, or None where the registry has none.

    Raises:
        WorkerError: the registry or the entry is broken, or asks for what hpcbench does not do.
    """
    entries = read_registry(file)
    return _Entry(name, entries[name], file).source() if name in entries else None


class _Entry:
    """One entry of a registry, checked key by key."""

    def __init__(self, name: str, values: Mapping[str, Any], file: Path) -> None:
        self._name = name
        self._values = values
        self._file = file

    def source(self) -> DatasetSource:
        values = self._values
        self._check_names("", values, _KEYS)
        formatting = self._formatting()
        columns = self._columns(formatting)
        if values.get("ranking") and not {"chosen", "rejected"} <= columns.keys():
            raise self._error("ranking", "columns names no chosen and rejected", expected="columns for both answers")
        tags = self._texts_of("tags", (*KEY_TAGS, *REGISTRY_TAGS))
        if tags and formatting == ALPACA:
            raise self._error("tags", f"with formatting {ALPACA}, which has no turns", expected="sharegpt, openai")
        layout = layout_of(formatting, columns, tags, origin=f"{self._file}: {self._name}")
        num_samples = values.get("num_samples")
        if num_samples is not None and (type(num_samples) is not int or num_samples < 1):
            raise self._error("num_samples", describe(num_samples), expected="a number of rows, at least 1")
        hubs = {key: self._text(key) for key in _HUBS}
        for key, problem in _REFUSED_PLACES.items():
            if not any(hubs.values()) and self._text(key) is not None:
                raise self._error(key, problem, expected="file_name, hf_hub_url or ms_hub_url")
        subset, folder, split = self._text("subset"), self._text("folder"), self._text("split")
        if any(hubs.values()):
            return DatasetSource(
                name=self._name,
                huggingface=hubs["hf_hub_url"],
                modelscope=hubs["ms_hub_url"],
                subsets=(subset,),
                folder=folder,
                splits=(split or "train",),
                num_samples=num_samples,
                layout=layout,
            )
        path = self._path()
        for key, value in {"subset": subset, "folder": folder}.items():
            if value is not None:
                raise self._error(key, "a file has none", expected=f"{key} beside hf_hub_url or ms_hub_url only")
        if split not in {None, "train"} and path.is_file():
            raise self._error(
                "split", f"{show(str(split))}: a file has no splits", expected="train, or a saved dataset"
            )
        return DatasetSource(
            name=self._name, path=path, splits=(split or "train",), num_samples=num_samples, layout=layout
        )

    def _formatting(self) -> Formatting:
        found = self._values.get("formatting", ALPACA)
        for formatting in REGISTRY_COLUMNS:
            if found == formatting:
                return formatting
        raise self._error("formatting", describe(found), expected=", ".join(REGISTRY_COLUMNS))

    def _path(self) -> Path:
        file_name = self._text("file_name")
        if file_name is None:
            raise WorkerError(f"{self._file}: {self._name}: neither file_name nor hf_hub_url nor ms_hub_url")
        path = self._file.parent / file_name
        # Path.exists raises where a name is too long or holds a NUL.
        if not os.path.exists(path):  # noqa: PTH110
            raise WorkerError(f"{self._file}: {self._name}: no such file: {show(file_name)}")
        return path

    def _columns(self, formatting: Formatting) -> Mapping[str, str]:
        known = REGISTRY_COLUMNS[formatting]
        everywhere = {column for columns in REGISTRY_COLUMNS.values() for column in columns}
        columns = self._texts_of("columns", (*sorted(everywhere), *_MEDIA, *REGISTRY_PREFERENCES))
        for column in columns:
            place = f"columns: {column}"
            if column in _MEDIA:
                raise self._error(place, "video or sound", expected="text and images, which hpcbench trains on")
            if column not in known and column not in REGISTRY_PREFERENCES:
                raise self._error(place, f"not read with formatting {formatting}", expected=", ".join(known))
        if ("chosen" in columns) != ("rejected" in columns):
            raise self._error("columns", "one of chosen and rejected", expected="both answers")
        if {"prompt", "query"} <= columns.keys() and not columns.keys() & {"response", "chosen"}:
            raise self._error("columns", "prompt and query without a response", expected="prompt, query and response")
        return columns

    def _texts_of(self, key: str, known: Iterable[str]) -> Mapping[str, str]:
        """Return a mapping of names to texts; null leaves a name out."""
        found = self._values.get(key)
        if found is None:
            return {}
        if not isinstance(found, dict):
            raise self._error(key, describe(found), expected="a mapping of names")
        self._check_names(key, found, known)
        for name, value in found.items():
            if value is not None and (not isinstance(value, str) or not value):
                raise self._error(f"{key}: {name}", describe(value), expected="a name")
        return {name: value for name, value in found.items() if value is not None}

    def _text(self, key: str) -> str | None:
        value = self._values.get(key)
        if value is not None and (not isinstance(value, str) or not value):
            raise self._error(key, describe(value), expected="text")
        return value

    def _check_names(self, key: str, found: Iterable[str], known: Iterable[str]) -> None:
        known = sorted(known)
        for name in found:
            if name not in known:
                place = f"{self._file}: {self._name}: " + (f"{key}: " if key else "")
                raise WorkerError(
                    f"{place}unknown key {show(name)}; expected: {', '.join(known)}",
                    hint=did_you_mean(name, known) or _REMOVE,
                )

    def _error(self, key: str, problem: str, *, expected: str) -> WorkerError:
        return WorkerError(f"{self._file}: {self._name}: {key}: {problem}; expected: {expected}")
