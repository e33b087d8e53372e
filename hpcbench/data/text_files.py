"""Rows of JSON lines, JSON, CSV, TSV and plain text, one at a time, each with its place.

In: a `DataFile` and its decompressed bytes. Out: rows. Text stays as it is in the file; what is not well-formed is an
error with its line. A file is never held in memory as a whole, and a column is never interpreted.
"""

from __future__ import annotations

import codecs
import csv
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Protocol

from hpcbench.data.file_kinds import BYTE_ORDER_MARK, DataFile, Kind
from hpcbench.data.rows import Place, PlacedRow
from hpcbench.errors import DataError, plural

MAX_ROW_BYTES: Final = 64 << 20
"""No row that anybody trains on is longer; a file that is not text would fill memory."""
MAX_CELL_CHARACTERS: Final = 16 << 20
"""As above, of a CSV file, where a quote may be opened and never closed; the csv module takes eight bytes for each."""

_CHUNK_BYTES: Final = 1 << 20
_LONGEST_WORD: Final = 16
"""Characters by which a JSON value that a chunk's end cuts may be misread: `-Infinity`, two \\uXXXX."""
# json.dumps writes NaN for the empty cells of pandas; Infinity stays a number.
_DECODER: Final = json.JSONDecoder(parse_constant=lambda word: None if word == "NaN" else float(word))
_CUT_OFF: Final = "the file ends there: was it cut off while it was written or copied?"


class ByteSource(Protocol):
    """What rows are read from: the bytes of a file."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, none at the end."""

    def readline(self, size: int, /) -> bytes:
        """Return the next line with its end, or its first `size` bytes."""


def read_text_rows(file: DataFile, stream: ByteSource) -> Iterator[PlacedRow]:
    """Yield the rows of a text file.

    Raises:
        DataError: a line is not UTF-8 or not well-formed; also OSError and EOFError as `stream` raises them.
    """
    match file.kind:
        case Kind.JSON_LINES:
            return _read_json_lines(file.path, stream)
        case Kind.JSON:
            return _read_json(file.path, stream)
        case Kind.CSV | Kind.TSV:
            return _read_table(file, stream)
        case Kind.TEXT:
            return _read_plain_lines(file.path, stream)
        case _:
            raise ValueError(f"{file.kind} is not text")


def read_row_at(kind: Kind, line: bytes, place: Place) -> PlacedRow:
    """Return the row that a line of JSON lines or plain text is.

    Raises:
        DataError: it is none.
    """
    text = _decode(line, place)
    return PlacedRow({"text": text.rstrip("\r\n")} if kind is Kind.TEXT else _parse_json(text, place), place)


def _read_json_lines(path: Path, stream: ByteSource) -> Iterator[PlacedRow]:
    """Yield one row per line that is not blank."""
    for number, line in _read_lines(path, stream):
        if not line or line.isspace():
            continue
        place = Place(str(path), "line", number)
        yield PlacedRow(_parse_json(line, place), place)


def _parse_json(line: str, place: Place) -> dict[str, Any]:
    try:
        value = _DECODER.decode(line)
    except json.JSONDecodeError as error:
        hint = _CUT_OFF if not line.endswith("\n") else None
        fault = f"{place}: not valid JSON: {error.msg} (column {error.pos + 1})"
        raise DataError(fault, expected="one JSON object per line", hint=hint) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: not JSON that can be read: {_describe(error)}") from error
    return _check_object(value, place)


def _read_plain_lines(path: Path, stream: ByteSource) -> Iterator[PlacedRow]:
    """Yield `{"text": line}` for each line that is not blank."""
    for number, line in _read_lines(path, stream):
        if line and not line.isspace():
            yield PlacedRow({"text": line.rstrip("\r\n")}, Place(str(path), "line", number))


def _decode(line: bytes, place: Place) -> str:
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        where = f"byte 0x{line[error.start]:02x} after {plural(error.start, 'byte')}"
        hint = f"iconv -f LATIN1 -t UTF-8 {Path(place.dataset).name} > new, if it is Latin-1"
        raise DataError(f"{place}: not UTF-8: {where}", hint=hint) from error
    if "\0" in text:
        raise DataError(f"{place}: holds NUL bytes", hint="a full disk or a crash leaves such: write the file again")
    return text


def _read_lines(path: Path, stream: ByteSource) -> Iterator[tuple[int, str]]:
    # Lines end with \n alone: U+2028, which str.splitlines() takes for an end, may be part of JSON strings and cells.
    for number in itertools.count(1):
        line = stream.readline(MAX_ROW_BYTES)
        if not line:
            return
        place = Place(str(path), "line", number)
        if len(line) == MAX_ROW_BYTES:
            raise _too_long(place, "a line")
        yield number, _decode(line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line, place)


def _check_object(value: object, place: Place) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{place}: a JSON {_JSON_TYPES[type(value)]}", expected="a JSON object, which is one row")
    return value


_JSON_TYPES: Final = {
    str: "string",
    int: "number",
    float: "number",
    bool: "boolean",
    list: "list",
    type(None): "null",
}


def _read_json(path: Path, stream: ByteSource) -> Iterator[PlacedRow]:
    """Yield the rows of a list of objects, or of objects one after the other."""
    text = _JsonText(path, stream)
    if text.next_character() != "[":
        while text.next_character():
            place = text.place()
            yield PlacedRow(_check_object(text.take_value(), place), place)
        return
    text.skip_character()
    number = 0
    while text.next_character() != "]":
        number += 1
        place = Place(str(path), "row", number)
        yield PlacedRow(_check_object(text.take_value(), place), place)
        if text.next_character() == ",":
            text.skip_character()
            if text.next_character() == "]":
                raise text.fault("a comma after the last row of the list")
        elif text.next_character() != "]":
            raise text.fault("expected a comma or the end of the list")
    text.skip_character()
    if text.next_character():
        raise text.fault("something follows the end of the list")


class _JsonText:
    """JSON values from a stream, read in chunks: at most a chunk and the value under way are in memory."""

    def __init__(self, path: Path, stream: ByteSource) -> None:
        self._path = path
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._parse = _DECODER.raw_decode
        self._text = ""
        self._position = 0
        self._line = 1
        """Of the position."""
        self._ended = False

    def place(self) -> Place:
        return Place(str(self._path), "line", self._line)

    def fault(self, what: str, *, position: int | None = None) -> DataError:
        """Return the error for what is wrong at a position, by default the one of the next value."""
        at = self._position if position is None else position
        line = self._line + self._text.count("\n", self._position, at)
        place = Place(str(self._path), "line", line)
        is_cut = self._ended and (what.startswith("Unterminated") or not self._text[at:].strip())
        hint = _CUT_OFF if is_cut else None
        fault = f"{place}: not valid JSON: {what}"
        return DataError(fault, expected="a list of objects, or one object per line", hint=hint)

    def next_character(self) -> str:
        """Return the next character after white space, without taking it; empty at the end."""
        while True:
            start = self._position
            while start < len(self._text) and self._text[start] in " \t\r\n":
                start += 1
            self._advance(start)
            if start < len(self._text):
                return self._text[start]
            if self._ended:
                return ""
            self._read_on()

    def skip_character(self) -> None:
        self._advance(self._position + 1)

    def take_value(self) -> object:
        while True:
            try:
                value, end = self._parse(self._text, self._position)
            except json.JSONDecodeError as error:
                # A string that is not closed begins anywhere; all other errors of a cut are at its end.
                is_cut = error.pos >= len(self._text) - _LONGEST_WORD or error.msg.startswith("Unterminated string")
                if self._ended or not is_cut:
                    raise self.fault(error.msg, position=error.pos) from error
            except (ValueError, RecursionError) as error:
                raise self.fault(_describe(error)) from error
            else:
                # A number at the end of a chunk may go on in the next.
                if isinstance(value, dict) or end < len(self._text) or self._ended:
                    self._advance(end)
                    return value
            self._read_on()

    def _advance(self, position: int) -> None:
        self._line += self._text.count("\n", self._position, position)
        self._position = position

    def _read_on(self) -> None:
        """Read at least as much as is left, so that a long value is parsed a few times, not once per chunk."""
        rest = self._text[self._position :]
        if len(rest) >= MAX_ROW_BYTES:
            raise _too_long(self.place(), "a value")
        chunk = self._stream.read(max(_CHUNK_BYTES, len(rest)))
        self._ended = not chunk
        try:
            text = self._decoder.decode(chunk, final=self._ended)
        except UnicodeDecodeError as error:
            line = self._line + rest.count("\n") + error.object.count(b"\n", 0, error.start)
            raise DataError(f"{self._path}: line {line}: not UTF-8: byte 0x{error.object[error.start]:02x}") from error
        if "\0" in text:
            line = self._line + rest.count("\n") + text[: text.index("\0")].count("\n")
            raise DataError(f"{self._path}: line {line}: holds NUL bytes")
        self._text, self._position = rest + text, 0


def _read_table(file: DataFile, stream: ByteSource) -> Iterator[PlacedRow]:
    """Yield the rows below the header of a CSV or TSV file; quotes as in RFC 4180, the same number of cells in each."""
    csv.field_size_limit(MAX_CELL_CHARACTERS)  # of the whole process; a cell may hold a book
    lines = (line for _, line in _read_lines(file.path, stream))
    num_blank = 0
    for first in lines:
        if not first.isspace():
            break
        num_blank += 1
    else:
        raise DataError(f"{file.path}: is empty")
    delimiter = _find_delimiter(file.kind, first)
    # `a, b` in the header: the file is written with a space after each delimiter, which is part of no cell.
    is_spaced = 0 < first.count(delimiter) == first.count(f"{delimiter} ")
    reader = csv.reader(itertools.chain([first], lines), delimiter=delimiter, skipinitialspace=is_spaced, strict=True)
    names: list[str] | None = None
    while True:
        place = Place(str(file.path), "line", num_blank + reader.line_num + 1)
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise _table_fault(error, place, num_blank + reader.line_num) from error
        if cells is None:
            return
        if names is None:
            names = _check_header(cells, place)
        elif len(cells) == len(names):
            yield PlacedRow(dict(zip(names, cells, strict=True)), place)
        elif len(cells) > 1 or (cells and not cells[0].isspace()):
            raise DataError(
                f"{place}: {plural(len(cells), 'cell')}, and the header has {len(names)}",
                hint=f"put a cell that holds {delimiter!r} or a line break into double quotes",
            )


def _find_delimiter(kind: Kind, header: str) -> str:
    """Return what separates the header's names: what the file is named for, or where it is not there another."""
    order = "\t,;" if kind is Kind.TSV else ",\t;"
    return next((delimiter for delimiter in order if delimiter in header), order[0])


def _check_header(cells: list[str], place: Place) -> list[str]:
    # pandas writes its index into a column without a name, and reads such by these names.
    names = [cell.strip() or f"Unnamed: {index}" for index, cell in enumerate(cells)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{place}: the header has {', '.join(map(repr, twice))} more than once")
    return names


def _table_fault(error: csv.Error, place: Place, last_line: int) -> DataError:
    text = str(error)
    hint = 'double each quote inside a quoted cell: "She said ""hi""."'
    if text == "unexpected end of data":
        return DataError(f"{place}: a cell opens a double quote that is never closed", hint=hint)
    if "expected after" in text:
        where = "" if last_line == place.number else f", in line {last_line}"
        return DataError(f"{place}: text follows the closing quote of a cell{where}", hint=hint)
    if "field larger" in text:
        size = f"{MAX_CELL_CHARACTERS:,} characters"
        return DataError(f"{place}: a cell of more than {size}: is a double quote never closed?", hint=hint)
    if "new-line character" in text:
        return DataError(f"{place}: a carriage return outside of quotes", hint="end lines with \\n or \\r\\n")
    return DataError(f"{place}: not readable as a table: {text}")


def _too_long(place: Place, what: str) -> DataError:
    return DataError(f"{place}: {what} of more than {MAX_ROW_BYTES >> 20} MiB")


def _describe(error: BaseException) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)
