"""Where one dataset is, and how its rows are laid out.

In: values. Out: values. Registries and the catalog make it, readers follow it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hpcbench.data.columns import RowLayout
from hpcbench.data.preparation import Preparation


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
    folder: str | None = None
    """Folder of the hub's repository that the data are in; None is all of it."""
    splits: tuple[str, ...] = ("train",)
    num_samples: int | None = None
    """Rows to draw, some of them again where there are fewer; None takes each once."""
    preparation: Preparation = field(default_factory=Preparation)
    """What is done to a row before its columns are looked at."""
    layout: RowLayout = field(default_factory=RowLayout)
