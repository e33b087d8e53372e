"""What the shell offers for words that were typed in part, asked for as bash asks."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from hpcbench.cli import app
from hpcbench.storage.json_files import write_json
from hpcbench.storage.paths import SuitePaths


def offered(*words: str) -> list[str]:
    """Return what bash would offer for the last word of `hpcbench WORDS`."""
    environment = {
        "_HPCBENCH_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(["hpcbench", *words]), "COMP_CWORD": str(len(words)),
    }  # fmt: skip
    return CliRunner(env=environment).invoke(app, [], prog_name="hpcbench").stdout.split()


@pytest.fixture(autouse=True)
def two_suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder with results of two suites."""
    monkeypatch.chdir(tmp_path)
    for suite, experiment in (("qwen", "lora-r8"), ("tuners", "full")):
        paths = SuitePaths(tmp_path / "logs", suite)
        write_json(paths.plan, {"suite": suite})
        for job in ("train", "eval-arc"):
            write_json(paths.job(experiment, job).request, {})


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("sft --lora_ra", ["--lora_rank"]),
        ("sft --tuner_ban", ["--tuner_bankend"]),
        ("sft --sft_type do", ["dora"]),
        ("sft --dtype b", ["bf16"]),
        ("sft --packing t", ["true"]),
        ("sft --template_type chatml", ["chatml"]),
        ("sft --seed 1 --lora_ra", ["--lora_rank"]),
        ("eval --ckpt_d", ["--ckpt_dir"]),
        ("status --state failed,run", ["failed,running"]),
        ("status q", ["qwen"]),
        ("status --save-dir logs q", ["qwen"]),
        ("status qwen/", ["qwen/lora-r8"]),
        ("logs qwen/lora-r8/t", ["qwen/lora-r8/train"]),
        ("cancel lora", ["lora-r8"]),
        ("collect t", ["tuners"]),
        ("collect --format h", ["html"]),
        ("collect --layout sw", ["swift"]),
        ("collect --columns lora_ra", ["lora_rank"]),
        ("collect --columns eval_loss,train_lo", ["eval_loss,train_loss"]),
        ("collect --by lora_rank,learning_ra", ["lora_rank,learning_rate"]),
        ("collect --value rouge_", ["rouge_l"]),
        ("collect --best eval_lo", ["eval_loss"]),
        ("why q", ["qwen"]),
        ("retry qwen/", ["qwen/lora-r8"]),
        ("schema sub", ["submit"]),
        ("plan --cluster lo", ["local"]),
        ("clean --keep a", ["adapter"]),
        ("schema pro", ["profile"]),
    ],
)
def test_the_shell_offers_what_may_follow(typed: str, expected: list[str]) -> None:
    assert offered(*typed.split(" ")) == expected


def test_a_save_directory_that_cannot_be_read_offers_nothing() -> None:
    assert offered("status", "--save-dir", "nowhere", "q") == []
