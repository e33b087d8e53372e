"""Catalog files: what hpcbench ships, with what the user adds.

In: a catalog's name, such as `models`, and the model of its entries. Out: its names and checked entries; an entry of
the user's `~/.config/hpcbench/<name>.yaml` replaces the shipped one of that name.
The meaning of entries is in the modules beside this one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from hpcbench.errors import ConfigError
from hpcbench.storage.located_yaml import Located, describe_mistakes, read_mapping, to_plain
from hpcbench.storage.package_data import user_config_dir


class CatalogEntry(BaseModel):
    """One entry of a catalog; it cannot be changed, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class HubEntry(CatalogEntry):
    """An entry for what can be downloaded from a hub."""

    huggingface: str | None = None
    """Hugging Face id, None where it is not there or not known."""
    modelscope: str | None = None
    """ModelScope id, None where it is not there or not known."""
    source: str
    """Where the entry was read."""

    def id_on(self, hub: Literal["huggingface", "modelscope"]) -> str | None:
        """Return the id on a hub; the two hubs often spell the owner differently, for example Qwen and qwen."""
        return self.modelscope if hub == "modelscope" else self.huggingface


EntryT = TypeVar("EntryT", bound=CatalogEntry)


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog(Generic[EntryT]):
    """The entries of one catalog, each checked when it is asked for; one mistake does not spoil the others.

    All methods raise a ConfigError, with file and line, where the user's file or entry cannot be used.
    """

    name: str
    entry: type[EntryT]
    any_case: bool = False
    """Whether the case of a name does not matter; names are listed in lower case then."""

    def names(self) -> tuple[str, ...]:
        """Return the names of all entries, sorted."""
        return tuple(sorted(self._load()))

    def with_id(self, hub_id: str) -> tuple[EntryT, ...]:
        """Return the entries of a hub's id, by their names; one with a mistake is left to the lookup of its name."""
        names = _names_by_id(self.name, self._own_file(), any_case=self.any_case).get(hub_id, ())
        return tuple(entry for name in names if (entry := self._lookup_sound(name)) is not None)

    def _lookup_sound(self, name: str) -> EntryT | None:
        try:
            return self.lookup(name)
        except ConfigError:
            return None

    def lookup(self, name: str) -> EntryT | None:
        """Return an entry by its name, or None when the catalog has none of that name."""
        if (found := self._load().get(name.lower() if self.any_case else name)) is None:
            return None
        try:
            return self.entry.model_validate(to_plain(found))
        except ValidationError as error:
            raise ConfigError(describe_mistakes(error, found, self.entry)) from error

    def _load(self) -> Mapping[str, Located]:
        return _read(self.name, self._own_file(), any_case=self.any_case)

    def _own_file(self) -> Path:
        # Part of the caches' keys: XDG_CONFIG_HOME may change between two calls.
        return user_config_dir(os.environ) / f"{self.name}.yaml"


@cache
def _read(name: str, own: Path, *, any_case: bool) -> Mapping[str, Located]:
    entries: dict[str, Located] = {}
    for file in (Path(__file__).with_name(f"{name}.yaml"), own):
        if file.is_file():
            found = read_mapping(file).mapping or {}
            entries |= {key.lower() if any_case else key: entry for key, entry in found.items()}
    return entries


@cache
def _names_by_id(name: str, own: Path, *, any_case: bool) -> Mapping[str, Sequence[str]]:
    """Return the sorted names of the entries of each id, on whatever hub it is."""
    found: dict[str, list[str]] = {}
    for key, entry in sorted(_read(name, own, any_case=any_case).items()):
        parts = entry.mapping or {}
        values = [parts[hub].value for hub in ("huggingface", "modelscope") if hub in parts]
        for hub_id in dict.fromkeys(value for value in values if isinstance(value, str)):
            found.setdefault(hub_id, []).append(key)
    return found
