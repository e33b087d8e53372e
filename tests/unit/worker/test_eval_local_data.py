"""Built-in tasks of lm-eval that read local files."""

from __future__ import annotations

import json
import logging
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval", reason="the eval worker needs the `eval` extra")

import pyarrow as pa
import pyarrow.parquet
import yaml

from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import EvalArgs
from hpcbench.worker.evaluate.seeds import seeds_of
from hpcbench.worker.evaluate.tasks import load_eval_tasks

ROWS = [{"question": f"{n} + {n}?", "answer": f"#### {2 * n}"} for n in range(4)]
CHOICES = [{"question": f"{n}?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "B"} for n in "123"]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)


def write(file: Path, rows: list[dict[str, Any]]) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows)
    match file.suffix:
        case ".json":
            file.write_text(json.dumps(rows), encoding="utf-8")
        case ".jsonl":
            file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        case ".csv":
            lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
            file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        case ".parquet":
            pyarrow.parquet.write_table(table, file)
        case ".arrow":
            with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
        case _:
            raise ValueError(file.suffix)
    return str(file)


@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv", "parquet", "arrow"])
def test_a_built_in_task_reads_files_of_any_kind(tmp_path: Path, suffix: str) -> None:
    files = {split: write(tmp_path / f"{split}.{suffix}", ROWS) for split in ("train", "test")}
    (task,) = load_eval_tasks("gsm8k", EvalArgs(local_data=files)).leaves
    assert list(task.eval_docs) == ROWS
    assert len(task.sampler.df) == 4
    assert task.doc_to_text(task.eval_docs[1]) == "Question: 1 + 1?\nAnswer:"


def test_splits_that_are_not_needed_may_lack(tmp_path: Path) -> None:
    file = write(tmp_path / "test.jsonl", ROWS)
    (task,) = load_eval_tasks("gsm8k", EvalArgs(local_data={"evaluated": file}, num_fewshot=0)).leaves
    assert list(task.eval_docs) == ROWS


def test_each_task_of_a_group_reads_the_file_of_its_subset(tmp_path: Path) -> None:
    write(tmp_path / "ARC-Easy-test.jsonl", CHOICES)
    write(tmp_path / "ARC-Challenge-test.jsonl", CHOICES[:1])
    loaded = load_eval_tasks("arc", EvalArgs(local_data={"test": f"{tmp_path}/{{subset}}-test.jsonl"}))
    assert {task.task_name: len(task.eval_docs) for task in loaded.leaves} == {"arc_easy": 3, "arc_challenge": 1}


def test_c_eval_is_read_from_its_archive(tmp_path: Path) -> None:
    header, row = "id,question,A,B,C,D,answer", '0,"1,5 + 1?",1,2.50,3,4,B'
    with zipfile.ZipFile(tmp_path / "ceval.zip", "w") as archive:
        archive.writestr("dev/law_dev.csv", f"{header},explanation\n{row},why\n")
        archive.writestr("val/law_val.csv", f"{header}\n{row}\n")
    folder = f"{tmp_path}/ceval.zip"
    files = {split: f"{folder}/{split}/{{subset}}_{split}.csv" for split in ("dev", "val")}
    (task,) = load_eval_tasks("ceval-valid_law", EvalArgs(local_data=files, num_fewshot=1)).leaves
    (document,) = task.eval_docs
    assert task.doc_to_text(document) == "1,5 + 1?\nA. 1\nB. 2.50\nC. 3\nD. 4\n答案："  # noqa: RUF001  # as in lm-eval's task
    assert [row["explanation"] for row in task.sampler.df] == ["why"]


def test_a_local_task_file_reads_local_data_too(tmp_path: Path) -> None:
    config = {"task": "mine", "dataset_path": "some/hub", "test_split": "test", "doc_to_text": "{{question}}"}
    config |= {"doc_to_target": "{{answer}}"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    files = {"test": write(tmp_path / "rows.jsonl", ROWS)}
    (task,) = load_eval_tasks("mine", EvalArgs(include_path=(str(tmp_path),), local_data=files)).leaves
    assert len(task.eval_docs) == 4


def test_a_subset_without_a_file_is_named(tmp_path: Path) -> None:
    write(tmp_path / "ARC-Easy-test.jsonl", CHOICES)
    with pytest.raises(WorkerError) as caught:
        load_eval_tasks("arc", EvalArgs(local_data={"test": f"{tmp_path}/{{subset}}-test.jsonl"}))
    assert caught.value.message == (f"eval_args.local_data: test: no such file: {tmp_path}/ARC-Challenge-test.jsonl")


def test_rows_that_make_no_table_are_named(tmp_path: Path) -> None:
    file = write(tmp_path / "t.parquet", ROWS)
    mixed = tmp_path / "m.jsonl"
    mixed.write_text('{"question": 1, "answer": "a"}\n{"question": [2], "answer": "b"}\n', encoding="utf-8")
    with pytest.raises(WorkerError, match=r"m\.jsonl: its rows make no table"):
        load_eval_tasks("gsm8k", EvalArgs(local_data={"train": file, "test": str(mixed)}))


def test_lm_eval_does_not_give_its_advice_for_each_task(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = write(tmp_path / "test.jsonl", ROWS)
    with caplog.at_level(logging.WARNING):
        load_eval_tasks("gsm8k", EvalArgs(local_data={"train": file, "test": file}))
    assert "Custom kwargs" not in caplog.text


def test_tasks_that_draw_while_they_are_loaded_draw_the_same_each_time(tmp_path: Path) -> None:
    code = (
        "import random\n\n\ndef shuffle(rows):\n    return rows.add_column('drawn', [random.random() for _ in rows])\n"
    )
    (tmp_path / "drawing.py").write_text(code, encoding="utf-8")
    write(tmp_path / "rows.jsonl", ROWS)
    (tmp_path / "drawn.yaml").write_text(
        f"task: drawn\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path}/rows.jsonl}}}}\n"
        f"test_split: test\ndoc_to_text: '{{{{drawn}}}}'\ndoc_to_target: x\nprocess_docs: !function drawing.shuffle\n",
        encoding="utf-8",
    )
    drawn = []
    for seed in (1234, 1234, 7):
        random.seed()
        (task,) = load_eval_tasks("drawn", EvalArgs(include_path=(str(tmp_path),), seed=seed)).leaves
        drawn.append(task.eval_docs[0]["drawn"])
    assert drawn[0] == drawn[1] != drawn[2]


def test_seeds_are_those_of_lm_evals_command_line() -> None:
    assert seeds_of(EvalArgs()) == (0, 1234, 1234, 1234)
    assert seeds_of(EvalArgs(seed=7)) == (7, 7, 7, 7)
