"""Packing and lazy tokenizing: the same training in another shape."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import SftArgs
from hpcbench.worker.data.batches import Collator, PackCollator, Samples, pack_lengths
from hpcbench.worker.data.samples import LazyRows, encode_samples, load_splits
from hpcbench.worker.data.templates import Template
from hpcbench.worker.models.attention import check_packing
from hpcbench.worker.train import trainer as trainer_module
from tests.support.tiny_models import (
    make_job,
    make_model_folder,
    read_history,
    read_metrics,
    read_weights,
    start_worker,
    train_here,
)

pytestmark = pytest.mark.train

PACKED: dict[str, Any] = {"packing": True, "max_length": 120}


def read_losses(job: Any) -> list[float]:
    return [line["loss"] for line in read_history(job.attempt(1)) if "loss" in line]


def test_every_sample_is_packed_once_and_no_pack_is_too_long() -> None:
    draw = random.Random(3)
    lengths = [draw.randint(1, 100) for _ in range(2000)]
    packs = pack_lengths(lengths, 100)
    assert sorted(index for pack in packs for index in pack) == list(range(2000))
    assert max(sum(lengths[index] for index in pack) for pack in packs) <= 100
    assert sum(lengths) / (100 * len(packs)) > 0.98
    assert pack_lengths(lengths, 100) == packs


def test_packs_are_written_out() -> None:
    """Best fit: the 2 goes to the pack with the least room, 10 - 7 = 3, not to 10 - 6 = 4."""
    assert pack_lengths([2, 6, 7, 4], 10) == [[2, 0], [1, 3]]
    assert pack_lengths([11, 1], 10) == [[0], [1]]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
def test_packed_and_separate_logits_agree(
    tokenizer: Any, chats: Path, attention: str, mode: str, architecture: str
) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(1)
    config = AutoConfig.for_model(
        architecture, vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512, use_cache=True,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).train(mode == "train")
    args = SftArgs(model_id_or_path="m", dataset=(str(chats),), dataset_test_ratio=0)
    rows = encode_samples(load_splits(args).train[:5], Template.from_args(args, tokenizer)).rows
    batch = PackCollator()([tuple(rows[:3]), tuple(rows[3:])])
    assert "attention_mask" not in batch
    assert (batch.pop("num_samples"), batch.pop("num_tokens")) == (5, batch["input_ids"].numel())
    labels = batch.pop("labels")[0]
    with torch.no_grad():
        packed = model(**batch).logits[0]
        start = 0
        for row in rows:
            alone = model(input_ids=torch.tensor([list(row.input_ids)]), use_cache=False).logits[0]
            end = start + len(row.input_ids)
            assert torch.allclose(packed[start:end], alone, atol=1e-5)
            assert labels[start] == -100
            assert labels[start + 1 : end].tolist() == list(row.labels[1:])
            start = end


def test_a_model_that_leaks_is_refused(base_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base_model)
    check_packing(model, "cpu")

    class Leaky:
        """As a model that ignores where samples begin."""

        config, training = model.config, False
        get_input_embeddings = model.get_input_embeddings
        train = eval = lambda self, *_: self

        def __call__(self, input_ids: Any, **_: Any) -> Any:
            return model(input_ids=input_ids, use_cache=False)

    with pytest.raises(WorkerError, match="attend to each other"):
        check_packing(Leaky(), "cpu")
    model.config._attn_implementation = "magic_attention"
    with pytest.raises(WorkerError, match="magic_attention"):
        check_packing(model, "cpu")


def test_one_big_step_learns_the_same_packed_or_not(tmp_path: Path, chats: Path) -> None:
    base = make_model_folder(tmp_path / "base", dropout=0.0)
    values: dict[str, Any] = {"sft_type": "full", "max_steps": 2, "dataset_test_ratio": 0}
    plain = make_job(tmp_path / "plain", base, chats, batch_size=24, gradient_accumulation_steps=1, **values)
    packed = make_job(
        tmp_path / "packed", base, chats, batch_size=5, gradient_accumulation_steps=20, **values, **PACKED
    )
    metrics, found = read_metrics(train_here(plain)), read_metrics(train_here(packed))
    assert read_losses(packed) == pytest.approx(read_losses(plain), abs=1e-5)
    assert (
        (found.num_samples, found.num_tokens) == (metrics.num_samples, metrics.num_tokens) == (48, metrics.num_tokens)
    )
    assert found.num_train_rows == 24
    assert "packs hold 24 rows" in found.unknown["global_batch_size"]
    expected, weights = read_weights(plain.checkpoints / "last"), read_weights(packed.checkpoints / "last")
    assert all(torch.allclose(weights[key], expected[key], atol=1e-4) for key in expected)


def test_packing_resumes_and_shares_out_to_the_last_bit(
    tmp_path: Path, base_model: Path, chats: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values: dict[str, Any] = {**PACKED, "batch_size": 1, "num_train_epochs": 3, "use_loss_scale": True}
    shared = make_job(tmp_path / "shared", base_model, chats, ddp=2, **values)
    again = make_job(tmp_path / "again", base_model, chats, ddp=2, **values)
    workers = [start_worker(shared, ddp=2), start_worker(again, ddp=2)]
    reference = make_job(tmp_path / "reference", base_model, chats, **values)
    train_here(reference)
    job = make_job(tmp_path / "job", base_model, chats, **values)
    asked = {"count": 0}

    def stop(_attempt: Any) -> bool:
        asked["count"] += 1
        return asked["count"] >= 4

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "stop_requested", stop)
        train_here(job)
    metrics = read_metrics(train_here(job, 2))
    assert metrics.resumed_from_steps[0] > 0
    expected, found = read_weights(reference.checkpoints / "last"), read_weights(job.checkpoints / "last")
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert [worker.wait(timeout=300) for worker in workers] == [0, 0], shared.attempt(1).log.read_text()
    first, second = read_weights(shared.checkpoints / "last"), read_weights(again.checkpoints / "last")
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert read_metrics(shared.attempt(1)).num_samples == metrics.num_samples == 60
    assert read_metrics(shared.attempt(1)).num_tokens == metrics.num_tokens


def test_lazy_tokenizing_changes_nothing_but_the_moment(tmp_path: Path, base_model: Path, chats: Path) -> None:
    eager = make_job(tmp_path / "eager", base_model, chats)
    lazy = make_job(tmp_path / "lazy", base_model, chats, lazy_tokenize=True)
    train_here(eager)
    metrics = read_metrics(train_here(lazy))
    assert read_losses(lazy) == read_losses(eager)
    assert (metrics.num_samples, metrics.tokens) == (40, None)
    assert metrics.unknown["tokens"] == "lazy_tokenize: lengths are not known before training"


def test_lazy_rows_are_tokenized_when_asked_for(tokenizer: Any, chats: Path) -> None:
    args = SftArgs(model_id_or_path="m", dataset=(str(chats),), dataset_test_ratio=0)
    samples, template = load_splits(args).train, Template.from_args(args, tokenizer)
    lazy, eager = LazyRows(samples, template), encode_samples(samples, template).rows
    assert list(lazy) == list(eager)
    assert len(Collator(0)([Samples(lazy)[-1]])["labels"]) == 1


def test_lazy_tokenizing_cannot_know_what_delete_drops(tmp_path: Path, base_model: Path, chats: Path) -> None:
    job = make_job(tmp_path, base_model, chats, lazy_tokenize=True, truncation_strategy="delete")
    with pytest.raises(WorkerError, match="lazy_tokenize: which rows"):
        train_here(job)


@pytest.mark.parametrize("values", [{}, {"lazy_tokenize": True}, PACKED])
def test_test_oom_error_starts_with_the_longest(
    tmp_path: Path, base_model: Path, chats: Path, values: dict[str, Any]
) -> None:
    job = make_job(tmp_path, base_model, chats, test_oom_error=True, batch_size=1, num_train_epochs=1, **values)
    train_here(job)
    tokens = [line["num_tokens"] for line in read_history(job.attempt(1)) if "loss" in line]
    assert tokens[0] == max(tokens)
    assert values == PACKED or tokens == sorted(tokens, reverse=True)
