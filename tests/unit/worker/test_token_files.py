"""Encoded rows in an Arrow file: the same values come back, one row at a time, from mapped memory."""

from __future__ import annotations

import pickle
from array import array
from collections.abc import Sequence
from pathlib import Path

import pytest

from hpcbench.data.images import ImageSource
from hpcbench.worker.data.encoded import Encoded
from hpcbench.worker.data.token_files import ROWS_PER_BATCH, StoredRows, write_rows


def encode(count: int, **values: object) -> Encoded:
    ids = array("i", range(1, count + 1))
    return Encoded(input_ids=ids, labels=array("i", [-100, *ids[1:]]), **values)  # type: ignore[arg-type]


ROWS: Sequence[Encoded] = (
    encode(5),
    encode(3, truncated=True),
    encode(4, weights=array("f", [0.0, 0.5, 1.0, 3.0])),
    encode(6, images=(ImageSource(path=Path("/a/\udcff.png")), ImageSource(data=b"\x00\xff"))),
    encode(3, rejected=encode(7, truncated=True)),
    encode(8, is_good=True),
    encode(8, is_good=False),
)


def store(tmp_path: Path, rows: Sequence[Encoded]) -> StoredRows:
    write_rows(tmp_path / "rows.arrow", rows)
    return StoredRows(tmp_path / "rows.arrow")


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    assert list(store(tmp_path, ROWS)) == list(ROWS)


def test_many_rows_are_found_by_number_over_all_batches(tmp_path: Path) -> None:
    rows = [encode(2 + number % 50) for number in range(2 * ROWS_PER_BATCH + 3)]
    found = store(tmp_path, rows)
    assert len(found) == len(rows)
    for number in (0, ROWS_PER_BATCH - 1, ROWS_PER_BATCH, 2 * ROWS_PER_BATCH + 2, -1):
        assert found[number] == rows[number]
    assert found[ROWS_PER_BATCH - 1 : ROWS_PER_BATCH + 1] == rows[ROWS_PER_BATCH - 1 : ROWS_PER_BATCH + 1]
    with pytest.raises(IndexError):
        found[len(rows)]


def test_lengths_and_the_shortest_row_are_those_of_the_rows(tmp_path: Path) -> None:
    found = store(tmp_path, ROWS)
    assert found.lengths() == [row.num_tokens for row in ROWS]
    assert found.find_shortest() == ROWS[1]


def test_no_rows_are_a_file_too(tmp_path: Path) -> None:
    found = store(tmp_path, ())
    assert (len(found), list(found), found.lengths()) == (0, [], [])


def test_a_spawned_data_loader_gets_the_file_and_not_its_rows(tmp_path: Path) -> None:
    found = store(tmp_path, [encode(100_000)])
    sent = pickle.dumps(found)
    assert len(sent) < 1000
    assert list(pickle.loads(sent)) == list(found)  # noqa: S301  # made here
