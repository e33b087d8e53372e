"""What all groups of arguments share: their base class, and the types of their fields (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Arguments(BaseModel):
    """A frozen group of arguments; unknown names are refused, and docstrings of fields are their help."""

    # Before 2.10 pydantic warns of names that begin with model_, which model_type and model_id_or_path do.
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())

    def differs_from_default(self, name: str) -> bool:
        """Return whether an argument is other than its default."""
        value: object = getattr(self, name)
        return value != _default_of(type(self), name)


@cache
def _default_of(kind: type[Arguments], name: str) -> object:
    """Return the default of an argument, which nobody may change."""
    return kind.model_fields[name].get_default(call_default_factory=True, validated_data={})


def split_words(value: object) -> object:
    """Return the list that `a,b` or `a b` is in ms-swift's scripts; leave lists alone."""
    if isinstance(value, str):
        return [word for word in value.replace(",", " ").split() if word]
    return value


def _read_integer(value: object) -> object:
    """Return the integer that a text stands for; leave all else alone."""
    return int(value) if isinstance(value, str) and value.strip().removeprefix("-").isdecimal() else value


ReadsInteger = BeforeValidator(_read_integer)
"""For literals of numbers, which pydantic does not read from text."""
Words = Annotated[tuple[str, ...], BeforeValidator(split_words)]
PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Decay = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]


Dtype = Literal["bf16", "fp16", "fp32"]
TORCH_DTYPES: Final[Mapping[Dtype, str]] = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
"""torch's names."""
