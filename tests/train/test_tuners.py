"""Every fine-tuning method, from its arguments to a checkpoint that a fresh load evaluates."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from hpcbench.arguments import SftArgs
from hpcbench.errors import WorkerError
from hpcbench.jsonfile import read_json
from hpcbench.paths import AttemptPaths, JobPaths
from hpcbench.tuner_names import TUNERS_FOLDER, list_tuners
from hpcbench.worker import model, sft
from hpcbench.worker import trainer as trainer_module
from hpcbench.worker.data import encode_samples, load_splits
from hpcbench.worker.loss import mean_cross_entropy
from hpcbench.worker.progress import read_eval_losses, read_steps
from hpcbench.worker.template import Template
from hpcbench.worker.tuners import load_tuner
from tests.train.world import (
    make_job,
    make_llama_folder,
    read_history,
    read_metrics,
    read_weights,
    start_worker,
    train_here,
)

pytestmark = pytest.mark.train

FINGERPRINT = "f" * 64

METHODS: dict[str, dict[str, Any]] = {
    "adalora": {"sft_type": "adalora", "adalora_tfinal": 2, "adalora_deltaT": 2, "learning_rate": 0.05},
    "adapter": {"sft_type": "adapter", "adapter_length": 8},
    "ia3": {"sft_type": "ia3", "learning_rate": 0.05},
    "llamapro": {"sft_type": "llamapro", "llamapro_num_new_blocks": 2},
    "lisa": {"sft_type": "lisa", "lisa_activated_layers": 1, "lisa_step_interval": 3},
    "galore": {"sft_type": "galore", "galore_rank": 4, "galore_update_proj_gap": 3, "galore_with_embedding": "true"},
    "galore-each": {"sft_type": "full", "use_galore": "true", "galore_rank": "4", "galore_per_parameter": True},
    "q-galore": {
        "sft_type": "galore",
        "galore_rank": 4,
        "galore_update_proj_gap": 2,
        "galore_quantization": True,
        "galore_proj_quant": True,
        "galore_queue_size": 1,
        "galore_cos_threshold": 0.1,
    },
    "neftune": {"sft_type": "lora", "neftune_noise_alpha": 15.0},
    "dora": {"sft_type": "dora"},
    "lora+": {"sft_type": "lora+"},
}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama_folder(tmp_path_factory.mktemp("llama") / "model")


def stop_in_step(monkeypatch: pytest.MonkeyPatch, step: int | None) -> None:
    """Ask for a stop while this attempt's step `step` is made."""

    def asked(attempt: AttemptPaths) -> bool:
        return step is not None and sum("loss" in line for line in read_history(attempt)) >= step - 1

    monkeypatch.setattr(trainer_module, "stop_requested", asked)


def losses(job: JobPaths) -> list[float | None]:
    return [step.loss for step in read_steps(job, FINGERPRINT)]


def args_of(job: JobPaths) -> SftArgs:
    return SftArgs.model_validate((read_json(job.request) or {})["args"])


def validation_loss(job: JobPaths, folder: Path, tokenizer: Any, *, merge: bool = False) -> float:
    """Return eval_loss as an eval job would find it, from the folder and the base alone."""
    args = args_of(job)
    rows = encode_samples(load_splits(args).validation, Template.from_args(args, tokenizer)).rows
    return mean_cross_entropy(model.load_checkpoint(args, folder, "cpu", merge=merge), rows, 2, "cpu")[0]


@pytest.mark.parametrize("method", METHODS)
def test_a_method_learns_stops_resumes_and_reloads(  # noqa: PLR0917  # fixtures
    tmp_path: Path, base_model: Path, chats: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Stopped in step 5, with dropout and shuffling on: the same losses and weights as without a stop."""
    # three epochs of five steps
    values = {**METHODS[method], "num_train_epochs": 3, "eval_steps": 5}
    reference = make_job(tmp_path / "reference", base_model, chats, **values)
    metrics = read_metrics(train_here(reference))
    found = [loss for loss in losses(reference) if loss is not None]
    assert len(found) == 15
    assert sum(found[-3:]) < sum(found[:3])
    evals = read_eval_losses(reference, FINGERPRINT)
    assert (evals[15] or 0.0) < (evals[5] or 0.0)

    job = make_job(tmp_path / "job", base_model, chats, **values)
    for number, step in ((1, 4), (2, 3)):
        stop_in_step(monkeypatch, step)
        assert read_json(train_here(job, number).interrupted) is not None
    stop_in_step(monkeypatch, None)
    assert read_metrics(train_here(job, 3)).resumed_from_steps == (4, 7)
    assert losses(job) == losses(reference)
    assert read_eval_losses(job, FINGERPRINT) == evals
    for name in ("best", "last"):
        expected, resumed = read_weights(reference.checkpoints / name), read_weights(job.checkpoints / name)
        assert expected.keys() == resumed.keys()
        assert all((expected[key] == resumed[key]).all() for key in expected), name

    assert validation_loss(job, job.checkpoints / "best", tokenizer) == pytest.approx(metrics.eval_loss, abs=1e-6)
    assert validation_loss(job, job.checkpoints / "last", tokenizer) == pytest.approx(metrics.last_eval_loss, abs=1e-6)


@pytest.mark.parametrize("method", ["adalora", "adapter", "ia3", "llamapro", "lisa", "galore"])
def test_a_method_trains_llama_too(tmp_path: Path, llama: Path, chats: Path, tokenizer: Any, method: str) -> None:
    job = make_job(tmp_path, llama, chats, **METHODS[method])
    metrics = read_metrics(train_here(job))
    found = [loss for loss in losses(job) if loss is not None]
    assert sum(found[-3:]) < sum(found[:3])
    assert validation_loss(job, job.checkpoints / "last", tokenizer) == pytest.approx(metrics.last_eval_loss, abs=1e-6)


@pytest.mark.parametrize("method", ["adalora", "ia3", "adapter", "llamapro"])
def test_a_reloaded_model_has_the_trained_ones_logits(
    tmp_path: Path, base_model: Path, chats: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    trained: list[Any] = []
    finish = sft._finish

    def remember(*positional: Any, prepared: Any, **options: Any) -> None:
        trained.append(prepared.model)
        finish(*positional, prepared=prepared, **options)

    monkeypatch.setattr(sft, "_finish", remember)
    job = make_job(tmp_path, base_model, chats, **METHODS[method])
    train_here(job)
    ids = torch.arange(40).reshape(2, 20)
    with torch.inference_mode():
        expected = trained[0].eval()(ids).logits
        found = model.load_checkpoint(args_of(job), job.checkpoints / "last", "cpu")(ids).logits
    assert (found == expected).all()


@pytest.mark.parametrize("method", ["adalora", "ia3"])
def test_an_adapter_of_peft_merges(tmp_path: Path, base_model: Path, chats: Path, tokenizer: Any, method: str) -> None:
    job = make_job(tmp_path, base_model, chats, **METHODS[method])
    metrics = read_metrics(train_here(job))
    merged = validation_loss(job, job.checkpoints / "last", tokenizer, merge=True)
    assert merged == pytest.approx(metrics.last_eval_loss, abs=1e-5)


def test_an_adapter_folder_holds_the_adapter_alone(tmp_path: Path, base_model: Path, chats: Path) -> None:
    job = make_job(tmp_path / "job", base_model, chats, **METHODS["adapter"], only_save_model=True)
    train_here(job)
    last = job.checkpoints / "last"
    assert {path.name for path in last.iterdir()} >= {"tuner.json", "tuner.safetensors", "tokenizer.json"}
    assert not {"model.safetensors", "config.json", "optimizer.pt"} & {path.name for path in last.iterdir()}
    assert sum(tensor.numel() for tensor in read_weights(last).values()) == 2 * (2 * 32 * 8 + 8 + 32)
    # Its own file says how it is rebuilt; the arguments of an eval need not.
    args = SftArgs(model_id_or_path=str(base_model), dtype="fp32")
    assert model.load_checkpoint(args, last, "cpu").model.layers[0].mlp.adapter.down.out_features == 8
    with pytest.raises(WorkerError, match="such an adapter cannot be merged"):
        model.load_checkpoint(args, last, "cpu", merge=True)
    other = make_llama_folder(tmp_path / "other", num_layers=3)
    with pytest.raises(WorkerError, match="its weights do not belong to this model"):
        model.load_checkpoint(SftArgs(model_id_or_path=str(other), dtype="fp32"), last, "cpu")


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
    assert worker.wait(timeout=180) == 0, ranks.attempt(1).log.read_text()
    assert losses(ranks) == pytest.approx(losses(alone), abs=1e-5)


def test_a_new_file_is_a_new_method(tmp_path: Path) -> None:
    package = tmp_path / "hpcbench"
    shutil.copytree(TUNERS_FOLDER.parents[1], package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(package / "worker" / "tuners" / "full.py", package / "worker" / "tuners" / "everything.py")
    code = (
        "from hpcbench.arguments import SftArgs; from hpcbench.worker.tuners import load_tuner\n"
        "print(SftArgs(model_type='m', sft_type='everything').tuner, load_tuner('everything').trains_base)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={}, capture_output=True, text=True, check=False
    )
    assert result.stdout.split() == ["everything", "True"], result.stderr


def test_every_file_is_a_method() -> None:
    assert list_tuners() == ("adalora", "adapter", "full", "galore", "ia3", "lisa", "llamapro", "lora")
    for name in list_tuners():
        assert load_tuner(name).prepare is not None
