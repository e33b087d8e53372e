"""hpcbench's evals give the numbers of lm-eval's command line: the same model, tasks, documents and shots.

The one side is `lm_eval run --model hf` with task files as a person writes them for local data, the other an eval job
with `eval_args.local_data` and the same files. Everything is compared: metrics, standard errors, lm-eval's task hash
(documents, prompts, targets) and the answer to every document.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpcbench.data.local_splits import patterns_of
from hpcbench.schemas.metrics import EvalMetrics
from hpcbench.storage.json_files import read_json
from hpcbench.storage.paths import AttemptPaths, JobPaths
from hpcbench.worker.evaluate import evaluate
from hpcbench.worker.evaluate.results import plain_value
from hpcbench.worker.evaluate.tasks import BUILT_IN_FOLDER
from tests.support import evaluations
from tests.support.places import ROOT, shared

pytestmark = [pytest.mark.train, pytest.mark.long, pytest.mark.filterwarnings("ignore")]

SUBJECT = "basic_medicine"
BATCH_SIZE = 8


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep datasets' cache out of the user's home."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "datasets-cache")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def smollm2() -> Path:
    """Return the folder of SmolLM2-135M-Instruct, made once."""
    folder = ROOT / "logs" / "smollm2-135m-instruct"
    subprocess.run([sys.executable, str(shared("tools/get_smollm2.py")), str(folder)], check=True)
    return folder


def write_lines(file: Path, lines: list[str]) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(file)


def local_data(task: str, folder: Path) -> dict[str, str]:
    """Return the files of a task by split, as `eval_args.local_data` has them."""
    if task == "gsm8k":
        return {split: str(shared(f"data/gsm8k/{split}.jsonl")) for split in ("train", "test")}
    if task == "arc_easy":  # only its test split is there: the last questions stand in for the training split
        lines = shared("data/arc/ARC-Easy-test.hf.jsonl").read_text(encoding="utf-8").splitlines()
        parts = {"test": lines[:1000], "train": lines[1000:1100]}
        return {split: write_lines(folder / "arc" / f"{split}.jsonl", part) for split, part in parts.items()}
    return patterns_of(shared("data/ceval/ceval.zip"))


def by_hand(task: str, files: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return the same files as the `datasets` library reads them, for a task file written by hand."""
    if not task.startswith("ceval"):
        return {**files, "validation": files["train"]}
    found = {}
    for split in ("dev", "val"):
        with zipfile.ZipFile(shared("data/ceval/ceval.zip")) as archive:
            text = archive.read(f"{split}/{SUBJECT}_{split}.csv").decode()
        rows = [{key: row[key] for key in row if key != "explanation"} for row in csv.DictReader(StringIO(text))]
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        found[split] = write_lines(folder / "ceval" / f"{split}.jsonl", lines)
    return found


def run_command_line(
    model: Path, task: str, files: Mapping[str, str], folder: Path, **options: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the results and samples of `lm_eval run --model hf`."""
    built_in = next(BUILT_IN_FOLDER.glob(f"*/{task}.yaml"))
    config = {"task": task, "include": str(built_in), "dataset_path": "json", "dataset_name": None}
    write_lines(
        folder / "tasks" / f"{task}.yaml",
        [yaml.safe_dump({**config, "dataset_kwargs": {"data_files": by_hand(task, files, folder)}})],
    )
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    words += ["--model", "hf", "--model_args", f"pretrained={model},dtype=float32", "--device", "cpu", "--tasks", task]
    words += ["--include_path", str(folder / "tasks"), "--batch_size", str(BATCH_SIZE), "--log_samples"]
    done = subprocess.run(
        [sys.executable, "-m", "lm_eval", "run", *words, "--output_path", str(folder / "out")],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf"), "OMP_NUM_THREADS": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    (results,) = (folder / "out").glob("*/results_*.json")
    (samples,) = (folder / "out").glob("*/samples_*.jsonl")
    lines = samples.read_text(encoding="utf-8").splitlines()
    return json.loads(results.read_text(encoding="utf-8")), [json.loads(line) for line in lines]


def run_job(model: Path, task: str, files: Mapping[str, str], folder: Path, **options: int) -> AttemptPaths:
    """Run the eval job and return its attempt."""
    name = f"{task}_{options['num_fewshot']}shot"
    eval_args = {"task": task, "local_data": files, "batch_size": BATCH_SIZE, "apply_chat_template": False, **options}
    job = JobPaths(folder / name)
    evaluate.run(evaluations.make_request(model, name, eval_args=eval_args), job, job.attempt(1))
    return job.attempt(1)


def compare(model: Path, task: str, folder: Path, **options: int) -> EvalMetrics:
    """Assert that both say the same, and return the job's metrics."""
    files = local_data(task, folder)
    results, samples = run_command_line(model, task, files, folder, **options)
    attempt = run_job(model, task, files, folder, **options)
    found = EvalMetrics.model_validate(read_json(attempt.metrics))
    row = found.tasks[task]
    expected = {key: plain_value(value) for key, value in results["results"][task].items() if "," in key}
    assert row.metrics == expected
    assert row.num_fewshot == results["n-shot"][task] == options["num_fewshot"]
    if not task.startswith("ceval"):  # the ids of its questions are text in the file written by hand
        assert row.task_hash == results["task_hashes"][task]
    ours = [json.loads(line) for line in attempt.samples.read_text(encoding="utf-8").splitlines()]
    for line in ours:
        theirs = [each for each in samples if each["doc_id"] == line["doc_id"]]
        assert line["prompt"] == theirs[0]["arguments"]["gen_args_0"]["arg_0"]
        for each in theirs:
            answers = line["responses"][each["filter"]]
            if task == "gsm8k":
                assert answers == each["filtered_resps"][0]
            else:
                assert [choice[0] for choice in answers] == [float(choice[0]) for choice in each["filtered_resps"]]
    assert len(ours) == results["n-samples"][task]["effective"]
    return found


def test_scores_are_those_of_lm_evals_command_line(tmp_path: Path) -> None:
    """With a model of 15 million parameters, whose scores are at chance; what is compared is every log-probability."""
    model = shared("models/stories15M")
    compare(model, f"ceval-valid_{SUBJECT}", tmp_path, num_fewshot=1, limit=4)


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("num_fewshot", [0, 5])
@pytest.mark.parametrize(("task", "limit"), [("arc_easy", 100), ("gsm8k", 50), (f"ceval-valid_{SUBJECT}", 19)])
def test_scores_of_smollm2_are_those_of_lm_evals_command_line(
    tmp_path: Path, smollm2: Path, task: str, limit: int, num_fewshot: int
) -> None:
    compare(smollm2, task, tmp_path, num_fewshot=num_fewshot, limit=limit)
