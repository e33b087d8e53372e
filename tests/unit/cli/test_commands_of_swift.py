"""Command lines as SWIFT 2.x documents them, typed with `hpcbench` for `swift`: each is planned, or refused with why.

`...` and `{PLACEHOLDERS}` of the documents are filled in. Nothing is downloaded: hubs are switched off, caches empty.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from hpcbench.cli.single_run import run
from tests.support.places import GOLDEN
from tests.support.typed_commands import Ended, run_here

PLANNED = "starts, results in "
"""What is printed of a run that may start."""

BENCHMARK_2023 = (
    "--dataset_test_ratio 0 --dataset cls-fudan-news-zh --train_dataset_sample 1000 --save_strategy no "
    "--check_dataset_strategy warning --truncation_strategy truncation_left --preprocess_num_proc 4 "
)
DEFAULTS_2023 = (
    "--max_length 2048 --batch_size 1 --gradient_checkpinting true --use_flash_attn true --lora_rank 8 "
    "--lora_target_modules DEFAULT --quantization_bit 0 "
)
BENCHMARK_2024 = (
    "--dataset_test_ratio 0 --dataset cls-fudan-news-zh --save_strategy no --check_dataset_strategy warning "
    "--preprocess_num_proc 4 "
)
DEFAULTS_2024 = (
    "--max_length 2048 --batch_size 1 --gradient_checkpointing true --use_flash_attn true --lora_rank 8 "
    "--lora_target_modules DEFAULT --quantization_bit 0 --gradient_accumulation_steps 16 "
)


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, with empty caches, hubs that answer nobody, and no queue that runs what was planned."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(run, "_run_queue", lambda *_: None)


def check(typed: str, outcome: str) -> Ended:
    """Type a command and check what it says."""
    ended = run_here(*shlex.split(typed))
    if outcome == PLANNED:
        assert outcome in ended.out, ended
    else:
        assert (ended.code, ended.out) == (2, ""), ended
        assert outcome in ended.err, ended
        assert "unknown" not in ended.err
        assert "hint: " in ended.err
    return ended
