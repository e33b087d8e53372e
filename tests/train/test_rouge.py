"""Generated answers during training, and their ROUGE-L."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcbench.schemas.arguments import SftArgs
from hpcbench.worker.measure.rouge import Prompt, mean_rouge_l, rouge_l, split_words
from tests.support.tiny_models import make_job, read_history, read_metrics, start_worker, train_here

pytestmark = pytest.mark.train

PAIRS = [
    ("the cat sat", "the cat sat on the mat"),
    ("The cat, the dog.", "a dog and the cat"),
    ("nothing", "in common"),
    ("", "x"),
    ("a b c d e", "e d c b a"),
]


def test_rouge_l_agrees_with_the_rouge_score_package() -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    for prediction, reference in PAIRS:
        assert rouge_l(prediction, reference) == pytest.approx(scorer.score(reference, prediction)["rougeL"].fmeasure)


def test_chinese_is_compared_by_characters() -> None:
    assert split_words("今天GPU很快 v2。") == ["今", "天", "gpu", "很", "快", "v2"]
    assert rouge_l("今天很热", "今天热") == pytest.approx(2 * (3 / 4) / (3 / 4 + 1))


def test_answers_to_padded_prompts_are_those_to_single_ones(
    base_model: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base_model)
    model.train()
    prompts = [Prompt(input_ids=tuple(tokenizer(text)["input_ids"]), reference=text) for text in ("a", "bcdefg", "hi")]
    seen: list[str] = []

    def collect(answer: str, _reference: str) -> float:
        seen.append(answer)
        return 1.0

    monkeypatch.setattr("hpcbench.worker.measure.rouge.rouge_l", collect)
    before = torch.get_rng_state()
    for size in (1, 3):
        args = SftArgs(model_id_or_path="m", do_sample=False, max_new_tokens=6, eval_batch_size=size)
        assert mean_rouge_l(model, prompts, tokenizer, args, step=1, device=torch.device("cpu")) == 1.0
    assert seen[:3] == seen[3:]
    sampling = SftArgs(model_id_or_path="m", max_new_tokens=6)
    for _ in range(2):
        mean_rouge_l(model, prompts, tokenizer, sampling, step=1, device=torch.device("cpu"))
    assert seen[6:9] == seen[9:]
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training


def test_training_records_rouge_l_and_is_not_disturbed(tmp_path: Path, base_model: Path, chats: Path) -> None:
    plain = make_job(tmp_path / "plain", base_model, chats)
    values: dict[str, Any] = {"predict_with_generate": True, "max_new_tokens": 8}
    job = make_job(tmp_path / "job", base_model, chats, **values)
    shared = make_job(tmp_path / "shared", base_model, chats, ddp=2, max_steps=2, **values)
    worker = start_worker(shared, ddp=2)
    train_here(plain)
    metrics = read_metrics(train_here(job))
    history = read_history(job.attempt(1))
    scores = {line["step"]: line["rouge_l"] for line in history if "rouge_l" in line}
    assert list(scores) == [4, 8, 10]
    assert metrics.rouge_l == scores[metrics.best_step or 0]
    assert 0 <= (metrics.rouge_l or 0) <= 1
    losses = [[line["loss"] for line in read_history(run.attempt(1)) if "loss" in line] for run in (plain, job)]
    assert losses[0] == losses[1]
    assert worker.wait(timeout=300) == 0, shared.attempt(1).log.read_text()
    assert read_metrics(shared.attempt(1)).rouge_l is not None
