"""JSON lines, JSON, CSV, TSV and text: rows with their lines, and what is not well-formed with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcbench.data import text_files
from hpcbench.data.files import read_rows
from hpcbench.errors import DataError


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows_of(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return (`line 1`, row) of each row."""
    return [(f"{place.unit} {place.number}", row) for row, place in read_rows(path)]


def fault_of(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        list(read_rows(path))
    return str(caught.value).replace(f"{path.parent}/", "")


def test_json_lines_are_numbered_with_the_blank_ones(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", '\ufeff{"a": "six\u2028seven"}\r\n\n{"a": 2}')
    assert rows_of(file) == [("line 1", {"a": "six\u2028seven"}), ("line 3", {"a": 2})]


def test_json_is_a_list_of_objects_or_objects_one_after_the_other(tmp_path: Path) -> None:
    listed = write(tmp_path / "a.json", '\ufeff [ {"a": 1},\n{"a": "]"} ]\n')
    assert rows_of(listed) == [("row 1", {"a": 1}), ("row 2", {"a": "]"})]
    assert rows_of(write(tmp_path / "b.json", '{"a": 1}\n{"a": 2}\n')) == [("line 1", {"a": 1}), ("line 2", {"a": 2})]
    assert rows_of(write(tmp_path / "c.json", '{\n "a": 1\n}\n')) == [("line 1", {"a": 1})]
    printed = write(tmp_path / "d.json", '{\n "a": 1\n}\n{\n "a": 2\n}\n')
    assert rows_of(printed) == [("line 1", {"a": 1}), ("line 4", {"a": 2})]
    assert rows_of(write(tmp_path / "e.jsonl", '[{"a": 1}]')) == [("row 1", {"a": 1})]


def test_values_that_chunks_cut_are_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": '\u00e9\U0001f600\\"' * 3, "n": [12345, -1.5e-7, None, True]} for _ in range(5)]
    file = write(tmp_path / "a.json", json.dumps(rows, indent=1))
    raw = write(tmp_path / "b.json", json.dumps(rows, ensure_ascii=False))
    for size in range(1, 40):
        monkeypatch.setattr(text_files, "_CHUNK_BYTES", size)
        assert [row for _, row in rows_of(file)] == rows
        assert [row for _, row in rows_of(raw)] == rows


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": \n{"a": 3}\n', "a.jsonl: line 2: not valid JSON: Expecting value (column 8); expected: one JSON object per line"),
        ("a.jsonl", '{"a": 1}\n[1]\n', "a.jsonl: line 2: a JSON list; expected: a JSON object, which is one row"),
        ("a.jsonl", '{"a": 1}\n{"a": "on', "a.jsonl: line 2: not valid JSON: Unterminated string starting at (column 7); expected: one JSON object per line\n  hint: the file ends there: was it cut off while it was written or copied?"),
        ("a.jsonl", '{"a": ' + "[" * 100_000, "a.jsonl: line 1: not JSON that can be read: nested too deeply"),
        ("a.jsonl", b'{"a": 1}\n{"a": "caf\xe9"}\n', "a.jsonl: line 2: not UTF-8: byte 0xe9 after 10 bytes\n  hint: iconv -f LATIN1 -t UTF-8 a.jsonl > new, if it is Latin-1"),
        ("a.jsonl", b'{"a": 1}\n' + bytes(20), "a.jsonl: is a binary file of an unknown kind, or holds NUL bytes; expected: JSON lines, JSON, CSV, TSV, text, parquet or arrow; text may be compressed (.gz, .zst, .bz2, .xz)"),
        ("a.jsonl", b'{"a": 1}\n' * 10_000 + bytes(20), "a.jsonl: line 10001: holds NUL bytes\n  hint: a full disk or a crash leaves such: write the file again"),
        ("a.json", '[{"a": 1},\n{"a": 2}', "a.json: line 2: not valid JSON: expected a comma or the end of the list; expected: a list of objects, or one object per line\n  hint: the file ends there: was it cut off while it was written or copied?"),
        ("a.json", '[{"a": 1},\n{"a" 2}]', "a.json: line 2: not valid JSON: Expecting ':' delimiter; expected: a list of objects, or one object per line"),
        ("a.json", '[{"a": 1}, 2]', "a.json: row 2: a JSON number; expected: a JSON object, which is one row"),
        ("a.json", '[{"a": 1},]', "a.json: line 1: not valid JSON: a comma after the last row of the list; expected: a list of objects, or one object per line"),
        ("a.json", '[{"a": 1}]\n[]', "a.json: line 2: not valid JSON: something follows the end of the list; expected: a list of objects, or one object per line"),
        ("a.csv", 'a,b\n1,"2\n3,4\n', 'a.csv: line 2: a cell opens a double quote that is never closed\n  hint: double each quote inside a quoted cell: "She said ""hi""."'),
        ("a.csv", 'a,b\n1,"2\n3,"4"\n', 'a.csv: line 2: text follows the closing quote of a cell, in line 3\n  hint: double each quote inside a quoted cell: "She said ""hi""."'),
        ("a.csv", "\na,b\n1,2,3\n", "a.csv: line 3: 3 cells, and the header has 2\n  hint: put a cell that holds ',' or a line break into double quotes"),
        ("a.csv", "a,b,a\n1,2,3\n", "a.csv: line 1: the header has 'a' more than once"),
        ("a.tsv", "a\tb\n1\n", "a.tsv: line 2: 1 cell, and the header has 2\n  hint: put a cell that holds '\\t' or a line break into double quotes"),
    ],
)  # fmt: skip
def test_what_is_not_well_formed_is_named_with_its_line(
    tmp_path: Path, name: str, content: str | bytes, fault: str
) -> None:
    assert fault_of(write(tmp_path / name, content)) == fault


def test_csv_cells_stay_as_they_are_written(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", '\ufeffa,b\n 1 ,"two\nlines, ""quoted"""\n\n3,\n')
    assert rows_of(file) == [("line 2", {"a": " 1 ", "b": 'two\nlines, "quoted"'}), ("line 5", {"a": "3", "b": ""})]


def test_spaces_after_the_commas_of_a_header_are_the_file_s_way_of_writing(tmp_path: Path) -> None:
    assert rows_of(write(tmp_path / "a.csv", 'a, b\n1, "2, 3"\n')) == [("line 2", {"a": "1", "b": "2, 3"})]


def test_cells_of_any_length_are_read(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", f"a,b\n1,{'x' * 200_000}\n")
    assert [len(row["b"]) for _, row in rows_of(file)] == [200_000]


@pytest.mark.parametrize(("name", "delimiter"), [("a.tsv", "\t"), ("a.csv", "\t"), ("a.csv", ";"), ("a.tsv", ",")])
def test_the_header_tells_what_separates_cells(tmp_path: Path, name: str, delimiter: str) -> None:
    file = write(tmp_path / name, f"a{delimiter}b\n1{delimiter}2\n")
    assert rows_of(file) == [("line 2", {"a": "1", "b": "2"})]


def test_a_column_without_a_name_gets_the_one_that_pandas_gives(tmp_path: Path) -> None:
    assert rows_of(write(tmp_path / "a.csv", ",a\n0,1\n")) == [("line 2", {"Unnamed: 0": "0", "a": "1"})]


def test_plain_text_is_one_row_per_line_that_is_not_blank(tmp_path: Path) -> None:
    file = write(tmp_path / "a.txt", "one, two\n\n  [three\r\n")
    assert rows_of(file) == [("line 1", {"text": "one, two"}), ("line 3", {"text": "  [three"})]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_nan_is_null_and_infinity_a_number(tmp_path: Path, name: str) -> None:
    file = write(tmp_path / name, '{"a": NaN, "b": [NaN, -Infinity, "NaN"]}\n')
    assert rows_of(file) == [("line 1", {"a": None, "b": [None, float("-inf"), "NaN"]})]
