"""From located values to pydantic models; pydantic's wording and types never reach the user."""

from __future__ import annotations

import contextlib
import json
import math
import re
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from hpcbench.errors import Problem, did_you_mean
from hpcbench.storage.located_yaml import Located, is_misread, show, to_plain

ModelT = TypeVar("ModelT", bound=BaseModel)

TRUE_WORDS = frozenset({"true", "yes", "on", "1"})
FALSE_WORDS = frozenset({"false", "no", "off", "0"})

_LEADING_ZERO = re.compile(r"\s*[-+]?0[0-9_]")


@dataclass(frozen=True, slots=True)
class Kind:
    """What a field takes, read off its annotation."""

    base: type | None
    """bool, int, float, str, tuple (a list of text), dict; None for a choice."""
    choices: tuple[str, ...] = ()
    bounds: str = ""
    words: tuple[str, ...] = ()
    """Words that a number may be, too: auto."""

    def describe(self) -> str:
        """Return what is expected, in words."""
        if self.base is None:
            return ", ".join(self.choices)
        words = {
            bool: "true or false",
            int: "integer",
            float: "number",
            str: "text",
            tuple: "text, or a list of text",
            dict: "a mapping, which may be JSON text",
        }
        return ", or ".join((words[self.base] + self.bounds, *self.words))


@cache
def kinds_of(model: type[BaseModel]) -> Mapping[str, Kind]:
    """Return what each field of `model` takes."""
    return {name: _kind(info) for name, info in model.model_fields.items()}


def build(
    model: type[ModelT],
    given: Mapping[str, Located],
    *,
    at: Located,
    problems: list[Problem],
    extra: Mapping[str, Any] | None = None,
) -> ModelT | None:
    """Return the model made of `given`, or None with the reasons in `problems`, at `at` where no value is to blame.

    Values in `extra` are typed already and replace given ones.
    """
    extra = extra or {}
    values: dict[str, Any] = {}
    failed = False
    for name, kind in kinds_of(model).items():
        before = len(problems)
        if name in extra:
            values[name] = extra[name]
        elif name in given:
            values[name] = take(given[name], kind, problems)
        if len(problems) > before:
            del values[name]
            failed = True
    try:
        built = model.model_validate(values)
    except ValidationError as error:
        # A value that was refused above must not be called missing here.
        details = [
            detail for detail in error.errors(include_url=False) if not failed or detail["loc"][:1] in _places(values)
        ]
        problems += [_explain(detail, model, given, at) for detail in details]
        return None
    return None if failed else built


def take(value: Located, kind: Kind, problems: list[Problem]) -> Any:
    """Return the value as a field of this kind takes it, or None with the reason in `problems`."""
    if value.is_forgotten:
        problems.append(value.problem("no value", expected=kind.describe(), hint="write null to take the default"))
        return None
    if value.value is None:
        return None
    if kind.base is None:
        return _take_choice(value, kind, problems)
    if kind.base is str:
        return take_text(value, problems)
    if kind.base is tuple:
        return take_words(value, problems)
    if kind.base is dict:
        return _take_mapping(value, kind, problems)
    if kind.base is bool:
        return _take_bool(value, kind, problems)
    return _take_number(value, kind, problems)


def take_text(value: Located, problems: list[Problem], *, expected: str = "text") -> str | None:
    """Return the text as written, or None with the reason in `problems`.

    Unquoted numbers give their source text (1.10 stays 1.10); `yes` and `no` must be quoted.
    """
    if isinstance(value.value, str):
        return value.value
    if isinstance(value.value, bool) and value.raw is not None:
        message = f"got {value.raw}, which YAML reads as {'true' if value.value else 'false'}"
        problems.append(value.problem(message, expected=expected, hint=f'quote it: "{value.raw}"'))
        return None
    if isinstance(value.value, int | float) and value.raw is not None:
        return value.raw
    problems.append(value.problem(f"got {show(value)}", expected=expected))
    return None


def take_words(value: Located, problems: list[Problem], *, expected: str = "text, or a list of text") -> list[str]:
    """Return a list of text, or of one text split at commas and spaces as ms-swift does."""
    if value.items is None:
        text = take_text(value, problems, expected=expected)
        return [] if text is None else text.replace(",", " ").split()
    found = [take_text(item, problems) for item in value.items]
    return [text for text in found if text is not None]


def take_count(value: Located, problems: list[Problem], *, low: int, high: int) -> int | None:
    """Return an integer between two bounds, or None with the reason in `problems`."""
    kind = Kind(int, bounds=f", {low} to {high}")
    number = take(value, kind, problems)
    if number is None:
        return None
    if not isinstance(number, int) or not low <= number <= high:
        problems.append(value.problem(f"got {show(value)}", expected=kind.describe()))
        return None
    return number


def _take_choice(value: Located, kind: Kind, problems: list[Problem]) -> str | None:
    # YAML 1.1 reads an unquoted `no` as false, which is a choice of save_strategy.
    text = value.raw if value.raw is not None else value.value
    if isinstance(text, str) and text in kind.choices:
        return text
    hint = did_you_mean(text, kind.choices) if isinstance(text, str) else None
    problems.append(value.problem(f"unknown value {show(value)}", expected=kind.describe(), hint=hint))
    return None


def _take_bool(value: Located, kind: Kind, problems: list[Problem]) -> bool | None:
    if isinstance(value.value, bool):
        return value.value
    word = str(value.value).strip().lower() if isinstance(value.value, str | int) else ""
    if word in TRUE_WORDS or word in FALSE_WORDS:
        return word in TRUE_WORDS
    _refuse(value, kind, problems)
    return None


def _take_mapping(value: Located, kind: Kind, problems: list[Problem]) -> Any:
    if isinstance(value.value, str):
        # SWIFT's scripts write mappings as JSON text.
        with contextlib.suppress(ValueError):
            if isinstance(found := json.loads(value.value), dict):
                return found
    if value.mapping is None:
        _refuse(value, kind, problems)
        return None
    return to_plain(value)


def _take_number(value: Located, kind: Kind, problems: list[Problem]) -> Any:
    """Return a number, or a word that stands for one; "1" and 5e-5 count, booleans and octal 0123 do not."""
    if value.value in kind.words:
        return value.value
    written = value.value if value.raw is None else value.raw
    if is_misread(value) or (isinstance(written, str) and _LEADING_ZERO.match(written)):
        message = f"got {show(value)}, which can be read in two ways"
        hint = None if ":" in str(written) else "write it without a leading 0"
        problems.append(value.problem(message, expected=kind.describe(), hint=hint))
        return None
    number = _parse_number(value.value)
    if number is None or (kind.base is int and number != int(number)):
        _refuse(value, kind, problems)
        return None
    return int(number) if kind.base is int else number


def _parse_number(value: object) -> int | float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    for parse in (int, float):
        try:
            number = parse(value) if isinstance(value, str) else value
        except ValueError:
            continue
        return number if isinstance(number, int) or math.isfinite(number) else None
    return None


def _places(values: Mapping[str, Any]) -> set[tuple[str]]:
    return {(name,) for name in values}


def _refuse(value: Located, kind: Kind, problems: list[Problem]) -> None:
    problems.append(value.problem(f"got {show(value)}", expected=kind.describe()))


def _explain(detail: Mapping[str, Any], model: type[BaseModel], given: Mapping[str, Located], at: Located) -> Problem:
    """Turn one of pydantic's errors into a Problem at the value that caused it."""
    place = detail["loc"]
    name = str(place[0]) if place else ""
    if name in given:
        value = given[name]
        if detail["type"] == "value_error":
            what, _, expected = str(detail["ctx"]["error"]).partition(": ")
            return value.problem(what, expected=expected or None)
        return value.problem(f"got {show(value)}", expected=kinds_of(model)[name].describe())
    if detail["type"] == "value_error":
        what, _, hint = str(detail["ctx"]["error"]).partition(": ")
        return at.problem(what, hint=hint or None)
    kind = kinds_of(model).get(name)
    return at.problem(f"`{name}` is missing", expected=None if kind is None else kind.describe())


def _kind(info: FieldInfo) -> Kind:
    annotation, metadata = _unwrap(info.annotation)
    metadata = [*info.metadata, *metadata]
    origin = get_origin(annotation) or annotation
    if origin is Literal:
        return Kind(None, choices=tuple(str(choice) for choice in get_args(annotation)))
    return Kind(origin if isinstance(origin, type) else str, bounds=_bounds(metadata), words=_words(info.annotation))


def _words(annotation: Any) -> tuple[str, ...]:
    """Return the words that a union takes beside a number."""
    parts = get_args(annotation) if get_origin(annotation) in {Union, types.UnionType} else ()
    choices = (choice for part in parts if get_origin(part) is Literal for choice in get_args(part))
    return tuple(choice for choice in choices if isinstance(choice, str))


def _unwrap(annotation: Any) -> tuple[Any, list[Any]]:
    """Strip `| None` and Annotated from an annotation; return what is left and the metadata found on the way."""
    metadata: list[Any] = []
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *found = get_args(annotation)
            metadata += found
        elif get_origin(annotation) in {Union, types.UnionType}:
            annotation = next(part for part in get_args(annotation) if part is not type(None))
        else:
            return annotation, metadata


def _bounds(metadata: Iterable[Any]) -> str:
    """Return `, 1 or more` and the like."""
    limits: dict[str, Any] = {}
    for item in _flatten(metadata):
        for sign in ("ge", "gt", "le", "lt"):
            if (limit := getattr(item, sign, None)) is not None:
                limits[sign] = limit
    low, above, high, below = (limits.get(sign) for sign in ("ge", "gt", "le", "lt"))
    if low is not None and high is not None:
        return f", {low:g} to {high:g}"
    if low is not None:
        return f", {low:g} or more"
    if above is not None and below is not None:
        return f", more than {above:g} and less than {below:g}"
    return f", more than {above:g}" if above is not None else ""


def _flatten(metadata: Iterable[Any]) -> Iterable[Any]:
    """Yield constraints, those inside a nested FieldInfo or group too."""
    for item in metadata:
        if isinstance(item, FieldInfo):
            yield from _flatten(item.metadata)
        else:
            yield item
