"""Catalog files: what hpcbench ships, with what the user adds.

In: a catalog's name, such as `models`. Out: its entries as plain mappings; an entry of the user's
`~/.config/hpcbench/<name>.yaml` replaces the shipped one of that name. It knows nothing of what the entries mean.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from hpcbench.errors import ConfigError, Problem
from hpcbench.storage.package_data import user_config_dir

Entries = Mapping[str, Any]
EntryModel = TypeVar("EntryModel", bound=BaseModel)


def user_file(name: str) -> Path:
    """Return where the user's own entries of a catalog stand, whether they exist or not."""
    return user_config_dir(os.environ) / f"{name}.yaml"


def load_entries(name: str) -> Entries:
    """Return all entries of a catalog.

    Raises:
        ConfigError: the user's file is no mapping of names to entries.
    """
    return _load(name, user_file(name))


@cache
def _load(name: str, own: Path) -> Entries:
    shipped = resources.files("hpcbench.catalog").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    entries: dict[str, Any] = dict(yaml.safe_load(shipped))
    if own.is_file():
        try:
            added = yaml.safe_load(own.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise entry_error(own, "", f"cannot be read: {error}") from error
        if not isinstance(added, dict | None) or not all(isinstance(key, str) for key in added or {}):
            raise entry_error(own, "", "not a mapping of names to entries")
        entries |= added or {}
    return entries


def lookup_entry(catalog: str, name: str, model: type[EntryModel]) -> EntryModel | None:
    """Return an entry as its model, or None when the catalog has none of that name.

    Raises:
        ConfigError: the user's entry is not usable.
    """
    fields = load_entries(catalog).get(name)
    if fields is None:
        return None
    try:
        return model(**fields)
    except (ValidationError, TypeError) as error:
        raise entry_error(user_file(catalog), name, str(error)) from error


def entry_error(file: Path, path: str, message: str) -> ConfigError:
    """Return the error for an entry that cannot be used."""
    return ConfigError([Problem(file=str(file), line=None, path=path, message=message)])
