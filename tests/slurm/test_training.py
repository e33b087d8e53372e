"""Real training and evaluation through the real test Slurm: results, failures, and what they leave behind."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from hpcbench.schemas.metrics import EvalMetrics, TrainMetrics
from hpcbench.schemas.states import JobState
from hpcbench.status.gather import gather
from hpcbench.storage.json_files import read_json
from tests.support.failure_causes import write_broken_data
from tests.support.places import QUICKSTART
from tests.support.slurm_cluster.cluster import Cluster
from tests.support.slurm_suites import hpcbench, states, view, wait_until, wait_until_over, write_suite

pytestmark = [pytest.mark.slurm, pytest.mark.train]


def tiny_suite(experiments: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a suite on the quickstart's base model that trains for seconds."""
    return {
        "cmd": "sft",
        "device": "cpu",
        "requirements": {"gpu": 0, "mem_gb": 2, "time": "10m"},
        "eval_requirements": {"gpu": 0, "mem_gb": 2, "time": "10m"},
        "eval_dataset": ["pig_latin"],
        "eval_args": {"include_path": str(QUICKSTART / "tasks"), "limit": 16, "batch_size": 16},
        "args": {
            "model_type": "pig-latin-base",
            "model_id_or_path": str(QUICKSTART / "base"),
            "dataset": str(QUICKSTART / "train.jsonl"),
            "val_dataset": str(QUICKSTART / "val.jsonl"),
            "dtype": "fp32",
            "sft_type": "lora",
            "lora_target_modules": "ALL",
            "batch_size": 8,
            "gradient_accumulation_steps": 1,
            "max_length": 64,
            "learning_rate": 3e-3,
            "max_steps": 4,
            "eval_steps": 2,
            "logging_steps": 1,
            "dataloader_num_workers": 0,
        },
        "experiment": experiments,
    }


def test_a_suite_goes_through_slurm_to_a_report(slurm_cluster: Cluster, tmp_path: Path) -> None:
    bad = write_broken_data(tmp_path / "bad.csv")
    suite = write_suite(
        tmp_path / "mixed.yaml",
        tiny_suite(
            [
                {"name": "baseline", "cmd": "eval"},
                {"name": "killed", "args": {"max_steps": 100000, "eval_steps": 100000}},
                {"name": "lora"},
                {"name": "ddp", "requirements": {"ddp": 2}, "args": {"batch_size": 4}},
                {"name": "raises", "args": {"dataset": str(bad)}},
            ]
        ),
    )
    save_dir = tmp_path / "logs"
    profile = tmp_path / "frugal.yaml"
    profile.write_text("keep: none\n")
    done = hpcbench("submit", str(suite), "--cluster", str(profile), "--save-dir", str(save_dir))
    assert "9 jobs submitted" in done.stdout

    progress = save_dir / "mixed" / "killed" / "train" / "progress.json"

    def is_training() -> bool:
        value = read_json(progress)
        return value is not None and value.get("phase") == "training"

    wait_until(is_training, what="the long training is under way")
    running = view(gather(save_dir), "killed", "train")
    assert running.state is JobState.RUNNING
    shown = hpcbench("status", "killed", "--json", "--save-dir", str(save_dir))
    assert json.loads(shown.stdout)["jobs"][0]["progress_values"]["max_steps"] == 100000
    worker = worker_of(save_dir / "mixed" / "killed" / "train")
    os.kill(worker, signal.SIGKILL)
    collection = wait_until_over(save_dir)

    assert states(collection, "train") == {
        "killed": "failed",
        "lora": "completed",
        "ddp": "completed",
        "raises": "failed",
    }
    assert states(collection, "eval-pig_latin") == {
        "baseline": "completed",
        "killed": "blocked",
        "lora": "completed",
        "ddp": "completed",
        "raises": "blocked",
    }
    assert view(collection, "killed", "train").reason == "killed by SIGKILL"
    assert "bad.csv" in view(collection, "raises", "train").reason

    one, two = view(collection, "lora", "train").record, view(collection, "ddp", "train").record
    assert one is not None
    assert two is not None
    assert isinstance(one.metrics, TrainMetrics)
    assert isinstance(two.metrics, TrainMetrics)
    assert one.metrics.train_loss is not None
    assert two.metrics.train_loss == pytest.approx(one.metrics.train_loss, abs=1e-4)
    assert len(two.metrics.memory) == 2
    score = view(collection, "lora", "eval-pig_latin").record
    assert score is not None
    assert isinstance(score.metrics, EvalMetrics)
    assert score.metrics.checkpoint_choice == "best"
    assert score.metrics.debug

    def is_reduced() -> bool:
        return not any((save_dir / "mixed").glob("*/train/checkpoints/*"))

    # The record is there a moment before the supervisor removes what nobody needs any more.
    wait_until(is_reduced, what="keep: none leaves no checkpoint")

    report = hpcbench("collect", "--save-dir", str(save_dir)).stdout
    assert "failed: killed by SIGKILL" in report
    why = hpcbench("why", "killed/train", "--save-dir", str(save_dir)).stdout
    assert "next: hpcbench retry mixed/killed" in why
    assert hpcbench("collect", "--save-dir", str(save_dir)).stdout.count("| killed") == 2  # its results, its costs
    again = hpcbench("submit", str(suite), "--save-dir", str(save_dir))
    assert "0 jobs submitted" in again.stdout


def test_a_job_that_asked_for_gpus_and_sees_none_says_so(slurm_cluster: Cluster, tmp_path: Path) -> None:
    suite = tiny_suite([{"name": "gpu"}])
    suite |= {"device": "cuda", "requirements": {"gpu": 1, "mem_gb": 2}, "eval_dataset": []}
    del suite["eval_requirements"]
    hpcbench("submit", str(write_suite(tmp_path / "gpu.yaml", suite)), "--save-dir", str(tmp_path / "logs"))
    [job] = wait_until_over(tmp_path / "logs").jobs
    assert job.state is JobState.FAILED
    assert "sees none" in job.reason
    assert job.record is not None
    assert job.record.environment["slurm"]["job_partition"] == "gpu"


def worker_of(job_folder: Path) -> int:
    """Return the process id of the worker that runs a job folder."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"hpcbench.worker" in words and str(job_folder).encode() in words:
            return int(entry.name)
    raise AssertionError(f"no worker runs {job_folder}")
