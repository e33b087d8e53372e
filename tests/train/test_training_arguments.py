"""Accumulation, which must not change what is learnt, and the schedule, which decides how fast."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import SftArgs
from hpcbench.worker.models.loading import load_model
from tests.support.tiny_models import make_job, make_model_folder, read_history, read_metrics, train_here

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
