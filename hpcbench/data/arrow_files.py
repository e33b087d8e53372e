"""Rows of parquet and Arrow files, one batch in memory at a time, by pyarrow alone.

In: a `DataFile`. Out: rows as plain values, each with its place. A key that one row lacks is null in Arrow where
another row has it, so nulls below the top level are left out. Nothing is interpreted beyond that.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from hpcbench.data.file_kinds import DataFile, Kind
from hpcbench.data.rows import Place, PlacedRow, Row
from hpcbench.errors import DataError, MissingLibraryError

BATCH_ROWS: Final = 512
_Convert = Callable[[Any], Any]


def read_arrow_rows(file: DataFile) -> Iterator[PlacedRow]:
    """Yield all rows of a parquet or Arrow file.

    Raises:
        DataError: it is damaged or cut off.
        MissingLibraryError: pyarrow is not installed here.
    """
    with _open_batches(file) as batches:
        number = 1
        for batch in batches:
            for start in range(0, batch.num_rows, BATCH_ROWS):
                part = batch.slice(start, BATCH_ROWS)
                yield from _convert_batch(file, part, first_number=number)
                number += part.num_rows


def count_bytes(file: DataFile) -> int:
    """Return how large the rows of a parquet or Arrow file are, unpacked, about.

    Raises:
        DataError: as `read_arrow_rows`.
        MissingLibraryError: pyarrow is not installed here.
    """
    if file.kind is not Kind.PARQUET:
        return file.path.stat().st_size
    with _reading(file), _open(file.path) as source:
        from pyarrow import parquet

        found = parquet.ParquetFile(source).metadata
        return sum(found.row_group(index).total_byte_size for index in range(found.num_row_groups))


def read_some_arrow_rows(file: DataFile, *, num_parts: int, num_rows: int, seed: int) -> Iterator[PlacedRow]:
    """Yield the first rows of `num_parts` row groups or record batches, the first and the last among them.

    These are `num_rows` of each, and `BATCH_ROWS` of the first. Of a stream, which only has a beginning, its first
    batches are taken.

    Raises:
        DataError: as `read_arrow_rows`.
        MissingLibraryError: pyarrow is not installed here.
    """
    with _reading(file), _open(file.path) as source:
        match file.kind:
            case Kind.PARQUET:
                from pyarrow import parquet

                opened = parquet.ParquetFile(source)
                sizes = [opened.metadata.row_group(index).num_rows for index in range(opened.num_row_groups)]
                for index in choose_indices(len(sizes), num_parts, seed=seed):
                    size = num_rows if index else BATCH_ROWS
                    batches = opened.iter_batches(batch_size=size, row_groups=[index], use_threads=False)
                    for batch in itertools.islice(batches, 1):
                        yield from _convert_batch(file, batch, first_number=1 + sum(sizes[:index]))
            case Kind.ARROW_FILE:
                from pyarrow import ipc

                opened = ipc.open_file(source)
                chosen = set(choose_indices(opened.num_record_batches, num_parts, seed=seed))
                number = 1
                for index in range(opened.num_record_batches):
                    batch = opened.get_batch(index)
                    if index in chosen:
                        part = batch.slice(0, num_rows if index else BATCH_ROWS)
                        yield from _convert_batch(file, part, first_number=number)
                    number += batch.num_rows
            case _:
                from pyarrow import ipc

                number = 1
                for batch in itertools.islice(ipc.open_stream(source), num_parts):
                    part = batch.slice(0, BATCH_ROWS if number == 1 else num_rows)
                    yield from _convert_batch(file, part, first_number=number)
                    number += batch.num_rows


def choose_indices(total: int, count: int, *, seed: int) -> list[int]:
    """Return at most `count` indices below `total`, the first and the last among them, sorted."""
    if total <= count:
        return list(range(total))
    between = random.Random(seed).sample(range(1, total - 1), count - 2)  # noqa: S311  # no secret
    return [0, *sorted(between), total - 1]


@contextmanager
def _open_batches(file: DataFile) -> Iterator[Iterator[Any]]:
    """Open a file and hand out its record batches.

    Raises:
        DataError: as `read_arrow_rows`, also for what the body of the `with` reads.
    """
    with _reading(file), _open(file.path) as source:
        match file.kind:
            case Kind.PARQUET:
                from pyarrow import parquet

                # Threads of Arrow would be in the way of preprocess_num_proc, which forks.
                yield parquet.ParquetFile(source).iter_batches(batch_size=BATCH_ROWS, use_threads=False)
            case Kind.ARROW_FILE:
                from pyarrow import ipc

                opened = ipc.open_file(source)
                yield (opened.get_batch(index) for index in range(opened.num_record_batches))
            case _:
                from pyarrow import ipc

                yield iter(ipc.open_stream(source))


def _open(path: Path) -> Any:
    """Return a file that pyarrow reads without a copy."""
    import pyarrow as pa

    return pa.memory_map(str(path))


@contextmanager
def _reading(file: DataFile) -> Iterator[None]:
    """Turn what pyarrow raises into errors that name the file."""
    try:
        import pyarrow as pa
    except ImportError as error:
        raise MissingLibraryError(
            f"{file.path}: a {file.kind}, and the library pyarrow is not installed here",
            hint='pip install pyarrow, which "hpcbench-llm[train]" brings',
        ) from error
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError, json.JSONDecodeError) as error:
        text = str(error).split("\n", maxsplit=1)[0].strip().rstrip(".")
        raise DataError(
            f"{file.path}: a damaged {file.kind}, or one that was cut off: {text}", hint="copy or download it again"
        ) from error


def _convert_batch(file: DataFile, batch: Any, *, first_number: int) -> Iterator[PlacedRow]:
    """Yield the rows of a record batch of the file, numbered from `first_number`."""
    if file.columns is not None:
        batch = batch.select([name for name in batch.schema.names if name in file.columns])
    # A damaged file may hold texts that are not UTF-8, or offsets that point outside of it, which end the process.
    batch.validate(full=True)
    for number, row in enumerate(plain_rows(batch, origin=str(file.path)), start=first_number):
        yield PlacedRow(row, Place(str(file.path), "row", number))


def plain_rows(batch: Any, *, origin: str) -> Iterator[Row]:
    """Yield the rows of a table or record batch, without the nulls that Arrow fills in below the top level.

    Dates and times are numbers, as Arrow stores them, save those inside of lists and objects.

    Raises:
        DataError: a value is none that Python has; the message begins with `origin`.
    """
    converters = {field.name: _find_converter(field.type) for field in batch.schema}
    needed = {name: convert for name, convert in converters.items() if convert is not None}
    for row in _to_objects(_count_times(batch), origin):
        for name, convert in needed.items():
            row[name] = convert(row[name])
        yield row


def _count_times(batch: Any) -> Any:
    """Return a table or batch with whole numbers for dates and times, of which Arrow has more than Python."""
    import pyarrow as pa

    if not any(_is_time(field.type) for field in batch.schema):
        return batch
    columns = [
        column.cast(pa.int32() if column.type.bit_width == 32 else pa.int64()) if _is_time(column.type) else column
        for column in batch.columns
    ]
    return type(batch).from_arrays(columns, names=batch.schema.names)


def _is_time(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_temporal(kind)) and not types.is_interval(kind)


def _to_objects(batch: Any, origin: str) -> list[Row]:
    import pyarrow as pa

    try:
        rows: list[Row] = batch.to_pylist()
    except (pa.ArrowException, UnicodeDecodeError):
        raise
    except (OverflowError, ValueError, LookupError) as error:
        raise DataError(
            f"{origin}: a value in a list or object cannot be read: {str(error) or type(error).__name__}",
            expected="texts, numbers, or dates up to the year 9999 of a known time zone",
        ) from error
    return rows


def _find_converter(kind: Any) -> _Convert | None:
    """Return what to do with each value of an Arrow type, or None where values are taken as they are."""
    from pyarrow import types

    # JSON that datasets stores for columns of mixed types.
    if getattr(kind, "extension_name", None) == "arrow.json":
        return _optional(json.loads)
    if types.is_struct(kind):
        parts = {field.name: _find_converter(field.type) for field in kind}
        return _optional(lambda value: _convert_struct(value, parts))
    if types.is_map(kind):
        return _optional(dict)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        convert = _find_converter(kind.value_type)
        return None if convert is None else _optional(lambda values: [convert(value) for value in values])
    return None


def _convert_struct(value: dict[str, Any], parts: dict[str, _Convert | None]) -> dict[str, Any]:
    found = {}
    for name, part in value.items():
        if part is not None:
            convert = parts[name]
            found[name] = part if convert is None else convert(part)
    return found


def _optional(convert: _Convert) -> _Convert:
    return lambda value: None if value is None else convert(value)
