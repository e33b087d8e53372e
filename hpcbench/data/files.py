"""Data files to rows: JSON, CSV, parquet, arrow, folders saved by datasets, and hub datasets from the local cache.

In: where a dataset is. Out: its rows as plain objects. JSON and CSV are read here, so that errors name the file's own
row and text stays text; the rest by pyarrow and datasets. It does not interpret chats and never downloads.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from hpcbench.data.sources import DatasetSource
from hpcbench.errors import WorkerError

Row = dict[str, Any]


def read_rows(source: DatasetSource) -> list[Row]:
    """Read one dataset under hpcbench's field names.

    Raises:
        WorkerError: it is not there, or not readable.
    """
    return [source.layout.apply(row) for row in _read(source)]


def _read(source: DatasetSource) -> list[Row]:
    path = source.path
    if path is None:
        raise ValueError(f"{source.name} is not local")
    try:
        if path.is_file():
            return _read_file(path)
        if path.is_dir():
            return _read_folder(path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise WorkerError(f"{path}: cannot be read: {error}") from error
    raise WorkerError(f"{path}: no such dataset file or folder")


def _read_file(path: Path) -> list[Row]:
    match path.suffix.lower():
        case ".json" | ".jsonl":
            return _read_json_rows(path)
        case ".csv":
            # Excel begins CSV files with a byte order mark.
            with path.open(encoding="utf-8-sig", newline="") as stream:
                return [dict(row) for row in csv.DictReader(stream)]
        case ".parquet":
            from pyarrow import parquet  # type: ignore[import-untyped]  # has no stubs

            return list(parquet.read_table(path).to_pylist())
        case ".arrow":
            from datasets import Dataset

            return [dict(row) for row in Dataset.from_file(str(path))]
        case _:
            raise WorkerError(f"{path}: unknown kind of dataset file; expected: json, jsonl, csv, parquet, arrow")


def _read_json_rows(path: Path) -> list[Row]:
    """Read a JSON list of objects, or one object per line, whatever the suffix is."""
    text = path.read_text(encoding="utf-8-sig")
    if text.lstrip().startswith("["):
        try:
            values = json.loads(text)
        except ValueError as error:
            raise WorkerError(f"{path}: not valid JSON: {error}") from error
        return [_check_object(value, path, f"row {number}") for number, value in enumerate(values, start=1)]
    rows = []
    # Not splitlines(): JSON strings may hold U+2028, which does not end a line in JSON lines.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                value = json.loads(line)
            except ValueError as error:
                raise WorkerError(f"{path}: line {number}: not valid JSON: {error}") from error
            rows.append(_check_object(value, path, f"line {number}"))
    return rows


def _check_object(value: object, path: Path, place: str) -> Row:
    if not isinstance(value, dict):
        raise WorkerError(f"{path}: {place}: expected a JSON object, found {type(value).__name__}")
    return value


def _read_folder(path: Path) -> list[Row]:
    from datasets import DatasetDict, load_from_disk

    try:
        saved = load_from_disk(str(path))
    except FileNotFoundError as error:
        raise WorkerError(
            f"{path}: not a folder saved by datasets (save_to_disk)", hint="name the data file itself"
        ) from error
    if isinstance(saved, DatasetDict):
        if "train" not in saved:
            raise WorkerError(f"{path}: no split `train`; found: {', '.join(saved)}")
        saved = saved["train"]
    return [dict(row) for row in saved]
