"""The models and chat templates that hpcbench knows by name.

In: the YAML beside this file. Out: frozen entries. Light enough for a login node; it never loads a model.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

import yaml
from pydantic import BaseModel, ConfigDict


class ModelEntry(BaseModel):
    """One model of the catalog."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    huggingface: str
    """Hub id."""
    modelscope: str | None = None
    """ModelScope id, None where it is not there."""
    lora_target_modules: tuple[str, ...] = ()
    """What DEFAULT means: the attention's query, key and value."""
    template: str | None = None
    """Chat template for a tokenizer without one; None takes the tokenizer's."""
    needs_remote_code: bool = False


def lookup_model(name: str) -> ModelEntry | None:
    """Return the entry of a model type, whatever its case, or None when the catalog has none."""
    return _load_models().get(name.lower())


def list_models() -> tuple[str, ...]:
    """Return all names, sorted."""
    return tuple(sorted(_load_models()))


def lookup_template(name: str) -> str | None:
    """Return a chat template's Jinja text by its name, or None when the catalog has none."""
    return _load_templates().get(name)


def list_templates() -> tuple[str, ...]:
    """Return the names of all chat templates, sorted."""
    return tuple(sorted(_load_templates()))


@cache
def _load_models() -> dict[str, ModelEntry]:
    text = resources.files("hpcbench.catalog").joinpath("models.yaml").read_text(encoding="utf-8")
    return {name: ModelEntry(name=name, **fields) for name, fields in yaml.safe_load(text).items()}


@cache
def _load_templates() -> dict[str, str]:
    text = resources.files("hpcbench.catalog").joinpath("templates.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))
