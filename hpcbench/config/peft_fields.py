"""Fields of peft's methods among the arguments: gathered into `peft_config`, each judged where it was written.

In: the arguments of an experiment, from all its layers. Out: the same with the fields of its own method in
`peft_config`, and those that have arguments under these; fields of other methods stay, for `config/effects.py` to
judge. No file is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from hpcbench.catalog.peft_methods import peft_methods
from hpcbench.errors import Problem, did_you_mean
from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.tuners import (
    FIELDS_AS_ARGUMENTS,
    OWN_PLACES,
    PEFT,
    REFUSED_METHODS,
    SHORTHANDS,
    field_named,
    find_field_problem,
    list_peft_methods,
    peft_arguments,
    read_value,
)
from hpcbench.storage.located_yaml import Located, show, to_plain

_CONFIG = "peft_config"
_TYPE = "peft_type"
_CAUSAL_LM = "CAUSAL_LM"
_PEFT_ALPHA = 8
"""peft's lora_alpha, for a configuration that is written as peft's."""


def gather_fields(given: Mapping[str, Located], problems: list[Problem]) -> dict[str, Located]:
    """Return the arguments with the fields of the experiment's own method in `peft_config`."""
    config = given.get(_CONFIG)
    if config is not None and config.mapping is None:
        problems.append(config.problem(f"got {show(config)}", expected="a mapping of fields to values"))
        return {name: value for name, value in given.items() if name != _CONFIG}
    found, written = dict(given), dict((config.mapping if config is not None else None) or {})
    sft_type = _take_type(found, written, problems)
    if sft_type is None:
        found.pop(_CONFIG, None)
        return found
    method = str(SHORTHANDS.get(sft_type, {}).get("sft_type", sft_type))
    if method not in peft_methods():
        return found
    fields = {**_take_fields(method, found, problems), **written}
    _move_to_arguments(method, fields, found, problems)
    checked = {name: value for name, value in fields.items() if _is_right(method, name, value, problems)}
    found.pop(_CONFIG, None)
    if checked:
        first = next(iter(checked.values())) if config is None else config
        found[_CONFIG] = replace(first, value=checked, raw=None)
    return found


def _take_type(found: dict[str, Located], written: dict[str, Located], problems: list[Problem]) -> str | None:
    """Return the method; with `sft_type: peft` it is what peft's configuration says. None with the reason."""
    task = written.pop("task_type", None)
    if task is not None and task.value != _CAUSAL_LM:
        problems.append(task.problem(f"got {show(task)}", expected=_CAUSAL_LM))
    sft_type, kind = found.get("sft_type"), written.pop(_TYPE, None)
    word = "lora" if sft_type is None else str(sft_type.value)
    if word != PEFT:
        if kind is not None and str(kind.value).lower() != word:
            message = f"`{_TYPE}: {kind.value}` contradicts `sft_type: {word}`"
            problems.append(kind.problem(message, hint=f"remove one of them, or set sft_type: {PEFT}"))
        return word
    expected = ", ".join(name.upper() for name in (*list_peft_methods(), *FIELDS_AS_ARGUMENTS))
    if sft_type is None or kind is None:
        where = sft_type or next(iter(found.values()))
        message = f"`sft_type: {PEFT}` needs the method's name"
        problems.append(where.problem(message, expected=expected, hint=f"{_CONFIG}: {{{_TYPE}: VERA}}"))
        return None
    method = str(kind.value).lower()
    if method not in {*list_peft_methods(), *FIELDS_AS_ARGUMENTS}:
        message = f"unknown value {show(kind)}"
        if method in REFUSED_METHODS:
            message = f"{show(kind)} is known but not supported: {REFUSED_METHODS[method]}"
        hint = did_you_mean(str(kind.value), expected.split(", "))
        problems.append(kind.problem(message, expected=expected, hint=hint))
        return None
    found["sft_type"] = replace(kind, value=method, raw=None, source=sft_type.source)
    if method in {"lora", "adalora"}:
        written.setdefault("lora_alpha", replace(kind, value=_PEFT_ALPHA, raw=None))
    return method


def _take_fields(method: str, found: dict[str, Located], problems: list[Problem]) -> dict[str, Located]:
    """Take the fields of the method out of the arguments, by their names in peft."""
    fields: dict[str, Located] = {}
    if method in FIELDS_AS_ARGUMENTS:
        return fields
    for name, value in list(found.items()):
        # What an alias made another argument's: `r` is lora_rank but where the method has a field r.
        as_written = _name_as_written(value)
        is_alias = name in SftArgs.model_fields and as_written in peft_methods()[method].fields and as_written != name
        own = method in peft_arguments().get(name, ()) and name not in SftArgs.model_fields
        if not is_alias and not own:
            continue
        field = field_named(method, as_written if is_alias else name)
        if field is None or (is_alias and field in {"target_modules", "modules_to_save"}):
            continue
        if field in fields:
            message = f"`{as_written}` and `{_name_as_written(fields[field])}` are the same field of {method}"
            problems.append(value.problem(message, hint="keep one of them"))
        fields[field] = found.pop(name)
    return fields


def _name_as_written(value: Located) -> str:
    """Return the argument's name in the file, of one value of a matrix too."""
    return re.sub(r"\[[^]]*\]$", "", value.path).rpartition(".")[2]


def _move_to_arguments(
    method: str, fields: dict[str, Located], found: dict[str, Located], problems: list[Problem]
) -> None:
    """Move the fields that have an argument to it."""
    arguments = dict(FIELDS_AS_ARGUMENTS.get(method, {}))
    if method not in FIELDS_AS_ARGUMENTS and not peft_methods()[method].adds_tokens:
        arguments["modules_to_save"] = "lora_modules_to_save"
        if method not in OWN_PLACES:
            arguments["target_modules"] = "lora_target_modules"
    for field in arguments.keys() & fields.keys():
        name, value = arguments[field], fields.pop(field)
        if name == "lora_target_modules" and value.value == "all-linear":
            value = replace(value, value="ALL", raw=None)
        if name == "init_lora_weights" and isinstance(value.value, bool):
            value = replace(value, value=str(value.value).lower(), raw=None)
        if name not in found:
            found[name] = value
        elif value.value != _PEFT_ALPHA or field != "lora_alpha":
            problems.append(value.problem(f"`{field}` and `{name}` are the same argument", hint="keep one of them"))


def _is_right(method: str, name: str, value: Located, problems: list[Problem]) -> bool:
    if (problem := find_field_problem(method, name)) is not None:
        message, hint = problem
        problems.append(value.problem(message, hint=hint))
        return False
    try:
        read_value(peft_methods()[method].fields[name], to_plain(value))
    except ValueError as error:
        problems.append(value.problem(f"got {show(value)}", expected=str(error)))
        return False
    return True
