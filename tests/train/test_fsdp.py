"""Sharded trainings: as one process and as DDP, resumed to the last bit, with checkpoints like all others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcbench.schemas.request import read_request
from hpcbench.storage.paths import JobPaths
from hpcbench.worker.models import loading
from tests.support.sharded_trainings import assert_alike, kill_after_step, resume_as
from tests.support.tiny_models import (
    make_job,
    make_model_folder,
    read_metrics,
    start_worker,
    train_here,
    write_chats,
)

pytestmark = pytest.mark.train

SHARDED: dict[str, Any] = {"batch_size": 1, "fsdp": ["full_shard", "auto_wrap"]}


def train(*jobs: JobPaths, ddp: int = 2) -> None:
    """Train jobs beside each other, each on several ranks."""
    workers = [start_worker(job, ddp=ddp) for job in jobs]
    for job, worker in zip(jobs, workers, strict=True):
        assert worker.wait(timeout=600) == 0, job.attempt(1).log.read_text()


def test_shards_train_as_one_process(tmp_path: Path) -> None:
    base = make_model_folder(tmp_path / "base", dropout=0)
    # 21 training rows and 3 for validation: of the last of either the second rank has none
    data = write_chats(tmp_path / "chats.jsonl", count=24)
    values: dict[str, Any] = {"sft_type": "full", "dataset_test_ratio": 0.125, "only_save_model": False}
    alone = make_job(tmp_path / "alone", base, data, **values)
    job = make_job(tmp_path / "job", base, data, ddp=2, gradient_checkpointing=True, **SHARDED, **values)
    worker = start_worker(job, ddp=2)
    train_here(alone)
    assert worker.wait(timeout=300) == 0, job.attempt(1).log.read_text()
    assert_alike(job, alone, within=1e-5)
    metrics = read_metrics(job.attempt(1))
    assert metrics.took_effect == {"fsdp": "FSDP2 full_shard over 2 ranks"}
    assert [memory.rank for memory in metrics.memory] == [0, 1]
    assert metrics.parameters == read_metrics(alone.attempt(1)).parameters
    saved, usual = ({path.name for path in (each.checkpoints / "last").iterdir()} for each in (job, alone))
    assert saved - usual == {"optimizer_0.pt", "optimizer_1.pt", "rng_state_0.pth", "rng_state_1.pth"}
    args = read_request(job.request).args
    assert args is not None
    model = loading.load_checkpoint(args, job.checkpoints / "last", "cpu")
    assert type(model).__name__ == "Qwen2ForCausalLM"


@pytest.mark.long
@pytest.mark.parametrize("more", [{}, {"gradient_checkpointing": True}, {"dtype": "bf16"}], ids=str)
def test_shards_of_an_adapter_and_its_base_train_as_ddp_with_the_same_dropout(
    tmp_path: Path, base_model: Path, chats: Path, more: dict[str, Any]
) -> None:
    ddp = make_job(tmp_path / "ddp", base_model, chats, ddp=2, batch_size=1, only_save_model=True, **more)
    job = make_job(tmp_path / "job", base_model, chats, ddp=2, only_save_model=True, **SHARDED, **more)
    train(ddp, job)
    # Under autocast DDP computes some sums in fp32 that FSDP computes in bf16.
    assert_alike(job, ddp, within=1e-2 if "dtype" in more else 1e-5)
    assert read_metrics(job.attempt(1)).dtypes == read_metrics(ddp.attempt(1)).dtypes


@pytest.mark.long
def test_hybrid_shards_train_as_ddp(tmp_path: Path, base_model: Path, chats: Path) -> None:
    values: dict[str, Any] = {"sft_type": "full", "batch_size": 1, "gradient_accumulation_steps": 1, "ddp": 4}
    ddp = make_job(tmp_path / "ddp", base_model, chats, **values)
    hybrid: dict[str, Any] = {"fsdp": ["hybrid_shard"], "fsdp_config": {"dp_replicate_size": 2}}
    job = make_job(tmp_path / "job", base_model, chats, **values, **hybrid)
    full = make_job(tmp_path / "full", base_model, chats, **values, fsdp=["full_shard"])
    train(ddp, ddp=4)
    train(job, ddp=4)
    train(full, ddp=4)
    assert_alike(job, ddp, within=1e-5)
    assert_alike(full, ddp, within=1e-5)
    assert read_metrics(job.attempt(1)).took_effect == {"fsdp": "FSDP2 hybrid_shard over 2 ranks, 2 times"}


@pytest.mark.long
@pytest.mark.parametrize("sft_type", ["lora", "full"])
def test_a_killed_sharded_training_resumes_to_the_last_bit(
    tmp_path: Path, base_model: Path, chats: Path, sft_type: str
) -> None:
    values: dict[str, Any] = {"ddp": 2, "sft_type": sft_type, "num_train_epochs": 6, "save_steps": 3, **SHARDED}
    reference = make_job(tmp_path / "reference", base_model, chats, **values)
    job = make_job(tmp_path / "job", base_model, chats, **values)
    kill_after_step(job, step=8)
    train(reference)
    resume_as(reference, job)


@pytest.mark.long
def test_a_checkpoint_of_another_sharding_is_refused_unless_its_weights_alone_are_taken(
    tmp_path: Path, base_model: Path, chats: Path
) -> None:
    first = make_job(tmp_path / "first", base_model, chats, ddp=2, **SHARDED)
    train(first)
    named = str(first.checkpoints / "last")
    values: dict[str, Any] = {"num_train_epochs": 4, "resume_from_checkpoint": named}
    ddp = make_job(tmp_path / "ddp", base_model, chats, ddp=2, batch_size=1, **values)
    assert start_worker(ddp, ddp=2).wait(timeout=300) != 0
    assert "holds no optimizer.pt" in ddp.attempt(1).log.read_text()
    sharded = make_job(tmp_path / "sharded", base_model, chats, ddp=2, **SHARDED, **values)
    train(sharded)
    assert read_metrics(sharded.attempt(1)).resumed_from_step == read_metrics(first.attempt(1)).num_steps
    alone = make_job(tmp_path / "alone", base_model, chats, resume_only_model=True, **values)
    train_here(alone)
    assert read_metrics(alone.attempt(1)).num_steps > 0
