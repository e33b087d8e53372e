"""The matrix: one experiment into many, with names that say what varies.

Pure; whether a value suits its key is judged later, like any other value.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from hpcbench.config.names import MAX_NAME_LENGTH, NAME_RULE, OLD_NAME_LENGTH, fit_name
from hpcbench.errors import Problem, did_you_mean
from hpcbench.storage.located_yaml import Located, show, to_plain

MAX_VARIANTS = 10_000
ZIP, EXCLUDE, NAME = "zip", "exclude", "name"
BASE = "{name}"
"""In a template the name of the experiment whose matrix it is; without it that name comes first."""
SHORT_KEYS = {
    "lora_rank": "r",
    "lora_alpha": "alpha",
    "lora_dropout_p": "dropout",
    "lora_lr_ratio": "lr_ratio",
    "lora_target_modules": "targets",
    "learning_rate": "lr",
    "batch_size": "bs",
    "gradient_accumulation_steps": "accum",
    "num_train_epochs": "epochs",
    "max_steps": "steps",
    "max_length": "len",
    "max_grad_norm": "clip",
    "weight_decay": "wd",
    "warmup_ratio": "warmup",
    "lr_scheduler_type": "schedule",
    "neftune_noise_alpha": "neftune",
    "quantization_bit": "bits",
    "sft_type": "tuner",
    "model_type": "model",
    "model_id_or_path": "model",
    "use_dora": "dora",
    "use_rslora": "rslora",
    "train_dataset_sample": "rows",
}
"""What names call a key where the whole keys would make them too long."""

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")

Target = tuple[str, str]
"""Section and key, for example ("args", "lora_rank")."""
Resolve = Callable[[str, Located], Mapping[Target, Located]]
"""What one key and value of the matrix set; empty when the key is unknown, which it reports itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One cell of the matrix."""

    suffix: str
    """To be appended to the experiment's name, for example `-lora_rank=8`."""
    short_suffix: str = ""
    """The same with short keys, for example `-r=8`."""
    filled: str | None = None
    """The template of the names, filled in but for `BASE`; None where there is none."""
    values: Mapping[Target, Located]


@dataclass(frozen=True, slots=True)
class _Axis:
    """Keys that vary together: one key, or all of `zip`."""

    keys: tuple[str, ...]
    rows: tuple[tuple[Located, ...], ...]


def expand_matrix(matrix: Located, *, resolve: Resolve, problems: list[Problem]) -> list[Variant]:
    """Return the variants in the order written: the product of lists and `zip` less `exclude`; none after a problem."""
    before = len(problems)
    axes = _read_axes(matrix, problems)
    excludes = _read_excludes(matrix, axes, problems)
    size = math.prod(len(axis.rows) for axis in axes)
    if size > MAX_VARIANTS:
        problems.append(matrix.problem(f"makes {size} experiments", expected=f"{MAX_VARIANTS} at most"))
    if not axes and len(problems) == before:
        problems.append(matrix.problem("varies nothing", expected="lists of values by argument"))
    if len(problems) > before:
        return []
    cells = [_cell(axes, rows) for rows in itertools.product(*(axis.rows for axis in axes))]
    kept = [cell for cell in cells if not any(_matches(cell, exclude) for exclude in excludes)]
    problems += [
        item.problem("excludes nothing: no combination has these values")
        for item, exclude in zip(_exclude_items(matrix), excludes, strict=True)
        if not any(_matches(cell, exclude) for cell in cells)
    ]
    if not kept:
        problems.append(matrix.problem("excludes every combination"))
    template = _read_template(matrix, axes, problems)
    variants = _name_variants(kept, axes, resolve, problems, template=template)
    problems += _find_same_names(matrix, variants, axes)
    return variants if len(problems) == before else []


def variant_names(
    base: str, variants: Sequence[Variant], *, taken: AbstractSet[str] = frozenset(), room: int = 0
) -> list[str]:
    """Return a name for each variant, no two the same: by the template, or `base` with the values that vary.

    Whole keys stand in the names as far as all of them have `OLD_NAME_LENGTH` characters, as before 0.3, else short
    ones. What has results under its old name keeps it.

    Args:
        base: name of the experiment whose matrix it is.
        variants: of its matrix; with a template, no two of them are filled in alike.
        taken: names that have results.
        room: characters that are appended to each name, such as `-seed0`.
    """
    if variants and variants[0].filled is not None:
        filled = [variant.filled or "" for variant in variants]
        return [text.replace(BASE, base) if BASE in text else f"{base}-{text}" for text in filled]
    old = _unique([(f"{base}{variant.suffix}", _digest(variant)) for variant in variants], OLD_NAME_LENGTH)
    if all(len(base) + len(variant.suffix) + room <= OLD_NAME_LENGTH for variant in variants):
        return old
    new = _unique([(f"{base}{variant.short_suffix}", _digest(variant)) for variant in variants], MAX_NAME_LENGTH)
    return [before if before in taken else now for before, now in zip(old, new, strict=True)]


def _unique(names: Sequence[tuple[str, str]], limit: int) -> list[str]:
    """Return names of at most `limit` characters, each with its digest where two would be the same."""
    fitting = [fit_name(name, limit) for name, _ in names]
    counts = Counter(name.lower() for name in fitting)
    return [
        fit if counts[fit.lower()] == 1 else fit_name(f"{name}-{digest}", limit)
        for fit, (name, digest) in zip(fitting, names, strict=True)
    ]


def _read_axes(matrix: Located, problems: list[Problem]) -> list[_Axis]:
    axes: list[_Axis] = []
    if matrix.mapping is None:
        problems.append(matrix.problem(f"got {show(matrix)}", expected="a mapping of argument to list of values"))
        return axes
    for key, entry in matrix.mapping.items():
        if key == ZIP:
            axes += _read_zip(entry, problems)
        elif key not in {EXCLUDE, NAME} and (values := _read_values(entry, problems)):
            axes.append(_Axis((key,), tuple((value,) for value in values)))
    twice = [key for key, count in Counter(key for axis in axes for key in axis.keys).items() if count > 1]
    problems += [matrix.problem(f"`{key}` varies both by itself and in zip") for key in twice]
    return axes


def _read_values(entry: Located, problems: list[Problem]) -> tuple[Located, ...]:
    if not entry.items:
        problems.append(
            entry.problem(f"got {'an empty list' if entry.items == () else show(entry)}", expected="a list of values")
        )
        return ()
    first: dict[str, Located] = {}
    for item in entry.items:
        same = first.setdefault(_identity(item), item)
        if same is not item:
            problems.append(item.problem(f"{show(item)} stands in the list twice"))
    return entry.items


def _read_zip(entry: Located, problems: list[Problem]) -> list[_Axis]:
    """Return the one axis of `zip`, whose lists are walked side by side."""
    if not entry.mapping:
        problems.append(entry.problem(f"got {show(entry)}", expected="a mapping of argument to list of values"))
        return []
    columns: dict[str, tuple[Located, ...]] = {}
    for key, column in entry.mapping.items():
        if not column.items:
            problems.append(column.problem(f"got {show(column)}", expected="a list of values"))
            return []
        columns[key] = column.items
    lengths = {key: len(column) for key, column in columns.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{key} has {length}" for key, length in lengths.items())
        problems.append(
            entry.problem(f"lists of different lengths: {found}", expected="the same number of values in each")
        )
        return []
    rows = tuple(zip(*columns.values(), strict=True))
    if len({tuple(_identity(value) for value in row) for row in rows}) < len(rows):
        problems.append(entry.problem("the same values stand together twice"))
    return [_Axis(tuple(columns), rows)]


def _exclude_items(matrix: Located) -> tuple[Located, ...]:
    entry = (matrix.mapping or {}).get(EXCLUDE)
    return () if entry is None else entry.items or ()


def _read_excludes(matrix: Located, axes: Iterable[_Axis], problems: list[Problem]) -> list[dict[str, str]]:
    """Return the excluded combinations as key -> identity of the value."""
    entry = (matrix.mapping or {}).get(EXCLUDE)
    if entry is not None and entry.items is None:
        problems.append(
            entry.problem(f"got {show(entry)}", expected="a list of mappings, for example [{lora_rank: 8}]")
        )
    known = [key for axis in axes for key in axis.keys]
    excludes: list[dict[str, str]] = []
    for item in _exclude_items(matrix):
        if not item.mapping:
            problems.append(item.problem(f"got {show(item)}", expected="a mapping of argument to value"))
            continue
        for key, value in item.mapping.items():
            if key not in known:
                message = f"{key!r} does not vary in this matrix"
                problems.append(value.problem(message, expected=", ".join(known), hint=did_you_mean(key, known)))
        excludes.append({key: _identity(value) for key, value in item.mapping.items()})
    return excludes


def _cell(axes: Sequence[_Axis], rows: Sequence[Sequence[Located]]) -> dict[str, Located]:
    return {key: value for axis, row in zip(axes, rows, strict=True) for key, value in zip(axis.keys, row, strict=True)}


def _matches(cell: Mapping[str, Located], exclude: Mapping[str, str]) -> bool:
    return all(key in cell and _identity(cell[key]) == identity for key, identity in exclude.items())


def _name_variants(
    cells: Sequence[Mapping[str, Located]],
    axes: Sequence[_Axis],
    resolve: Resolve,
    problems: list[Problem],
    *,
    template: str | None,
) -> list[Variant]:
    """Name each cell by the keys that really vary, or by the template; let `resolve` say what it sets."""
    labels: dict[str, dict[str, str]] = {}
    for axis in axes:
        for key, column in zip(axis.keys, zip(*axis.rows, strict=True), strict=True):
            labels[key] = _labels(column)
    varying = [key for key, found in labels.items() if len(found) > 1]
    resolved: dict[tuple[str, int], Mapping[Target, Located]] = {}
    refused: set[str] = set()
    for axis in axes:
        for key, value in ((key, value) for row in axis.rows for key, value in zip(axis.keys, row, strict=True)):
            before = len(problems)
            # An unknown key is reported once, not once per value.
            resolved[key, id(value)] = {} if key in refused else resolve(key, value)
            if len(problems) > before:
                refused.add(key)
    variants = []
    short = short_keys(varying)
    for cell in cells:
        texts = {key: found[_identity(cell[key])] for key, found in labels.items()}
        suffix = "".join(f"-{_slug(key)}={texts[key]}" for key in varying)
        short_suffix = "".join(f"-{_slug(short[key])}={texts[key]}" for key in varying)
        filled = None if template is None else _fill(template, texts)
        values: dict[Target, Located] = {}
        for key, value in cell.items():
            values.update(resolved[key, id(value)])
        variants.append(Variant(suffix=suffix, short_suffix=short_suffix, filled=filled, values=values))
    return variants


def _fill(template: str, texts: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda found: texts.get(found[1], found[0]), template)


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """Return what names call each key; two that would be called the same keep their whole names.

    >>> short_keys(["lora_rank", "requirements.gpu", "model_type", "model_id_or_path"])
    {'lora_rank': 'r', 'requirements.gpu': 'gpu', 'model_type': 'model_type', 'model_id_or_path': 'model_id_or_path'}
    """
    short = {key: SHORT_KEYS.get(key, key.rpartition(".")[2]) for key in keys}
    counts = Counter(short.values())
    return {key: name if counts[name] == 1 else key for key, name in short.items()}


def _read_template(matrix: Located, axes: Sequence[_Axis], problems: list[Problem]) -> str | None:
    """Return the template of the names, `r{lora_rank}-lr{learning_rate}`, None where there is none or it is wrong."""
    entry = (matrix.mapping or {}).get(NAME)
    if entry is None:
        return None
    example = f"{NAME}: r{{lora_rank}}-lr{{learning_rate}}"
    if not isinstance(entry.value, str) or not entry.value.strip():
        problems.append(entry.problem(f"got {show(entry)}", expected=f"a template of names, for example {example}"))
        return None
    known = ["name", *(key for axis in axes for key in axis.keys)]
    for key in _PLACEHOLDER.findall(entry.value):
        if key not in known:
            message = f"{{{key}}}: {key[:80]!r} does not vary in this matrix"
            problems.append(entry.problem(message, expected=", ".join(known), hint=did_you_mean(key, known)))
    wrong = sorted(set(re.sub(r"[A-Za-z0-9._+=-]", "", _PLACEHOLDER.sub("", entry.value))))
    if wrong:
        holds = ", ".join(repr(char) for char in wrong[:5])
        problems.append(entry.problem(f"a name cannot hold {holds}", expected=NAME_RULE, hint=example))
    return entry.value


def _find_same_names(matrix: Located, variants: Sequence[Variant], axes: Sequence[_Axis]) -> list[Problem]:
    """Return a problem where a template gives two variants one name."""
    first: dict[str, Variant] = {}
    for variant in variants:
        same = first.setdefault((variant.filled or variant.suffix).lower(), variant)
        if variant.filled is None or same is variant:
            continue
        entry = (matrix.mapping or {})[NAME]
        template = str(entry.value)
        missing = [key for axis in axes for key in axis.keys if f"{{{key}}}" not in template]
        two = f"{same.suffix.removeprefix('-')} and {variant.suffix.removeprefix('-')}"
        hint = f"{', '.join(f'{{{key}}}' for key in missing)} is not in it" if missing else "their values look the same"
        return [entry.problem(f"gives two experiments the name {variant.filled!r}: {two}", hint=hint)]
    return []


def _labels(column: Iterable[Located]) -> dict[str, str]:
    """Return a short text per different value: the last part of a path where that tells them apart."""
    by_identity = {_identity(value): value for value in column}
    full = {identity: _text(value) for identity, value in by_identity.items()}
    short = {identity: _slug(text.rstrip("/").rpartition("/")[2] or text) for identity, text in full.items()}
    if len({label.lower() for label in short.values()}) == len(short):
        return short
    return {identity: _slug(text) for identity, text in full.items()}


def _text(value: Located) -> str:
    """Return a value as names show it: as it was written."""
    if value.items is not None:
        return "+".join(_text(item) for item in value.items)
    if value.mapping is not None:
        return hashlib.sha256(_identity(value).encode()).hexdigest()[:8]
    if value.raw is not None:
        return value.raw
    return json.dumps(value.value) if isinstance(value.value, bool) else str(value.value)


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+=-]+", "_", text)


def _identity(value: Located) -> str:
    """Return what is equal for equal values, so that 1e-4, "1e-4" and 0.0001 are the same."""
    plain = to_plain(value)
    if isinstance(plain, str | int | float) and not isinstance(plain, bool):
        try:
            number = float(plain)
        except (ValueError, OverflowError):
            return json.dumps(plain)
        return repr(number)
    return json.dumps(plain, sort_keys=True)


def _digest(variant: Variant) -> str:
    parts = sorted(f"{section}.{key}={_identity(value)}" for (section, key), value in variant.values.items())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]
