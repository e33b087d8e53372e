"""Folders of data files and folders that datasets saved: which files are the dataset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcbench.data.files import read_rows
from hpcbench.data.folders import find_files, holds_data
from hpcbench.errors import DataError


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('{"a": 1}\n')
    return folder


def files_of(folder: Path, split: str = "train") -> list[str]:
    return [str(file.path.relative_to(folder)) for file in find_files(folder, split=split)]


def fault_of(folder: Path, split: str = "train") -> str:
    with pytest.raises(DataError) as caught:
        find_files(folder, split=split)
    return str(caught.value).removeprefix(f"{folder}: ")


def test_all_files_of_a_folder_without_splits_are_the_dataset_in_the_order_of_their_names(tmp_path: Path) -> None:
    write(tmp_path, "b.jsonl", "a.jsonl", ".hidden.jsonl", "README.md", "dataset_info.json", ".cache/c.jsonl")
    assert files_of(tmp_path) == ["a.jsonl", "b.jsonl"]
    assert holds_data(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ("train.jsonl", "test.jsonl"),
        ("my_train_2.jsonl", "my_valid_2.jsonl"),
        ("train/x.jsonl", "dev/x.jsonl"),
        ("training-data/x.jsonl", "eval/train.jsonl"),
        ("data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl", "data/extra-00000-of-00001.jsonl"),
    ],
)
def test_the_train_split_is_told_by_names_as_datasets_does_it(tmp_path: Path, names: tuple[str, ...]) -> None:
    write(tmp_path, *names)
    assert files_of(tmp_path) == [name for name in names if name.split("/")[0] != "eval" and "train" in name]


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        ((), "a folder without data files; expected: files with one of .arrow, .csv, .json, .jsonl, .ndjson, .parquet, .tsv, .txt"),
        (("test.jsonl", "dev.jsonl"), "no split `train`; found: test, validation\n  hint: name the file or folder itself; several can be a list"),
        (("train.jsonl", "more.jsonl"), "files that belong to no split, beside some that do: more.jsonl\n  hint: name the file or folder itself; several can be a list"),
        (("a.jsonl", "b.csv"), "files of several kinds: .csv, .jsonl\n  hint: name the file or folder itself; several can be a list"),
        (("main/a.jsonl", "other/a.jsonl"), "data files in several folders: main, other\n  hint: name the file or folder itself; several can be a list"),
    ],
)  # fmt: skip
def test_a_folder_that_is_not_one_dataset_is_refused(tmp_path: Path, names: tuple[str, ...], fault: str) -> None:
    assert fault_of(write(tmp_path, *names)) == fault


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert fault_of(tmp_path / "gone") == "no such dataset file or folder"


def test_saved_datasets_are_read_without_datasets(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import ipc

    table = pa.table({"a": [1, 2], "b": ["x", "y"]})
    for split in ("train", "test"):
        for shard in range(2):
            (tmp_path / split).mkdir(exist_ok=True)
            with ipc.new_stream(tmp_path / split / f"data-0000{shard}-of-00002.arrow", table.schema) as writer:
                writer.write_table(table)
        files = [{"filename": f"data-0000{shard}-of-00002.arrow"} for shard in range(2)]
        state = {"_data_files": files, "_format_columns": ["a"], "_output_all_columns": False}
        (tmp_path / split / "state.json").write_text(json.dumps(state))
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert [row for row, _ in read_rows(tmp_path)] == [{"a": 1}, {"a": 2}] * 2
    assert [row for row, _ in read_rows(tmp_path / "test")] == [{"a": 1}, {"a": 2}] * 2
    assert fault_of(tmp_path, "dev") == (
        f"no split `dev`; found: train, test\n  hint: name the folder of one of them: {tmp_path}/train"
    )
    (tmp_path / "test" / "data-00001-of-00002.arrow").unlink()
    assert fault_of(tmp_path / "test") == "its file data-00001-of-00002.arrow is missing"


def test_a_dataset_that_was_saved_as_a_choice_of_rows_is_refused(tmp_path: Path) -> None:
    state = {"_data_files": [{"filename": "a.arrow"}], "_indices_data_files": [{"filename": "indices.arrow"}]}
    (tmp_path / "state.json").write_text(json.dumps(state))
    assert fault_of(tmp_path).startswith("saved by an old version of datasets as a choice of rows (indices)\n")


def test_a_shard_that_is_missing_is_named(tmp_path: Path) -> None:
    write(tmp_path, "train-00000-of-00003.jsonl", "train-00002-of-00003.jsonl", "test-00001-of-00002.jsonl")
    with pytest.raises(DataError) as caught:
        find_files(tmp_path)
    assert caught.value.message == f"{tmp_path}: 1 of 3 shards missing, the first is train-00001-of-00003.jsonl"
    assert caught.value.hint == "download it again, or name the files that are to be read"
    write(tmp_path, "train-00001-of-00003.jsonl")
    assert len(files_of(tmp_path)) == 3


def test_shards_that_count_from_one_and_shards_with_a_hash_are_whole(tmp_path: Path) -> None:
    write(tmp_path / "a", "x-00001-of-00002.jsonl", "x-00002-of-00002.jsonl")
    write(tmp_path / "b", "train-00000-of-00002-1f2e.jsonl", "train-00001-of-00002-9a8b.jsonl")
    assert [len(files_of(tmp_path / name)) for name in "ab"] == [2, 2]


def test_the_case_of_a_split_does_not_matter(tmp_path: Path) -> None:
    write(tmp_path, "Train.csv", "TEST.csv")
    assert files_of(tmp_path) == ["Train.csv"]
