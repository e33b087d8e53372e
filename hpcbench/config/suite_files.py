"""Finding the suites among the files and folders of a command line.

What is named is always loaded; a folder is searched for what looks like a suite, and cluster profiles, models, eval
tasks and data in it are passed over.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcbench.config.names import is_text
from hpcbench.errors import Problem
from hpcbench.storage.located_yaml import MAX_BYTES, Located, read_yaml

SUFFIXES = frozenset({".yaml", ".yml", ".json"})
PROFILE_FOLDER = "clusters"

_WEIGHTS_OR_TOKENIZER = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "tokenizer.json")
_EXPERIMENT_KEY = re.compile(rb"""(?:^|[{,\s])["']?experiment["']?\s*:""")


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteFile:
    """One file that holds a suite."""

    path: Path
    """Absolute."""
    label: str
    """As messages name it."""
    document: Located | None
    """None when it could not be parsed."""


def find_suite_files(paths: Sequence[Path], problems: list[Problem]) -> list[SuiteFile]:
    """Return the suites in files and folders in the order given, each file once; the files of a folder are sorted."""
    found: dict[Path, SuiteFile] = {}
    if not paths:
        problems.append(
            Problem(file="CONFIG", line=None, path="", message="no suite given", expected="a file or a folder")
        )
    for path in paths:
        label = str(path)
        if not is_text(label):
            problems.append(_not_text(label))
            continue
        if path.is_dir():
            files = [file for file in _walk(path) if file.resolve() in found or _add_if_suite(file, found, problems)]
            if not files:
                expected = "a file ending in .yaml, .yml or .json with the key `experiment`"
                problems.append(_at(label, "no suite in this folder", expected=expected))
        elif path.is_file():
            if path.resolve() not in found:
                document = read_yaml(path, file=label, problems=problems)
                found[path.resolve()] = SuiteFile(path=path.resolve(), label=label, document=document)
        else:
            problems.append(_at(label, "not a regular file" if os.path.lexists(path) else "no such file or folder"))
    return list(found.values())


def _walk(root: Path) -> Iterator[Path]:
    """Yield candidate files below a folder in sorted order."""
    for folder, names, files in os.walk(root):
        if is_model(files):
            names.clear()
            continue
        names[:] = sorted(name for name in names if not name.startswith(".") and name != PROFILE_FOLDER)
        for name in sorted(files):
            file = Path(folder, name)
            if not name.startswith(".") and file.suffix.lower() in SUFFIXES and file.is_file():
                yield file


def is_model(files: Sequence[str]) -> bool:
    """Return whether a folder with these files is a model, whose JSON files are not suites."""
    return "config.json" in files and any(name in files for name in _WEIGHTS_OR_TOKENIZER)


def _add_if_suite(file: Path, found: dict[Path, SuiteFile], problems: list[Problem]) -> bool:
    """Add the file when it is a suite, or means to be one and does not parse."""
    try:
        with file.open("rb") as stream:
            head = stream.read(MAX_BYTES + 1)
    except OSError:
        return False
    if len(head) > MAX_BYTES or _EXPERIMENT_KEY.search(head) is None:
        return False
    if not is_text(str(file)):
        problems.append(_not_text(str(file)))
        return True
    mistakes: list[Problem] = []
    document = read_yaml(file, file=str(file), problems=mistakes)
    if document is not None and "experiment" not in (document.mapping or {}):
        return False
    problems += mistakes
    found[file.resolve()] = SuiteFile(path=file.resolve(), label=str(file), document=document)
    return True


def _not_text(path: str) -> Problem:
    return _at(ascii(path), "a path that is not UTF-8", expected="a path that can be written down in UTF-8")


def _at(file: str, message: str, *, expected: str | None = None) -> Problem:
    return Problem(file=file, line=None, path="", message=message, expected=expected)
