"""Entries of `eval_dataset`: names, and mappings that evaluate one task several times.

In: the value as it was written. Out: a name with the arguments of its own for each. Tasks are looked up elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hpcbench.config.layers import PER_DATASET, SECTION_KEYS, keep_known
from hpcbench.config.names import EVAL_NAME_RULE, eval_name_error
from hpcbench.config.typed_fields import take_text, take_words
from hpcbench.errors import Problem
from hpcbench.schemas.request import eval_job_name
from hpcbench.storage.located_yaml import Located, show

NAME = "name"
TASK = "task"
EXPECTED = "names of eval datasets, or {name: gsm8k_1shot, task: gsm8k, num_fewshot: 1}"
ARGUMENT_KEYS = tuple(key for key in SECTION_KEYS["eval_args"] if key != PER_DATASET)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalEntry:
    """One entry."""

    name: str
    at: Located
    given: Mapping[str, Located] = field(default_factory=dict)
    """Arguments that stand in the entry itself."""


def read_entries(value: Located | None, problems: list[Problem]) -> tuple[EvalEntry, ...]:
    """Return the entries of `eval_dataset`; each name is a folder of its own."""
    if value is None or value.is_forgotten:
        return ()
    entries: list[EvalEntry] = []
    for item in (value,) if value.items is None else value.items:
        if item.mapping is not None:
            entries += _read_mapping(item, item.mapping, problems)
        elif item is value:
            entries += [EvalEntry(name=name, at=value) for name in take_words(value, problems, expected=EXPECTED)]
        elif (name := take_text(item, problems, expected=EXPECTED)) is not None:
            entries.append(EvalEntry(name=name, at=value))
    _check_names(entries, problems)
    return tuple(entries)


def read_overrides(value: Located | None, problems: list[Problem]) -> dict[str, Mapping[str, Located]]:
    """Return what `eval_args.per_dataset` gives by name of the eval dataset."""
    if value is None:
        return {}
    if value.mapping is None:
        problems.append(value.problem(f"got {show(value)}", expected="a mapping of eval dataset to arguments"))
        return {}
    found: dict[str, Mapping[str, Located]] = {}
    for name, entry in value.mapping.items():
        if entry.mapping is not None:
            found[name] = keep_known(entry.mapping, ARGUMENT_KEYS, problems)
        elif entry.value is not None:
            problems.append(entry.problem(f"got {show(entry)}", expected="a mapping of eval arguments"))
    return found


def _read_mapping(item: Located, mapping: Mapping[str, Located], problems: list[Problem]) -> list[EvalEntry]:
    forgotten = [entry for entry in mapping.values() if entry.is_forgotten]
    problems += [entry.problem("no value", hint="remove the key, or give it a value") for entry in forgotten]
    given = {key: entry for key, entry in mapping.items() if not entry.is_forgotten}
    known = keep_known(given, (NAME, *ARGUMENT_KEYS), problems)
    named = known.get(NAME, known.get(TASK))
    if named is None:
        problems.append(item.problem(f"got {show(item)}", expected=EXPECTED))
        return []
    name = take_text(named, problems, expected=EXPECTED)
    if name is None:
        return []
    own = {key: entry for key, entry in known.items() if key != NAME and (key != TASK or entry.value != name)}
    return [EvalEntry(name=name, at=named, given=own)]


def _check_names(entries: list[EvalEntry], problems: list[Problem]) -> None:
    """Report names that cannot be, or would share a folder."""
    seen: dict[str, str] = {}
    for entry in entries:
        name, folder = entry.name, eval_job_name(entry.name).lower()
        if (error := eval_name_error(name)) is not None:
            problems.append(entry.at.problem(error, expected=EVAL_NAME_RULE))
        elif seen.get(folder) == name:
            hint = f"give each a name: {{name: {name}_1shot, task: {name}, num_fewshot: 1}}"
            problems.append(entry.at.problem(f"{name!r} is listed twice", hint=hint))
        elif folder in seen:
            message = f"{seen[folder]!r} and {name!r} differ in capitals alone, and would share a folder"
            problems.append(entry.at.problem(message, hint="evaluate them in two experiments"))
        seen[folder] = name
