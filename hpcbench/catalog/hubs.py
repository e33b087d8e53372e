"""Which hub a model or a dataset is read from.

In: ids on the two hubs, a catalog and the environment. Out: a hub and the id there. An id that the catalog knows from
one hub alone never goes to the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from hpcbench.catalog.files import Catalog, EntryT, HubEntry

Hub = Literal["huggingface", "modelscope"]
HUB_NAMES: Final[Mapping[Hub, str]] = {"huggingface": "Hugging Face", "modelscope": "ModelScope"}
PREFERS_MODELSCOPE: Final = "USE_MODELSCOPE_HUB"
"""SWIFT 2.x's variable: 1 takes ModelScope where both hubs have something."""
HUB_OF_PREFIX: Final[Mapping[str, Hub]] = {"HF::": "huggingface", "MS::": "modelscope"}
"""SWIFT's prefixes of dataset names -> the hub that they name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnHub:
    """A repository on a hub."""

    hub: Hub
    id: str
    revision: str | None = None
    """Branch, tag or commit; None is the main branch."""

    def __str__(self) -> str:
        return f"{HUB_NAMES[self.hub]}'s {self.id}" + (f" at {self.revision}" if self.revision else "")


def prefers_modelscope(environ: Mapping[str, str]) -> bool:
    """Return whether the user chose ModelScope where there is a choice."""
    return environ.get(PREFERS_MODELSCOPE, "").lower() in {"1", "true"}


def pick_hub(huggingface: str | None, modelscope: str | None, environ: Mapping[str, str]) -> OnHub | None:
    """Return where to read something of these ids: the hub that has it, by choice or Hugging Face where both do."""
    if modelscope is not None and (huggingface is None or prefers_modelscope(environ)):
        return OnHub(hub="modelscope", id=modelscope)
    return None if huggingface is None else OnHub(hub="huggingface", id=huggingface)


def ids_of(name: str, catalog: Catalog[EntryT]) -> tuple[str | None, str | None]:
    """Return (Hugging Face's, ModelScope's) id of a bare hub id: None for the hub that does not have it.

    One that the catalog does not know may be on either.
    """
    hubs = {hub for entry in catalog.with_id(name) for hub in HUB_NAMES if _id_on(entry, hub) == name}
    if not hubs:
        return name, name
    return (name if "huggingface" in hubs else None), (name if "modelscope" in hubs else None)


def _id_on(entry: object, hub: Hub) -> str | None:
    return entry.id_on(hub) if isinstance(entry, HubEntry) else None


def prefix_of(name: str) -> str | None:
    """Return the hub's prefix of a dataset name, in SWIFT 2.x's spelling, or None."""
    return next((prefix for prefix in HUB_OF_PREFIX if name.upper().startswith(prefix)), None)
