"""Local files of an eval task: which files a pattern, a folder or a zip archive means, and their rows."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from hpcbench.data.local_splits import find_split_files, patterns_of, read_split
from hpcbench.errors import WorkerError
from tests.support.places import shared


def write_rows(file: Path, *rows: dict[str, Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def pack(archive: Path, **texts: str) -> Path:
    with zipfile.ZipFile(archive, "w") as opened:
        for name, text in texts.items():
            opened.writestr(name.replace("__", "/") + ".csv", text)
    return archive


@pytest.mark.parametrize(
    ("names", "patterns"),
    [
        (("train.jsonl", "test.jsonl"), {"train": "train.jsonl", "test": "test.jsonl"}),
        (("gsm8k-train.arrow", "gsm8k-test.arrow"), {"train": "gsm8k-train.arrow", "test": "gsm8k-test.arrow"}),
        (("val/law_val.csv", "val/tax_law_val.csv"), {"val": "val/{subset}_val.csv"}),
        (("test/law.csv", "test/tax_law.csv"), {"test": "test/{subset}.csv"}),
        (("ARC-Easy-test.hf.jsonl", "ARC-Challenge-test.hf.jsonl"), {"test": "{subset}-test.hf.jsonl"}),
        (
            ("main/test-00000-of-00002.parquet", "main/test-00001-of-00002.parquet"),
            {"test": "main/test-*.parquet"},
        ),
        (
            ("ARC-Easy/test-00000-of-00001.parquet", "ARC-Challenge/test-00000-of-00001.parquet"),
            {"test": "{subset}/test-*.parquet"},
        ),
        (("dev/law_dev.csv", "README.md", "notes.txt"), {"dev": "dev/law_dev.csv"}),
        (
            ("val/law_val.csv", "val/tax_val.csv", "__MACOSX/val/._law_val.csv", ".cache/a/val/law_val.csv"),
            {"val": "val/{subset}_val.csv"},
        ),
    ],
)
def test_a_folder_gives_a_pattern_for_each_split(
    tmp_path: Path, names: tuple[str, ...], patterns: dict[str, str]
) -> None:
    for name in names:
        write_rows(tmp_path / name, {"a": 1})
    assert patterns_of(tmp_path) == {split: f"{tmp_path}/{pattern}" for split, pattern in patterns.items()}


def test_an_archive_is_read_as_a_folder(tmp_path: Path) -> None:
    archive = pack(tmp_path / "c.zip", val__law_val="id,question\n0,why?\n", val__tax_val="id,question\n1,who?\n")
    (pattern,) = patterns_of(archive).values()
    assert pattern == f"{archive}/val/{{subset}}_val.csv"
    (file,) = find_split_files(pattern, "tax")
    assert str(file) == f"{archive}/val/tax_val.csv"
    assert read_split([file]) == [{"id": 1, "question": "who?"}]


def test_the_official_archive_of_c_eval_has_52_subjects() -> None:
    archive = shared("data/ceval/ceval.zip")
    patterns = patterns_of(archive)
    assert list(patterns) == ["dev", "test", "val"]
    assert len(find_split_files(patterns["val"])) == 52
    rows = read_split(find_split_files(patterns["dev"], "accountant"))
    assert len(rows) == 5
    assert list(rows[0]) == ["id", "question", "A", "B", "C", "D", "answer", "explanation"]


def test_only_stars_and_the_subset_are_wild(tmp_path: Path) -> None:
    write_rows(tmp_path / "a[1].jsonl", {"a": 1})
    write_rows(tmp_path / "a1.jsonl", {"a": 2})
    assert [file.path.name for file in find_split_files(f"{tmp_path}/a[1].jsonl")] == ["a[1].jsonl"]
    assert [file.path.name for file in find_split_files(f"{tmp_path}/a{{subset}}.jsonl", "[1]")] == ["a[1].jsonl"]
    assert len(find_split_files(f"{tmp_path}/a*.jsonl")) == 2


def test_columns_of_integers_in_csv_are_numbers_and_all_else_stays_text(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("answer,code,size,choice\n2,007,1.10,NA\n0,008,2,None\n", encoding="utf-8")
    assert read_split(find_split_files(str(file))) == [
        {"answer": 2, "code": "007", "size": "1.10", "choice": "NA"},
        {"answer": 0, "code": "008", "size": "2", "choice": "None"},
    ]


def test_rows_have_the_columns_of_all_rows(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.jsonl", {"a": 1}, {"b": 2})
    assert read_split(find_split_files(str(file))) == [{"a": 1, "b": None}, {"a": None, "b": 2}]


def test_a_folder_whose_files_name_no_split_is_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", {"a": 1})
    with pytest.raises(WorkerError) as caught:
        patterns_of(tmp_path)
    assert caught.value.message == (
        f"{tmp_path}: no data file whose name says its split; expected: train, validation, valid, val, dev, test"
    )


def test_a_folder_whose_files_of_a_split_differ_in_more_than_a_name_is_refused(tmp_path: Path) -> None:
    for name in ("test/law.csv", "old/test.jsonl"):
        write_rows(tmp_path / name, {"a": 1})
    with pytest.raises(WorkerError) as caught:
        patterns_of(tmp_path)
    assert caught.value.message == (
        f"{tmp_path}: its files of the split 'test' differ in more than the name of a subset"
    )


def test_an_archive_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(WorkerError, match="cannot be read as a zip archive"):
        patterns_of(tmp_path / "a.zip")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_of_two_members_of_one_name_the_last_is_read_once(tmp_path: Path) -> None:
    archive = pack(tmp_path / "c.zip", val__law_val="id\n0\n")
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr("val/law_val.csv", "id\n1\n2\n")
    assert read_split(find_split_files(f"{archive}/val/{{subset}}_val.csv", "law")) == [{"id": 1}, {"id": 2}]


@pytest.mark.parametrize(("local", "central", "bits"), [(6, 8, 1), (8, 10, 98)], ids=["encrypted", "ppmd"])
def test_a_member_that_cannot_be_unpacked_is_named(tmp_path: Path, local: int, central: int, bits: int) -> None:
    archive = pack(tmp_path / "c.zip", val__law_val="id\n0\n")
    data = bytearray(archive.read_bytes())
    data[local] = data[data.find(b"PK\x01\x02") + central] = bits
    archive.write_bytes(data)
    with pytest.raises(WorkerError, match=r"c\.zip/val/law_val\.csv: cannot be read"):
        read_split(find_split_files(f"{archive}/val/law_val.csv"))
