"""Tens of thousands of models that are alike, held in little memory.

In: validated frozen models. Out: equal models that share what they have in common; the set of the names that were given
is larger than the fields themselves. Nothing is validated here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

from pydantic import BaseModel

ModelT = TypeVar("ModelT", bound=BaseModel)

_SCALARS: Final = frozenset({str, int, float, bool, type(None)})


def variant(model: ModelT, changes: Mapping[str, object]) -> ModelT:
    """Return a model with some fields otherwise, all validated before, which shares the rest with the first."""
    changed = model.model_copy(update=changes)
    object.__setattr__(changed, "__pydantic_fields_set__", model.model_fields_set)
    return changed


def scalar_differences(model: ModelT, base: ModelT) -> dict[str, object] | None:
    """Return the fields that a model has otherwise than another one, None where such a field is more than a scalar."""
    both = zip(vars(model).items(), vars(base).values(), strict=True)
    found = {name: value for (name, value), known in both if value is not known and value != known}
    return found if all(type(value) in _SCALARS for value in found.values()) else None


class SharedFieldNames:
    """Sets of the names that were given, each held once."""

    def __init__(self) -> None:
        self._sets: dict[frozenset[str], set[str]] = {}

    def share(self, model: BaseModel) -> None:
        """Let a model share its set with those before it."""
        names = model.model_fields_set
        object.__setattr__(model, "__pydantic_fields_set__", self._sets.setdefault(frozenset(names), names))
