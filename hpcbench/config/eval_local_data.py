"""`eval_args.local_data` as it was written -> a pattern of files for each split, and what is wrong with the files.

In: a path, or a mapping of splits to paths, which may have `{subset}` and `*` in them and lead through a zip archive.
Out: the same as a mapping with absolute patterns, each of which names files that can be read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from hpcbench.config.typed_fields import take_text
from hpcbench.data.local_splits import EVALUATED, check_split_file, find_split_files, patterns_of
from hpcbench.errors import MissingLibraryError, Problem, WorkerError
from hpcbench.storage.located_yaml import Located, show

EXPECTED = "a file, a folder, a zip archive, or a mapping of splits to files: {train: FILE, test: FILE}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalDataReader:
    """Reads the value of one experiment."""

    base_of: Callable[[Located], Path]
    """Folder that the paths in a value are relative to."""
    explain_missing: Callable[[str, Path], str]
    """Hint for a path that is not there."""
    problems: list[Problem]
    remarks: dict[str, None]

    def read(self, value: Located) -> Located:
        """Return the value as a mapping of splits to absolute patterns."""
        value = _read_json(value)
        if value.mapping is not None:
            found = {split: self._find(entry) for split, entry in value.mapping.items()}
            return replace(value, value={split: each for split, each in found.items() if each is not None}, raw=None)
        text = take_text(value, self.problems, expected=EXPECTED)
        if text is None:
            return replace(value, value={}, raw=None)
        place = self._absolute(value, text)
        if not place.is_dir() and not (place.is_file() and place.suffix.lower() == ".zip"):
            one = self._find(value)
            return replace(value, value={} if one is None else {EVALUATED: one}, raw=None)
        try:
            patterns = patterns_of(place)
        except WorkerError as error:
            self.problems.append(value.problem(error.message, hint=error.hint))
            patterns = {}
        for pattern in patterns.values():
            self._check(value, pattern)
        return replace(value, value={split: replace(value, value=text) for split, text in patterns.items()}, raw=None)

    def _find(self, value: Located) -> Located | None:
        text = take_text(value, self.problems, expected=EXPECTED)
        if text is None:
            return None
        pattern = str(self._absolute(value, text))
        self._check(value, pattern)
        return replace(value, value=pattern, raw=None)

    def _absolute(self, value: Located, text: str) -> Path:
        return Path(os.path.normpath(self.base_of(value) / Path(text).expanduser()))

    def _check(self, value: Located, pattern: str) -> None:
        try:
            files = find_split_files(pattern)
            for file in files:
                check_split_file(file)
        except MissingLibraryError as error:
            self.remarks[f"not checked: {error.fault}"] = None
            return
        except WorkerError as error:
            self.problems.append(value.problem(error.message, hint=error.hint))
            return
        if not files:
            hint = self.explain_missing(str(value.value), self.base_of(value))
            self.problems.append(value.problem(f"no such file: {show(value)}", hint=hint))


def _read_json(value: Located) -> Located:
    """Return a mapping that a command line gives as JSON text."""
    if not isinstance(value.value, str) or not value.value.lstrip().startswith("{"):
        return value
    try:
        found = json.loads(value.value)
    except ValueError:
        return value
    entries = {str(split): replace(value, value=each, raw=None) for split, each in found.items()}
    return replace(value, value=entries, raw=None)
