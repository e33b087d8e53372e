"""What the fields of all groups of arguments share: how they read text, and their bounds.

In: values from a suite or a command line, where numbers and lists may be text. Out: types for pydantic's fields.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Arguments(BaseModel):
    """A frozen group of arguments; unknown names are refused, and docstrings of fields are their help."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())

    def differs_from_default(self, name: str) -> bool:
        """Return whether an argument is other than its default."""
        value: object = getattr(self, name)
        default: object = type(self).model_fields[name].default
        return value != default


def _split_words(value: object) -> object:
    """Return the list that `a,b` or `a b` is in ms-swift's scripts; leave lists alone."""
    if isinstance(value, str):
        return [word for word in value.replace(",", " ").split() if word]
    return value


def _read_integer(value: object) -> object:
    """Return the integer that a text stands for; leave all else alone."""
    return int(value) if isinstance(value, str) and value.strip().isdecimal() else value


ReadsInteger = BeforeValidator(_read_integer)
"""For literals of numbers, which pydantic does not read from text."""
Words = Annotated[tuple[str, ...], BeforeValidator(_split_words)]
PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Decay = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
