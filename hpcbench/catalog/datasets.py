"""The datasets that hpcbench knows by name.

In: `datasets.yaml`, with the user's additions. Out: frozen entries. Where their rows are found, and what is in them, is
the business of `data/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from hpcbench.catalog.files import Catalog, HubEntry

PreparationStep = Literal[
    "dialogue",
    "general dialogue",
    "dialogue with tools",
    "dialogue with plugins",
    "rounds",
    "chat rounds",
    "without history",
    "answer and context",
    "problem and code",
    "chapters",
]


class DatasetEntry(HubEntry):
    """One dataset of the catalog."""

    subset: str | tuple[str, ...] | None = None
    """One subset, or several whose rows follow each other; None where there is only one."""
    split: str | tuple[str, ...] = "train"
    """One split, or several whose rows follow each other."""
    formatting: Literal["alpaca", "sharegpt", "openai"] | None = None
    """As in a registry of LLaMA-Factory; without columns, None finds them by their names."""
    columns: Mapping[str, str] = {}
    """LLaMA-Factory's column (prompt, query, response, messages, ...) -> the dataset's column; all that is read."""
    tags: Mapping[str, str] = {}
    """LLaMA-Factory's tag (role_tag, user_tag, ...) -> the dataset's word."""
    prepare: PreparationStep | None = None
    """What `data/preparation.py` does to each row first."""
    labels: Mapping[str, tuple[str, ...]] = {}
    """Column of numbers -> the words that they count from 0."""
    query: str | None = None
    """Text of the question, with `{column}` for the row's values; with `response` only."""
    response: str | None = None
    """Text of the answer, as `query`; a row whose named columns are empty is left out."""
    num_samples: int | None = None
    """Rows to draw; None takes each once."""
    multimodal: bool = False

    @property
    def subsets(self) -> tuple[str | None, ...]:
        """Return the subsets, in order; one None where the dataset has only one."""
        return self.subset if isinstance(self.subset, tuple) else (self.subset,)

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the splits, in order."""
        return self.split if isinstance(self.split, tuple) else (self.split,)


DATASETS: Final = Catalog(name="datasets", entry=DatasetEntry)
