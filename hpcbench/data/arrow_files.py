"""Rows of parquet and Arrow files, one batch in memory at a time, by pyarrow alone.

In: a `DataFile`. Out: rows as plain values, each with its place. A key that one row lacks is null in Arrow where
another row has it, so nulls below the top level are left out. Nothing is interpreted beyond that.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from hpcbench.data.file_kinds import DataFile, Kind
from hpcbench.data.rows import Place, PlacedRow
from hpcbench.errors import DataError, MissingLibraryError

BATCH_ROWS: Final = 512
_Convert = Callable[[Any], Any]


def read_arrow_rows(file: DataFile) -> Iterator[PlacedRow]:
    """Yield all rows of a parquet or Arrow file.

    Raises:
        DataError: it is damaged or cut off.
        MissingLibraryError: pyarrow is not installed here.
    """
    with open_batches(file) as batches:
        number = 1
        for batch in batches:
            for start in range(0, batch.num_rows, BATCH_ROWS):
                part = batch.slice(start, BATCH_ROWS)
                yield from convert_batch(file, part, first_number=number)
                number += part.num_rows


@contextmanager
def open_batches(file: DataFile) -> Iterator[Iterator[Any]]:
    """Open a file and hand out its record batches.

    Raises:
        DataError: as `read_arrow_rows`, also for what the body of the `with` reads.
    """
    with reading_arrow(file), open_memory_map(file.path) as source:
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


def open_memory_map(path: Path) -> Any:
    """Return a file as pyarrow reads it without a copy."""
    import pyarrow as pa

    return pa.memory_map(str(path))


@contextmanager
def reading_arrow(file: DataFile) -> Iterator[None]:
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
    except (pa.ArrowException, OSError, EOFError) as error:
        text = str(error).split("\n", maxsplit=1)[0].strip().rstrip(".")
        raise DataError(
            f"{file.path}: a damaged {file.kind}, or one that was cut off: {text}", hint="copy or download it again"
        ) from error


def convert_batch(file: DataFile, batch: Any, *, first_number: int) -> Iterator[PlacedRow]:
    """Yield the rows of a record batch of the file, numbered from `first_number`."""
    if file.columns is not None:
        batch = batch.select([name for name in batch.schema.names if name in file.columns])
    converters = {field.name: _find_converter(field.type) for field in batch.schema}
    needed = {name: convert for name, convert in converters.items() if convert is not None}
    for number, row in enumerate(batch.to_pylist(), start=first_number):
        for name, convert in needed.items():
            row[name] = convert(row[name])
        yield PlacedRow(row, Place(str(file.path), "row", number))


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
