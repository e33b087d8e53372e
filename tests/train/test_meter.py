"""What a training measures: times against sleeps, tokens against a count, FLOPs against torch's own counter."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from hpcbench.schemas.arguments import SftArgs
from hpcbench.worker.data.batches import Collator
from hpcbench.worker.measure import formulas
from hpcbench.worker.measure import meter as meter_module
from hpcbench.worker.measure.flops import count_flops_per_token
from hpcbench.worker.measure.loss import mean_cross_entropy
from hpcbench.worker.measure.meter import Meter
from hpcbench.worker.train import trainer as trainer_module
from hpcbench.worker.train.checkpoints import CheckpointStore
from hpcbench.worker.tuners import load_tuner
from hpcbench.worker.tuners.lisa import count_trained, draw_layers
from tests.support.tiny_models import make_job, read_history, read_metrics, train_here

pytestmark = pytest.mark.train


# Times


class Clock:
    """A clock that goes on when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_step_is_measured_from_its_beginning_to_its_end() -> None:
    clock = Clock()
    meter = Meter(torch.device("cpu"), clock=clock)
    for step_s in (0.3, 0.5):
        clock.now += 0.05
        meter.begin_step()
        clock.now += step_s
        assert meter.end_step(stop=False).step_time_s == pytest.approx(step_s)


def test_a_trainings_time_is_its_steps_with_their_data_and_nothing_else(
    tmp_path: Path, base_model: Path, chats: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step waits twice 0.3 s for data and twice 0.3 s for a loss; evaluations and checkpoints take 0.2 s each."""
    clock = Clock()
    calls = {"collate": 0, "loss": 0, "evaluate": 0, "save": 0}

    def slow(name: str, sleep_s: float, wrapped: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            calls[name] += 1
            clock.now += sleep_s
            return wrapped(*args, **options)

        return call

    def no_work(trainer: Any, model: Any, inputs: Any, *_: Any, **__: Any) -> Any:
        trainer.run.meter.count_batch(num_tokens=inputs["num_tokens"], num_samples=inputs["num_samples"])
        return 0 * next(p for p in model.parameters() if p.requires_grad).sum()

    monkeypatch.setattr(meter_module, "Meter", partial(Meter, clock=clock))
    monkeypatch.setattr(Collator, "__call__", slow("collate", 0.3, Collator.__call__))
    monkeypatch.setattr(trainer_module.BenchTrainer, "compute_loss", slow("loss", 0.3, no_work))
    monkeypatch.setattr(trainer_module, "mean_cross_entropy", slow("evaluate", 0.2, mean_cross_entropy))
    place = CheckpointStore.place_resumable
    monkeypatch.setattr(CheckpointStore, "place_resumable", slow("save", 0.2, place))
    job = make_job(tmp_path, base_model, chats, max_steps=4, eval_steps=1, dataloader_num_workers=0)
    found = read_metrics(train_here(job))
    assert (calls["collate"], calls["loss"], calls["evaluate"]) == (8, 8, 4)
    assert calls["save"] >= 3
    assert found.step_time_median_s == pytest.approx(1.2)
    assert found.train_time_s == pytest.approx(4 * 1.2)
    assert found.samples_per_second == pytest.approx(16 / 4.8)


# Tokens


def count_tokens(chats: Path) -> list[int]:
    """Return the lengths of the chats: a byte is a token, and so is each of four markers."""
    lengths = []
    for line in chats.read_text(encoding="utf-8").splitlines():
        word = line.split('"content": "say ')[1].split('"')[0]
        lengths.append(4 + len(f"user\nsay {word}\nassistant\n{word}".encode()))
    return lengths


@pytest.mark.parametrize(
    "values",
    [{}, {"packing": True, "max_length": 120, "batch_size": 1}, {"max_length": 40}, {"lazy_tokenize": True}],
    ids=["plain", "packed", "truncated", "lazy"],
)
def test_tokens_are_those_of_the_chats_without_padding(
    tmp_path: Path, base_model: Path, chats: Path, values: dict[str, Any]
) -> None:
    lengths = [min(length, values.get("max_length", 2048)) for length in count_tokens(chats)]
    job = make_job(tmp_path, base_model, chats, dataset_test_ratio=0, **values)
    attempt = train_here(job)
    found, steps = read_metrics(attempt), [line for line in read_history(attempt) if "loss" in line]
    assert found.num_tokens == sum(line["num_tokens"] for line in steps) == 2 * sum(lengths)
    assert found.num_samples == sum(line["num_samples"] for line in steps) == 48
    if "lazy_tokenize" not in values:
        assert found.tokens is not None
        assert (found.tokens.min, found.tokens.max) == (min(lengths), max(lengths))
        assert found.tokens.mean == pytest.approx(sum(lengths) / 24)
    assert found.tokens_per_second == pytest.approx(found.num_tokens / sum(line["step_time_s"] for line in steps))


# FLOPs

LENGTHS = (12, 40)
SIZES: dict[str, Any] = {
    "vocab_size": 200,
    "hidden_size": 96,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    # torch's counter knows no attention that runs on CPUs but this
    "attn_implementation": "eager",
}


def make_model(architecture: str) -> Any:
    torch.manual_seed(0)
    if architecture == "llama":
        return LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=False))
    return Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=True))


def prepare(architecture: str, **values: Any) -> tuple[Any, float]:
    """Return a prepared model, and its FLOPs per token by formula."""
    args = SftArgs(model_type="m", **values)
    tuner = load_tuner(args.tuner)
    model = tuner.prepare(make_model(architecture), args).train()
    trained = tuner.count_trained(model, args) if tuner.count_trained is not None else None
    tokens = formulas.summarise_lengths(LENGTHS)
    found = count_flops_per_token(model, tokens=tokens, num_trained_at_once=trained)
    assert found is not None
    return model, found


def count_flops(model: Any, num_samples: int, length: int, *, backward: bool = True) -> int:
    """Return what torch counts in one training step over equally long samples."""
    ids = torch.arange(num_samples * length).reshape(num_samples, length) % 200
    with FlopCounterMode(display=False) as counter:
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        if backward:
            loss.backward()
    return int(counter.get_total_flops())


def count_flops_of_samples(model: Any, **options: Any) -> int:
    """Return FLOPs of one sample of each length; what is done once per step (an orthogonality term) drops out."""
    return sum(
        count_flops(model, 2, length, **options) - count_flops(model, 1, length, **options) for length in LENGTHS
    )


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
@pytest.mark.parametrize(
    "values",
    [
        {"sft_type": "full"},
        {"sft_type": "lora", "lora_target_modules": "ALL"},
        {"sft_type": "lora", "lora_target_modules": "DEFAULT"},
        {"sft_type": "lora", "lora_target_modules": "down_proj"},
        # with dropout peft makes each of DoRA's products twice
        {"sft_type": "dora", "lora_target_modules": "ALL", "lora_dropout_p": 0.0},
        {"sft_type": "adalora", "lora_target_modules": "ALL"},
        {"sft_type": "adapter", "adapter_length": 16},
        {"sft_type": "ia3"},
        {"sft_type": "llamapro", "llamapro_num_new_blocks": 1},
        {"sft_type": "llamapro", "llamapro_num_new_blocks": 2},
    ],
    ids=lambda values: "-".join(map(str, values.values())),
)
def test_flops_are_those_that_torch_counts(architecture: str, values: dict[str, Any]) -> None:
    model, expected = prepare(architecture, **values)
    assert expected * sum(LENGTHS) == pytest.approx(count_flops_of_samples(model), rel=0.02)


def test_lisas_flops_are_those_that_torch_counts() -> None:
    values: dict[str, Any] = {"sft_type": "lisa", "lisa_activated_layers": 2}
    model, expected = prepare("llama", **values)
    args = SftArgs(model_type="m", **values)
    assert count_trained(model, args) < sum(p.numel() for p in model.parameters())
    active = draw_layers(4, args, 0)
    for index, layer in enumerate(model.model.layers):
        layer.requires_grad_(index in active)
    assert expected * sum(LENGTHS) == pytest.approx(count_flops_of_samples(model), rel=0.02)


@pytest.mark.parametrize("sft_type", ["full", "lora"])
def test_gradient_checkpointing_computes_more_and_is_credited_with_no_more(sft_type: str) -> None:
    model, expected = prepare("qwen2", sft_type=sft_type, lora_target_modules="ALL")
    plain, forward = count_flops_of_samples(model), count_flops_of_samples(model, backward=False)
    # transformers 5.23 renamed it
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)({"use_reentrant": False})
    recomputing = count_flops_of_samples(model)
    # each layer's forward pass once more, up to the last product whose result is needed
    assert plain + 0.6 * forward < recomputing < plain + forward
    tokens = formulas.summarise_lengths(LENGTHS)
    assert count_flops_per_token(model, tokens=tokens) == expected
    assert expected * sum(LENGTHS) == pytest.approx(plain, rel=0.02)


def test_a_packed_trainings_flops_are_those_of_its_samples(tmp_path: Path, base_model: Path, chats: Path) -> None:
    lengths = count_tokens(chats)
    options: dict[str, Any] = {"sft_type": "full", "max_steps": 1, "dataset_test_ratio": 0}
    job = make_job(tmp_path, base_model, chats, packing=True, max_length=120, **options)
    found = read_metrics(train_here(job)).flops_per_token
    model = AutoModelForCausalLM.from_pretrained(base_model, attn_implementation="eager")
    counted = sum(count_flops(model, 1, length) for length in lengths)
    assert found is not None
    assert found * sum(lengths) == pytest.approx(counted, rel=0.02)
