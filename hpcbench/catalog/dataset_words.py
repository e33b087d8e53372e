"""How a dataset is written in the arguments: `[HF::|MS::]NAME[:SUBSET/SUBSET][#ROWS]`, as SWIFT has it.

In: one word of `dataset` and its like. Out: its parts (pure). Whether NAME is a file, an entry or an id is not
looked at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from hpcbench.catalog.hubs import HUB_OF_PREFIX, Hub, prefix_of

_ROWS: Final = re.compile(r"#(-1|\d+)$")
_ALL: Final = -1
ALL_ROWS: Final = f"#{_ALL}"
"""Behind a file whose own name ends in # and a number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetWord:
    """One dataset as it is written."""

    name: str
    """Of a file, an entry or a hub's id."""
    hub: Hub | None = None
    """The hub that a prefix names."""
    subsets: tuple[str, ...] = ()
    num_samples: int | None = None
    """Rows to draw; None takes each once."""


def split_word(word: str) -> DatasetWord:
    """Return the parts of a dataset's word; a file's path has no hub and no subsets."""
    match = _ROWS.search(word)
    rows = None if match is None else int(match.group(1))
    name = word if match is None else word[: match.start()]
    num_samples = None if rows == _ALL else rows
    if name.startswith(("/", "./", "../", "~")):
        return DatasetWord(name=name, num_samples=num_samples)
    prefix = prefix_of(name)
    name, _, subsets = name[len(prefix or "") :].partition(":")
    return DatasetWord(
        name=name,
        hub=None if prefix is None else HUB_OF_PREFIX[prefix],
        subsets=tuple(filter(None, subsets.split("/"))),
        num_samples=num_samples,
    )
