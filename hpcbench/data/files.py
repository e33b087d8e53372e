"""Local datasets to rows, one at a time, each with its place: the one reader for plan and for jobs.

In: a file or folder. Out: its rows as plain values. `file_kinds.py` says what kind a file is, `folders.py` which files
a folder means. It needs neither torch nor datasets, does not interpret rows and never downloads.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hpcbench.data.arrow_files import read_arrow_rows
from hpcbench.data.file_kinds import ARROW_KINDS, DataFile, open_bytes
from hpcbench.data.folders import find_files
from hpcbench.data.rows import PlacedRow
from hpcbench.data.text_files import read_text_rows


def read_rows(path: Path, *, split: str = "train") -> Iterator[PlacedRow]:
    """Yield the rows of a data file, or of a folder that datasets saved or that holds data files.

    Args:
        path: file or folder.
        split: which one, where a folder holds several.

    Raises:
        DataError: it is not there, is something else, or is damaged; the message names the line or row.
        MissingLibraryError: a library that it needs is not installed here.
    """
    for file in find_files(path, split=split):
        yield from read_file(file)


def read_file(file: DataFile) -> Iterator[PlacedRow]:
    """Yield the rows of one file.

    Raises:
        DataError: as `read_rows`.
        MissingLibraryError: as `read_rows`.
    """
    if file.kind in ARROW_KINDS:
        yield from read_arrow_rows(file)
        return
    with open_bytes(file) as stream:
        yield from read_text_rows(file, stream)
