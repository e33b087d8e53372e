"""The datasets that hpcbench knows by name.

In: `datasets.yaml`, with the user's additions. Out: frozen entries. Where their rows are found, and what is in them, is
the business of `data/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from hpcbench.catalog.files import Catalog, HubEntry


class DatasetEntry(HubEntry):
    """One dataset of the catalog or of a registry."""

    subset: str | None = None
    split: str = "train"
    formatting: Literal["alpaca", "sharegpt"] | None = None
    """None finds the fields by their names."""
    columns: Mapping[str, str] = {}
    """LLaMA-Factory's column (prompt, query, response, messages, ...) -> the dataset's field."""
    tags: Mapping[str, str] = {}
    """LLaMA-Factory's tag (role_tag, user_tag, ...) -> the dataset's word."""
    multimodal: bool = False


DATASETS: Final = Catalog(name="datasets", entry=DatasetEntry)
