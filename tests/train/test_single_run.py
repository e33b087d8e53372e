"""`hpcbench sft` as a person runs it: stopped with Ctrl-C, taken up again by its name, not run a third time, exported."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpcbench.schemas.metrics import TrainMetrics
from hpcbench.schemas.record import read_record
from hpcbench.schemas.states import JobState
from hpcbench.storage.paths import SuitePaths
from tests.support.places import ROOT

pytestmark = pytest.mark.train

NUM_STEPS = 800
README = (ROOT / "README.md").read_text(encoding="utf-8").split("One training without a suite or a queue:", 1)[1]
COMMANDS = [line.strip() for line in README.split("\n## ", 1)[0].splitlines() if line.startswith("    hpcbench ")]


def start(folder: Path, base_model: Path, chats: Path) -> subprocess.Popen[str]:
    words = {
        "model": base_model, "dataset": chats, "dtype": "fp32", "device": "cpu", "cpus": 1, "max_length": 128,
        "dataset_test_ratio": 0.17, "dataloader_num_workers": 0, "gradient-accumulation-steps": 1,
        "max_steps": NUM_STEPS, "eval_steps": 400, "name": "mine", "only_save_model": "true",
    }  # fmt: skip
    typed = [word for name, value in words.items() for word in (f"--{name}", str(value))]
    return subprocess.Popen(
        [sys.executable, "-m", "hpcbench", "sft", *typed],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_ctrl_c_keeps_a_checkpoint_and_the_same_name_resumes_and_is_done_once(
    tmp_path: Path, base_model: Path, chats: Path
) -> None:
    first = start(tmp_path, base_model, chats)
    job = SuitePaths(tmp_path / "output", base_model.name).job("mine", "train")
    deadline = time.monotonic() + 300
    while not (job.attempt(1).history.exists() and job.attempt(1).history.read_text().count("\n") > 10):
        assert time.monotonic() < deadline
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGINT)
    said, _ = first.communicate(timeout=300)
    assert first.returncode == 130, said
    assert "with --name mine" in said
    assert "Traceback" not in said

    second = start(tmp_path, base_model, chats)
    said, _ = second.communicate(timeout=300)
    assert second.returncode == 0, said
    record = read_record(job.record)
    assert record is not None
    assert record.state is JobState.COMPLETED
    assert isinstance(record.metrics, TrainMetrics)
    assert record.metrics.num_steps == NUM_STEPS
    assert [10 < step < NUM_STEPS for step in record.metrics.resumed_from_steps] == [True]
    assert f"last checkpoint, step {NUM_STEPS}: {job.checkpoints / 'last'}" in said

    third = start(tmp_path, base_model, chats)
    said, _ = third.communicate(timeout=300)
    assert third.returncode == 0, said
    assert "already completed" in said
    assert f"train_loss {record.metrics.train_loss:.4g}" in said
    assert not job.attempt(3).folder.exists()

    typed = ["export-model", "--ckpt_dir", str(job.checkpoints / "last"), "--output_dir", "merged"]
    merged = subprocess.run(
        [sys.executable, "-m", "hpcbench", *typed, "--device", "cpu", "--cpus", "1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert merged.returncode == 0, merged.stdout + merged.stderr
    assert f"  model: {tmp_path / 'merged'}\n" in merged.stdout
    assert (tmp_path / "merged" / "model.safetensors").is_file()


def test_the_commands_of_the_readme_train_evaluate_and_report(tmp_path: Path) -> None:
    """With a smaller model, fewer steps and a local task in the place of ARC."""
    shutil.copytree(ROOT / "configs" / "quickstart" / "base", tmp_path / "Qwen3-0.6B")
    shutil.copy(ROOT / "configs" / "quickstart" / "train.jsonl", tmp_path)
    tasks = str(ROOT / "configs" / "quickstart" / "tasks")
    more = {
        "sft": ["--device", "cpu", "--cpus", "1", "--max_steps", "4", "--eval_steps", "4"],
        "eval": ["--eval_limit", "8", "--eval_include_path", tasks],
        "infer": ["--max_new_tokens", "4"],
    }
    (tmp_path / "prompts.jsonl").write_text('{"query": "hello"}\n', encoding="utf-8")
    assert [shlex.split(command)[1] for command in COMMANDS] == ["sft", "eval", "infer", "infer", "collect"]
    said: dict[str, str] = {}
    for command in COMMANDS:
        verb, *words = ("pig_latin" if word == "arc" else word for word in shlex.split(command, comments=True)[1:])
        typed = [sys.executable, "-m", "hpcbench", verb, *words, *more.get(verb, ())]
        done = subprocess.run(typed, cwd=tmp_path, input="hello\n", capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        said[verb] = done.stdout
    assert "last checkpoint, step 4" in said["sft"]
    assert "| lora-v0" in said["collect"]
    assert "pig_latin exact_match" in said["collect"]
