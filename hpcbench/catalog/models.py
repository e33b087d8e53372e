"""The models and chat templates that hpcbench knows by name.

In: `models.yaml` and `templates.yaml`, with the user's additions. Out: frozen entries. Light enough for a login node:
it never loads a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from hpcbench.catalog.files import Entries, entry_error, load_entries, user_file
from hpcbench.storage.json_files import read_json

MEDIA_KEYS: Final = ("vision_config", "visual", "audio_config", "speech_config")
"""Parts of a configuration that only models of images or sound have (`visual` is Qwen-VL's)."""


class ModelEntry(BaseModel):
    """One model of the catalog."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    huggingface: str | None = None
    """Hugging Face id, None where it is not there or not known."""
    modelscope: str | None = None
    """ModelScope id, None where it is not there or not known."""
    lora_target_modules: tuple[str, ...] = ()
    """What DEFAULT means: the attention's query, key and value."""
    template: str | None = None
    """Chat template for a tokenizer without one; None takes the tokenizer's."""
    needs_remote_code: bool = False
    needs: tuple[str, ...] = ()
    """What else must be installed, as extras of hpcbench."""
    multimodal: bool = False
    """Whether it takes images or sound; such models are refused."""
    loaded: bool = False
    """Whether these weights, or a copy of them, were ever loaded by hpcbench's developers."""
    source: str
    """Where ids, target modules and template were read."""


def lookup_model(name: str) -> ModelEntry | None:
    """Return the entry of a model type, whatever its case, or None when the catalog has none.

    Raises:
        ConfigError: the user's entry is not usable.
    """
    return _models().get(name.lower())


def list_models() -> tuple[str, ...]:
    """Return all names, sorted."""
    return tuple(sorted(_models()))


def lookup_template(name: str) -> str | None:
    """Return a chat template's Jinja text by its name, or None when the catalog has none.

    Raises:
        ConfigError: the user's entry is not usable.
    """
    entry = load_entries("templates").get(name)
    if entry is None:
        return None
    if isinstance(entry, str):
        return entry
    if isinstance(entry, dict) and isinstance(entry.get("jinja"), str):
        return str(entry["jinja"])
    raise entry_error(user_file("templates"), name, "neither Jinja text nor a mapping with `jinja`")


def list_templates() -> tuple[str, ...]:
    """Return the names of all chat templates, sorted."""
    return tuple(sorted(load_entries("templates")))


def _models() -> Mapping[str, ModelEntry]:
    return _parse_models(user_file("models"))


@cache
def _parse_models(own: Path) -> Mapping[str, ModelEntry]:
    entries: Entries = load_entries("models")
    found = {}
    for name, fields in entries.items():
        try:
            found[name.lower()] = ModelEntry(name=name, **fields)
        except (ValidationError, TypeError) as error:
            raise entry_error(own, name, str(error)) from error
    return found


def find_media(folder: Path) -> str | None:
    """Return the part of a model's configuration that is for images or sound, or None."""
    config = read_json(folder / "config.json") or {}
    return next((key for key in MEDIA_KEYS if isinstance(config.get(key), dict)), None)
