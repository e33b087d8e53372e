"""Suites in SWIFT's words through the test Slurm, scaled down: a tiny model, a few steps, a local eval task."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hpcbench.schemas.states import JobState
from tests.support.places import QUICKSTART
from tests.support.slurm_cluster.cluster import Cluster
from tests.support.slurm_suites import hpcbench, wait_until_over
from tests.support.swift_suites import SUITES, models_of, write_stand_ins
from tests.support.tiny_models import make_llama_folder, write_chats

pytestmark = [pytest.mark.slurm, pytest.mark.train]

NUM_LAYERS = 8
"""As many as llamapro and lisa of the suites need."""
SHORT = ("lora+", "qwen-7b-chat-eval")


def make_model(folder: Path, quantization: Mapping[str, Any] | None) -> None:
    assert quantization is None
    make_llama_folder(folder, num_layers=NUM_LAYERS)


def scaled_down(folder: Path, file: Path, *, name: str) -> Path:
    """Write a suite's twin for the CPU, of seconds instead of days; methods, names and words are the suite's own."""
    document = json.loads(file.read_text(encoding="utf-8"))
    chats, others = write_chats(folder / "chats.jsonl", count=12), write_chats(folder / "others.jsonl", count=24)
    document |= {
        "device": "cpu",
        "requirements": {"gpu": 0, "ddp": 1, "mem_gb": 2, "time": "20m"},
        "eval_requirements": {"gpu": 0, "mem_gb": 2, "time": "20m"},
        "eval_dataset": ["pig_latin"],
        "eval_args": {"include_path": str(QUICKSTART / "tasks"), "limit": 2, "batch_size": 2},
    }
    document["args"] |= {
        "dataset": str(chats), "train_dataset_mix_ds": str(others), "dtype": "fp32", "max_length": 128,
        "max_steps": 2, "eval_steps": 2, "val_dataset_sample": 2, "dataset_test_ratio": 0.2, "logging_steps": 1,
        "gradient_accumulation_steps": 1, "dataloader_num_workers": 0,
    }  # fmt: skip
    for experiment in document["experiment"]:
        if "requirements" in experiment:
            experiment["requirements"] = {"gpu": 0, "ddp": int(experiment["requirements"]["ddp"])}
    target = folder / f"{name}{file.suffix}"
    target.write_text(json.dumps(document))
    return target


def run(folder: Path, file: Path, *only: str, timeout_s: float) -> dict[str, Any]:
    """Run a scaled-down suite to its end; return its experiments as the JSON report has them, by name."""
    suite = scaled_down(folder, file, name=file.stem)
    found = write_stand_ins(folder / "home", models_of([suite]), make_model)
    profile = folder / "stand-ins.yaml"
    profile.write_text("env:\n" + "".join(f"  {key}: {value}\n" for key, value in found.items()))
    save_dir = folder / "logs"
    chosen = [word for name in only for word in ("--only", name)]
    with pytest.MonkeyPatch.context() as patch:
        for key, value in found.items():
            patch.setenv(key, value)
        hpcbench("submit", str(suite), "--cluster", str(profile), "--save-dir", str(save_dir), *chosen)
        wait_until_over(save_dir, timeout_s=timeout_s)
        report = json.loads(hpcbench("collect", "--save-dir", str(save_dir), "--format", "json").stdout)
    (told,) = report["suites"]
    return {experiment["name"]: experiment for experiment in told["experiments"]}


def check(experiment: Mapping[str, Any]) -> None:
    """Check that all jobs of an experiment completed; the message is each other job's record."""
    failed = [job for job in experiment["jobs"] if job["state"] != JobState.COMPLETED]
    assert failed == [], experiment["name"]


def test_some_rows_of_the_tuner_suite_run_scaled_down(slurm_cluster: Cluster, tmp_path: Path) -> None:
    found = run(tmp_path, SUITES / "swift-2.0" / "tuner.json", *SHORT, timeout_s=300)
    assert set(found) >= set(SHORT)
    for name in SHORT:
        check(found[name])


@pytest.mark.long
def test_all_24_rows_of_the_tuner_suite_run_scaled_down(slurm_cluster: Cluster, tmp_path: Path) -> None:
    found = run(tmp_path, SUITES / "swift-2.0" / "tuner.json", timeout_s=3000)
    assert len(found) == 24
    for experiment in found.values():
        check(experiment)
