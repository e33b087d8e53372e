"""Entries of `eval_dataset` with arguments of their own, and local data of built-in tasks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcbench.config import eval_tasks
from hpcbench.plan.requests import plan_suite
from tests.support.suite_writer import load, refusal

SUITE = """
cmd: eval
args: {model_type: qwen2.5-7b-instruct}
"""


def write_rows(file: Path, *columns: str, num_rows: int = 6) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = [dict.fromkeys(columns, str(number)) for number in range(num_rows)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def suite_of(entries: str, more: str = "") -> str:
    return f"{SUITE}{more}experiment:\n- name: a\n  eval_dataset:\n{entries}"


def test_a_task_is_evaluated_several_times_under_names_of_its_own(tmp_path: Path) -> None:
    suite = load(
        tmp_path,
        suite_of(
            "  - gsm8k\n  - {name: gsm8k_1shot, task: gsm8k, num_fewshot: 1}\n  - {task: arc, limit: 7}\n",
            "eval_args: {limit: 50, per_dataset: {gsm8k_1shot: {seed: 3}}}\n",
        ),
    )
    (experiment,) = suite.experiments
    assert experiment.eval_dataset == ("gsm8k", "gsm8k_1shot", "arc")
    given = {name: args.model_dump(exclude_defaults=True) for name, args in experiment.eval_args.items()}
    assert given == {
        "gsm8k": {"limit": 50},
        "gsm8k_1shot": {"task": "gsm8k", "num_fewshot": 1, "limit": 50, "seed": 3},
        "arc": {"limit": 7},
    }
    requests = plan_suite(suite, save_dir=tmp_path / "logs", inputs={})
    assert [(request.job, request.eval_task) for request in requests] == [
        ("eval-gsm8k", "gsm8k"),
        ("eval-gsm8k_1shot", "gsm8k"),
        ("eval-arc", "arc"),
    ]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            "  - {name: x, task: gsm8kk}\n",
            "no eval task 'gsm8kk' in lm-eval",
        ),
        (
            "  - gsm8k\n  - {task: gsm8k, num_fewshot: 1}\n",
            (
                "experiment[a].eval_dataset[1].task: 'gsm8k' is listed twice\n"
                "  hint: give each a name: {name: gsm8k_1shot, task: gsm8k, num_fewshot: 1}"
            ),
        ),
        (
            "  - {num_fewshot: 1}\n",
            (
                "experiment[a].eval_dataset[0]: got a mapping\n"
                "  expected: names of eval datasets, or {name: gsm8k_1shot, task: gsm8k, num_fewshot: 1}"
            ),
        ),
        ("  - {task: gsm8k, shots: 1}\n", "experiment[a].eval_dataset[0].shots: unknown key 'shots'"),
        ("  - {task: gsm8k, limit:}\n", "experiment[a].eval_dataset[0].limit: no value"),
    ],
)
def test_entries_that_cannot_be_are_refused(tmp_path: Path, entries: str, message: str) -> None:
    assert message in refusal(tmp_path, suite_of(entries))


def test_a_task_of_all_eval_datasets_is_refused(tmp_path: Path) -> None:
    text = refusal(tmp_path, suite_of("  - gsm8k\n", "eval_args: {task: gsm8k}\n"))
    assert text == (
        "demo.yaml:4: eval_args.task: `task` is of one eval dataset, not of all\n"
        "  hint: eval_dataset: [{name: gsm8k_1shot, task: gsm8k, num_fewshot: 1}]"
    )


def test_local_data_is_a_file_a_folder_or_files_by_split(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_rows(tmp_path / "data" / f"{split}.jsonl", "question", "answer")
    suite = load(
        tmp_path,
        suite_of(
            "  - {name: one, task: gsm8k, num_fewshot: 0, local_data: data/test.jsonl}\n"
            "  - {name: folder, task: gsm8k, local_data: data}\n"
            "  - {name: both, task: gsm8k, local_data: {train: data/train.jsonl, test: data/*st.jsonl}}\n"
        ),
    )
    data = tmp_path / "data"
    by_split = {"train": f"{data}/train.jsonl", "test": f"{data}/test.jsonl"}
    assert {name: args.local_data for name, args in suite.experiments[0].eval_args.items()} == {
        "one": {"evaluated": f"{data}/test.jsonl"},
        "folder": by_split,
        "both": {**by_split, "test": f"{data}/*st.jsonl"},
    }


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "data/none.jsonl",
            (
                "demo.yaml:7: experiment[a].eval_dataset[0].local_data: no such file: 'data/none.jsonl'\n"
                "  hint: looked for data/none.jsonl"
            ),
        ),
        (
            "data/{subset}.csv",
            "no such file: 'data/{subset}.csv'\n  hint: looked for data/{subset}.csv",
        ),
        ("data/empty.jsonl", "demo.yaml:7: experiment[a].eval_dataset[0].local_data: data/empty.jsonl: is empty"),
        ("data", "data: no data file whose name says its split"),
    ],
)
def test_local_data_that_is_not_there_is_refused(tmp_path: Path, value: str, message: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "empty.jsonl").touch()
    text = refusal(tmp_path, suite_of(f"  - {{task: gsm8k, num_fewshot: 0, local_data: '{value}'}}\n"))
    assert message in text
    assert text.count("no such file") <= 1


def test_splits_and_shots_of_built_in_tasks_are_checked_where_lm_eval_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    write_rows(tmp_path / "test.jsonl", "question", "answer")
    write_rows(tmp_path / "train.jsonl", "question", "answer", num_rows=2)
    entries = (
        "  - {name: shots, task: gsm8k, local_data: test.jsonl}\n"
        "  - {name: few, task: gsm8k, num_fewshot: 3, local_data: {train: train.jsonl, test: test.jsonl}}\n"
        "  - {name: shared, task: arc, local_data: test.jsonl}\n"
        "  - {name: subjects, task: ceval, local_data: {val: test.jsonl}}\n"
    )
    text = refusal(tmp_path, suite_of(entries))
    assert "eval task 'gsm8k': its 5 solved examples are of its split 'train', and local_data has that of the" in text
    assert "3-shot prompts need 3 rows to take examples from, and its split 'train' has 2" in text
    assert "eval dataset 'arc': local_data gives 2 tasks (arc_easy, arc_challenge) one file" in text
    assert "eval dataset 'ceval': local_data gives 52 tasks" in text


def test_splits_of_tasks_without_lm_eval_are_a_remark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eval_tasks, "find_built_in_tasks", lambda: None)
    write_rows(tmp_path / "test.jsonl", "question", "answer")
    suite = load(tmp_path, suite_of("  - {task: gsm8k, local_data: test.jsonl}\n"))
    assert "not checked: whether local_data has the splits of eval task 'gsm8k'" in suite.remarks


def test_the_content_of_local_data_decides_and_its_place_does_not(tmp_path: Path) -> None:
    from hpcbench.plan.inputs import hash_inputs

    found = []
    for number, rows in enumerate((6, 6, 7)):
        folder = tmp_path / str(number)
        write_rows(folder / "law_val.csv.jsonl", "question", num_rows=rows)
        write_rows(folder / "other.jsonl", "question", num_rows=number + 1)
        pattern = f"{folder}/{{subset}}_val.csv.jsonl"
        suite = load(tmp_path, suite_of(f"  - {{task: mmlu, local_data: {{test: '{pattern}'}}}}\n"))
        (request,) = plan_suite(suite, save_dir=tmp_path / "logs", inputs=hash_inputs([pattern]))
        assert request.inputs.keys() == {pattern}
        found.append(request.fingerprint)
    assert found[0] == found[1] != found[2]


def test_batch_size_is_a_number_or_auto(tmp_path: Path) -> None:
    suite = load(tmp_path, suite_of("  - {task: gsm8k, batch_size: auto}\n  - {task: arc, batch_size: '4'}\n"))
    assert [args.batch_size for args in suite.experiments[0].eval_args.values()] == ["auto", 4]
    assert refusal(tmp_path, suite_of("  - {task: gsm8k, batch_size: all}\n")) == (
        "demo.yaml:7: experiment[a].eval_dataset[0].batch_size: got 'all'\n  expected: integer, 1 or more, or auto"
    )


def test_several_ranks_share_the_documents_of_an_eval(tmp_path: Path) -> None:
    suite = load(
        tmp_path, suite_of("  - gsm8k\n", "device: cpu\nrequirements: {gpu: 0}\neval_requirements: {gpu: 0, ddp: 2}\n")
    )
    (request,) = plan_suite(suite, save_dir=tmp_path / "logs", inputs={})
    assert request.resources.ddp == 2
    more = "eval_requirements: {gpu: 4, ddp: 4}\neval_args: {limit: 3}\n"
    assert refusal(tmp_path, suite_of("  - gsm8k\n", more)) == (
        "demo.yaml:4: eval_requirements.ddp: ddp 4 with limit 3 for gsm8k: each rank needs a document of each task\n"
        "  expected: ddp: 3 at most, or a higher limit"
    )
