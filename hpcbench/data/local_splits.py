"""Local files in place of the data that a built-in eval task has on a hub: which there are, and their rows.

In: a pattern per split, an absolute path in which `{subset}` stands for the name of a task's subset, `*` for any part
of a file's name, and a zip archive for a folder. Out: the files that match, their rows; the patterns that a folder or
an archive means. It knows no task.
"""

from __future__ import annotations

import fnmatch
import glob
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from hpcbench.data.file_kinds import DATA_SUFFIXES, EXPECTED, TEXT_SUFFIXES, DataFile, data_suffix, recognize
from hpcbench.data.files import read_file
from hpcbench.data.text_files import read_text_rows
from hpcbench.errors import DataError, first_line

SUBSET: Final = "{subset}"
EVALUATED: Final = "evaluated"
"""The split that a task evaluates, by whatever name, where one file is given and no split is named."""
SAME_SPLITS: Final = (frozenset({"validation", "valid", "val"}),)
"""Names that mean one split. `dev` is none of them: C-Eval has both, and its dev split holds the solved examples."""

_SPLITS: Final = ("train", "validation", "valid", "val", "dev", "test")
_TSV: Final = frozenset({".csv", ".tsv"})
_DAMAGED: Final = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError)
"""What zipfile raises for a member: RuntimeError for one that is encrypted or compressed by another method."""
_INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitFile:
    """One file of a split."""

    path: Path
    """On disk; of a member the archive's."""
    member: str | None = None

    def __str__(self) -> str:
        return str(self.path) if self.member is None else f"{self.path}/{self.member}"


def find_split_files(pattern: str, subset: str | None = None) -> tuple[SplitFile, ...]:
    """Return the files that a pattern names, by name; without a subset those of any.

    Raises:
        DataError: the archive in it cannot be read.
    """
    archive, inner = _split_at_archive(pattern)
    if archive is not None:
        wanted = _wildcards(inner, subset)
        members = (name for name in _members(archive) if fnmatch.fnmatchcase(name, wanted))
        return tuple(SplitFile(path=archive, member=name) for name in members)
    if Path(pattern).is_file():
        return (SplitFile(path=Path(pattern)),)
    found = (Path(name) for name in glob.glob(_wildcards(pattern, subset)))  # noqa: PTH207  # it is absolute
    return tuple(SplitFile(path=path) for path in sorted(found) if path.is_file())


def is_pattern(path: str) -> bool:
    """Return whether a path names files only by its wildcards, or within an archive."""
    return SUBSET in path or "*" in path or _split_at_archive(path)[0] is not None


def check_split_file(file: SplitFile) -> None:
    """Raise where a file is not one whose rows can be read.

    Raises:
        DataError: it is of another kind, empty or cannot be opened.
        MissingLibraryError: a library that reads it is not installed here.
    """
    if file.member is None:
        recognize(file.path)
    elif data_suffix(Path(file.member)) not in TEXT_SUFFIXES:
        raise DataError(f"{file}: in an archive only JSON, CSV and text are read", hint="unpack the archive")


def read_split(files: Iterable[SplitFile]) -> list[dict[str, Any]]:
    """Return the rows of all files, each with the same keys; a column of integers in CSV files is one of numbers.

    Raises:
        DataError: a file is damaged.
        MissingLibraryError: a library that reads it is not installed here.
    """
    rows: list[dict[str, Any]] = []
    for file in files:
        found = [dict(row) for row in iterate_split([file])]
        if data_suffix(Path(file.member or file.path)) in _TSV:
            _read_numbers(found)
        rows += found
    columns = dict.fromkeys(key for row in rows for key in row)
    return [{key: row.get(key) for key in columns} for row in rows]


def iterate_split(files: Iterable[SplitFile]) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of all files as they are written.

    Raises:
        DataError: a file is damaged.
        MissingLibraryError: a library that reads it is not installed here.
    """
    for file in files:
        check_split_file(file)
        if file.member is None:
            yield from (placed.row for placed in read_file(recognize(file.path)))
            continue
        kind = TEXT_SUFFIXES[data_suffix(Path(file.member))]
        try:
            with zipfile.ZipFile(file.path) as archive, archive.open(file.member) as stream:
                yield from (placed.row for placed in read_text_rows(DataFile(path=Path(str(file)), kind=kind), stream))
        except _DAMAGED as error:
            raise DataError(f"{file}: cannot be read: {first_line(error)}", hint="unpack the archive") from error


def patterns_of(place: Path) -> dict[str, str]:
    """Return the pattern of each split that a folder or a zip archive holds.

    A file belongs to the split that its name or its folder's name says: `test.jsonl`, `gsm8k-test.arrow`,
    `val/law_val.csv`, `ARC-Easy/test-00000-of-00001.parquet`. What differs among the files of a split is the subset.

    Raises:
        DataError: no file names a split, or what the files of a split have in common cannot be told.
    """
    if place.is_dir():
        names = [path.relative_to(place).as_posix() for path in sorted(place.glob("**/*")) if path.is_file()]
    else:
        names = list(_members(place))
    by_split: dict[str, set[str]] = {}
    for name in names:
        if _is_data(PurePosixPath(name)) and (split := _split_of(PurePosixPath(name))) is not None:
            by_split.setdefault(split, set()).add(name)
    if not by_split:
        raise DataError(f"{place}: no data file whose name says its split", expected=", ".join(_SPLITS))
    return {split: f"{place}/{_common_pattern(place, split, found)}" for split, found in sorted(by_split.items())}


def _is_data(name: PurePosixPath) -> bool:
    """Return whether a file may hold rows: not what macOS, notebooks and downloads hide beside it."""
    is_hidden = any(part.startswith(".") or part == "__MACOSX" for part in name.parts)
    return not is_hidden and data_suffix(Path(name)) in DATA_SUFFIXES


def _split_of(name: PurePosixPath) -> str | None:
    words = re.split(r"[^A-Za-z]+", name.name.split(".")[0].lower())
    named = [word for word in words if word in _SPLITS]
    return named[-1] if named else next((part for part in reversed(name.parts[:-1]) if part in _SPLITS), None)


def _common_pattern(place: Path, split: str, names: set[str]) -> str:
    """Return the one pattern that all files of a split have: a name, shards of one, or a file for each subset."""
    patterns = {re.sub(r"-\d{5}-of-\d{5}", "-*", name) for name in names}
    if len(patterns) > 1:
        patterns = {_with_subset(PurePosixPath(name), split) for name in patterns}
    if len(patterns) == 1:
        return patterns.pop()
    message = f"{place}: its files of the split {split!r} differ in more than the name of a subset"
    raise DataError(message, hint=f"name them by hand: local_data: {{{split}: {place}/.../{SUBSET}.csv}}")


def _with_subset(name: PurePosixPath, split: str) -> str:
    """Return a file's name with the part in place of which another subset has its own name."""
    after = re.search(rf"[^A-Za-z0-9]{split}(?![A-Za-z0-9]).*", name.name, re.IGNORECASE)
    if after is not None:
        return str(name.with_name(f"{SUBSET}{after[0]}"))
    if re.match(rf"{split}(?![A-Za-z0-9])", name.name, re.IGNORECASE) and len(name.parts) > 1:
        return str(name.parent.with_name(SUBSET) / name.name)
    return str(name.with_name(f"{SUBSET}{''.join(name.suffixes)}"))


def _wildcards(pattern: str, subset: str | None) -> str:
    """Return the pattern for glob, in which only `*` and the subset are wild."""
    inner = "*" if subset is None else glob.escape(subset)
    return glob.escape(pattern).replace("[*]", "*").replace(SUBSET, inner)


def _split_at_archive(pattern: str) -> tuple[Path | None, str]:
    """Return the zip archive that is a folder of the pattern, and what follows it."""
    parts = PurePosixPath(pattern).parts
    for number, part in enumerate(parts[:-1], start=1):
        if part.lower().endswith(".zip") and (place := Path(*parts[:number])).is_file():
            return place, "/".join(parts[number:])
    return None, pattern


def _members(archive: Path) -> list[str]:
    try:
        with zipfile.ZipFile(archive) as opened:
            # Of two members of one name the last counts, as it does for what unpacks them.
            return sorted({name for name in opened.namelist() if not name.endswith("/")})
    except (OSError, zipfile.BadZipFile) as error:
        message = f"{archive}: cannot be read as a zip archive: {error}"
        raise DataError(message, hint=f"expected in it: {EXPECTED}") from error


def _read_numbers(rows: list[dict[str, Any]]) -> None:
    """Turn whole columns of integers into numbers, as pandas and `datasets` read them."""
    for key in rows[0] if rows else ():
        values = [row.get(key) for row in rows]
        if all(isinstance(value, str) and _INTEGER.fullmatch(value) for value in values):
            for row in rows:
                row[key] = int(row[key])
