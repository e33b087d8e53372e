"""A look at a dataset before anything is queued: rows to judge it by, read as the worker reads them.

In: a file or folder. Out: all rows of a small dataset; of a large one the first, some others by chance and the last, in
about a second whatever its size. The rows by chance are the same each time. What is in the rows is not judged here.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from hpcbench.data.arrow_files import choose_indices, count_bytes, read_some_arrow_rows
from hpcbench.data.file_kinds import ARROW_KINDS, DataFile, Kind, open_bytes
from hpcbench.data.files import read_file
from hpcbench.data.folders import find_files
from hpcbench.data.rows import Place, PlacedRow
from hpcbench.data.text_files import ByteSource, read_row_at, read_text_rows
from hpcbench.errors import DataError

WHOLE_BYTES: Final = 16 << 20
"""Datasets up to this size are read as a whole."""
HEAD_BYTES: Final = 2 << 20
"""What is read of the beginning of a larger file."""
NUM_FILES: Final = 8
"""Files of a large folder that are looked at."""
NUM_SPOTS: Final = 48
"""Places in a large file that a row is read at."""
SPOT_BYTES: Final = 1 << 20
"""A row by chance that is longer is left to the worker."""
NUM_PARTS: Final = 8
"""Row groups of a parquet file, or batches of an Arrow file, that are looked at."""
ROWS_OF_PART: Final = 16


class Look:
    """Yields the rows; afterwards `is_whole` says whether they were all that there are.

    Raises:
        DataError: the dataset cannot be read, or is damaged where it was looked at.
        MissingLibraryError: a library that it needs is not installed here.
    """

    def __init__(self, path: Path, *, split: str = "train") -> None:
        self._files = find_files(path, split=split)
        self.is_whole = True

    def __iter__(self) -> Iterator[PlacedRow]:
        left = WHOLE_BYTES
        for file in self._choose_files():
            size = count_bytes(file) if file.kind in ARROW_KINDS else _size(file)
            if file.kind in ARROW_KINDS:
                if size <= left:
                    yield from read_file(file)
                else:
                    self.is_whole = False
                    yield from read_some_arrow_rows(file, num_parts=NUM_PARTS, num_rows=ROWS_OF_PART, seed=size)
            else:
                yield from self._read_text(file, size, limit=left if size <= left else HEAD_BYTES)
            left -= size

    def _choose_files(self) -> list[DataFile]:
        files = self._files
        if len(files) <= NUM_FILES or sum(map(_size, files)) <= WHOLE_BYTES:
            return files
        self.is_whole = False
        return [files[index] for index in choose_indices(len(files), NUM_FILES, seed=len(files))]

    def _read_text(self, file: DataFile, size: int, *, limit: int) -> Iterator[PlacedRow]:
        """Yield the rows that begin in the first `limit` bytes, unpacked; of plain bytes some after that, too."""
        with open_bytes(file) as stream:
            counted = _Counted(stream)
            for row in read_text_rows(file, counted):
                yield row
                if counted.num_bytes > limit:
                    break
            else:
                return
        self.is_whole = False
        if file.compression is None:
            with open_bytes(file) as stream:
                if file.kind in {Kind.JSON_LINES, Kind.TEXT}:
                    yield from _read_spots(file, stream, size)
                elif file.kind is Kind.JSON:
                    _check_end(file, stream, size, last=b"]" if row.place.unit == "row" else b"}")


class _Counted:
    """Counts the bytes that are read from a stream."""

    def __init__(self, stream: ByteSource) -> None:
        self._stream = stream
        self.num_bytes = 0

    def read(self, size: int, /) -> bytes:
        found = self._stream.read(size)
        self.num_bytes += len(found)
        return found

    def readline(self, size: int, /) -> bytes:
        found = self._stream.readline(size)
        self.num_bytes += len(found)
        return found


def _read_spots(file: DataFile, stream: IO[bytes], size: int) -> Iterator[PlacedRow]:
    """Yield the rows that follow some offsets by chance, and the last one."""
    offsets = sorted(random.Random(size).randrange(size) for _ in range(NUM_SPOTS))  # noqa: S311  # no secret
    for offset in offsets:
        stream.seek(offset)
        if not stream.readline(SPOT_BYTES).endswith(b"\n"):
            continue
        start = stream.tell()
        line = stream.readline(SPOT_BYTES)
        # Without its end it is longer, or the last line, which follows below.
        if not _is_blank(line) and line.endswith(b"\n"):
            yield read_row_at(file.kind, line, Place(str(file.path), "byte", start + 1))
    start = max(0, size - SPOT_BYTES)
    stream.seek(start)
    end = stream.read(SPOT_BYTES)
    line_end = len(end)
    while (line_start := end.rfind(b"\n", 0, line_end) + 1) and _is_blank(end[line_start:line_end]):
        line_end = line_start - 1
    if line_start:
        line = end[line_start : line_end + 1]
        yield read_row_at(file.kind, line, Place(str(file.path), "byte", start + line_start + 1))


def _is_blank(line: bytes) -> bool:
    """Return whether a line is white space alone, also that of other scripts, as `text_files` skips it."""
    return not line.decode(errors="replace").strip()


def _check_end(file: DataFile, stream: IO[bytes], size: int, *, last: bytes) -> None:
    stream.seek(max(0, size - SPOT_BYTES))
    if not stream.read(SPOT_BYTES).rstrip().endswith(last):
        raise DataError(
            f"{file.path}: its JSON ends in the middle of a row",
            hint="was it cut off while it was written or copied?",
        )


def _size(file: DataFile) -> int:
    try:
        return file.path.stat().st_size
    except OSError as error:
        raise DataError(f"{file.path}: cannot be read: {error.strerror}") from error
