"""The layers of a configuration: suite, experiment, matrix, --set; the later wins.

Keys are judged here, values later; nothing is read from disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from hpcbench.config.aliases import HINTS, ArgumentNames
from hpcbench.config.names import is_text
from hpcbench.errors import Problem, did_you_mean
from hpcbench.schemas.arguments import (
    Arguments,
    CommandArgs,
    EvalArgs,
    ExportArgs,
    FrameworkArgs,
    InferArgs,
    SftArgs,
)
from hpcbench.schemas.request import FRAMEWORKS, Resources
from hpcbench.storage.located_yaml import Located, parse_yaml, relocate, resolve_scalar, shorten, show

SECTIONS = ("args", "requirements", "eval_requirements", "eval_args", "env", "info")
"""Mappings; merged key by key."""
VALUES = ("cmd", "device", "eval_dataset", "matrix", "repeats", "max_attempts")
"""Everything else; replaced as a whole."""

PER_DATASET = "per_dataset"
INFO_TEXT = "text"
"""Key of `info` that holds what is written as one sentence."""
COMMENT_KEYS = frozenset({"", "comment", "comments", "description", "note", "notes", "remark", "remarks", "todo"})
"""Unknown keys that hold remarks, whatever stands there; others do where it is a sentence."""
NO_VALUE_HINT = "write null to remove an inherited value, or '\"\"' for empty text"
OWN_ARGUMENTS: Mapping[str, type[Arguments]] = {
    "command": CommandArgs,
    "export": ExportArgs,
    "infer": InferArgs,
    **dict.fromkeys(FRAMEWORKS, FrameworkArgs),
}
"""Arguments that one command alone has, beside `SftArgs`, by the command as it is written."""
ARGUMENTS = frozenset(
    (*SftArgs.model_fields, *(name for group in OWN_ARGUMENTS.values() for name in group.model_fields))
)
REQUIREMENTS = tuple("time" if name == "time_min" else name for name in Resources.model_fields)
SECTION_KEYS: Mapping[str, tuple[str, ...]] = {
    "requirements": REQUIREMENTS,
    "eval_requirements": REQUIREMENTS,
    "eval_args": (*EvalArgs.model_fields, PER_DATASET),
}

ELSEWHERE: Mapping[str, str] = {
    **dict.fromkeys((name for name in SECTION_KEYS["eval_args"] if name not in ARGUMENTS), "eval_args"),
    **dict.fromkeys(REQUIREMENTS, "requirements"),
    **dict.fromkeys((*VALUES, *(name for name in SECTIONS if name != "args")), ""),
}
"""Keys that people write under `args` -> the section where they belong, empty for beside the sections."""

MOVED_ARGUMENTS: Mapping[str, tuple[str, str]] = {
    "eval_limit": ("eval_args", "limit"),
    "eval_few_shot": ("eval_args", "num_fewshot"),
    "eval_dataset": ("", "eval_dataset"),
}
"""Arguments of SWIFT's eval under `args` -> the section and key that they stand for, no section for beside them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """What one layer gives; null still stands for "remove what was inherited"."""

    values: Mapping[str, Located] = field(default_factory=dict)
    sections: Mapping[str, Mapping[str, Located]] = field(default_factory=dict)
    cleared: frozenset[str] = frozenset()
    """Sections whose inherited keys are all removed."""

    def section(self, name: str) -> Mapping[str, Located]:
        """Return the entries of one section."""
        return self.sections.get(name, {})


def merge(layers: Iterable[Layer]) -> Layer:
    """Return what holds after all layers, the last winning; null removes."""
    values: dict[str, Located] = {}
    sections: dict[str, dict[str, Located]] = {name: {} for name in SECTIONS}
    for layer in layers:
        for name in layer.cleared:
            sections[name] = {}
        _put(values, layer.values)
        for name, entries in layer.sections.items():
            _put(sections[name], entries)
    return Layer(values=values, sections=sections)


def _put(target: dict[str, Located], entries: Mapping[str, Located]) -> None:
    for name, entry in entries.items():
        if entry.value is None and not entry.is_forgotten:
            target.pop(name, None)
        elif name == PER_DATASET and name in target:
            target[name] = _merge_deep(target[name], entry)
        else:
            target[name] = entry


def _merge_deep(old: Located, new: Located) -> Located:
    """Merge two mappings of mappings, dataset by dataset and key by key."""
    if old.mapping is None or new.mapping is None:
        return new
    merged = dict(old.mapping)
    for name, entry in new.mapping.items():
        merged[name] = _merge_deep(merged[name], entry) if name in merged else entry
    return replace(new, value=merged)


def read_layer(
    entries: Mapping[str, Located],
    *,
    source: str,
    names: ArgumentNames,
    besides: Sequence[str],
    problems: list[Problem],
) -> Layer:
    """Return the layer that a suite, an experiment or `--set` gives, less `besides`, which the caller reads itself."""
    values: dict[str, Located] = {}
    sections: dict[str, Mapping[str, Located]] = {}
    cleared: set[str] = set()
    known = (*SECTIONS, *VALUES, *besides)
    for name, entry in _move_out(entries, problems).items():
        if name in besides:
            continue
        if name not in known and is_comment(name, entry, known):
            names.remarks.append(f"`{name}` is not read: it is taken for a comment, as SWIFT ignores it")
        elif name not in known:
            hint = did_you_mean(name, known)
            if hint is None and name in {*ARGUMENTS, *ELSEWHERE}:
                hint = f"it belongs into `{ELSEWHERE.get(name, 'args')}`"
            problems.append(entry.problem(f"unknown key {shorten(repr(name))}", expected=", ".join(known), hint=hint))
        elif name in VALUES:
            values[name] = relocate(entry, source=source)
        elif name == "info" and isinstance(entry.value, str):
            sections[name] = {INFO_TEXT: relocate(entry, source=source)}
        elif entry.mapping is not None:
            sections[name] = read_section(
                name, relocate(entry, source=source).mapping or {}, names=names, problems=problems
            )
        elif entry.value is None and not entry.is_forgotten:
            cleared.add(name)
        elif not entry.is_forgotten:
            problems.append(entry.problem(f"got {show(entry)}", expected="a mapping (key: value)"))
    return Layer(values=values, sections=sections, cleared=frozenset(cleared))


def is_comment(name: str, entry: Located, known: Iterable[str]) -> bool:
    """Return whether an unknown key holds a remark for readers, which SWIFT's experiment files may have anywhere."""
    if not isinstance(entry.value, str) or name in {*ARGUMENTS, *ELSEWHERE, *HINTS}:
        return False
    # One word may be a setting that was mistyped; several are a sentence.
    is_sentence = len(entry.value.split()) > 1 and did_you_mean(name, known) is None
    return name.lower().strip("_/#") in COMMENT_KEYS or is_sentence


def _move_out(entries: Mapping[str, Located], problems: list[Problem]) -> Mapping[str, Located]:
    """Return a layer's entries with the arguments of SWIFT's eval where they belong instead of under `args`."""
    args = entries.get("args")
    if args is None or args.mapping is None or MOVED_ARGUMENTS.keys().isdisjoint(args.mapping):
        return entries
    found = dict(entries)
    found["args"] = replace(args, value={k: v for k, v in args.mapping.items() if k not in MOVED_ARGUMENTS})
    for name in MOVED_ARGUMENTS.keys() & args.mapping.keys():
        section, key = MOVED_ARGUMENTS[name]
        value = args.mapping[name]
        others = found if not section else (found[section].mapping or {}) if section in found else {}
        if key in others:
            where = f"{section}.{key}" if section else key
            problems.append(value.problem(f"`{name}` and `{where}` are the same", hint="keep one of them"))
        elif section:
            found[section] = replace(found.get(section, args), value={**others, key: value}, raw=None)
        else:
            found[key] = value
    return found


def read_section(
    section: str, entries: Mapping[str, Located], *, names: ArgumentNames, problems: list[Problem]
) -> Mapping[str, Located]:
    """Return a section's entries under their own names, without those that are unknown."""
    forgotten = [entry for entry in entries.values() if entry.is_forgotten]
    problems += [entry.problem("no value", hint=NO_VALUE_HINT) for entry in forgotten]
    entries = {name: entry for name, entry in entries.items() if not entry.is_forgotten}
    if section == "args":
        return names.resolve(entries, problems)
    known = SECTION_KEYS.get(section)
    return entries if known is None else keep_known(entries, known, problems)


def keep_known(entries: Mapping[str, Located], known: Sequence[str], problems: list[Problem]) -> Mapping[str, Located]:
    """Return the entries with a known key; the others go to `problems`."""
    for name, entry in entries.items():
        if name not in known:
            hint = HINTS.get(name) or did_you_mean(name, known)
            problems.append(entry.problem(f"unknown key {shorten(repr(name))}", expected=", ".join(known), hint=hint))
    return {name: entry for name, entry in entries.items() if name in known}


def parse_overrides(overrides: Sequence[str], *, names: ArgumentNames, problems: list[Problem]) -> Layer:
    """Return the layer of `--set KEY=VALUE` texts; the last of several for one key wins."""
    entries: dict[str, Located] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        key = key.strip()
        parts = key.split(".")
        where = Located(value=None, file="--set", line=None, path=shorten(key), source="--set")
        if not is_text(text):
            problems.append(where.problem(f"got {shorten(ascii(text))}", expected="UTF-8"))
        elif not equals or not all(parts):
            problems.append(
                where.problem(f"got {shorten(repr(text))}", expected="KEY=VALUE, for example args.lora_rank=16")
            )
        elif parts[0] not in (*SECTIONS, *VALUES):
            problems.append(_unknown_override(where, key))
        elif parts[0] in VALUES and len(parts) > 1:
            problems.append(where.problem(f"`{parts[0]}` can only be set as a whole"))
        elif (found := _override_value(value, where, problems)) is not None:
            nested = _nest(found, parts[1:])
            entries[parts[0]] = _merge_deep(entries[parts[0]], nested) if parts[0] in entries else nested
    return read_layer(entries, source="--set", names=names, besides=(), problems=problems)


def _unknown_override(where: Located, key: str) -> Problem:
    last = key.rpartition(".")[2]
    hint = did_you_mean(key, (*SECTIONS, *VALUES)) or ""
    if key.startswith("experiment"):
        hint = "--set applies to every experiment; leave `experiment...` out"
    elif last in {*ARGUMENTS, *ELSEWHERE}:
        hint = f"did you mean '{ELSEWHERE.get(last, 'args')}.{last}'?"
    return where.problem(
        "unknown key", expected=f"{', '.join((*SECTIONS, *VALUES))} and their parts", hint=hint or None
    )


def _override_value(text: str, where: Located, problems: list[Problem]) -> Located | None:
    """Read a value as YAML: lists, mappings and quoted text by their first sign, all else as one scalar."""
    text = text.strip()
    if not text:
        problems.append(where.problem("no value", hint=NO_VALUE_HINT))
        return None
    if text[0] not in "[{\"'":
        return resolve_scalar(text, file="--set", path=where.path, source="--set")
    found: list[Problem] = []
    value = parse_yaml(text, file="--set", problems=found)
    problems += [replace(problem, path=where.path, line=None) for problem in found]
    return None if value is None else _without_lines(value, where.path)


def _without_lines(value: Located, path: str) -> Located:
    """Return the value without line numbers, which a command line does not have."""
    inner = value.value
    if isinstance(inner, tuple):
        inner = tuple(_without_lines(item, path) for item in inner)
    elif isinstance(inner, Mapping):
        inner = {name: _without_lines(item, f"{path}.{name}") for name, item in inner.items()}
    return replace(value, value=inner, line=None, path=path, source="--set")


def _nest(value: Located, parts: Sequence[str]) -> Located:
    for part in reversed(parts):
        value = replace(value, value={part: value}, raw=None)
    return value
