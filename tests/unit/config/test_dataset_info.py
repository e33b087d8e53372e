"""Registries of datasets on the login node: found beside the suite, looked at, and part of the fingerprint."""

from __future__ import annotations

import json
from pathlib import Path

from hpcbench.plan.inputs import hash_inputs
from hpcbench.plan.requests import plan_suite
from hpcbench.submit.submit_plan import unique_local_paths
from tests.support.suite_writer import load, load_one, refusal

SUITE = "cmd: sft\nargs: {model_type: qwen2.5-7b-instruct, dataset: maths}\nexperiment: [{name: a}]\n"


def write_registry(folder: Path, *, response: str = "answer", answer: str = "4") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    entry = {"file_name": "maths.json", "columns": {"query": "question", "response": response}}
    (folder / "dataset_info.json").write_text(json.dumps({"maths": entry, "other": {"file_name": "gone.json"}}))
    (folder / "maths.json").write_text(json.dumps([{"question": "2+2", "answer": answer}]))


def test_a_registry_beside_the_suite_names_its_datasets(tmp_path: Path) -> None:
    write_registry(tmp_path)
    args = load_one(tmp_path, SUITE).args
    assert args is not None
    assert (args.dataset, args.dataset_info) == (("maths",), str(tmp_path / "dataset_info.json"))


def test_a_registry_elsewhere_is_named_by_dataset_info(tmp_path: Path) -> None:
    write_registry(tmp_path / "data")
    args = load_one(
        tmp_path, SUITE.replace("dataset: maths", "dataset: maths, dataset_info: data/dataset_info.json")
    ).args
    assert args is not None
    assert args.dataset_info == str(tmp_path / "data" / "dataset_info.json")


def test_the_entries_of_a_registry_are_checked_before_anything_is_queued(tmp_path: Path) -> None:
    write_registry(tmp_path, response="reply")
    assert "maths.json: row 1: no column 'reply', which " in refusal(tmp_path, SUITE)
    assert "no such file" in refusal(tmp_path, SUITE.replace("maths", "other"))
    missing = SUITE.replace("dataset: maths", "dataset: maths, dataset_info: nowhere.json")
    assert "no such file: 'nowhere.json'" in refusal(tmp_path, missing)


def test_the_data_behind_a_name_and_its_columns_are_in_the_fingerprint(tmp_path: Path) -> None:
    def fingerprint() -> str:
        suite = load(tmp_path, SUITE)
        paths = unique_local_paths(plan_suite(suite, save_dir=tmp_path, inputs={}))
        assert paths == {f"{tmp_path}/dataset_info.json#maths"}
        return plan_suite(suite, save_dir=tmp_path, inputs=hash_inputs(paths))[0].fingerprint

    write_registry(tmp_path)
    first = fingerprint()
    assert fingerprint() == first
    write_registry(tmp_path, answer="5")
    second = fingerprint()
    (tmp_path / "dataset_info.json").write_text((tmp_path / "dataset_info.json").read_text().replace("gone", "lost"))
    assert fingerprint() == second != first


def test_the_description_that_datasets_saved_beside_a_suite_is_no_registry(tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text(json.dumps({"citation": "", "description": "", "features": {}}))
    (tmp_path / "rows.jsonl").write_text('{"query": "2+2", "response": "4"}\n')
    args = load_one(tmp_path, SUITE.replace("dataset: maths", "dataset: rows.jsonl")).args
    assert args is not None
    assert (args.dataset, args.dataset_info) == ((str(tmp_path / "rows.jsonl"),), None)
