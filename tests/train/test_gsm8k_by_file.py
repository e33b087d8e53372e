"""GSM8K as a user of LLaMA-Factory and lm-eval has it on disk: Arrow files, their registry, a task file of the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from hpcbench.schemas.metrics import EvalMetrics, TrainMetrics
from hpcbench.schemas.record import read_record
from hpcbench.storage.paths import JobPaths
from tests.support.tiny_models import make_model_folder

pytestmark = pytest.mark.train

REGISTRY = {
    f"gsm8k_math_{split}": {
        "file_name": f"gsm8k-{split}.arrow",
        "formatting": "alpaca",
        "columns": {"query": "question", "response": "answer"},
    }
    for split in ("train", "test")
}
TASK = """\
task: gsm8k-local
dataset_path: arrow
dataset_kwargs:
  data_files:
    train: {folder}/gsm8k-train.arrow
    test: {folder}/gsm8k-test.arrow
output_type: generate_until
training_split: train
fewshot_split: train
test_split: test
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_target: "{{{{answer}}}}"
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
generation_kwargs: {{until: ["Question:"], do_sample: false, max_gen_toks: 4}}
num_fewshot: 5
"""


def write_arrow(file: Path, num_rows: int) -> None:
    """Write rows as `datasets` caches them: a stream of Arrow, under .arrow."""
    rows = [{"question": f"{n} + {n}?", "answer": f"Twice {n} is {2 * n}.\n#### {2 * n}"} for n in range(num_rows)]
    table = pa.Table.from_pylist(rows)
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


def test_a_training_and_its_evaluation_read_arrow_files_by_their_registry_and_task(tmp_path: Path) -> None:
    base, data, tasks = make_model_folder(tmp_path / "Qwen2.5-1.5B"), tmp_path / "dataset", tmp_path / "tasks"
    data.mkdir()
    tasks.mkdir()
    write_arrow(data / "gsm8k-train.arrow", 6)
    write_arrow(data / "gsm8k-test.arrow", 3)
    (data / "dataset_info.json").write_text(json.dumps(REGISTRY, indent=2), encoding="utf-8")
    (tasks / "gsm8k-local.yaml").write_text(TASK.format(folder=data), encoding="utf-8")
    typed = (
        f"sft --model {base} --dataset_info {data}/dataset_info.json --dataset gsm8k_math_train "
        f"--val_dataset gsm8k_math_test --dtype fp32 --max_steps 2 --eval_dataset gsm8k-local --eval_num_fewshot 1 "
        f"--eval_include_path {tasks} --output_dir {tmp_path}/output --name run --device cpu"
    )
    done = subprocess.run(
        [sys.executable, "-m", "hpcbench", *typed.split()], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    train = read_record(JobPaths(tmp_path / "output" / base.name / "run" / "train").record)
    assert train is not None
    assert isinstance(train.metrics, TrainMetrics)
    assert (train.metrics.num_train_rows, train.metrics.num_val_rows, train.metrics.num_steps) == (6, 3, 2)
    evaluation = read_record(JobPaths(tmp_path / "output" / base.name / "run" / "eval-gsm8k-local").record)
    assert evaluation is not None
    assert isinstance(evaluation.metrics, EvalMetrics)
    result = evaluation.metrics.tasks["gsm8k-local"]
    assert (result.num_fewshot, result.num_samples) == (1, 3)
