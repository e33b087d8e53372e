"""Parquet and Arrow files: plain rows, without what Arrow adds; damage is named."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from hpcbench.data.files import read_rows
from hpcbench.errors import DataError, MissingLibraryError


def test_keys_that_arrow_filled_with_null_are_left_out_below_the_top_level(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows: list[dict[str, Any]] = [
        {"m": [{"role": "user", "call": {"a": "1"}}], "x": None, "tags": {"k": None}},
        {"m": [{"role": "tool", "call": {"b": [{"c": "2"}, {"d": "3"}]}}], "x": "y", "tags": {"k": "v"}},
    ]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert [row for row, _ in read_rows(tmp_path / "a.parquet")] == [rows[0] | {"tags": {}}, rows[1]]


def test_json_columns_of_datasets_and_maps_are_values_again(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {
        "tools": pa.array(['[{"name": "f", "x": null}]', None], type=pa.json_()),
        "map": pa.array([[("k", {"a": 1})], []], type=pa.map_(pa.string(), pa.struct([("a", pa.int64())]))),
    }
    parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert [row for row, _ in read_rows(tmp_path / "a.parquet")] == [
        {"tools": [{"name": "f", "x": None}], "map": {"k": {"a": 1}}},
        {"tools": None, "map": {}},
    ]


@pytest.mark.parametrize("name", ["a.parquet", "file.arrow", "stream.arrow"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import ipc, parquet

    table = pa.table({"a": ["x" * 1000] * 100})
    path = tmp_path / name
    if name == "a.parquet":
        parquet.write_table(table, path)
    else:
        with (ipc.new_file if name == "file.arrow" else ipc.new_stream)(path, table.schema) as writer:
            writer.write_table(table)
    assert len(list(read_rows(path))) == 100
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(
        DataError, match=r": a damaged (parquet file|arrow file|arrow stream), or one that was cut off: \w"
    ):
        list(read_rows(path))


def test_where_pyarrow_is_missing_the_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingLibraryError) as caught:
        list(read_rows(tmp_path / "a.parquet"))
    assert str(caught.value) == (
        f"{tmp_path}/a.parquet: a parquet file, and the library pyarrow is not installed here\n"
        '  hint: pip install pyarrow, which "hpcbench-llm[train]" brings'
    )


def test_dates_and_times_that_python_lacks_are_numbers_and_inside_of_lists_refused(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    times = {
        "late": pa.array([10**15, None], type=pa.timestamp("ms")),
        "nowhere": pa.array([1, None], type=pa.timestamp("us", tz="Nowhere/Else")),
        "day": pa.array([10**7, None], type=pa.date32()),
        "span": pa.array([10**15, None], type=pa.duration("ms")),
    }
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({**times, "text": ["x", "y"]}), path)
    first, second = (row for row, _ in read_rows(path))
    assert first == {"late": 10**15, "nowhere": 1, "day": 10**7, "span": 10**15, "text": "x"}
    assert second == dict.fromkeys(times) | {"text": "y"}
    parquet.write_table(pa.table({"seen": pa.array([[10**15]], type=pa.list_(pa.timestamp("ms")))}), path)
    with pytest.raises(DataError) as caught:
        list(read_rows(path))
    assert str(caught.value).startswith(f"{path}: a value in a list or object cannot be read: ")
