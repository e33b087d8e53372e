"""Accumulation, which must not change what is learnt, and the schedule, which decides how fast."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, Trainer

from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import SftArgs
from hpcbench.worker.models import loading
from hpcbench.worker.models.loading import load_model
from hpcbench.worker.train.sft import make_training_arguments
from hpcbench.worker.tuners import load_tuner
from tests.support.tiny_models import make_job, make_model_folder, prepare, read_history, read_metrics, train_here

pytestmark = pytest.mark.train


def train(folder: Path, base_model: Path, chats: Path, **values: Any) -> list[dict[str, Any]]:
    """Return the history of a training of one epoch."""
    return read_history(train_here(make_job(folder, base_model, chats, num_train_epochs=1, **values)))


def losses(history: list[dict[str, Any]]) -> list[float]:
    return [line["loss"] for line in history if "loss" in line]


def test_accumulation_changes_no_loss(tmp_path: Path, chats: Path) -> None:
    base = make_model_folder(tmp_path / "base", dropout=0)
    common: dict[str, Any] = {"sft_type": "full"}
    plain = losses(train(tmp_path / "plain", base, chats, **common))
    whole = {"batch_size": 4, "gradient_accumulation_steps": 1}
    assert len(plain) == 5
    assert losses(train(tmp_path / "whole", base, chats, **whole, **common)) == pytest.approx(plain, abs=1e-5)


def test_the_schedule_and_the_warm_up_are_those_asked_for(tmp_path: Path, base_model: Path, chats: Path) -> None:
    values = {"lr_scheduler_type": "linear", "warmup_ratio": 0.2, "learning_rate": 1e-3}
    history = train(tmp_path, base_model, chats, **values)
    rates = [line["learning_rate"] for line in history if "loss" in line]
    # Of five steps one warms up; the rate that a step used is the one before it was moved on.
    assert rates == pytest.approx([0.0, 1e-3, 0.75e-3, 0.5e-3, 0.25e-3])


def test_a_warm_up_over_all_steps_ends_with_the_last(tmp_path: Path, base_model: Path, chats: Path) -> None:
    history = train(tmp_path, base_model, chats, warmup_ratio=1, learning_rate=1e-3)
    rates = [line["learning_rate"] for line in history if "loss" in line]
    assert rates == pytest.approx([0.0, 0.2e-3, 0.4e-3, 0.6e-3, 0.8e-3])


def test_a_cosine_ends_at_the_least_rate_after_the_steps_of_the_warm_up(
    tmp_path: Path, base_model: Path, chats: Path
) -> None:
    history = train(tmp_path, base_model, chats, warmup_steps=1, learning_rate=1e-3, min_lr=5e-4)
    rates = [line["learning_rate"] for line in history if "loss" in line]
    expected = [0.0, *(5e-4 + 5e-4 * (1 + math.cos(math.pi * step / 4)) / 2 for step in range(4))]
    assert rates == pytest.approx(expected)


def test_settings_of_the_schedule_are_honored(tmp_path: Path, base_model: Path, chats: Path) -> None:
    values = {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"lr_end": 2e-4, "power": 1.0}}
    history = train(tmp_path, base_model, chats, warmup_ratio=0, learning_rate=1e-3, **values)
    rates = [line["learning_rate"] for line in history if "loss" in line]
    assert rates == pytest.approx([2e-4 + 8e-4 * (1 - step / 5) for step in range(5)])


@pytest.mark.parametrize("tuner", [{"lora_lr_ratio": 4.0}, {"sft_type": "full", "use_galore": True}, {}])
def test_every_adam_has_the_betas_that_are_asked_for(tmp_path: Path, base_model: Path, tuner: dict[str, Any]) -> None:
    model, args = prepare(base_model, adam_beta1=0.5, adam_beta2=0.6, adam_epsilon=0.125, **tuner)
    training_args = make_training_arguments(args, tmp_path, device="cpu")
    optimizer = load_tuner(args.tuner).create_optimizer(model, args, training_args)
    if optimizer is None:
        optimizer = Trainer(model=model, args=training_args).create_optimizer()
    assert {(*group["betas"], group["eps"]) for group in optimizer.param_groups} == {(0.5, 0.6, 0.125)}


def test_evaluations_and_checkpoints_follow_epochs(tmp_path: Path, base_model: Path, chats: Path) -> None:
    values: dict[str, Any] = {"eval_strategy": "epoch", "save_strategy": "epoch", "save_total_limit": -1}
    job = make_job(tmp_path, base_model, chats, batch_size=4, gradient_accumulation_steps=2, **values)
    history = read_history(train_here(job))
    assert [line["step"] for line in history if "eval_loss" in line] == [3, 6]
    assert sorted(folder.name for folder in job.checkpoints.iterdir()) == ["best", "last", "step-3", "step-6"]


def test_no_evaluation_is_none_and_says_why(tmp_path: Path, base_model: Path, chats: Path) -> None:
    job = make_job(tmp_path, base_model, chats, max_steps=2, eval_strategy="no")
    attempt = train_here(job)
    metrics = read_metrics(attempt)
    assert not [line for line in read_history(attempt) if "eval_loss" in line]
    assert (metrics.eval_loss, metrics.best_checkpoint, metrics.unknown["eval_loss"]) == (
        None,
        None,
        "eval_strategy is no",
    )
    assert metrics.last_checkpoint == "checkpoints/last"


@pytest.mark.parametrize("sft_type", ["lora", "full", "adapter"])
def test_a_training_can_start_from_the_weights_of_another_alone(
    tmp_path: Path, base_model: Path, chats: Path, sft_type: str
) -> None:
    common: dict[str, Any] = {"sft_type": sft_type, "max_steps": 3, "lora_dropout_p": 0, "only_save_model": True}
    first = make_job(tmp_path / "first", base_model, chats, **common)
    before = read_history(train_here(first))
    checkpoint = str(first.checkpoints / "last")
    values: dict[str, Any] = {"resume_from_checkpoint": checkpoint, "resume_only_model": True}
    attempt = train_here(make_job(tmp_path / "second", base_model, chats, **common, **values))
    after, metrics = read_history(attempt), read_metrics(attempt)
    assert [line["step"] for line in after if "loss" in line] == [1, 2, 3]
    assert after[0]["learning_rate"] == before[0]["learning_rate"]
    # The same rows come first, and they have been learned from.
    assert after[0]["loss"] < before[0]["loss"]
    assert (metrics.resumed_from, metrics.resumed_from_step) == (checkpoint, None)


def test_weights_of_another_shape_are_refused_with_a_way_on(tmp_path: Path, base_model: Path, chats: Path) -> None:
    first = make_job(tmp_path / "first", base_model, chats, max_steps=1, lora_rank=2)
    train_here(first)
    values: dict[str, Any] = {
        "resume_from_checkpoint": str(first.checkpoints / "last"),
        "resume_only_model": True,
        "lora_rank": 4,
    }
    with pytest.raises(WorkerError, match="does not fit these arguments"):
        train_here(make_job(tmp_path / "second", base_model, chats, max_steps=1, **values))


def test_rows_too_few_for_a_batch_are_refused_where_they_would_all_be_left_out(
    tmp_path: Path, base_model: Path, chats: Path
) -> None:
    job = make_job(tmp_path, base_model, chats, max_steps=1, batch_size=64, dataloader_drop_last=True)
    with pytest.raises(WorkerError, match="dataloader_drop_last: 20 samples do not fill a batch of 64 on each of 1"):
        train_here(job)


def test_a_deterministic_training_uses_deterministic_kernels_alone(
    tmp_path: Path, base_model: Path, chats: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CUDA_LAUNCH_BLOCKING", "CUBLAS_WORKSPACE_CONFIG", "ASCEND_LAUNCH_BLOCKING", "HCCL_DETERMINISTIC"):
        monkeypatch.setenv(name, "")  # restored afterwards
    monkeypatch.setenv("FLASH_ATTENTION_DETERMINISTIC", "")
    try:
        train_here(make_job(tmp_path, base_model, chats, max_steps=1, full_determinism=True))
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_polynomial_schedule_without_steps_to_decay_over_is_refused(
    tmp_path: Path, base_model: Path, chats: Path
) -> None:
    job = make_job(tmp_path, base_model, chats, max_steps=1, lr_scheduler_type="polynomial")
    with pytest.raises(WorkerError, match="polynomial has nothing to decay over: all 1 steps warm up"):
        train_here(job)


@pytest.mark.parametrize("name", ["eager", "sdpa"])
def test_an_attention_that_is_named_runs_and_is_recorded(
    tmp_path: Path, base_model: Path, chats: Path, name: str
) -> None:
    metrics = read_metrics(train_here(make_job(tmp_path, base_model, chats, max_steps=1, attn_impl=name)))
    assert (metrics.attention, metrics.deviations) == (name, {})


def test_an_attention_that_cannot_run_here_is_refused(base_model: Path) -> None:
    args = SftArgs(model_id_or_path=str(base_model), attn_impl="flash_attention_2")
    with pytest.raises(WorkerError) as caught:
        load_model(args, "cpu")
    assert caught.value.message == "attn_impl: flash_attention_2 runs on GPUs only"


def test_an_attention_that_the_model_lacks_is_refused(base_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.Qwen2ForCausalLM._supports_sdpa", False)
    with pytest.raises(WorkerError, match=f"attn_impl: {base_model} cannot run sdpa: "):
        load_model(SftArgs(model_id_or_path=str(base_model), dtype="fp32", attn_impl="sdpa"), "cpu")
    model = load_model(SftArgs(model_id_or_path=str(base_model), dtype="fp32"), "cpu")
    assert model.config._attn_implementation == "eager"


def test_gradient_checkpointing_of_a_model_that_has_none_is_refused(
    tmp_path: Path, base_model: Path, chats: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.Qwen2ForCausalLM.supports_gradient_checkpointing", False)
    job = make_job(tmp_path, base_model, chats, gradient_checkpointing=True)
    with pytest.raises(WorkerError) as caught:
        train_here(job)
    assert str(caught.value) == (
        "gradient_checkpointing: Qwen2ForCausalLM cannot recompute activations\n  hint: set gradient_checkpointing: false"
    )


@pytest.mark.parametrize("name", ["linear", "dynamic", "yarn"])
def test_rotary_positions_are_stretched_to_the_length_that_is_asked_for(base_model: Path, name: str) -> None:
    plain = load_model(SftArgs(model_id_or_path=str(base_model), dtype="fp32"), "cpu").eval()
    trained = plain.config.max_position_embeddings
    args = SftArgs(model_id_or_path=str(base_model), dtype="fp32", rope_scaling=name, max_length=2 * trained)
    model = load_model(args, "cpu").eval()
    rope = model.config.rope_parameters
    assert (rope["rope_type"], rope["factor"], rope["rope_theta"]) == (
        name,
        2.0,
        plain.config.rope_parameters["rope_theta"],
    )
    ids = torch.arange(8)[None]
    positions = torch.arange(8)[None]
    with torch.no_grad():
        stretched = model(input_ids=ids, position_ids=2 * positions).logits
        expected = plain(input_ids=ids, position_ids=positions).logits
    # Linear scaling halves each position; of the others neither is the model's own.
    assert torch.allclose(stretched, expected, atol=1e-5) == (name == "linear")


def test_rotary_positions_are_not_stretched_where_they_reach(base_model: Path) -> None:
    args = SftArgs(model_id_or_path=str(base_model), dtype="fp32", rope_scaling="linear", max_length=8)
    assert load_model(args, "cpu").config.rope_parameters["factor"] == 1


def test_a_model_without_rotary_positions_cannot_stretch_them(
    base_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "transformers.AutoConfig.from_pretrained", lambda *_, **__: GPT2Config(n_layer=1, n_embd=8, n_head=1)
    )
    with pytest.raises(WorkerError, match="has no rotary positions of one kind"):
        load_model(SftArgs(model_id_or_path=str(base_model), dtype="fp32", rope_scaling="linear"), "cpu")


def test_layers_are_spread_by_the_memory_that_is_given(base_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def load(_source: str, _args: SftArgs, options: dict[str, Any]) -> Any:
        given.update(options)
        raise WorkerError("seen")

    monkeypatch.setattr(loading, "_load_weights", load)
    args = SftArgs(model_id_or_path=str(base_model), dtype="fp32", device_max_memory="20GiB 40GiB")
    with pytest.raises(WorkerError, match="seen"):
        load_model(args, "cpu", num_gpus=2)
    assert (given["device_map"], given["max_memory"]) == ("auto", {0: "20GiB", 1: "40GiB"})


def test_what_really_ran_is_in_the_record(tmp_path: Path, base_model: Path, chats: Path, tokenizer: Any) -> None:
    job = make_job(tmp_path, base_model, chats, max_steps=1, lora_target_modules="DEFAULT")
    metrics = read_metrics(train_here(job))
    assert sorted(metrics.target_modules) == ["k_proj", "q_proj", "v_proj"]
    digest = hashlib.sha256(tokenizer.chat_template.encode()).hexdigest()[:12]
    assert metrics.template == f"the tokenizer's, sha256 {digest}"
    assert metrics.deviations == {}


def test_a_system_prompt_that_the_template_has_no_place_for_is_said(
    tmp_path: Path, base_model: Path, chats: Path
) -> None:
    values: dict[str, Any] = {"max_steps": 1, "template_type": "default-generation", "system": "be brief"}
    metrics = read_metrics(train_here(make_job(tmp_path, base_model, chats, **values)))
    assert metrics.deviations == {"system": "the chat template leaves out the system prompt"}


def test_a_push_is_noted_as_not_done_until_it_is(tmp_path: Path, base_model: Path, chats: Path) -> None:
    job = make_job(tmp_path / "a", base_model, chats, num_train_epochs=1, push_to_hub=True)
    assert read_metrics(train_here(job)).unknown["pushed_to"] == "not pushed: the job ended before"


def test_a_push_without_its_package_is_refused_before_training(
    tmp_path: Path, base_model: Path, chats: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpcbench.worker.hub_push.importlib.util.find_spec", lambda _name: None)
    job = make_job(tmp_path, base_model, chats, push_to_hub=True, hub="modelscope")
    with pytest.raises(WorkerError, match=r"hpcbench-llm\[modelscope\]"):
        train_here(job)


def test_a_model_of_images_is_refused_by_its_configuration(tmp_path: Path) -> None:
    base = make_model_folder(tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "vision_config": {"hidden_size": 8}}))
    with pytest.raises(WorkerError, match=r"takes images or sound \(`vision_config` in its configuration\)"):
        load_model(SftArgs(model_id_or_path=str(base), dtype="fp32"), "cpu")
