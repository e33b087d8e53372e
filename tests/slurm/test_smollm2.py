"""A real pretrained model through the test Slurm: what it learns, and that every figure a CPU can give is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hpcbench.schemas.collection import Collection
from hpcbench.schemas.metrics import EvalMetrics, TrainMetrics
from hpcbench.schemas.states import JobState
from tests.support.places import ROOT, shared
from tests.support.slurm_cluster.cluster import Cluster
from tests.support.slurm_suites import hpcbench, view, wait_until_over

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.train,
    pytest.mark.long,
    pytest.mark.timeout(3000),
]


@pytest.fixture(scope="module")
def model() -> Path:
    """Return the folder of SmolLM2-135M-Instruct, made once."""
    folder = ROOT / "logs" / "smollm2-135m-instruct"
    subprocess.run([sys.executable, str(shared("tools/get_smollm2.py")), str(folder)], check=True)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that configs/smollm2/prepare.py makes."""
    out = tmp_path_factory.mktemp("smollm2")
    source = shared("data")
    options = {
        "--fudan": ["fudan_news/sft_train.jsonl", "fudan_news/val.jsonl"],
        "--gsm8k": ["gsm8k/train.jsonl", "gsm8k/test.jsonl"],
        "--arc-easy": ["arc/ARC-Easy-test.hf.jsonl"],
    }
    arguments = [word for option, files in options.items() for word in (option, *(str(source / f) for f in files))]
    subprocess.run([sys.executable, str(ROOT / "configs" / "smollm2" / "prepare.py"), str(out), *arguments], check=True)
    return out


def run(suite: str, save_dir: Path, **overrides: Path) -> Collection:
    words = [word for name, path in overrides.items() for word in ("--set", f"{name.replace('__', '.')}={path}")]
    hpcbench("submit", str(ROOT / "configs" / suite), "--save-dir", str(save_dir), *words)
    collection = wait_until_over(save_dir, timeout_s=2700)
    assert {job.state for job in collection.jobs} == {JobState.COMPLETED}
    return collection


def evaluation(collection: Collection, experiment: str, job: str) -> EvalMetrics:
    record = view(collection, experiment, job).record
    assert record is not None
    assert isinstance(record.metrics, EvalMetrics)
    return record.metrics


def accuracy(collection: Collection, experiment: str) -> float:
    metrics = evaluation(collection, experiment, "eval-fudan4")
    return float(metrics.tasks["fudan4"].metrics["acc,none"] or 0)


def test_news_classification(slurm_cluster: Cluster, tmp_path: Path, model: Path, data: Path) -> None:
    collection = run(
        "smollm2_fudan.yaml",
        tmp_path,
        args__model_id_or_path=model,
        args__dataset=data / "fudan" / "train.jsonl",
        args__val_dataset=data / "fudan" / "val.jsonl",
        eval_args__include_path=data / "tasks",
    )
    baseline = accuracy(collection, "baseline")
    assert accuracy(collection, "lora") >= baseline + 0.15
    assert accuracy(collection, "lora-ddp2") >= baseline + 0.15


def test_school_mathematics(slurm_cluster: Cluster, tmp_path: Path, model: Path, data: Path) -> None:
    collection = run(
        "smollm2_gsm8k.yaml",
        tmp_path,
        args__model_id_or_path=model,
        args__dataset=data / "gsm8k" / "train.jsonl",
        eval_args__include_path=data / "tasks",
    )
    before = evaluation(collection, "baseline", "eval-gsm8k").eval_loss
    record = view(collection, "lora", "train").record
    assert record is not None
    assert isinstance(record.metrics, TrainMetrics)
    after = record.metrics.eval_loss
    assert before is not None
    assert after is not None
    assert after <= before - 0.2
    assert evaluation(collection, "lora", "eval-gsm8k").tasks["gsm8k"].num_samples == 20
    assert evaluation(collection, "lora", "eval-arc_easy").tasks["arc_easy"].num_samples == 60


TUNERS = ("lora", "lora+packing", "dora", "lora+", "adapter", "galore", "lisa")


def training(collection: Collection, experiment: str) -> TrainMetrics:
    record = view(collection, experiment, "train").record
    assert record is not None
    assert isinstance(record.metrics, TrainMetrics)
    return record.metrics


def test_every_tuner_learns_to_sort_news(slurm_cluster: Cluster, tmp_path: Path, model: Path, data: Path) -> None:
    collection = run(
        "smollm2_fudan_tuners.yaml",
        tmp_path,
        args__model_id_or_path=model,
        args__dataset=data / "fudan" / "train.jsonl",
        args__val_dataset=data / "fudan" / "val.jsonl",
        eval_args__include_path=data / "tasks",
    )
    before = evaluation(collection, "baseline", "eval-fudan4").eval_loss
    assert before is not None
    for name in TUNERS:
        metrics = training(collection, name)
        assert metrics.eval_loss is not None
        assert metrics.eval_loss < before / 2, name
        assert metrics.samples_per_second, name
        assert metrics.memory[0].host_rss_gib, name
    assert accuracy(collection, "lora") >= accuracy(collection, "baseline") + 0.15
    lisa = training(collection, "lisa").parameters
    assert lisa.trained_at_once is not None
    assert lisa.trained_at_once < lisa.trainable == lisa.total


def test_every_tuner_learns_mathematics(slurm_cluster: Cluster, tmp_path: Path, model: Path, data: Path) -> None:
    collection = run(
        "smollm2_gsm8k_tuners.yaml",
        tmp_path,
        args__model_id_or_path=model,
        args__dataset=data / "gsm8k" / "train.jsonl",
        eval_args__include_path=data / "tasks",
    )
    before = evaluation(collection, "baseline", "eval-gsm8k").eval_loss
    assert before is not None
    for name in TUNERS:
        after = training(collection, name).eval_loss
        assert after is not None
        assert after <= before - 0.1, name


def test_tool_dialogues_train_as_they_are(slurm_cluster: Cluster, tmp_path: Path, model: Path) -> None:
    collection = run(
        "smollm2_tools.yaml",
        tmp_path,
        args__model_id_or_path=model,
        args__dataset_info=shared("data/instructions/dataset_info.json"),
    )
    before = evaluation(collection, "baseline", "eval-eval_loss").eval_loss
    assert before is not None
    for name in ("lora", "lora+loss_scale"):
        metrics = training(collection, name)
        assert metrics.eval_loss is not None
        assert metrics.eval_loss <= before - 0.1, name
        assert metrics.rouge_l is not None
        assert 0 < metrics.rouge_l <= 1, name
