"""Trainings of a tiny model, from request to record."""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import SftArgs
from hpcbench.storage.json_files import read_json, write_json
from hpcbench.worker.data.batches import BatchPlan
from hpcbench.worker.data.samples import encode_samples, load_splits
from hpcbench.worker.data.templates import Template
from hpcbench.worker.measure.loss import mean_cross_entropy
from hpcbench.worker.models import generation_config, loading
from hpcbench.worker.train import sft, trainer
from hpcbench.worker.train.checkpoints import ResumePoint
from hpcbench.worker.train.trainer import DIVERGED_STEPS
from hpcbench.worker.tuners import list_tuners, load_tuner
from tests.support.tiny_models import (
    make_job,
    make_model_folder,
    read_history,
    read_metrics,
    read_weights,
    start_worker,
    train_here,
    write_chats,
)

pytestmark = pytest.mark.train


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_lora_leaves_metrics_history_and_checkpoints(tmp_path: Path, base_model: Path, chats: Path) -> None:
    job = make_job(tmp_path, base_model, chats)
    attempt = train_here(job)
    metrics, history = read_metrics(attempt), read_history(attempt)
    steps = [line for line in history if "loss" in line]
    evals = {line["step"]: line["eval_loss"] for line in history if "eval_loss" in line}
    assert [line["step"] for line in steps] == list(range(1, 11))
    assert set(steps[0]) == {
        "step", "loss", "learning_rate", "grad_norm", "step_time_s", "num_tokens", "num_samples", "epoch",
    }  # fmt: skip
    assert list(evals) == [4, 8, 10], "every eval_steps and at the last step"
    assert metrics.train_loss == pytest.approx(sum(line["loss"] for line in steps) / 10)
    assert metrics.eval_loss == min(evals.values())
    assert metrics.best_step == min(evals, key=lambda step: evals[step])
    assert metrics.last_eval_loss == evals[10]
    assert (metrics.num_samples, metrics.num_train_rows, metrics.num_val_rows) == (40, 20, 4)
    assert metrics.tokens is not None
    assert metrics.num_tokens == 2 * round(metrics.tokens.mean * 20)
    assert metrics.global_batch_size == 4
    # 14 linear layers with rank 8; q 32x32, k and v 32x16, o 32x32, gate, up, down 32x48, twice
    assert metrics.parameters.trainable == 2 * 8 * (64 + 48 + 48 + 64 + 3 * 80)
    assert metrics.parameters.total == metrics.parameters.trainable + 23936
    assert metrics.unknown["mfu"] == "no peak FLOP/s is known for CPUs"
    assert (metrics.best_checkpoint, metrics.last_checkpoint) == ("checkpoints/best", "checkpoints/last")
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= names(job.checkpoints / "last")
    assert not job.resume.exists()
    progress = read_json(job.progress)
    assert progress is not None
    assert (progress["step"], progress["max_steps"], progress["phase"]) == (10, 10, "saving")


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640)])
def test_every_file_of_a_training_has_the_mode_of_the_umask(
    tmp_path: Path, base_model: Path, chats: Path, umask: int, mode: int
) -> None:
    before = os.umask(umask)
    try:
        job = make_job(tmp_path / "lora", base_model, chats, max_steps=3, save_steps=2, only_save_model=False)
        train_here(job)
    finally:
        os.umask(before)
    files = [path for path in job.folder.rglob("*") if path.is_file()]
    assert {"adapter_model.safetensors", "optimizer.pt"} <= {path.name for path in files}
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in files} == {path.name: mode for path in files}


def test_full_keeps_weights_only_and_its_best_has_the_recorded_loss(
    tmp_path: Path, base_model: Path, chats: Path, tokenizer: Any
) -> None:
    job = make_job(tmp_path, base_model, chats, sft_type="full")
    metrics = read_metrics(train_here(job))
    assert metrics.parameters.trainable == metrics.parameters.total == 23936
    assert metrics.dtypes == {"weights": "float32", "autocast": "none", "optimizer": "float32"}
    assert "model.safetensors" in names(job.checkpoints / "best")
    assert not {"optimizer.pt", "trainer_state.json", "training_args.bin"} & names(job.checkpoints / "last")
    args = SftArgs.model_validate((read_json(job.request) or {})["args"])
    rows = encode_samples(load_splits(args).validation, Template.from_args(args, tokenizer)).rows
    loaded = loading.load_checkpoint(args, job.checkpoints / "best", "cpu")
    loss, num_tokens = mean_cross_entropy(loaded, rows, 3, "cpu")
    assert loss == pytest.approx(metrics.eval_loss, abs=1e-6)
    assert num_tokens == sum(row.num_label_tokens for row in rows)


def test_an_adapter_loads_on_its_base_merged_or_not(
    tmp_path: Path, base_model: Path, chats: Path, tokenizer: Any
) -> None:
    job = make_job(tmp_path, base_model, chats)
    metrics = read_metrics(train_here(job))
    args = SftArgs.model_validate((read_json(job.request) or {})["args"])
    rows = encode_samples(load_splits(args).validation, Template.from_args(args, tokenizer)).rows
    for merge in (False, True):
        loaded = loading.load_checkpoint(args, job.checkpoints / "best", "cpu", merge=merge)
        assert mean_cross_entropy(loaded, rows, 2, "cpu")[0] == pytest.approx(metrics.eval_loss, abs=1e-5)


def test_eval_loss_does_not_depend_on_the_batch_size(base_model: Path, chats: Path, tokenizer: Any) -> None:
    args = SftArgs(model_id_or_path=str(base_model), dataset=(str(chats),), dtype="fp32", dataset_test_ratio=0)
    rows = encode_samples(load_splits(args).train, Template.from_args(args, tokenizer)).rows
    base = loading.load_model(args, "cpu")
    losses = [mean_cross_entropy(base, rows, size, "cpu")[0] for size in (1, 5, 24)]
    assert losses == pytest.approx([losses[0]] * 3, abs=1e-6)
    # token-weighted: the plain mean over samples is another number
    per_row = [mean_cross_entropy(base, [row], 1, "cpu") for row in rows]
    assert losses[0] == pytest.approx(sum(loss * n for loss, n in per_row) / sum(n for _, n in per_row), abs=1e-6)


def test_best_is_the_lowest_eval_loss_and_not_the_last(tmp_path: Path, base_model: Path, chats: Path) -> None:
    # so high a learning rate that the loss climbs again
    job = make_job(tmp_path, base_model, chats, sft_type="full", learning_rate=0.3, warmup_ratio=0.5, eval_steps=2)
    attempt = train_here(job)
    metrics = read_metrics(attempt)
    evals = {line["step"]: line["eval_loss"] for line in read_history(attempt) if "eval_loss" in line}
    assert metrics.best_step == min(evals, key=lambda step: evals[step])
    assert metrics.best_step is not None
    assert metrics.best_step < 10
    assert metrics.eval_loss == min(evals.values())
    assert evals[10] > min(evals.values())
    best, last = read_weights(job.checkpoints / "best"), read_weights(job.checkpoints / "last")
    assert any((best[name] != last[name]).any() for name in best)


def test_the_best_weights_are_kept_when_evaluation_and_saving_differ(
    tmp_path: Path, base_model: Path, chats: Path
) -> None:
    values: dict[str, Any] = {"sft_type": "full", "learning_rate": 0.3, "warmup_ratio": 0.5}
    every = make_job(tmp_path / "a", base_model, chats, eval_steps=2, save_steps=2, **values)
    seldom = make_job(tmp_path / "b", base_model, chats, eval_steps=2, save_steps=9, **values)
    best_step = read_metrics(train_here(every)).best_step
    assert read_metrics(train_here(seldom)).best_step == best_step
    first, second = (read_weights(job.checkpoints / "best") for job in (every, seldom))
    assert all((first[name] == second[name]).all() for name in first)


def test_without_validation_eval_loss_is_null_with_the_reason(tmp_path: Path, base_model: Path, chats: Path) -> None:
    metrics = read_metrics(train_here(make_job(tmp_path, base_model, chats, dataset_test_ratio=0)))
    assert metrics.eval_loss is None
    assert metrics.best_checkpoint is None
    assert metrics.unknown["eval_loss"] == "dataset_test_ratio is 0"
    assert metrics.last_checkpoint == "checkpoints/last"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"save_total_limit": 1}, {"best"}),
        ({"save_total_limit": -1}, {"best", "last", "step-2", "step-4", "step-6", "step-8", "step-10"}),
        ({"save_total_limit": 3}, {"best", "last", "step-8"}),
        ({"save_strategy": "no"}, set()),
    ],
)
def test_what_is_kept_follows_the_limit(
    tmp_path: Path, base_model: Path, chats: Path, values: dict[str, Any], expected: set[str]
) -> None:
    job = make_job(tmp_path, base_model, chats, eval_steps=2, **values)
    metrics = read_metrics(train_here(job))
    assert (names(job.checkpoints) if job.checkpoints.exists() else set()) == expected
    assert (metrics.last_checkpoint is not None) == ("last" in expected)


def test_loraplus_trains_b_faster_and_decays_by_the_argument(tmp_path: Path, base_model: Path, chats: Path) -> None:
    from transformers import TrainingArguments

    args = SftArgs(
        model_id_or_path=str(base_model), dtype="fp32", lora_lr_ratio=16, weight_decay=0.03, learning_rate=1e-3
    )
    tuner = load_tuner("lora")
    prepared = tuner.prepare(loading.load_model(args, "cpu"), args)
    optimizer = tuner.create_optimizer(
        prepared, args, TrainingArguments(output_dir=str(tmp_path), learning_rate=1e-3, use_cpu=True)
    )
    assert optimizer is not None
    rates = {round(group["lr"], 6) for group in optimizer.param_groups if group["params"]}
    decays = {group["weight_decay"] for group in optimizer.param_groups if group["params"]}
    assert rates == {1e-3, 16e-3}
    assert decays == {0.03}
    metrics = read_metrics(train_here(make_job(tmp_path / "job", base_model, chats, lora_lr_ratio=16)))
    plain = read_metrics(train_here(make_job(tmp_path / "plain", base_model, chats)))
    assert metrics.train_loss is not None
    assert plain.train_loss is not None
    assert metrics.train_loss < plain.train_loss


@pytest.mark.parametrize(
    ("values", "trainable"),
    [
        ({"lora_target_modules": "DEFAULT"}, 2 * 8 * (64 + 48 + 48)),
        ({"lora_target_modules": "q_proj,v_proj", "lora_rank": 4}, 2 * 4 * (64 + 48)),
        ({"lora_target_modules": "DEFAULT", "use_dora": True}, 2 * (8 * (64 + 48 + 48) + 32 + 16 + 16)),
        ({"lora_target_modules": "DEFAULT", "use_rslora": True}, 2 * 8 * (64 + 48 + 48)),
    ],
)
def test_lora_variants_train_the_weights_that_they_name(
    base_model: Path, values: dict[str, Any], trainable: int
) -> None:
    args = SftArgs(model_id_or_path=str(base_model), dtype="fp32", **values)
    prepared = load_tuner("lora").prepare(loading.load_model(args, "cpu"), args)
    assert sum(p.numel() for p in prepared.parameters() if p.requires_grad) == trainable
    scale = math.sqrt(8) if args.use_rslora else args.lora_rank
    layer = next(module for name, module in prepared.named_modules() if name.endswith("q_proj"))
    assert layer.scaling["default"] == pytest.approx(32 / scale)


def test_bf16_lora_has_bf16_weights_and_an_fp32_adapter(tmp_path: Path, base_model: Path, chats: Path) -> None:
    metrics = read_metrics(train_here(make_job(tmp_path, base_model, chats, dtype="bf16", num_train_epochs=1)))
    assert metrics.dtypes == {
        "weights": "bfloat16",
        "adapter": "float32",
        "autocast": "bfloat16",
        "optimizer": "float32",
    }


def test_bf16_full_keeps_no_fp32_copy(tmp_path: Path, base_model: Path, chats: Path) -> None:
    job = make_job(tmp_path, base_model, chats, dtype="bf16", sft_type="full", gradient_checkpointing=True)
    assert read_metrics(train_here(job)).dtypes == {"weights": "bfloat16", "autocast": "none", "optimizer": "bfloat16"}


def test_flash_attention_that_is_not_there_is_replaced_and_noted(tmp_path: Path, base_model: Path, chats: Path) -> None:
    metrics = read_metrics(train_here(make_job(tmp_path, base_model, chats, use_flash_attn=True, num_train_epochs=1)))
    assert metrics.attention == "sdpa"
    assert (
        metrics.deviations["use_flash_attn"] == "flash attention was asked for and runs on GPUs only; sdpa ran instead"
    )


def test_length_rules_are_counted(tmp_path: Path, base_model: Path, chats: Path) -> None:
    values: dict[str, Any] = {"max_length": 40, "num_train_epochs": 1, "dataset_test_ratio": 0}
    kept = read_metrics(train_here(make_job(tmp_path / "a", base_model, chats, **values)))
    deleted = read_metrics(
        train_here(make_job(tmp_path / "b", base_model, chats, truncation_strategy="delete", **values))
    )
    assert kept.tokens is not None
    assert deleted.tokens is not None
    assert kept.tokens.num_truncated == deleted.tokens.num_dropped > 0
    assert deleted.num_train_rows == 24 - deleted.tokens.num_dropped
    assert kept.tokens.max == 40


def test_a_diverged_loss_is_null_with_the_step(tmp_path: Path, base_model: Path, chats: Path) -> None:
    values: dict[str, Any] = {"learning_rate": 1e30, "warmup_ratio": 0, "max_grad_norm": 0, "max_steps": 40}
    job = make_job(tmp_path, base_model, chats, sft_type="full", **values)
    attempt = train_here(job)
    metrics = read_metrics(attempt)
    assert metrics.train_loss is None
    # The rest would only burn GPU hours.
    assert metrics.diverged_at_step is not None
    assert metrics.num_steps == metrics.diverged_at_step + DIVERGED_STEPS - 1
    assert metrics.unknown["train_loss"].startswith("the loss was not finite at step ")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_id_or_path": "/nowhere/model"}, "tokenizer: no such folder: /nowhere/model"),
        ({"model_id_or_path": "nobody/nothing"}, "'nobody/nothing' is not in the local cache"),
        ({"model_id_or_path": None, "model_type": "nonsense"}, "model_type: 'nonsense' is not in the catalog"),
        ({"dtype": "fp16"}, "dtype: fp16 needs a GPU"),
        ({"optim": "nonsense"}, "transformers rejects the training arguments: nonsense is not a valid OptimizerNames"),
        ({"lora_target_modules": "nonsense"}, "has no module named nonsense"),
        ({"template_type": "nonsense"}, "template_type: no template 'nonsense'"),
        (
            {"model_id_or_path": None, "model_type": "qwen-7b-chat"},
            "qwen-7b-chat needs Python code from its hub folder",
        ),
    ],
)
@pytest.mark.usefixtures("hub_is_off")
def test_impossible_requests_say_what_is_wrong(
    tmp_path: Path, base_model: Path, chats: Path, values: dict[str, Any], message: str
) -> None:
    job = make_job(tmp_path, base_model, chats, **values)
    with pytest.raises(WorkerError, match=message.replace("(", r"\(")):
        train_here(job)


def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(loading.GpuNotFoundError, match="no GPU") as caught:
        loading.check_device(SftArgs(model_id_or_path="m"), "cuda")
    assert caught.value.type_name == "GpuNotFound"


def test_tuners_are_found_by_their_files() -> None:
    assert {"full", "lora"} < set(list_tuners())
    with pytest.raises(WorkerError, match="sft_type: unknown value 'nonsense'; expected: adalora, adapter, full, "):
        load_tuner("nonsense")


def test_two_ranks_train_as_one_process_with_the_same_global_batch(tmp_path: Path) -> None:
    base = make_model_folder(tmp_path / "base", dropout=0)
    # 21 training rows: the last global batch has one row, so that the second rank gets the filler
    data = write_chats(tmp_path / "chats.jsonl", count=24)
    values: dict[str, Any] = {"sft_type": "full", "dataset_test_ratio": 0.125, "num_train_epochs": 2}
    alone = make_job(tmp_path / "alone", base, data, batch_size=2, gradient_accumulation_steps=2, **values)
    ranks = make_job(tmp_path / "ranks", base, data, ddp=2, batch_size=1, gradient_accumulation_steps=2, **values)
    worker = start_worker(ranks, ddp=2)
    single = train_here(alone)
    assert worker.wait(timeout=300) == 0, ranks.attempt(1).log.read_text()
    first, second = read_history(single), read_history(ranks.attempt(1))
    assert [line["step"] for line in second] == [line["step"] for line in first]
    for one, two in zip(first, second, strict=True):
        for key in ("loss", "eval_loss", "grad_norm", "num_tokens", "num_samples", "learning_rate"):
            assert two.get(key) == pytest.approx(one.get(key), abs=1e-5), (one["step"], key)
    expected, found = read_weights(alone.checkpoints / "last"), read_weights(ranks.checkpoints / "last")
    assert all((expected[name] - found[name]).abs().max() < 1e-5 for name in expected)
    metrics = read_metrics(ranks.attempt(1))
    assert [memory.rank for memory in metrics.memory] == [0, 1]
    assert metrics.num_samples == 42
    assert metrics.tokens_per_second is not None
    assert metrics.tokens_per_second_per_device == pytest.approx(metrics.tokens_per_second / 2)


def test_a_failure_is_written_with_its_cause_and_exit_code_1(tmp_path: Path, base_model: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    rows = ({"query": "a", "response": "b"}, {"query": "no answer"})
    bad.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    job = make_job(tmp_path / "job", base_model, bad)
    assert start_worker(job).wait(timeout=300) == 1
    failure = read_json(job.attempt(1).failure(0))
    assert failure is not None
    assert (failure["type"], failure["rank"]) == ("DataError", 0)
    assert failure["message"].startswith(f"{bad}: line 2: ")
    assert failure["hint"] == "check_dataset_strategy: discard leaves such rows out"
    assert "Traceback" in failure["traceback"]
    assert not job.attempt(1).metrics.exists()


def test_a_job_that_another_process_has_claimed_gets_no_checkpoint(
    tmp_path: Path, base_model: Path, chats: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(tmp_path, base_model, chats)
    write_json(job.claim, {"token": "theirs"})
    monkeypatch.setenv("HPCBENCH_CLAIM", "ours")
    with pytest.raises(WorkerError, match="the job is claimed by another process now"):
        train_here(job)
    assert not job.checkpoints.exists()
    assert not list(job.resume.glob("checkpoint-*"))
    write_json(job.claim, {"token": "ours"})
    assert read_metrics(train_here(job, 2)).num_steps == 10


def test_loader_workers_do_not_change_the_training(tmp_path: Path, base_model: Path, chats: Path) -> None:
    jobs = [make_job(tmp_path / str(n), base_model, chats, dataloader_num_workers=n) for n in (0, 2)]
    losses = [[line.get("loss") for line in read_history(train_here(job))] for job in jobs]
    assert losses[0] == losses[1]


def test_each_epoch_has_its_own_order(
    tmp_path: Path, base_model: Path, chats: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []
    original = BatchPlan.__iter__

    def record(self: BatchPlan) -> Iterator[list[int]]:
        batches = list(original(self))
        seen.append([index for batch in batches for index in batch])
        return iter(batches)

    monkeypatch.setattr(BatchPlan, "__iter__", record)
    train_here(make_job(tmp_path, base_model, chats))
    assert len(seen) == 2
    assert sorted(seen[0]) == sorted(seen[1]) == list(range(20))
    assert seen[0] != seen[1]


def test_seeds_change_the_training_and_repeat_it(tmp_path: Path, base_model: Path, chats: Path) -> None:
    def train(name: str, seed: int) -> list[float | None]:
        attempt = train_here(make_job(tmp_path / name, base_model, chats, seed=seed))
        return [line.get("loss") for line in read_history(attempt)]

    assert train("a", 1) == train("b", 1)
    assert train("c", 2) != train("a2", 1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, base_model: Path, chats: Path) -> str:
    """Return the last checkpoint of a training of five steps."""
    job = make_job(tmp_path_factory.mktemp("finished"), base_model, chats, num_train_epochs=1)
    train_here(job)
    return str(job.checkpoints / "last")


@pytest.mark.parametrize(
    "case",
    [
        ({"num_train_epochs": 1}, "the checkpoint is at step 5, and this training ends at step 5"),
        ({"max_steps": 3}, "the checkpoint is at step 5, and this training ends at step 3"),
        ({"learning_rate": 3e-4}, "the checkpoint goes on with a learning rate of 0.005, not 0.0003"),
        ({"lora_rank": 4}, "does not fit these arguments: "),
        ({"lora_target_modules": "q_proj"}, "does not fit these arguments: "),
        ({"sft_type": "full"}, "does not fit these arguments: "),
    ],
)
def test_a_named_checkpoint_that_other_arguments_would_change_is_refused(
    tmp_path: Path, base_model: Path, chats: Path, finished: str, case: tuple[dict[str, Any], str]
) -> None:
    values, message = case
    job = make_job(tmp_path, base_model, chats, resume_from_checkpoint=finished, **values)
    with pytest.raises(WorkerError, match=f"resume_from_checkpoint: .*{message}") as caught:
        train_here(job)
    assert caught.value.hint is not None


def test_training_goes_on_from_a_named_checkpoint(tmp_path: Path, base_model: Path, chats: Path) -> None:
    first = make_job(tmp_path / "first", base_model, chats)
    train_here(first)
    named = str(first.checkpoints / "last")
    longer = make_job(tmp_path / "longer", base_model, chats, num_train_epochs=3, resume_from_checkpoint=named)
    attempt = train_here(longer)
    metrics = read_metrics(attempt)
    assert [line["step"] for line in read_history(attempt) if "loss" in line] == [11, 12, 13, 14, 15]
    assert metrics.num_steps == 15
    assert (metrics.resumed_from, metrics.resumed_from_step) == (named, 10)
    why = "of steps 11 to 15: those before were the training's that left the checkpoint"
    assert metrics.unknown["num_samples"] == metrics.unknown["train_loss"] == why
    losses = [line["loss"] for line in read_history(attempt) if "loss" in line]
    assert metrics.train_loss == pytest.approx(sum(losses) / 5)
    weights_only = make_job(tmp_path / "no", base_model, chats, resume_from_checkpoint=str(base_model))
    with pytest.raises(WorkerError, match=r"holds no training state \(trainer_state.json\)"):
        train_here(weights_only)


@pytest.mark.parametrize(("kept_step", "said"), [(10, 10), (None, None)])
def test_a_requeued_training_needs_its_named_checkpoint_no_more(
    tmp_path: Path, kept_step: int | None, said: int | None
) -> None:
    args = SftArgs(model_id_or_path="base", resume_from_checkpoint=str(tmp_path / "gone"))
    current: Any = SimpleNamespace(args=args, named_step=None, point=ResumePoint())
    found = (tmp_path / "checkpoint-12", ResumePoint(step=12, named_step=kept_step))
    assert sft._take_over(current, SimpleNamespace(), found) == str(found[0])  # type: ignore[arg-type]  # a stand-in
    assert current.named_step == said


def test_the_learning_rate_that_the_hint_names_goes_on_from_a_named_checkpoint() -> None:
    state: Any = SimpleNamespace(global_step=1, max_steps=2)
    schedule = SimpleNamespace(base_lrs=[1e-4 / 3])
    with pytest.raises(WorkerError) as caught:
        trainer._check_goes_on(SftArgs(model_id_or_path="base"), state, schedule)
    hint = str(caught.value.hint)
    rate = float(hint.removeprefix("set learning_rate: "))
    trainer._check_goes_on(SftArgs(model_id_or_path="base", learning_rate=rate), state, schedule)


def test_memory_that_runs_out_is_no_misfit_of_a_named_checkpoint() -> None:
    current: Any = SimpleNamespace(run=SimpleNamespace(checks_resume=True))
    with pytest.raises(torch.cuda.OutOfMemoryError), trainer.BenchTrainer._explain_misfit(current, "named"):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")


SAMPLING = {"do_sample": False, "temperature": 0.6, "top_p": 0.9, "eos_token_id": 258}
SCORES = {"output_scores": True, "eos_token_id": 258}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (SAMPLING, "saved without temperature, top_p, which greedy generation does not use"),
        (SCORES, "saved with the special tokens alone"),
    ],
)
def test_a_generation_config_that_cannot_be_saved_is_repaired_before_training(
    tmp_path: Path, chats: Path, config: dict[str, Any], said: str
) -> None:
    base = make_model_folder(tmp_path / "base")
    write_json(base / "generation_config.json", config)
    job = make_job(tmp_path / "job", base, chats, sft_type="full", num_train_epochs=1)
    metrics = read_metrics(train_here(job))
    assert said in metrics.deviations["generation_config.json"]
    saved = read_json(job.checkpoints / "last" / "generation_config.json")
    assert saved is not None
    assert 258 in saved["eos_token_id"], "beside the tokenizer's, which the Trainer adds"
    assert "temperature" not in saved
    args = SftArgs(model_id_or_path=str(base), dtype="fp32")
    assert (
        loading.load_checkpoint(args, job.checkpoints / "last", "cpu").generation_config.eos_token_id
        == saved["eos_token_id"]
    )


def test_a_repaired_generation_config_keeps_what_its_generation_reads() -> None:
    assert {"top_k", "length_penalty"} <= set(generation_config._unread(GenerationConfig()))
    assert not {"top_k", "length_penalty"} & set(
        generation_config._unread(GenerationConfig(num_beams=4, penalty_alpha=0.6))
    )
    assert generation_config._unread(GenerationConfig(do_sample=True)) == []


def test_what_cannot_be_saved_is_found_before_the_first_step(
    tmp_path: Path, base_model: Path, chats: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: Any, **_options: Any) -> None:
        raise ValueError("no such quantizer can be written")

    monkeypatch.setattr("transformers.Qwen2Config.save_pretrained", refuse)
    job = make_job(tmp_path, base_model, chats, sft_type="full")
    with pytest.raises(WorkerError) as caught:
        train_here(job)
    assert str(caught.value) == (
        "the model cannot be saved, so nothing was trained: no such quantizer can be written\n  hint: correct the model's "
        "config.json, generation_config.json or tokenizer files, or set save_strategy: no"
    )
    assert not job.attempt(1).history.read_text(encoding="utf-8")
