"""What kind of data a file holds, by its first bytes; its name decides only between kinds of plain text.

In: a path. Out: a `DataFile`, or an error that says what the file is instead; its bytes, decompressed. Rows are not
read here.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import IO, Any, Final, cast

from hpcbench.errors import DataError, MissingLibraryError

HEAD_BYTES: Final = 1 << 16
FIRST_LINE_BYTES: Final = 1 << 20
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
EXPECTED: Final = "JSON lines, JSON, CSV, TSV, text, parquet or arrow; text may be compressed (.gz, .zst, .bz2, .xz)"


class Kind(StrEnum):
    """How a file's rows are written."""

    JSON_LINES = "JSON lines"
    """One object per line."""
    JSON = "JSON"
    """A list of objects, or objects one after the other; each is a row."""
    CSV = "CSV"
    """A header, and as many cells in each row; quotes as in RFC 4180. The header tells what is between cells: commas,
    tabs or semicolons, and whether spaces follow, which are part of no cell then."""
    TSV = "TSV"
    """As CSV, with tabs."""
    TEXT = "text"
    """A row with the column `text` per line."""
    PARQUET = "parquet file"
    """Null below the top level is a key that this row lacks and another has: such keys are left out."""
    ARROW_FILE = "arrow file"
    """As parquet."""
    ARROW_STREAM = "arrow stream"
    """As parquet."""


class Compression(StrEnum):
    """How a file's bytes are packed."""

    GZIP = "gzip"
    ZSTD = "zstd"
    BZIP2 = "bzip2"
    XZ = "xz"


ARROW_KINDS: Final = frozenset({Kind.PARQUET, Kind.ARROW_FILE, Kind.ARROW_STREAM})
TEXT_SUFFIXES: Final = {
    ".jsonl": Kind.JSON_LINES,
    ".ndjson": Kind.JSON_LINES,
    ".json": Kind.JSON,
    ".csv": Kind.CSV,
    ".tsv": Kind.TSV,
    ".txt": Kind.TEXT,
}
COMPRESSED_SUFFIXES: Final = frozenset({".gz", ".zst", ".zstd", ".bz2", ".xz"})
SUFFIXES: Final = {**TEXT_SUFFIXES, ".parquet": Kind.PARQUET, ".arrow": Kind.ARROW_STREAM}
DATA_SUFFIXES: Final = frozenset(SUFFIXES)

_COMPRESSIONS: Final = (
    (b"\x1f\x8b\x08", Compression.GZIP),
    (b"\x28\xb5\x2f\xfd", Compression.ZSTD),
    *((b"BZh%d1AY&SY" % level, Compression.BZIP2) for level in range(1, 10)),
    (b"\xfd7zXZ\x00", Compression.XZ),
)
_LFS_POINTER: Final = b"version https://git-lfs.github.com/spec/"
_ARROW_KINDS: Final = (
    (b"PAR1", Kind.PARQUET),
    (b"ARROW1\x00\x00", Kind.ARROW_FILE),
    (b"\xff\xff\xff\xff", Kind.ARROW_STREAM),
)
_NOT_DATA: Final = (
    (b"PK\x03\x04", "a zip archive (xlsx files are such, too)", "unpack it, or save the table as CSV"),
    (b"%PDF", "a PDF document", None),
    (b"SQLite format 3\x00", "an SQLite database", "export the table as CSV"),
    (b"\x89HDF", "an HDF5 file", None),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFile:
    """One file of rows."""

    path: Path
    kind: Kind
    compression: Compression | None = None
    columns: frozenset[str] | None = None
    """The only columns that count, as a saved dataset's format says; None is all."""


def data_suffix(path: Path) -> str:
    """Return the suffix that says what a file holds, in lower case: `.csv` for `a.CSV.gz`."""
    inner = path.with_suffix("") if path.suffix.lower() in COMPRESSED_SUFFIXES else path
    return inner.suffix.lower()


def recognize(path: Path) -> DataFile:
    """Return what an existing file holds.

    Raises:
        DataError: it is none of the kinds that are read, or cannot be opened.
        MissingLibraryError: it is compressed, and the library for that is not installed here.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
            size = path.stat().st_size
    except OSError as error:
        raise _unreadable(path, error) from error
    if not head:
        raise DataError(f"{path}: is empty")
    if head.startswith(_LFS_POINTER):
        raise DataError(
            f"{path}: a Git LFS pointer, {size} bytes, in place of the data",
            hint="run `git lfs pull` in its repository",
        )
    compression = next((found for mark, found in _COMPRESSIONS if head.startswith(mark)), None)
    if compression is not None:
        with open_bytes(DataFile(path=path, kind=Kind.TEXT, compression=compression)) as stream:
            head = stream.read(HEAD_BYTES)
        if not head:
            raise DataError(f"{path}: is empty but for its compression")
    kind = next((found for mark, found in _ARROW_KINDS if head.startswith(mark)), None)
    if kind is None:
        kind = _recognize_text(path, head, compression)
    elif compression is not None:
        raise DataError(f"{path}: a compressed {kind}, which cannot be read from its end", hint="decompress it")
    return DataFile(path=path, kind=kind, compression=compression)


@contextmanager
def open_bytes(file: DataFile) -> Iterator[IO[bytes]]:
    """Open a file for reading its bytes, decompressed.

    Raises:
        DataError: it cannot be opened; also for what the body of the `with` reads, where the bytes are damaged.
        MissingLibraryError: the library that decompresses it is not installed here.
    """
    path = file.path
    try:
        with _decompressed(path, file.compression) as stream:
            yield stream
    except EOFError as error:
        raise DataError(f"{path}: is cut off: its {file.compression} data end too early", hint=_COPY_AGAIN) from error
    except (zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: its {file.compression} data are damaged: {error}", hint=_COPY_AGAIN) from error
    except OSError as error:
        raise _unreadable(path, error) from error


_COPY_AGAIN: Final = "copy or download it again"


def _decompressed(path: Path, compression: Compression | None) -> IO[bytes]:
    match compression:
        case None:
            return path.open("rb")
        case Compression.GZIP:
            return cast("IO[bytes]", gzip.open(path))
        case Compression.BZIP2:
            return bz2.open(path)
        case Compression.XZ:
            return lzma.open(path)
        case Compression.ZSTD:
            try:
                import zstandard
            except ImportError as error:
                raise MissingLibraryError(
                    f"{path}: compressed with zstd, and the library zstandard is not installed here",
                    hint='pip install zstandard, which "hpcbench-llm[train]" brings',
                ) from error
            return io.BufferedReader(_ZstdStream(path, zstandard), 1 << 17)


class _ZstdStream(io.RawIOBase):
    """Decompressed bytes of all frames of a file; ends too early only with an error, unlike zstandard's own reader."""

    def __init__(self, path: Path, zstandard: ModuleType) -> None:
        self._path = path
        self._error = zstandard.ZstdError
        self._make_frame = zstandard.ZstdDecompressor().decompressobj
        self._frame: Any = self._make_frame()
        self._stream = path.open("rb")
        self._packed = b""
        self._ready = b""

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._stream.close()
        super().close()

    def readinto(self, target: Any) -> int:
        while not self._ready:
            if self._frame.eof:
                self._packed, self._frame = self._frame.unused_data, self._make_frame()
                starts_frame = True
            else:
                starts_frame = False
            self._packed = self._packed or self._stream.read(1 << 16)
            if not self._packed:
                if starts_frame:
                    return 0
                raise EOFError
            try:
                self._ready = self._frame.decompress(self._packed)
            except self._error as error:
                raise DataError(f"{self._path}: its zstd data are damaged: {error}", hint=_COPY_AGAIN) from error
            self._packed = b""
        count = min(len(target), len(self._ready))
        target[:count], self._ready = self._ready[:count], self._ready[count:]
        return count


def _recognize_text(path: Path, head: bytes, compression: Compression | None) -> Kind:
    _refuse_other_kinds(path, head)
    text = head.removeprefix(BYTE_ORDER_MARK).lstrip()
    if not text and len(head) < HEAD_BYTES:
        raise DataError(f"{path}: is empty")
    named = TEXT_SUFFIXES.get(data_suffix(path))
    if text[:1] == b"{":
        if named is Kind.JSON_LINES or _starts_with_object(path, compression):
            return Kind.JSON_LINES
        if named in {None, Kind.JSON}:
            return Kind.JSON
    if text[:1] == b"[" and (named in {None, Kind.JSON, Kind.JSON_LINES} or re.match(rb'\[\s*\{\s*"', text)):
        return Kind.JSON
    if named is None:
        start = text[:40].split(b"\n")[0].decode("utf-8", errors="replace")
        raise DataError(
            f"{path}: unknown kind of dataset file: text that begins with {start!r}",
            expected=EXPECTED,
            hint="name it .csv, .tsv or .txt if it is such a file",
        )
    return named


def _refuse_other_kinds(path: Path, head: bytes) -> None:
    for mark, what, hint in _NOT_DATA:
        if head.startswith(mark):
            raise DataError(f"{path}: is {what}", expected=EXPECTED, hint=hint)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or head[1:64:2].count(0) > 24 or head[:64:2].count(0) > 24:
        raise DataError(
            f"{path}: is UTF-16 text",
            expected="UTF-8",
            hint=f"iconv -f UTF-16 -t UTF-8 {path.name} > new.{path.name}",
        )
    if re.match(rb"(?i)\s*<(!doctype html|html)", head):
        raise DataError(f"{path}: is an HTML page, as a failed download leaves it", expected=EXPECTED)
    if 0 in head:
        raise DataError(f"{path}: is a binary file of an unknown kind, or holds NUL bytes", expected=EXPECTED)


def _starts_with_object(path: Path, compression: Compression | None) -> bool:
    """Return whether the first line that is not blank is a JSON object as a whole."""
    with open_bytes(DataFile(path=path, kind=Kind.TEXT, compression=compression)) as stream:
        line = stream.readline(FIRST_LINE_BYTES).removeprefix(BYTE_ORDER_MARK)
        while line and not line.strip():
            line = stream.readline(FIRST_LINE_BYTES)
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be read: {error.strerror or error}")
