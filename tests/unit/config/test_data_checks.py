"""What plan says of local datasets: the reader of jobs, asked before anything is queued."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import pytest

from hpcbench.data import look
from hpcbench.data.sources import find_dataset
from tests.support.places import shared
from tests.support.suite_writer import load, messages_of

GOOD = '{"query": "q", "response": "a"}\n'
BAD = '{"query": "q", "response": null}\n'


def write_suite(folder: Path, dataset: str, **args: str) -> Path:
    values = {"model": "org/m", "dataset": [dataset], **args}
    file = folder / "s.json"
    file.write_text(json.dumps({"cmd": "sft", "args": values, "experiment": [{"name": "a"}]}))
    return file


def refusals(folder: Path, dataset: str, **args: str) -> list[str]:
    return messages_of([write_suite(folder, dataset, **args)])


def is_taken(folder: Path, dataset: str, **args: str) -> bool:
    write_suite(folder, dataset, **args)
    return bool(load(folder, (folder / "s.json").read_text()).experiments)


def test_kinds_of_files_are_found_by_name_and_read_by_content(tmp_path: Path) -> None:
    (tmp_path / "table.tsv").write_text("query\tresponse\nq\ta\n")
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(GOOD.encode()))
    (tmp_path / "one.json").write_text(json.dumps(json.loads(GOOD), indent=1))
    (tmp_path / "plain.txt").write_text("one\n")
    (tmp_path / "no_suffix").write_text(GOOD)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "part.jsonl").write_text(GOOD)
    for name in ("table.tsv", "packed.jsonl.gz", "one.json", "plain.txt", "no_suffix", "folder"):
        args = load(tmp_path, write_suite(tmp_path, name).read_text()).experiments[0].args
        assert args is not None
        assert args.dataset == (str(tmp_path / name),)


def test_a_bad_row_is_refused_wherever_it_is_unless_the_strategy_leaves_it_out(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text(GOOD * 500 + BAD + GOOD)
    assert refusals(tmp_path, "d.jsonl") == [f"{tmp_path}/d.jsonl: line 501: response: null"]
    assert refusals(tmp_path, "d.jsonl", check_dataset_strategy="error") != []
    assert is_taken(tmp_path, "d.jsonl", check_dataset_strategy="discard")
    assert is_taken(tmp_path, "d.jsonl", check_dataset_strategy="warning")


def test_a_dataset_of_bad_rows_alone_is_refused_by_every_strategy(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text(BAD * 3)
    for strategy in ("none", "discard", "warning", "error"):
        assert len(refusals(tmp_path, "d.jsonl", check_dataset_strategy=strategy)) == 1


def test_a_large_dataset_is_not_refused_for_rows_that_the_strategy_leaves_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look, "WHOLE_BYTES", 100)
    monkeypatch.setattr(look, "HEAD_BYTES", 50)
    (tmp_path / "d.jsonl").write_text(BAD * 100)
    assert is_taken(tmp_path, "d.jsonl", check_dataset_strategy="discard")
    assert refusals(tmp_path, "d.jsonl") != []


def test_where_a_library_is_missing_the_file_is_not_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "d.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    remarks = load(tmp_path, write_suite(tmp_path, "d.parquet").read_text()).remarks
    library = "a parquet file, and the library pyarrow is not installed here"
    assert f"not checked: {tmp_path}/d.parquet: {library}" in remarks


def test_a_number_of_rows_behind_a_file_is_taken_and_one_in_its_name_is_no_number_of_rows(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text(GOOD)
    (tmp_path / "e.jsonl#3").write_text(GOOD)
    assert is_taken(tmp_path, "d.jsonl#500")
    assert is_taken(tmp_path, "e.jsonl#3")
    assert is_taken(tmp_path, "e.jsonl#3#2")
    suite = load(tmp_path, write_suite(tmp_path, "e.jsonl#3").read_text())
    (dataset,) = suite.experiments[0].args.dataset  # type: ignore[union-attr]  # a training has arguments
    source = find_dataset(dataset, registry=None)
    assert (source.path, source.num_samples) == (tmp_path / "e.jsonl#3", None)
    assert refusals(tmp_path, "d.jsonl#0") == [f"dataset '{tmp_path}/d.jsonl#0': 0 rows to draw"]


def test_columns_are_read_under_the_names_that_the_arguments_give_them(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text('{"frage": "a", "query": "not this", "antwort": "b"}\n' * 4)
    assert refusals(tmp_path, "d.jsonl") != []
    assert is_taken(tmp_path, "d.jsonl", columns='{"frage": "query", "antwort": "response"}')


def test_a_folder_without_data_is_refused_unless_it_has_the_name_of_a_dataset(tmp_path: Path) -> None:
    for name in ("mine", "alpaca-en"):
        (tmp_path / name).mkdir()
    assert refusals(tmp_path, "mine") == [f"{tmp_path}/mine: a folder without data files"]
    assert is_taken(tmp_path, "alpaca-en")


def test_the_folder_of_a_registry_stands_for_it(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "d.jsonl").write_text(GOOD)
    registry = {"mine": {"file_name": "d.jsonl", "columns": {"prompt": "query", "response": "response"}}}
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps(registry))
    assert is_taken(tmp_path, "mine", dataset_info="data")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("csv-open-quote.csv", "line 2: a cell opens a double quote that is never closed"),
        ("git-lfs-pointer.parquet", "a Git LFS pointer, 68 bytes, in place of the data"),
        ("csv-spaces-in-header.csv", None),
    ],
)
def test_files_that_users_had(tmp_path: Path, name: str, message: str | None) -> None:
    file = shared(f"data/cases/{name}")
    if message is None:
        assert is_taken(tmp_path, str(file))
    else:
        assert refusals(tmp_path, str(file)) == [f"{file}: {message}"]
