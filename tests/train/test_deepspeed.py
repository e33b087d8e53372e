"""DeepSpeed on two ranks: a real engine trains as one process does, resumes to the last bit and leaves usual folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcbench.schemas.arguments import SftArgs
from hpcbench.storage.paths import JobPaths
from hpcbench.worker.models import loading
from tests.support.sharded_trainings import FIGURES, assert_alike, kill_after_step, resume_as
from tests.support.tiny_models import (
    make_job,
    make_model_folder,
    read_metrics,
    start_worker,
    train_here,
    write_chats,
)

pytest.importorskip("deepspeed")

pytestmark = pytest.mark.train

VALUES: dict[str, Any] = {"dataset_test_ratio": 0.125, "num_train_epochs": 1, "lora_dropout_p": 0.0}
"""21 training rows: the last global batch has one row, so that the second rank gets the filler."""


def run_ranks(folder: Path, base: Path, data: Path, **values: Any) -> JobPaths:
    job = make_job(folder, base, data, ddp=2, batch_size=1, **{**VALUES, **values})
    assert start_worker(job, ddp=2).wait(timeout=580) == 0, job.attempt(1).log.read_text()
    return job


def test_ranks_that_share_gradients_train_as_one_process(tmp_path: Path) -> None:
    base = make_model_folder(tmp_path / "base", dropout=0)
    data = write_chats(tmp_path / "chats.jsonl", count=24)
    # What the file leaves out is as the arguments say; sgd shows whether gradients were clipped.
    (tmp_path / "stage.json").write_text('{"zero_optimization": {"stage": 2}}', encoding="utf-8")
    values = {"sft_type": "full", "optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0.05}
    alone = make_job(tmp_path / "alone", base, data, **{**VALUES, **values})
    ranks = run_ranks(tmp_path / "ranks", base, data, deepspeed=str(tmp_path / "stage.json"), **values)
    train_here(alone)
    assert_alike(ranks, alone, within=1e-5)
    assert read_metrics(ranks.attempt(1)).took_effect["deepspeed"] == "ZeRO-2"
    args = SftArgs(model_id_or_path=str(base), dtype="fp32")
    assert loading.load_checkpoint(args, ranks.checkpoints / "best", "cpu").num_parameters() > 0


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "sft_type", "sharding"),
    [
        ("zero0", "full", "ZeRO-0"),
        ("zero1", "full", "ZeRO-1"),
        ("zero2", "lora", "ZeRO-2"),
        ("zero2_offload", "full", "ZeRO-2, optimizer offloaded"),
        ("zero2_offload", "lora", "ZeRO-2, optimizer offloaded"),
        ("zero3", "full", "ZeRO-3"),
        ("zero3", "lora", "ZeRO-3"),
        ("zero3_offload", "full", "ZeRO-3, optimizer and weights offloaded"),
    ],
)
def test_each_stage_trains_as_one_process(tmp_path: Path, name: str, sft_type: str, sharding: str) -> None:
    base = make_model_folder(tmp_path / "base", dropout=0)
    data = write_chats(tmp_path / "chats.jsonl", count=24)
    alone = make_job(tmp_path / "alone", base, data, sft_type=sft_type, **VALUES)
    ranks = run_ranks(tmp_path / "ranks", base, data, sft_type=sft_type, deepspeed=name)
    train_here(alone)
    # Without ZeRO, DeepSpeed clips gradients and does not say by how much.
    figures = [key for key in FIGURES if key != "grad_norm" or name != "zero0"]
    assert_alike(ranks, alone, within=1e-5, figures=figures)
    assert read_metrics(ranks.attempt(1)).took_effect["deepspeed"] == sharding


@pytest.mark.long
@pytest.mark.parametrize(("name", "sft_type"), [("zero2", "full"), ("zero3", "lora"), ("zero3_offload", "full")])
def test_a_killed_training_resumes_to_the_last_bit(
    tmp_path: Path, base_model: Path, chats: Path, name: str, sft_type: str
) -> None:
    values: dict[str, Any] = {"num_train_epochs": 3, "save_steps": 3, "lora_dropout_p": 0.1}
    values |= {"sft_type": sft_type, "deepspeed": name}
    job = make_job(tmp_path / "job", base_model, chats, ddp=2, batch_size=1, **{**VALUES, **values})
    kill_after_step(job, step=8)
    reference = run_ranks(tmp_path / "reference", base_model, chats, **values)
    resume_as(reference, job)
