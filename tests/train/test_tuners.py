"""Fine-tuning methods: their files, dtypes, gradient checkpointing and ranks; test_every_method.py has the rest."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.tuners import TUNERS_FOLDER, list_tuners
from hpcbench.storage.paths import JobPaths
from hpcbench.worker.data.samples import encode_samples, load_splits
from hpcbench.worker.data.templates import Template
from hpcbench.worker.measure.loss import mean_cross_entropy
from hpcbench.worker.models import loading
from hpcbench.worker.progress_file import read_steps
from hpcbench.worker.tuners import load_tuner
from tests.support.methods import METHODS, read_args
from tests.support.tiny_models import (
    make_job,
    make_llama_folder,
    read_metrics,
    read_weights,
    start_worker,
    train_here,
)

pytestmark = pytest.mark.train

FINGERPRINT = "f" * 64


def losses(job: JobPaths) -> list[float | None]:
    return [step.loss for step in read_steps(job, FINGERPRINT)]


def validation_loss(job: JobPaths, folder: Path, tokenizer: Any, *, merge: bool = False) -> float:
    """Return eval_loss as an eval job would find it, from the folder and the base alone."""
    args = read_args(job)
    rows = encode_samples(load_splits(args).validation, Template.from_args(args, tokenizer)).rows
    return mean_cross_entropy(loading.load_checkpoint(args, folder, "cpu", merge=merge), rows, 2, "cpu")[0]


def test_an_adapter_folder_holds_the_adapter_alone(tmp_path: Path, base_model: Path, chats: Path) -> None:
    job = make_job(tmp_path / "job", base_model, chats, **METHODS["adapter"], only_save_model=True)
    train_here(job)
    last = job.checkpoints / "last"
    assert {path.name for path in last.iterdir()} >= {"tuner.json", "tuner.safetensors", "tokenizer.json"}
    assert not {"model.safetensors", "config.json", "optimizer.pt"} & {path.name for path in last.iterdir()}
    assert sum(tensor.numel() for tensor in read_weights(last).values()) == 2 * (2 * 32 * 8 + 8 + 32)
    # Its own file says how it is rebuilt; the arguments of an eval need not.
    args = SftArgs(model_id_or_path=str(base_model), dtype="fp32")
    assert loading.load_checkpoint(args, last, "cpu").model.layers[0].mlp.adapter.down.out_features == 8
    with pytest.raises(WorkerError, match="an adapter of this kind cannot be merged"):
        loading.load_checkpoint(args, last, "cpu", merge=True)
    other = make_llama_folder(tmp_path / "other", num_layers=3)
    with pytest.raises(WorkerError, match="its weights do not belong to this model"):
        loading.load_checkpoint(SftArgs(model_id_or_path=str(other), dtype="fp32"), last, "cpu")


def test_adapters_run_in_the_models_dtype(tmp_path: Path, base_model: Path, chats: Path, tokenizer: Any) -> None:
    for method in ("adapter", "adalora", "llamapro"):
        job = make_job(tmp_path / method, base_model, chats, **METHODS[method], dtype="bf16")
        metrics = read_metrics(train_here(job))
        assert metrics.dtypes["weights"] == "bfloat16"
        assert metrics.dtypes["adapter"] == ("bfloat16" if method == "llamapro" else "float32")
        assert metrics.dtypes["autocast"] == ("none" if method == "llamapro" else "bfloat16")
        assert validation_loss(job, job.checkpoints / "last", tokenizer) == pytest.approx(
            metrics.last_eval_loss, abs=0.02
        )


@pytest.mark.parametrize("method", ["adapter", "lisa", "llamapro", "adalora"])
def test_gradient_checkpointing_changes_no_number(tmp_path: Path, base_model: Path, chats: Path, method: str) -> None:
    jobs = []
    for name, recomputes in (("plain", False), ("recomputed", True)):
        options = {**METHODS[method], "gradient_checkpointing": recomputes, "max_steps": 6}
        jobs.append(make_job(tmp_path / name, base_model, chats, **options))
        train_here(jobs[-1])
    assert losses(jobs[1]) == pytest.approx(losses(jobs[0]), abs=1e-6)


def test_lisa_on_two_ranks_is_lisa_on_one(tmp_path: Path, chats: Path) -> None:
    base = make_llama_folder(tmp_path / "base")
    values = METHODS["lisa"]
    ranks = make_job(tmp_path / "ranks", base, chats, ddp=2, batch_size=1, **values)
    worker = start_worker(ranks, ddp=2)
    alone = make_job(tmp_path / "alone", base, chats, **values)
    train_here(alone)
    assert worker.wait(timeout=300) == 0, ranks.attempt(1).log.read_text()
    assert losses(ranks) == pytest.approx(losses(alone), abs=1e-5)


def test_a_new_file_is_a_new_method(tmp_path: Path) -> None:
    package = tmp_path / "hpcbench"
    shutil.copytree(TUNERS_FOLDER.parents[1], package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(package / "worker" / "tuners" / "full.py", package / "worker" / "tuners" / "everything.py")
    code = (
        "from hpcbench.schemas.arguments import SftArgs; from hpcbench.worker.tuners import load_tuner\n"
        "print(SftArgs(model_type='m', sft_type='everything').tuner, load_tuner('everything').trains_base)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={}, capture_output=True, text=True, check=False
    )
    assert result.stdout.split() == ["everything", "True"], result.stderr


def test_every_file_is_a_method() -> None:
    own = ("adalora", "adapter", "full", "galore", "ia3", "lisa", "llamapro", "lora")
    assert list_tuners() == (*own, "peft", "shadow")
    for name in list_tuners():
        assert load_tuner(name).prepare is not None
