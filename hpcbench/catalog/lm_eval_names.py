"""The names of lm-eval's tasks, groups and tags, known without lm-eval.

In: `lm_eval_names.txt`, made from one version of lm-eval. Out: its names, and that version. To index lm-eval's 13,000
files takes 6 s, and a login node may not have them.
"""

from __future__ import annotations

import importlib.metadata
import re
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_suffix(".txt")
_HEADER = re.compile(r"lm-eval ([0-9.]+[0-9])")


@cache
def lm_eval_names() -> frozenset[str]:
    """Return all names."""
    return frozenset(line for line in _lines() if not line.startswith("#"))


def names_version() -> str:
    """Return the version of lm-eval that the names are of."""
    found = _HEADER.search(_lines()[0])
    return "" if found is None else found[1]


def is_installed(version: str) -> bool:
    """Return whether this Python has that version of lm-eval."""
    try:
        return importlib.metadata.version("lm_eval") == version
    except importlib.metadata.PackageNotFoundError:
        return False


@cache
def _lines() -> tuple[str, ...]:
    return tuple(FILE.read_text(encoding="utf-8").splitlines())
