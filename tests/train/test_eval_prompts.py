"""The tokens that an eval feeds the model are those that training conditions on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from hpcbench.schemas.arguments import EvalArgs, SftArgs
from hpcbench.worker.data.templates import Template
from hpcbench.worker.evaluate.evaluate import run_lm_eval
from hpcbench.worker.evaluate.model import ChatPrompts, EvalModel, fold_description
from hpcbench.worker.evaluate.tasks import load_eval_tasks
from tests.support import evaluations
from tests.support.places import shared

pytestmark = pytest.mark.train

QUESTIONS = ["1+1", "Who are you? ", "你好 世界", "a\n\nb"]
LLAMA2_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}<<SYS>>{{ message['content'] }}"
    "<</SYS>>{% elif message['role'] == 'user' %}[INST] {{ message['content'] }} [/INST]{% else %} "
    "{{ message['content'] }} {{ eos_token }}{% endif %}{% endfor %}"
)
"""Writes the start token itself, which the tokenizer would add a second time."""
BARE_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
"""Ends with a space and never writes a start token."""


def load_tokenizer(name: str) -> Any:
    """Return the byte tokenizer with a Qwen-like template, or the real Llama one with the template of that name."""
    if name == "qwen-like":
        return evaluations.make_tokenizer()
    folder = shared("models/stories15M")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id, "this tokenizer adds a start token by itself"
    tokenizer.chat_template = {"llama2-like": LLAMA2_TEMPLATE, "bare": BARE_TEMPLATE, "plain": None}[name]
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def make_small_model(tokenizer: Any) -> Any:
    if len(tokenizer) < 1000:
        return evaluations.make_model(tokenizer, layers=1)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        max_position_embeddings=256,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


class Spy:
    """Notes the unpadded rows of every forward pass that starts a sequence."""

    def __init__(self, model: Any) -> None:
        self.rows: list[list[int]] = []
        model.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, _model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = args[0] if args else kwargs["input_ids"]
        if ids.shape[1] == 1:
            return
        mask = kwargs.get("attention_mask")
        keep = torch.ones_like(ids) if mask is None else mask
        self.rows += [row[kept.bool()].tolist() for row, kept in zip(ids, keep, strict=True)]


def evaluate(
    tokenizer: Any, system: str | None, task_folder: Path, name: str, **eval_args: Any
) -> tuple[Spy, Template]:
    model = make_small_model(tokenizer)
    spy = Spy(model)
    template = Template.from_args(SftArgs(model_id_or_path="x", system=system), tokenizer)
    lm = EvalModel(
        model,
        tokenizer,
        prompts=ChatPrompts(template),
        batch_size=3,
        max_length=None,
        between_batches=lambda _done, _total: None,
    )
    run_lm_eval(
        lm, load_eval_tasks(name, EvalArgs(include_path=(str(task_folder),))), EvalArgs(**eval_args), system=system
    )
    return spy, template


@pytest.mark.parametrize("system", [None, "Answer briefly."])
@pytest.mark.parametrize("name", ["qwen-like", "llama2-like", "bare", "plain"])
def test_generation_prompt_is_the_training_prefix(tmp_path: Path, name: str, system: str | None) -> None:
    rows = [{"question": question, "answer": "2"} for question in QUESTIONS]
    evaluations.write_task(tmp_path, "gen", rows, **evaluations.GENERATION_TASK)
    tokenizer = load_tokenizer(name)

    spy, template = evaluate(tokenizer, system, tmp_path, "gen")

    expected = [template.prefix_ids([{"role": "user", "content": question}]) for question in QUESTIONS]
    assert sorted(spy.rows) == sorted(expected)
    for question, prefix in zip(QUESTIONS, expected, strict=True):
        sample = template.encode([{"role": "user", "content": question}, {"role": "assistant", "content": "2"}])
        assert list(sample.input_ids[: len(prefix)]) == prefix
        assert sample.labels[len(prefix)] != -100, "the first label is the first token that the eval generates"


@pytest.mark.parametrize(("after", "stops"), [("<|im_end|>", ()), ("<eoa>\n", ("<eoa>",))])
def test_generation_ends_where_the_template_ends_an_answer(tmp_path: Path, after: str, stops: tuple[str, ...]) -> None:
    rows = [{"question": question, "answer": "2"} for question in QUESTIONS]
    evaluations.write_task(tmp_path, "gen", rows, **evaluations.GENERATION_TASK)
    tokenizer = load_tokenizer("qwen-like")
    tokenizer.eos_token = "<|endoftext|>"
    written = "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}" + after + "{% endif %}{% endfor %}"
    model = make_small_model(tokenizer)
    asked: list[dict[str, Any]] = []
    generate = model.generate

    def note(**options: Any) -> Any:
        asked.append(options)
        return generate(**options)

    model.generate = note
    lm = EvalModel(
        model,
        tokenizer,
        prompts=ChatPrompts(Template(tokenizer, chat_template=written)),
        batch_size=3,
        max_length=None,
        between_batches=lambda _done, _total: None,
    )
    run_lm_eval(lm, load_eval_tasks("gen", EvalArgs(include_path=(str(tmp_path),))), EvalArgs(), system=None)
    (watch,) = asked[0]["stopping_criteria"]
    assert tokenizer.eos_token_id in asked[0]["eos_token_id"]
    assert (tokenizer.convert_tokens_to_ids("<|im_end|>") in asked[0]["eos_token_id"]) is (not stops)
    assert set(stops) <= set(watch.stop)


@pytest.mark.parametrize("name", ["qwen-like", "llama2-like", "bare", "plain"])
def test_choice_tokens_are_those_of_the_training_answer(tmp_path: Path, name: str) -> None:
    choices = ["yes", "not at all"]
    rows = [{"question": question, "choices": choices, "answer": 0} for question in QUESTIONS]
    evaluations.write_task(tmp_path, "choice", rows, **evaluations.CHOICE_TASK)
    tokenizer = load_tokenizer(name)

    spy, template = evaluate(tokenizer, None, tmp_path, "choice")

    assert len(spy.rows) == 8
    prompts = ChatPrompts(template)
    for question in QUESTIONS:
        for choice in choices:
            user = {"role": "user", "content": question}
            given, answer = prompts.encode_pair(prompts.render([user]), choice)
            fed = [*given, *answer][:-1]
            trained = list(template.encode([user, {"role": "assistant", "content": choice}]).input_ids)
            assert [*given, *answer] == trained[: len(given) + len(answer)]
            assert tokenizer.decode(trained[len(given) + len(answer) :]).strip() == tokenizer.eos_token
            assert given[: len(template.prefix_ids([user]))] == template.prefix_ids([user])
            # Right-padded in its batch, and the last token of the answer is only scored, not fed.
            assert any(row[: len(fed)] == fed for row in spy.rows), (question, choice)


def test_no_token_of_the_prompt_is_scored(tmp_path: Path) -> None:
    """lm-eval alone would score the line break after `<|im_start|>assistant` with every choice."""
    tokenizer = evaluations.make_tokenizer()
    template = Template.from_args(SftArgs(model_id_or_path="x"), tokenizer)
    lm = EvalModel(
        evaluations.make_model(tokenizer),
        tokenizer,
        prompts=ChatPrompts(template),
        batch_size=1,
        max_length=None,
        between_batches=lambda _done, _total: None,
    )
    prompt = lm.apply_chat_template([{"role": "user", "content": "Which?"}])

    context, continuation = lm._encode_pair(prompt, "A")

    assert prompt.endswith("assistant\n")
    assert context == template.prefix_ids([{"role": "user", "content": "Which?"}])
    assert continuation == tokenizer.convert_tokens_to_ids(["A"])


def test_description_and_few_shots_keep_the_system_prompt_of_the_training(tmp_path: Path) -> None:
    rows = [{"question": "q1", "answer": "a1"}, {"question": "q2", "answer": "a2"}]
    evaluations.write_task(
        tmp_path, "gen", rows, **{**evaluations.GENERATION_TASK, "description": "Do this.", "fewshot_split": "train"}
    )
    tokenizer = evaluations.make_tokenizer()

    spy, _ = evaluate(tokenizer, None, tmp_path, "gen", num_fewshot=1, fewshot_as_multiturn=True, limit=1)

    text = str(tokenizer.decode(spy.rows[0]))
    assert text.startswith("<|im_start|>system\nYou are Qwen.<|im_end|>\n<|im_start|>user\nDo this.\n\nq")
    assert text.count("<|im_start|>assistant") == 2
    assert text.endswith("q1<|im_end|>\n<|im_start|>assistant\n")


def test_started_answer_follows_the_prompt(tmp_path: Path) -> None:
    rows = [{"question": "q1", "answer": "a1"}]
    evaluations.write_task(tmp_path, "gen", rows, **{**evaluations.GENERATION_TASK, "gen_prefix": "The answer is"})
    tokenizer = evaluations.make_tokenizer()

    spy, template = evaluate(tokenizer, None, tmp_path, "gen")

    prefix = template.prefix_ids([{"role": "user", "content": "q1"}])
    assert spy.rows == [prefix + tokenizer("The answer is")["input_ids"]]


def test_fold_description() -> None:
    question = {"role": "user", "content": "q"}

    assert fold_description([question]) == [question]
    assert fold_description([{"role": "system", "content": "d"}, question]) == [{"role": "user", "content": "d\n\nq"}]
    assert fold_description([{"role": "system", "content": "d\n"}, question]) == [{"role": "user", "content": "d\nq"}]


def test_too_long_prompts_keep_their_last_tokens(tmp_path: Path) -> None:
    rows = [{"question": "x" * 40, "answer": "2"}, {"question": "y", "answer": "2"}]
    evaluations.write_task(tmp_path, "gen", rows, **evaluations.GENERATION_TASK)
    tokenizer = evaluations.make_tokenizer()

    spy, template = evaluate(tokenizer, None, tmp_path, "gen", max_length=None)
    full = sorted(spy.rows, key=len)

    model = make_small_model(tokenizer)
    spy = Spy(model)
    lm = EvalModel(
        model,
        tokenizer,
        prompts=ChatPrompts(template),
        batch_size=2,
        max_length=12 + len(full[0]) + 5,
        between_batches=lambda _done, _total: None,
    )
    run_lm_eval(lm, load_eval_tasks("gen", EvalArgs(include_path=(str(tmp_path),))), EvalArgs(), system=None)

    assert sorted(spy.rows, key=len) == [full[0], full[1][-len(full[0]) - 5 :]]
    assert (lm.cut_prompts.count("gen"), lm.cut_prompts.limit_tokens("gen")) == (1, len(full[0]) + 5)


def test_qwen_template_of_the_world_is_what_it_says() -> None:
    text = evaluations.make_tokenizer().apply_chat_template([{"role": "user", "content": "q"}], tokenize=False)
    assert json.dumps(text).startswith('"<|im_start|>system\\nYou are Qwen.')
