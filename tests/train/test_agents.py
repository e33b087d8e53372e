"""Dialogues with tools, and the loss that weighs their parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hpcbench.catalog.agents import AGENT_FORMATS
from hpcbench.data.messages import MASKED, Message
from hpcbench.data.row_reader import RowReader
from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import SftArgs
from hpcbench.worker.data.templates import Template
from tests.support.places import shared
from tests.support.tiny_models import (
    CHATML,
    make_job,
    make_model_folder,
    make_tokenizer,
    read_history,
    read_metrics,
    read_weights,
    start_worker,
    train_here,
)

pytestmark = pytest.mark.train

TOOLS = [{"name": "add", "description": "Adds.", "parameters": {"type": "object"}}]
TURNS = [
    {"from": "human", "value": "2+3?"},
    {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 2, "b": 3}}'},
    {"from": "observation", "value": '{"sum": 5}'},
    {"from": "gpt", "value": "Five."},
]
CALL = 'Action: add\nAction Input: {"a": 2, "b": 3}'
CHATS = {"messages": "messages"}
TAGS = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
ANSWER = f'{CALL}\nObservation: {{"sum": 5}}\nFinal Answer: Five.'


def read(row: dict[str, Any]) -> tuple[Message, ...]:
    agent = AGENT_FORMATS.lookup("react")
    assert agent is not None
    return RowReader(agent=agent).read(row).messages


def write_agent_rows(path: Path, count: int) -> Path:
    rows = []
    for index in range(count):
        text = f"Thought: {index}\nAction: t{'x' * (index % 5)}\nAction Input: {index}\nObservation: r{index}\nFinal Answer: ok"
        rows.append({"query": f"q{index}", "response": text})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def weigh(tokenizer: Any, messages: Any, **values: Any) -> list[tuple[str, float]]:
    """Return the answer's tokens (bytes) with their weights, as runs of equal weight."""
    args = SftArgs(model_id_or_path="m", use_loss_scale=True, **values)
    encoded = Template.from_args(args, tokenizer).encode(messages)
    assert encoded.weights is not None
    runs: list[tuple[str, float]] = []
    for token, label, weight in zip(encoded.input_ids, encoded.labels, encoded.weights, strict=True):
        assert (label == -100) == (weight == 0)
        text = tokenizer.decode([token])
        if runs and runs[-1][1] == weight:
            runs[-1] = (runs[-1][0] + text, weight)
        else:
            runs.append((text, weight))
    return runs


def test_a_tool_dialogue_is_one_answer_per_round_with_the_tools_in_the_system_prompt() -> None:
    system, user, answer = read({"conversations": TURNS, "tools": json.dumps(TOOLS), "system": "Be brief."})
    assert system["content"].startswith("Be brief.\n\nAnswer the following questions")
    assert 'add: Adds. Parameters: {"type": "object"}' in system["content"]
    assert "one of [add]" in system["content"]
    assert user == {"role": "user", "content": "2+3?"}
    assert answer == {"role": "assistant", "content": ANSWER, MASKED: ('{"sum": 5}\n',)}


def test_what_a_tool_returned_is_never_learnt(tokenizer: Any) -> None:
    encoded = Template(tokenizer).encode(read({"conversations": TURNS}))
    learnt = [token for token, label in zip(encoded.input_ids, encoded.labels, strict=True) if label != -100]
    assert tokenizer.decode(learnt) == f"{CALL}\nObservation: Final Answer: Five.<|im_end|>"
    assert encoded.weights is None


TOOLS_TEMPLATE = (
    "{% if tools %}<tools>{{ tools | tojson }}</tools>\n{% endif %}{% for message in messages %}<|im_start|>"
    "{{ message.role }}\n{{ message.content or '' }}{% for call in message.tool_calls or [] %}"
    "{{ call.function.name }}({{ call.function.arguments | tojson }}){% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CALLING = {"role": "assistant", "tool_calls": [{"function": {"name": "add", "arguments": '{"a": 2}'}}]}
OPENAI: dict[str, Any] = {
    "messages": [
        {"role": "user", "content": "2+3?"},
        CALLING,
        {"role": "tool", "content": "5"},
        {"role": "assistant", "content": "Five."},
    ],
    "tools": json.dumps(TOOLS),
}


def test_tools_and_calls_of_openai_messages_are_written_by_the_chat_template() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = {"default": CHATML, "tool_use": TOOLS_TEMPLATE}
    agent = AGENT_FORMATS.lookup("react")
    assert agent is not None
    chat = RowReader(agent=agent, all_rounds=True).read(OPENAI)
    template = Template(tokenizer, loss_on_all_rounds=True)
    encoded = template.encode(chat.messages, tools=chat.tools)
    text = tokenizer.decode(encoded.input_ids)
    assert text.startswith('<tools>[{"type": "function", "function": {"name": "add", "description": "Adds."')
    learnt = [token for token, label in zip(encoded.input_ids, encoded.labels, strict=True) if label != -100]
    assert tokenizer.decode(learnt) == 'add({"a": 2})<|im_end|>Five.<|im_end|>'
    assert template.prefix_ids(chat.messages[:-1], tools=chat.tools) == encoded.input_ids[: -len("Five.") - 1]


def test_a_template_that_does_not_write_tools_or_calls_is_refused(tokenizer: Any) -> None:
    asked, answered = OPENAI["messages"][0], OPENAI["messages"][-1]
    tool = {"type": "function", "function": TOOLS[0]}
    with pytest.raises(WorkerError, match="the chat template does not write tools, so they would be missing"):
        Template(tokenizer).encode([asked, answered], tools=[tool])
    with pytest.raises(WorkerError, match="the chat template does not write tool calls, so they would be missing"):
        Template(tokenizer).encode([asked, {**CALLING, "content": "I add."}])
    plain = make_tokenizer()
    plain.chat_template = None
    with pytest.raises(WorkerError, match="the chat template does not write tool calls, so they would be missing"):
        Template(plain).encode([asked, CALLING, {"role": "tool", "content": "5"}, answered])


def test_the_loss_scale_token_by_token(tokenizer: Any) -> None:
    text = 'So: Thought: hm\nAction: add\nAction Input: {"a": 2}\nObservation: 5\nThought: ok\nFinal Answer: five'
    messages = [{"role": "user", "content": "2+3?"}, {"role": "assistant", "content": text}]
    assert weigh(tokenizer, messages) == [
        ("<|im_start|>user\n2+3?<|im_end|>\n<|im_start|>assistant\n", 0.0),
        ("So: Thought: hm\n", 1.0),
        ('Action: add\nAction Input: {"a": 2}\nObservation:', 2.0),
        (" 5\n", 0.0),
        ("Thought: ok\nFinal Answer: five<|im_end|>", 1.0),
    ]


def test_an_answer_that_ends_with_an_observation_still_learns_its_end(tokenizer: Any) -> None:
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "Observation: x"}]
    assert weigh(tokenizer, messages)[-3:] == [("Observation:", 2.0), (" x", 0.0), ("<|im_end|>", 1.0)]


def test_all_rounds_and_truncation_keep_their_weights(tokenizer: Any) -> None:
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "Action: a"}] * 2
    runs = weigh(tokenizer, messages, loss_on_all_rounds=True)
    assert [run for run in runs if run[1]] == [("Action: a", 2.0), ("<|im_end|>", 1.0)] * 2
    assert weigh(tokenizer, messages, max_length=4) == [(": a", 2.0), ("<|im_end|>", 1.0)]


def test_a_merged_token_weighs_what_its_first_character_does(tokenizer: Any) -> None:
    """With a vocabulary that has `:5` as one token, the token belongs to the keyword."""
    merging = make_tokenizer(merges=((":", "5"),))
    runs = weigh(merging, [{"role": "user", "content": "q"}, {"role": "assistant", "content": "Observation:56"}])
    assert runs[1:] == [("Observation:5", 2.0), ("6", 0.0), ("<|im_end|>", 1.0)]


def test_the_users_own_format_is_taken(tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "hpcbench").mkdir()
    (tmp_path / "hpcbench" / "agents.yaml").write_text(
        "mine: {source: me, tools_prompt: '{tools}', call: '{name}', observation: 'O ', answer: '', loss_scale: {'!': [3, 4]}}"
    )
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a!b"}]
    assert weigh(tokenizer, messages, agent_template="mine")[1:] == [("a", 1), ("!", 3), ("b", 4), ("<|im_end|>", 1)]
    with pytest.raises(WorkerError, match="known: mine, react"):
        weigh(tokenizer, messages, agent_template="other")


def test_the_weighted_loss_is_the_weighted_mean_of_token_losses(tmp_path: Path) -> None:
    """The first step's loss, written out over its global batch of 4 samples."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = make_model_folder(tmp_path / "base", dropout=0.0)
    rows = write_agent_rows(tmp_path / "agent.jsonl", 4)
    values: dict[str, Any] = {"use_loss_scale": True, "dataset_test_ratio": 0, "max_steps": 1, "lora_dropout_p": 0.0}
    loss = read_history(train_here(make_job(tmp_path / "job", base, rows, **values)))[0]["loss"]
    model = AutoModelForCausalLM.from_pretrained(base)
    args = SftArgs(model_id_or_path="m", use_loss_scale=True)
    template = Template.from_args(args, AutoTokenizer.from_pretrained(base))
    total = weight = 0.0
    for line in rows.read_text().splitlines():
        encoded = template.encode(read(json.loads(line)))
        assert encoded.weights is not None
        logits = model(torch.tensor([encoded.input_ids])).logits[0].detach().double().log_softmax(-1)
        for place in range(1, len(encoded.input_ids)):
            total -= float(encoded.weights[place] * logits[place - 1, encoded.input_ids[place]])
            weight += encoded.weights[place]
    assert loss == pytest.approx(total / weight, rel=1e-5)


def test_accumulation_and_ranks_do_not_change_the_weighted_loss(tmp_path: Path) -> None:
    base = make_model_folder(tmp_path / "base", dropout=0.0)
    rows = write_agent_rows(tmp_path / "agent.jsonl", 22)
    common: dict[str, Any] = {"use_loss_scale": True, "lora_dropout_p": 0.0, "max_steps": 4, "sft_type": "full"}
    shapes = {"a": (4, 1, 1), "b": (1, 4, 1), "c": (1, 2, 2)}
    jobs = {}
    for name, (batch_size, accumulation, ddp) in shapes.items():
        jobs[name] = make_job(
            tmp_path / name,
            base,
            rows,
            batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
            ddp=ddp,
            **common,
        )
    worker = start_worker(jobs["c"], ddp=2)
    train_here(jobs["a"])
    train_here(jobs["b"])
    assert worker.wait(timeout=300) == 0, jobs["c"].attempt(1).log.read_text()
    losses = {
        name: [line["loss"] for line in read_history(job.attempt(1)) if "loss" in line] for name, job in jobs.items()
    }
    assert losses["b"] == pytest.approx(losses["a"], abs=2e-6)
    assert losses["c"] == pytest.approx(losses["a"], abs=2e-6)
    expected = read_weights(jobs["a"].checkpoints / "last")
    for name in ("b", "c"):
        found = read_weights(jobs[name].checkpoints / "last")
        assert all(torch.allclose(found[key], expected[key], atol=1e-5) for key in expected)


def test_the_seeds_example_trains(tmp_path: Path, base_model: Path, chats: Path) -> None:
    """The arguments of ms-swift's agent example, scaled down, with its dataset names in a registry."""
    write_agent_rows(tmp_path / "agent.jsonl", 10)
    registry = tmp_path / "dataset_info.json"
    entries: dict[str, dict[str, Any]] = {
        "ms-agent": {
            "file_name": "agent.jsonl",
            "columns": {"prompt": "query", "query": "input", "response": "response"},
        },
        "ms-bench": {"file_name": str(chats), "formatting": "sharegpt", "columns": CHATS, "tags": TAGS},
    }
    registry.write_text(json.dumps(entries))
    values: dict[str, Any] = {
        "dataset_info": str(registry),
        "train_dataset_mix_ratio": 2.0,
        "use_loss_scale": True,
        "val_dataset_sample": 5000,
        "check_dataset_strategy": "none",
        "lora_lr_ratio": 16.0,
        "num_train_epochs": 1,
    }
    job = make_job(tmp_path / "job", base_model, Path("ms-agent"), **values)
    metrics = read_metrics(train_here(job))
    assert (metrics.num_train_rows, metrics.num_val_rows, metrics.num_samples) == (27, 1, 27)
    assert metrics.unknown["num_train_rows"] == "18 of them mixed in from ms-bench"
    losses = [line["loss"] for line in read_history(job.attempt(1)) if "loss" in line]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("values", [{}, pytest.param({"packing": True, "max_length": 2048}, marks=pytest.mark.long)])
def test_the_real_tool_dialogues_train(tmp_path: Path, base_model: Path, values: dict[str, Any]) -> None:
    """glaive_toolcall_en_demo of LLaMA-Factory, by its registry."""
    folder = shared("data/instructions/dataset_info.json").parent
    options: dict[str, Any] = {
        "dataset_info": str(folder / "dataset_info.json"),
        "use_loss_scale": True,
        "loss_on_all_rounds": True,
        "max_length": 512,
        "max_steps": 6,
        "dataset_test_ratio": 0.01,
        "train_dataset_sample": 60,
    }
    job = make_job(tmp_path / "job", base_model, Path("glaive_toolcall_en_demo"), **{**options, **values})
    metrics = read_metrics(train_here(job))
    losses = [line["loss"] for line in read_history(job.attempt(1)) if "loss" in line]
    assert metrics.num_train_rows == 60
    assert losses[-1] < losses[0]
