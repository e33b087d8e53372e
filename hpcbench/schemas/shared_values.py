"""Tens of thousands of models that are alike, held in little memory and written in little room.

In: validated frozen models. Out: equal models that share what they have in common, and the differences of one from
another as plain JSON values. The set of the names that were given is that of the model that a model shares with, and
nothing is validated here.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import compress
from operator import is_not
from typing import Final, TypeVar, cast

from pydantic import BaseModel

ModelT = TypeVar("ModelT", bound=BaseModel)
ValueT = TypeVar("ValueT")

_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
_COMPARED: Final = _SCALARS | {dict, list, tuple}
"""What is compared as it is; of models the fields are."""


class NotAlike(Exception):  # noqa: N818 -- an answer, not an error
    """Two values differ in more than scalars."""


def variant(model: ModelT, changes: Mapping[str, object]) -> ModelT:
    """Return a model with some fields otherwise, all validated before, which shares the rest with the first."""
    changed = object.__new__(type(model))
    # As pydantic's own __copy__, without the copies that nobody changes: of tens of thousands these take half the time.
    object.__setattr__(changed, "__dict__", {**vars(model), **changes})
    object.__setattr__(changed, "__pydantic_fields_set__", model.__pydantic_fields_set__)
    object.__setattr__(changed, "__pydantic_extra__", model.__pydantic_extra__)
    object.__setattr__(changed, "__pydantic_private__", model.__pydantic_private__)
    return changed


def differences(value: object, base: object) -> object:
    """Return the scalars in which a value differs from one of its form, for `changed`.

    A mapping of fields, keys or indexes is of a value that differs in parts, anything else is the value itself.

    Raises:
        NotAlike: a part has another type, other keys or another length, and is more than a scalar.
    """
    kind = type(value)
    if kind in _SCALARS:
        return value
    if kind is not type(base):
        raise NotAlike
    if isinstance(value, BaseModel):
        return _different_parts(vars(value), vars(cast("BaseModel", base)))
    if isinstance(value, dict):
        return _different_parts(value, cast("dict[str, object]", base))
    if isinstance(value, (list, tuple)) and len(value) == len(cast("list[object]", base)):
        numbered = {str(number): part for number, part in enumerate(value)}
        return _different_parts(numbered, dict(zip(numbered, cast("list[object]", base), strict=True)))
    raise NotAlike


def _different_parts(parts: Mapping[str, object], of_base: Mapping[str, object]) -> dict[str, object]:
    if tuple(parts) != tuple(of_base):
        raise NotAlike
    found = {}
    # Of hundreds of fields most are the very same objects, and only the others are looked at.
    for name in compress(parts, map(is_not, parts.values(), of_base.values())):
        part, known = parts[name], of_base[name]
        if not _is_written_alike(part, known):
            change = differences(part, known)
            if type(change) is not dict or change:
                found[name] = change
    return found


def _is_written_alike(part: object, known: object) -> bool:
    """Return whether two values are the same to any report: 1, 1.0 and True are equal, and so are 0.0 and -0.0."""
    kind = type(part)
    if kind is not type(known) or kind not in _COMPARED or part != known:
        return False
    if kind is float:
        return part != 0.0 or repr(part) == repr(known)
    return kind in _SCALARS or not part or repr(part) == repr(known)


def changed(base: ValueT, change: object) -> ValueT:
    """Return the value that `differences` was given, which shares all other parts with the base.

    Raises:
        KeyError, IndexError, TypeError, ValueError: the changes are not those of a value of this form.
    """
    return cast("ValueT", _changed(base, change))


def _changed(base: object, change: object) -> object:
    if type(change) is not dict:
        return change
    if isinstance(base, BaseModel):
        return variant(base, _changed_parts(vars(base), change))
    if isinstance(base, dict):
        return {**base, **_changed_parts(base, change)}
    if not isinstance(base, (list, tuple)):
        raise TypeError(type(base))
    parts = list(base)
    for number, part in change.items():
        parts[int(number)] = _changed(parts[int(number)], part)
    return type(base)(parts)


def _changed_parts(base: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    return {
        name: change if type(change) is not dict else _changed(base[name], change) for name, change in changes.items()
    }


def scalar_differences(model: ModelT, base: ModelT) -> dict[str, object] | None:
    """Return the fields that a model has otherwise than another one, None where such a field is more than a scalar."""
    try:
        found = differences(model, base)
    except NotAlike:
        return None
    assert isinstance(found, dict)  # noqa: S101 -- as of all models
    return None if any(type(change) is dict for change in found.values()) else found


class SharedFieldNames:
    """Sets of the names that were given, each held once."""

    def __init__(self) -> None:
        self._sets: dict[frozenset[str], set[str]] = {}

    def share(self, model: BaseModel) -> None:
        """Let a model share its set with those before it."""
        names = model.model_fields_set
        object.__setattr__(model, "__pydantic_fields_set__", self._sets.setdefault(frozenset(names), names))
