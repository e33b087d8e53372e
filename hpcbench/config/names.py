"""Rules for names: of suites and experiments, which are folders, and of eval datasets, which are lm-eval's."""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet

from hpcbench.storage.paths import MAX_FOLDER_NAME, RESERVED_EXPERIMENT_NAMES, folder_name

MAX_NAME_LENGTH = 128
OLD_NAME_LENGTH = MAX_FOLDER_NAME
"""Longest name of an experiment up to 0.2; longer ones were shortened."""
MAX_SUITE_NAME_LENGTH = MAX_FOLDER_NAME
MAX_EVAL_NAME_LENGTH = 255
_LETTERS = "letters a-z A-Z, digits, . _ + = -, at most {}, not starting with . or -"
NAME_RULE = _LETTERS.format(MAX_NAME_LENGTH)
SUITE_NAME_RULE = _LETTERS.format(MAX_SUITE_NAME_LENGTH)
EVAL_NAME_RULE = f"an lm-eval task, group or tag: one line of at most {MAX_EVAL_NAME_LENGTH} characters"

_NAME = re.compile(r"[A-Za-z0-9_+=][A-Za-z0-9._+=-]*")
_RESERVED = frozenset(name.lower() for name in RESERVED_EXPERIMENT_NAMES)


def name_error(name: str, limit: int = MAX_NAME_LENGTH) -> str | None:
    """Return what is wrong with the name of a suite or experiment of at most `limit` characters, or None."""
    if not name.strip():
        return "an empty name"
    if name.lower() in _RESERVED:
        return f"the name {name!r} is taken: hpcbench keeps its own files there"
    if len(name) > limit:
        return f"a name of {len(name)} characters"
    if _NAME.fullmatch(name) is None:
        wrong = sorted({char for char in name if not re.match(r"[A-Za-z0-9._+=-]", char)})
        if not wrong:
            return f"the name {name!r} starts with {name[0]!r}"
        return f"the name {name!r} holds {', '.join(repr(char) for char in wrong[:5])}"
    return None


def eval_name_error(name: str) -> str | None:
    """Return what is wrong with the name of an eval dataset, or None; its folder has a name made from it."""
    if not name.strip():
        return "an empty name"
    if len(name) > MAX_EVAL_NAME_LENGTH:
        return f"a name of {len(name)} characters"
    if name != name.strip():
        return f"the name {name!r} starts or ends with a space"
    return None if name.isprintable() else f"the name {name!r} holds characters that cannot be printed"


def fit_name(name: str, limit: int = MAX_NAME_LENGTH) -> str:
    """Return the name, shortened with a hash of the whole when it is longer than a name may be."""
    return name if len(name) <= limit else folder_name(name, limit)


def keep_name(name: str, taken: AbstractSet[str]) -> str:
    """Return the name as `fit_name` does, or as 0.2 shortened it where that one has results already."""
    old = fit_name(name, OLD_NAME_LENGTH)
    return old if old in taken else fit_name(name)


def is_text(text: str) -> bool:
    """Return whether a word of a command line can be written to a file; bytes that are not UTF-8 cannot."""
    return not any(0xD800 <= ord(char) <= 0xDFFF for char in text)  # noqa: PLR2004  # where Python puts such bytes
