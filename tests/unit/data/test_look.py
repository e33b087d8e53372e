"""A look at a dataset: all of a small one; of a large one its beginning, rows by chance, its end."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from hpcbench.data import look
from hpcbench.data.look import Look
from hpcbench.errors import DataError

NUM_ROWS = 2000


@pytest.fixture(autouse=True)
def _small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "WHOLE_BYTES", 10_000)
    monkeypatch.setattr(look, "HEAD_BYTES", 2_000)
    monkeypatch.setattr(look, "NUM_SPOTS", 5)


def write_lines(path: Path, lines: Iterable[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def json_lines(num_rows: int = NUM_ROWS) -> list[str]:
    return [json.dumps({"n": number}) for number in range(num_rows)]


def numbers(found: Look) -> list[int]:
    return [row["n"] for row, _ in found]


def test_a_small_dataset_is_read_as_a_whole(tmp_path: Path) -> None:
    found = Look(write_lines(tmp_path / "a.jsonl", json_lines(100)))
    assert numbers(found) == list(range(100))
    assert found.is_whole


def test_of_large_json_lines_the_first_some_others_and_the_last_are_read(tmp_path: Path) -> None:
    found = Look(write_lines(tmp_path / "a.jsonl", json_lines()))
    seen = numbers(found)
    first = [number for index, number in enumerate(seen) if number == index]
    others = seen[len(first) : -1]
    assert len(first) < 250
    assert others == sorted(others)
    assert 1 <= len(others) <= 5
    assert seen[-1] == NUM_ROWS - 1
    assert not found.is_whole
    assert numbers(Look(tmp_path / "a.jsonl")) == seen


def test_a_row_by_chance_is_named_by_its_byte(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", json_lines())
    content = path.read_bytes()
    placed = [found for found in Look(path) if found.place.unit == "byte"]
    assert placed
    for row, place in placed:
        assert json.loads(content[place.number - 1 :].split(b"\n")[0]) == row


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_large_file_that_was_cut_off_is_found(tmp_path: Path, name: str) -> None:
    text = "\n".join(json_lines()) if name == "a.jsonl" else json.dumps([json.loads(line) for line in json_lines()])
    (tmp_path / name).write_text(text[:-1])
    with pytest.raises(DataError, match=r"was it cut off"):
        list(Look(tmp_path / name))


def test_the_beginning_alone_is_read_of_tables_and_packed_files(tmp_path: Path) -> None:
    table = write_lines(tmp_path / "a.csv", ["n", *map(str, range(NUM_ROWS * 2))])
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress("\n".join(json_lines()).encode()))
    for path in (table, packed):
        found = Look(path)
        assert 0 < len(numbers(found)) < NUM_ROWS
        assert not found.is_whole


def test_some_files_of_a_large_folder_are_read_the_first_and_the_last_among_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look, "NUM_FILES", 4)
    for number in range(10):
        write_lines(tmp_path / f"part{number}.jsonl", [json.dumps({"n": number})] * 200)
    found = Look(tmp_path)
    seen = set(numbers(found))
    assert {0, 9} < seen
    assert len(seen) == 4
    assert not found.is_whole


def test_of_large_parquet_and_arrow_files_some_parts_are_read(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import ipc, parquet

    table = pa.table({"n": list(range(NUM_ROWS)), "text": ["x" * 20] * NUM_ROWS})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=100)
    with ipc.new_file(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=100)
    with ipc.new_stream(tmp_path / "b.arrow", table.schema) as stream:
        stream.write_table(table, max_chunksize=100)
    for name, last in (("a.parquet", 1900), ("a.arrow", 1900), ("b.arrow", 700)):
        found = Look(tmp_path / name)
        placed = list(found)
        assert all(place.number == row["n"] + 1 for row, place in placed)
        parts = sorted({row["n"] // 100 * 100 for row, _ in placed})
        assert (parts[0], parts[-1], len(parts)) == (0, last, 8), name
        assert len(placed) == 100 + 7 * 16
        assert not found.is_whole


def test_lines_of_any_white_space_are_no_rows_of_a_large_text_file(tmp_path: Path) -> None:
    lines = ["\u3000" if number % 2 else f"line {number}" for number in range(NUM_ROWS)]
    seen = [row["text"] for row, _ in Look(write_lines(tmp_path / "a.txt", [*lines, "\u3000\u00a0", ""]))]
    assert all(text.startswith("line ") for text in seen)
    assert seen[-1] == f"line {NUM_ROWS - 2}"
