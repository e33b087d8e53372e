"""Generated answers during training, and their ROUGE-L."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcbench.schemas.arguments import SftArgs
from hpcbench.storage.json_files import write_text
from hpcbench.worker.data.rendered import AnswerEnds
from hpcbench.worker.measure.rouge import Prompt, cut_answer, predict, rouge_l, split_words
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

    model: Any = AutoModelForCausalLM.from_pretrained(base_model)
    model.train()
    prompts = [Prompt(input_ids=tuple(tokenizer(text)["input_ids"]), reference=text) for text in ("a", "bcdefg", "hi")]

    def answer(**values: Any) -> list[str]:
        args = SftArgs(model_id_or_path="m", max_new_tokens=6, **values)
        ends = AnswerEnds(token_ids=(tokenizer.eos_token_id,))
        options: dict[str, Any] = {"ends": ends, "step": 1, "device": torch.device("cpu")}
        return [found.answer for found in predict(model, prompts, tokenizer, args, **options)]

    before = torch.get_rng_state()
    assert answer(do_sample=False, eval_batch_size=1) == answer(do_sample=False, eval_batch_size=3)
    assert answer() == answer()
    greedy = answer(do_sample=False)
    assert answer(temperature=0) == greedy
    with monkeypatch.context() as patch:
        generate = model.generate
        given: dict[str, Any] = {}
        patch.setattr(model, "generate", lambda **options: (given.update(options), generate(**options))[1])
        answer(do_sample=False, num_beams=3)
    assert given["num_beams"] == 3
    assert greedy[1] == "gggggg"
    assert len(answer(do_sample=False, stop_words=["x", "ggg"])[1]) < len("ggg")
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


def test_an_answer_is_cut_before_the_first_stop_word() -> None:
    assert cut_answer("one two three", ("three", "two")) == "one "
    assert cut_answer("one two three", ("four",)) == "one two three"


def test_an_answer_ends_where_the_template_ends_one(base_model: Path, tokenizer: Any) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base_model)
    prompts = [Prompt(input_ids=tuple(tokenizer("tell me")["input_ids"]), reference="")]
    args = SftArgs(model_id_or_path="m", do_sample=False, max_new_tokens=8)

    def answer(**ends: Any) -> str:
        found = AnswerEnds(**{"token_ids": (tokenizer.eos_token_id,), **ends})
        options: dict[str, Any] = {"ends": found, "step": 1, "device": torch.device("cpu")}
        return predict(model, prompts, tokenizer, args, **options)[0].answer

    whole = answer()
    first = tokenizer(whole)["input_ids"][0]
    assert len(whole) == 8
    assert answer(token_ids=(first,)) == whole[0], "no special token, so it is printed"
    assert answer(text=whole[0]) == ""


def test_the_answers_of_best_and_last_are_kept_and_named(tmp_path: Path, base_model: Path, chats: Path) -> None:
    job = make_job(tmp_path, base_model, chats, predict_with_generate=True, max_new_tokens=4, eval_steps=2)
    write_text(job.predictions_of(99), "of an earlier training")
    metrics = read_metrics(train_here(job))
    assert metrics.best_step is not None
    kept = {job.predictions_of(step) for step in (metrics.best_step, metrics.num_steps)}
    assert set(job.predictions.iterdir()) == kept
    assert metrics.predictions == f"predictions/step-{metrics.best_step}.jsonl"
    lines = [json.loads(line) for line in (job.folder / metrics.predictions).read_text(encoding="utf-8").splitlines()]
    assert len(lines) == metrics.num_val_rows
    assert set(lines[0]) == {"prompt", "reference", "answer", "rouge_l"}
    assert lines[0]["prompt"].endswith("<|im_start|>assistant\n")
    assert metrics.rouge_l == pytest.approx(sum(line["rouge_l"] for line in lines) / len(lines))
