"""The models and chat templates that hpcbench knows by name.

In: `models.yaml` and `templates.yaml`, with the user's additions. Out: frozen entries. Light enough for a login node:
it never loads a model.
"""

from __future__ import annotations

from typing import Final

from pydantic import ConfigDict, model_validator

from hpcbench.catalog.files import Catalog, CatalogEntry, HubEntry


class ModelEntry(HubEntry):
    """One model of the catalog."""

    lora_target_modules: tuple[str, ...] = ()
    """What DEFAULT means: the attention's query, key and value."""
    template: str | None = None
    """Chat template for a tokenizer without one; None takes the tokenizer's."""
    needs_remote_code: bool = False
    needs: tuple[str, ...] = ()
    """What else must be installed, as extras of hpcbench."""
    cannot_run: str | None = None
    """Why these weights cannot be loaded by this version, or None; such models are refused with it."""
    multimodal: bool = False
    """Whether it takes images or sound in a way that hpcbench does not train; such models are refused."""
    reads_images: bool = False
    """Whether it is of a type that hpcbench trains with images."""
    loaded: bool = False
    """Whether these weights, or a copy of them, were ever loaded by hpcbench's developers."""


class ChatTemplate(CatalogEntry):
    """One chat template; a bare text is its Jinja."""

    model_config = ConfigDict(extra="ignore")

    jinja: str
    source: str = ""
    """Where it was read."""

    @model_validator(mode="before")
    @classmethod
    def _take_text(cls, value: object) -> object:
        return {"jinja": value} if isinstance(value, str) else value


MODELS: Final = Catalog(name="models", entry=ModelEntry, any_case=True)
TEMPLATES: Final = Catalog(name="templates", entry=ChatTemplate)
