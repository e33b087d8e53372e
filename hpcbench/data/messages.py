"""Rows of datasets to chats.

In: rows under known field names. Out: messages as `{"role": ..., "content": ...}`, or None where a row has none of the
known forms. Tool calls and their results become parts of one answer, in the notation of the agent format: so every chat
template can take them, and a round stays a question and its answer. It never tokenizes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from hpcbench.catalog.agents import AgentFormat
from hpcbench.data.rows import Row
from hpcbench.data.sources import FIELD_SETS

Message = Mapping[str, Any]
MASKED: Final = "masked"
"""Key of a message: texts in its content that are never trained on (what tools returned); removed before rendering."""

_PAIRS: Final = tuple(fields for fields in FIELD_SETS if len(fields) == 2)
_USERS: Final = frozenset({"human", "user"})
_ASSISTANTS: Final = frozenset({"gpt", "assistant", "bot"})


def to_messages(row: Row, agent: AgentFormat | None = None) -> tuple[Message, ...] | None:
    """Return a row as chat messages, or None when it has none of the known forms.

    Args:
        row: one row.
        agent: how tools, their calls and results are written; None takes no row that has some.
    """
    if isinstance(row.get("messages"), list):
        return _check_messages(row["messages"], system=row.get("system"))
    if isinstance(row.get("conversations"), list):
        return _from_conversations(row, agent)
    for asked, answered in _PAIRS:
        query, response = row.get(asked), row.get(answered)
        if isinstance(query, str) and isinstance(response, str):
            extra = row.get("input")
            if asked == "instruction" and isinstance(extra, str) and extra:
                query = f"{query}\n{extra}" if query else extra
            return _from_pair(query, response, history=row.get("history"), system=row.get("system"))
    return None


@dataclass(slots=True)
class _Answer:
    """The assistant's part of one round, as it grows."""

    text: str = ""
    results: list[str] = field(default_factory=list)
    """What tools returned, with the line end before the next part."""
    follows_result: bool = False

    def add(self, text: str, *, is_result: bool = False, head: str = "") -> None:
        if self.text:
            self.text += "\n"
            if self.follows_result:
                self.results[-1] += "\n"
        self.text += head + text
        if is_result:
            self.results.append(text)
        self.follows_result = is_result

    def message(self) -> Message:
        said = {"role": "assistant", "content": self.text}
        return {**said, MASKED: tuple(self.results)} if self.results else said


def _from_conversations(row: Row, agent: AgentFormat | None) -> tuple[Message, ...] | None:
    messages: list[Message] = []
    answer = _Answer()
    for turn in row["conversations"]:
        if not isinstance(turn, dict) or not isinstance(turn.get("value"), str):
            return None
        role, text = str(turn.get("from")), turn["value"]
        if role in _ASSISTANTS:
            answer.add(text, head=agent.answer if agent is not None and answer.follows_result else "")
        elif role == "function_call":
            calls = _parse_calls(text)
            if agent is None or calls is None:
                return None
            answer.add("\n".join(agent.write_call(name, arguments) for name, arguments in calls))
        elif role == "observation":
            if agent is None or not answer.text:
                return None
            answer.add(text, is_result=True, head=agent.observation)
        else:
            if answer.text:
                messages.append(answer.message())
                answer = _Answer()
            messages.append({"role": "user" if role in _USERS else role, "content": text})
    if answer.follows_result:
        return None
    if answer.text:
        messages.append(answer.message())
    return _with_tools(messages, row, agent)


def _parse_calls(text: str) -> list[tuple[str, object]] | None:
    """Return (name, arguments) of each call in a function_call turn, or None where it holds none."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    calls = value if isinstance(value, list) else [value]
    if not calls or not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
        return None
    return [(call["name"], call.get("arguments", {})) for call in calls]


def _with_tools(messages: list[Message], row: Row, agent: AgentFormat | None) -> tuple[Message, ...] | None:
    system = row.get("system")
    tools = row.get("tools")
    if not tools:
        return _with_system(messages, system)
    if isinstance(tools, str):
        try:
            tools = json.loads(tools)
        except ValueError:
            return None
    if agent is None or not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        return None
    prompt = agent.write_tools([tool.get("function", tool) for tool in tools])
    if messages and messages[0]["role"] == "system":
        system = messages.pop(0)["content"]
    return _with_system(messages, "\n\n".join(part for part in (system, prompt) if isinstance(part, str) and part))


def _check_messages(values: list[Any], *, system: object) -> tuple[Message, ...] | None:
    messages: list[Message] = []
    for value in values:
        if not isinstance(value, dict) or not isinstance(value.get("role"), str):
            return None
        if not isinstance(value.get("content"), str) and not value.get("tool_calls"):
            return None
        messages.append({key: part for key, part in value.items() if part is not None})
    return _with_system(messages, system)


def _from_pair(query: str, response: str, *, history: object, system: object) -> tuple[Message, ...] | None:
    messages: list[Message] = []
    rounds = history if isinstance(history, list) else []
    for past in [*rounds, (query, response)]:
        if not (isinstance(past, (list, tuple)) and len(past) == 2 and all(isinstance(text, str) for text in past)):
            return None
        messages += [{"role": "user", "content": past[0]}, {"role": "assistant", "content": past[1]}]
    return _with_system(messages, system)


def _with_system(messages: list[Message], system: object) -> tuple[Message, ...]:
    if isinstance(system, str) and system and not (messages and messages[0]["role"] == "system"):
        return ({"role": "system", "content": system}, *messages)
    return tuple(messages)
