"""Datasets with tools need a chat template that writes them; plan says so where it knows the template."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.suite_writer import load_one, refusal

SUITE = "cmd: sft\nargs: {model: org/m, dataset: d.jsonl, template_type: chatml}\nexperiment: [{name: a}]\n"
QUESTION, ANSWER = {"role": "user", "content": "2+3?"}, {"role": "assistant", "content": "Five."}
TOOLS = [{"type": "function", "function": {"name": "add"}}]
CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "add", "arguments": {"a": 2}}}]}
HINT = (
    "  hint: train a model whose chat template knows tools, or write the dialogues as `conversations` with function_call "
    "and observation, in which agent_template writes them"
)


def test_tools_that_the_chat_template_cannot_write_are_refused_in_the_plan(tmp_path: Path) -> None:
    row = {"messages": [QUESTION, CALL, {"role": "tool", "content": "5"}, ANSWER], "tools": TOOLS}
    (tmp_path / "d.jsonl").write_text(json.dumps(row))
    assert refusal(tmp_path, SUITE) == (
        "demo.yaml:2: args.dataset: its rows have tool calls and tools, and the model's chat template does not write them\n"
        + HINT
    )
    load_one(tmp_path, SUITE.replace(", template_type: chatml", ""))


def test_the_hint_leads_to_a_plan(tmp_path: Path) -> None:
    turns = [
        {"from": "human", "value": "2+3?"},
        {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 2}}'},
        {"from": "observation", "value": "5"},
        {"from": "gpt", "value": "Five."},
    ]
    (tmp_path / "d.jsonl").write_text(json.dumps({"conversations": turns, "tools": TOOLS}))
    load_one(tmp_path, SUITE)


def test_a_mixed_dataset_counts_only_where_it_is_mixed_in(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text(json.dumps({"query": "q", "response": "a"}))
    (tmp_path / "mix.jsonl").write_text(json.dumps({"messages": [QUESTION, ANSWER], "tools": TOOLS}))
    mixing = SUITE.replace("chatml}", "chatml, train_dataset_mix_ds: mix.jsonl, train_dataset_mix_ratio: 0.0}")
    load_one(tmp_path, mixing)
    assert "its rows have tools, and" in refusal(tmp_path, mixing.replace("ratio: 0.0", "ratio: 1.0"))
