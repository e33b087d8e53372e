"""Which files of a downloaded dataset are its splits: by ModelScope's description, by README.md, by their names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcbench.data.repository_files import find_split_files
from hpcbench.errors import DataError


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('{"query": "Q"}\n', encoding="utf-8")
    return folder


def find(folder: Path, subset: str | None = None, *splits: str) -> list[str]:
    found = find_split_files(folder, subset=subset, splits=splits or ("train",))
    return [file.path.relative_to(folder).as_posix() for file in found]


def test_the_description_of_modelscope_comes_first(tmp_path: Path) -> None:
    folder = write(tmp_path, "zh.csv", "en.csv", "train.jsonl")
    description = {
        "zh": {"train": {"meta": "zh.csv", "file": ""}},
        "en": {"train": {"meta": "en.csv", "file": ""}, "val": {"meta": "train.jsonl", "file": ""}},
    }
    (folder / "medical.json").write_text(json.dumps(description))
    assert find(folder, "zh") == ["zh.csv"]
    assert find(folder, "en", "train", "validation") == ["en.csv", "train.jsonl"]


def test_the_configs_of_the_readme_come_next(tmp_path: Path) -> None:
    folder = write(tmp_path, "a/x.jsonl", "b/y.jsonl", "b/z.csv")
    (folder / "README.md").write_text(
        "---\nlicense: mit\nconfigs:\n"
        "- config_name: first\n  data_files: a/*.jsonl\n"
        "- config_name: second\n  data_files:\n  - {split: train, path: [b/*.jsonl]}\n  - {split: test, path: '**/z.csv'}\n"
        "---\ntext\n"
    )
    assert find(folder, "first") == ["a/x.jsonl"]
    assert find(folder, "second") == ["b/y.jsonl"]
    assert find(folder, "second", "test") == ["b/z.csv"]


@pytest.mark.parametrize(
    ("names", "subset", "split", "expected"),
    [
        (["rows.jsonl", "README.md", "dataset_infos.json", ".msc/x.json"], None, "train", ["rows.jsonl"]),
        (["train.jsonl", "dev.jsonl", "more.jsonl"], None, "train", ["train.jsonl"]),
        (["train.jsonl", "dev.jsonl"], None, "validation", ["dev.jsonl"]),
        (["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/test-0.parquet"], None, "train",
         ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"]),
        (["common_zh_70k.jsonl", "common_en_70k.jsonl"], "common-zh", "train", ["common_zh_70k.jsonl"]),
        (["cmnli/train.json", "cmnli/dev.json", "afqmc/train.json"], "cmnli", "train", ["cmnli/train.json"]),
        (["rows.jsonl.gz"], None, "train", ["rows.jsonl.gz"]),
    ],
)  # fmt: skip
def test_without_a_description_names_say_it(
    tmp_path: Path, names: list[str], subset: str | None, split: str, expected: list[str]
) -> None:
    assert find(write(tmp_path, *names), subset, split) == expected


def test_no_files_of_a_split_is_said_with_what_is_there(tmp_path: Path) -> None:
    folder = write(tmp_path, "train.jsonl")
    with pytest.raises(DataError) as caught:
        find(folder, None, "test")
    assert caught.value.message == f"{folder}: no files of split 'test'; its data files: train.jsonl"


def test_a_dataset_that_is_code_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "clue.py").write_text("")
    with pytest.raises(DataError, match="its rows are made by Python code of the dataset, which hpcbench does not run"):
        find(tmp_path)


def test_a_described_file_that_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"default": {"train": {"meta": "gone.csv"}}}))
    with pytest.raises(DataError, match=r"gone\.csv: no such file, and the description of the dataset names it"):
        find(tmp_path)


def test_a_description_may_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", "train.jsonl")
    write(tmp_path, "other.jsonl")
    for name in ("../other.jsonl", str(tmp_path / "other.jsonl")):
        (folder / "set.json").write_text(json.dumps({"default": {"train": {"meta": name}}}))
        with pytest.raises(DataError, match=r"set\.json: names '.*', which is outside of the dataset's folder"):
            find(folder)


@pytest.mark.parametrize("head", ["configs: " + "[" * 5000, "configs: [{data_files: [{split: train, path: 5}]}]"])
def test_a_readme_that_names_no_files_is_left_aside(tmp_path: Path, head: str) -> None:
    folder = write(tmp_path, "train.jsonl")
    (folder / "README.md").write_text(f"---\n{head}\n---\n")
    assert find(folder) == ["train.jsonl"]
