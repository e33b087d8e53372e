"""Where a dataset is and how its rows are laid out: files, `dataset_info.json` registries, the catalog, hub ids.

In: a dataset's name as the arguments give it, a registry file. Out: a `DatasetSource`; which fields a row must have,
for the login node and the worker alike. Registries are LLaMA-Factory's
(https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md). Data itself is never read here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

from hpcbench.catalog.datasets import DATASETS, DatasetEntry
from hpcbench.catalog.hubs import PREFERS_MODELSCOPE, PREFIXES, ids_of, prefix_of
from hpcbench.data.preparation import Preparation
from hpcbench.errors import WorkerError

REGISTRY_NAME: Final = "dataset_info.json"
REGISTRY_MARK: Final = "#"
"""Between a registry's path and a dataset's name, where the two are one input of a job."""

FIELD_SETS: tuple[tuple[str, ...], ...] = (
    ("messages",),
    ("conversations",),
    ("query", "response"),
    ("instruction", "output"),
    ("question", "answer"),
)
"""Accepted sets, the first that fits is taken. All others (system, history, input, ...) are optional."""

_MEDIA: Final = ("images", "videos", "audios")
_COLUMNS: Final = {
    "alpaca": {
        "prompt": "instruction",
        "query": "input",
        "response": "output",
        "system": "system",
        "history": "history",
    },
    "sharegpt": {"messages": "conversations", "system": "system", "tools": "tools"},
}
"""LLaMA-Factory's columns -> the fields that they stand for where a registry does not say otherwise."""
_TAGS: Final = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "observation_tag": "observation",
    "function_tag": "function_call",
    "system_tag": "system",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RowLayout:
    """How a registry's rows become rows under hpcbench's field names."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Known field -> the dataset's field."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """LLaMA-Factory's tag -> the dataset's word; only for dialogues."""

    def apply(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the row under the known fields; unknown ones are left out, an absent prompt is empty."""
        if not self.columns:
            return dict(row)
        found = {known: row[own] for known, own in self.columns.items() if own in row}
        if "output" in found:
            found.setdefault("instruction", "")
        if isinstance(found.get("conversations"), list):
            found["conversations"] = [self._turn(turn) for turn in found["conversations"]]
        return found

    def names(self, fields: set[str]) -> set[str]:
        """Return which known fields a row with these fields has."""
        return set(self.apply(dict.fromkeys(fields, ""))) if self.columns else fields

    def _turn(self, turn: object) -> object:
        if not isinstance(turn, dict):
            return turn
        tags = {**_TAGS, **self.tags}
        roles = {tags[name]: _TAGS[name] for name in _TAGS if name not in {"role_tag", "content_tag"}}
        role = turn.get(tags["role_tag"])
        return {"from": roles.get(str(role), role), "value": turn.get(tags["content_tag"])}


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSource:
    """One dataset, found."""

    name: str
    path: Path | None = None
    """Local file or folder; None means a hub."""
    huggingface: str | None = None
    modelscope: str | None = None
    subsets: tuple[str | None, ...] = (None,)
    """On a hub; one None where the dataset has only one."""
    splits: tuple[str, ...] = ("train",)
    preparation: Preparation = field(default_factory=Preparation)
    """What is done to a row before `layout`."""
    layout: RowLayout = field(default_factory=RowLayout)


def find_dataset(name: str, *, registry: str | None) -> DatasetSource:
    """Return where a dataset is: a local path, a name of the registry, of the catalog, or a hub id.

    Args:
        name: as in the arguments.
        registry: `dataset_info.json`, or None.

    Raises:
        WorkerError: the registry is broken, or the dataset is one that cannot be trained on.
        ConfigError: the user's catalog is broken.
    """
    if Path(name).is_absolute() or Path(name).exists():
        return DatasetSource(name=name, path=Path(name))
    if registry is not None:
        entries = read_registry(Path(registry))
        if name in entries:
            return _from_registry(name, entries[name], Path(registry))
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
    huggingface, modelscope = ids_of(name, DATASETS)
    known = [entry for entry in DATASETS.entries() if name in {entry.huggingface, entry.modelscope}]
    if len(known) == 1:
        return _from_catalog(name, known[0], huggingface, modelscope)
    return DatasetSource(name=name, huggingface=huggingface, modelscope=modelscope)


def _from_catalog(name: str, entry: DatasetEntry, huggingface: str | None, modelscope: str | None) -> DatasetSource:
    if entry.multimodal:
        raise WorkerError(
            f"dataset {name!r} holds images or sound; hpcbench trains on text only", hint="choose a dataset of text"
        )
    return DatasetSource(
        name=name,
        huggingface=huggingface,
        modelscope=modelscope,
        subsets=entry.subsets,
        splits=entry.splits,
        preparation=Preparation(step=entry.prepare, labels=entry.labels, query=entry.query, response=entry.response),
        layout=_layout(entry.formatting, entry.columns, entry.tags),
    )


def match_fields(names: Iterable[str]) -> tuple[str, ...] | None:
    """Return the accepted set that `names` hold, or None."""
    given = set(names)
    return next((fields for fields in FIELD_SETS if given.issuperset(fields)), None)


def describe_field_sets() -> str:
    """Return the accepted sets in one line, as error messages show them."""
    return " | ".join(" + ".join(fields) for fields in FIELD_SETS)


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
    except ValueError as error:
        raise WorkerError(f"dataset_info: {file} is not valid JSON: {error}") from error
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise WorkerError(f"dataset_info: {file} is not a mapping of dataset names to entries")
    return entries


def _from_registry(name: str, entry: Mapping[str, Any], file: Path) -> DatasetSource:
    place = f"{file}: {name}"
    columns, tags = entry.get("columns") or {}, entry.get("tags") or {}
    media = [column for column in _MEDIA if column in columns]
    if media:
        raise WorkerError(f"{place}: has {', '.join(media)}; hpcbench trains on text only")
    if entry.get("ranking") or "kto_tag" in columns:
        raise WorkerError(f"{place}: holds preferences (ranking), and hpcbench trains on answers only")
    formatting = entry.get("formatting", "alpaca")
    if formatting not in _COLUMNS:
        raise WorkerError(f"{place}: formatting {formatting!r}; expected: {', '.join(_COLUMNS)}")
    layout = _layout(formatting, columns, tags)
    if "file_name" in entry:
        path = file.parent / str(entry["file_name"])
        if not path.exists():
            raise WorkerError(f"{place}: no such file: {path}")
        return DatasetSource(name=name, path=path, layout=layout)
    if entry.get("hf_hub_url") is None and entry.get("ms_hub_url") is None:
        raise WorkerError(f"{place}: neither file_name nor hf_hub_url nor ms_hub_url")
    return DatasetSource(
        name=name,
        huggingface=entry.get("hf_hub_url"),
        modelscope=entry.get("ms_hub_url"),
        subsets=(entry.get("subset"),),
        splits=(str(entry.get("split", "train")),),
        layout=layout,
    )


def _layout(formatting: str | None, columns: Mapping[str, str], tags: Mapping[str, str]) -> RowLayout:
    if formatting is None:
        return RowLayout()
    known = _COLUMNS[formatting]
    fields = {known[column]: columns.get(column, known[column]) for column in known}
    # {"messages": "conversations"} names the field that the chat is in; hpcbench's word for it is `conversations`.
    return RowLayout(columns=fields, tags=tags if formatting == "sharegpt" else {})
