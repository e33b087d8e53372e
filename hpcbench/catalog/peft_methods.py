"""The fine-tuning methods of peft and the fields of their configurations, known without peft.

In: `peft_methods.json`, which `python -m tests.support.peft_methods` makes from the peft that is installed. Out: each
method by its name, which is peft's own in lower case. A login node need not have peft, and to import it takes seconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

FILE: Final = Path(__file__).with_suffix(".json")

KINDS: Final[Mapping[str, str]] = {
    "bool": "true or false",
    "int": "integer",
    "float": "number",
    "str": "text",
    "list": "a list",
    "dict": "a mapping",
}
"""What a field may hold -> in words; a field may be null where its default is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeftField:
    """One field of a configuration."""

    kinds: tuple[str, ...]
    """Of `KINDS`, those that it takes."""
    default: Any
    choices: tuple[str, ...] = ()
    """The only texts that it takes; empty where it takes any."""
    minimum: int | None = None
    """The least number that it takes."""

    def describe(self) -> str:
        """Return what the field takes, in words."""
        return " or ".join(self._describe_kind(kind) for kind in self.kinds)

    def _describe_kind(self, kind: str) -> str:
        if kind == "str" and self.choices:
            return ", ".join(self.choices)
        has_minimum = self.minimum is not None and kind in {"int", "float"}
        return KINDS[kind] + (f", {self.minimum} or more" if has_minimum else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class PeftMethod:
    """One method."""

    config: str
    """Name of its configuration's class in peft."""
    fields: Mapping[str, PeftField]
    merges: bool
    """Whether what it trained can be merged into the base's weights."""
    adds_tokens: bool
    """Whether it trains tokens that stand before each sample, and leaves the model's modules alone."""
    takes_quantized: bool
    """Whether peft puts it on linear layers of 4 and 8 bits (bitsandbytes)."""


@cache
def peft_methods() -> Mapping[str, PeftMethod]:
    """Return all methods by name."""
    methods = {name: _read_method(entry) for name, entry in _content()["methods"].items()}
    return MappingProxyType(methods)


def peft_version() -> str:
    """Return the version of peft that the file was made from."""
    return str(_content()["peft"])


def _read_method(entry: dict[str, Any]) -> PeftMethod:
    fields = {
        name: PeftField(
            kinds=tuple(field["kinds"]),
            default=field.get("default"),
            choices=tuple(field.get("choices", ())),
            minimum=field.get("minimum"),
        )
        for name, field in entry["fields"].items()
    }
    return PeftMethod(**{**entry, "fields": MappingProxyType(fields)})


@cache
def _content() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return content
