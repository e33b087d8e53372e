"""Checkpoints of methods that peft does not save, seen by the eval worker and lm-eval."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.train import eval_world
from tests.train.test_evaluate import CHOICES, logprobs, run_eval
from tests.train.world import make_job, train_here

pytestmark = pytest.mark.train


@pytest.mark.parametrize("sft_type", ["adapter", "llamapro", "adalora"])
def test_lm_eval_evaluates_the_trained_model(
    tmp_path: Path, chats: Path, monkeypatch: pytest.MonkeyPatch, sft_type: str
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets-cache")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    base = eval_world.save_model(tmp_path / "base")
    questions = [{"question": f"Where is city {n}?", "choices": CHOICES, "answer": n % 4} for n in range(6)]
    eval_world.write_task(tmp_path / "tasks", "where", questions, **eval_world.CHOICE_TASK)
    job = make_job(tmp_path / "train", base, chats, sft_type=sft_type, llamapro_num_new_blocks=1, learning_rate=0.02)
    train_here(job)
    eval_world.write_train_record(job.folder)
    options = {"eval_args": {"include_path": (str(tmp_path / "tasks"),)}}
    run_eval(tmp_path / "baseline", eval_world.make_request(base, "where", **options))
    trained = eval_world.make_request(base, "where", train_folder=str(job.folder), **options)
    metrics = run_eval(tmp_path / "trained", trained)
    assert metrics.tasks["where"].num_samples == 6
    assert (logprobs(tmp_path / "trained") - logprobs(tmp_path / "baseline")).abs().max() > 0.1
