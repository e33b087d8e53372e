"""Writes `hpcbench/catalog/peft_methods.json` from the peft that is installed: `python -m tests.support.peft_methods`."""

from __future__ import annotations

import dataclasses
import enum
import importlib.util
import inspect
import json
import re
import types
import typing
from typing import Any

import peft
from peft.config import PromptLearningConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.utils.peft_types import PeftType

from hpcbench.catalog.peft_methods import FILE

OF_PEFT_ITSELF = frozenset(
    {"task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode"}
)
"""Fields that a configuration has whatever the method, and peft or hpcbench fill in."""
NUMBERS_OR_ZERO = frozenset({"boft_block_size", "oft_block_size"})
"""Numbers whose default is a size, and 0 where another field gives it."""

WIDE_OUTPUTS = frozenset({PeftType.PVERA, PeftType.RANDLORA, PeftType.ROAD})
"""Methods whose quantized layers hand fp32 on to a base in bf16, which fails without autocast, in every evaluation."""

SIZES = frozenset({"num_virtual_tokens", "adapter_len", "adapter_layers", "encoder_hidden_size"})
"""Numbers of things that have no default."""

UNMERGEABLE = frozenset({PeftType.ADAPTION_PROMPT, PeftType.LILY, PeftType.SHADOW, PeftType.XLORA})
"""Of the methods that change modules, those whose effect cannot be put into the weights; a test tries each."""


def describe() -> dict[str, Any]:
    """Return the file's content."""
    methods = {kind.value.lower(): _describe_method(kind) for kind in PEFT_TYPE_TO_CONFIG_MAPPING}
    return {"peft": peft.__version__, "methods": dict(sorted(methods.items()))}


def _describe_method(kind: PeftType) -> dict[str, Any]:
    config, tuner = PEFT_TYPE_TO_CONFIG_MAPPING[kind], PEFT_TYPE_TO_TUNER_MAPPING[kind]
    adds_tokens = issubclass(config, PromptLearningConfig)
    bnb = f"{tuner.__module__.rpartition('.')[0]}.bnb"
    return {
        "config": config.__name__,
        "merges": not adds_tokens and kind not in UNMERGEABLE,
        "adds_tokens": adds_tokens,
        "takes_quantized": adds_tokens or (importlib.util.find_spec(bnb) is not None and kind not in WIDE_OUTPUTS),
        "fields": {
            field.name: _describe_field(config, field)
            for field in dataclasses.fields(config)
            if field.name not in OF_PEFT_ITSELF
        },
    }


def _describe_field(config: type, field: dataclasses.Field[Any]) -> dict[str, Any]:
    kinds, choices = _read_type(_hint(config, field))
    found: dict[str, Any] = {
        "kinds": [kind for kind in ("bool", "int", "float", "str", "list", "dict") if kind in kinds]
    }
    if choices and "str" in kinds:
        found["choices"] = sorted(choices)
    default = field.default if field.default is not dataclasses.MISSING else None
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    if isinstance(default, enum.Enum):
        default = default.value
    if dataclasses.is_dataclass(default):
        default = dataclasses.asdict(default)  # type: ignore[arg-type]  # an object, no class
    if default is not None:
        found["default"] = default
    if (minimum := _find_minimum(field.name, default, kinds)) is not None:
        found["minimum"] = minimum
    return found


def _find_minimum(name: str, default: Any, kinds: set[str]) -> int | None:
    """Return the least number that makes sense; annotations do not say it, and peft fails on less where it checks."""
    if name in NUMBERS_OR_ZERO:
        return 0
    if name in SIZES or (kinds == {"int"} and isinstance(default, int) and default >= 1 and "seed" not in name):
        return 1
    return 0 if kinds == {"float"} else None


def _hint(config: type, field: dataclasses.Field[Any]) -> Any:
    if not isinstance(field.type, str):
        return field.type
    owner = next(base for base in config.__mro__ if field.name in inspect.get_annotations(base))
    return eval(field.type, vars(inspect.getmodule(owner)))  # noqa: S307  # peft's own annotation


def _read_type(hint: Any) -> tuple[set[str], set[str]]:
    """Return the kinds of an annotation, and the texts of its literals."""
    origin = typing.get_origin(hint)
    if origin in {typing.Union, types.UnionType}:
        parts = [_read_type(part) for part in typing.get_args(hint)]
        kinds = {kind for part, _ in parts for kind in part}
        # Beside `str` literals are examples: peft takes other texts too.
        is_free = any("str" in part and not texts for part, texts in parts)
        return kinds, set() if is_free else {text for _, texts in parts for text in texts}
    if origin is typing.Literal:
        texts = {str(value) for value in typing.get_args(hint) if isinstance(value, str)}
        is_pattern = any(re.search(r"[^a-z0-9_-]", text) for text in texts)
        return {type(value).__name__ for value in typing.get_args(hint)}, set() if is_pattern else texts
    hint = origin or hint
    if hint is type(None):
        return set(), set()
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return {"str"}, {str(member.value) for member in hint}
    if dataclasses.is_dataclass(hint):
        return {"dict"}, set()
    return {{"tuple": "list"}.get(hint.__name__, hint.__name__)}, set()


def to_text(content: dict[str, Any]) -> str:
    """Return the file's text: a line for each field."""
    text = json.dumps(content, indent=1, sort_keys=True)
    return re.sub(r"\n {5,}", " ", re.sub(r"\n {4}}", " }", text)) + "\n"


if __name__ == "__main__":
    FILE.write_text(to_text(describe()), encoding="utf-8")
