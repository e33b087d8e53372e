"""The modules of a model by the names of its tensors, and which of them an argument's words name.

In: names of tensors or modules, words of `lora_target_modules` and its like. Out: what matches, and what does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

ALL: Final = "ALL"
DEFAULT: Final = "DEFAULT"
EMBEDDING: Final = "EMBEDDING"
GROUP_WORDS: Final = frozenset({ALL, DEFAULT, EMBEDDING})
"""Words for several modules, of which the model's architecture says which."""

QKV_NAMES: Final = (
    ("q_proj", "k_proj", "v_proj"),
    ("query", "key", "value"),
    ("c_attn",),
    ("query_key_value",),
    ("qkv_proj",),
    ("W_pack",),
    ("wqkv",),
)
"""What architectures call the projections to query, key and value; the first that a model has in full is taken."""


def module_names(tensors: Iterable[str]) -> frozenset[str]:
    """Return all modules that the tensors belong to, those that hold others too: `a.b.weight` is in `a` and `a.b`."""
    return frozenset(name for tensor in tensors for name in _holders(tensor))


def with_matrices(tensors: Iterable[str], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return the tensors of more than one dimension, and those whose shape is not known."""
    return [name for name in tensors if name not in shapes or len(shapes[name]) > 1]


def find_unmatched(words: Iterable[str], names: Iterable[str], *, groups: frozenset[str] = frozenset()) -> list[str]:
    """Return the words that no module is named by, as peft names them: in full, or by the end after a dot.

    Args:
        words: of an argument.
        names: of modules.
        groups: words that the argument takes for several modules.
    """
    ends = {end for name in names for end in ends_of(name)}
    return [word for word in words if word not in ends and word not in groups]


def find_unsaved(words: Iterable[str], names: Iterable[str]) -> list[str]:
    """Return the words that no module's name ends with: so peft finds modules to save, `norm` in `layernorm` too."""
    known = tuple(names)
    return [word for word in words if not any(name.endswith(word) for name in known)]


def last_parts(tensors: Iterable[str]) -> list[str]:
    """Return the names of modules with a weight of their own, less the path before them, for a message."""
    found = {tensor.rsplit(".", 2)[-2] for tensor in tensors if tensor.endswith(".weight") and tensor.count(".") > 1}
    return sorted(name for name in found if not name.isdecimal())


def has_experts(tensors: Iterable[str]) -> bool:
    """Return whether the model is a mixture of experts, whose tensors transformers may put together when it loads."""
    return any(re.search(r"\.experts\.", name) for name in tensors)


def choose_default(names: Iterable[str], known: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Return the projections to query, key and value of a model, or None where its modules have no known names.

    Args:
        names: of its modules.
        known: what the catalog says of the model; None where it says nothing.
    """
    lasts = {name.rsplit(".", 1)[-1] for name in names}
    return next((words for words in (*((known,) if known else ()), *QKV_NAMES) if lasts.issuperset(words)), None)


def _holders(tensor: str) -> Iterator[str]:
    parts = tensor.split(".")
    for count in range(1, len(parts)):
        yield ".".join(parts[:count])


def ends_of(name: str) -> Iterator[str]:
    """Yield the name and its ends after a dot, by which peft finds modules."""
    parts = name.split(".")
    for start in range(len(parts)):
        yield ".".join(parts[start:])
