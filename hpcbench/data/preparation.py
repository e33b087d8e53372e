"""Rows of the catalog's datasets as their hubs have them, to rows with a question and an answer.

In: a raw row and what the catalog says about its dataset. Out: the row with the fields that the rest of `data/` knows,
or None for a row that SWIFT 2.x leaves out too. What is done to each dataset was read in swift/llm/utils/dataset.py
(2023-10, and 2024 for ms-bench and ms-agent). It opens no files.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from string import Formatter
from typing import Any, Final

from hpcbench.data.rows import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """What is done to each row of a dataset before its columns are looked at."""

    step: str | None = None
    """The name of one of `STEPS`, which comes first."""
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Column of numbers -> the words that they count from 0."""
    query: str | None = None
    """Text of the question, with `{column}` for the row's values; None leaves the row's columns alone."""
    response: str | None = None
    """Text of the answer, as `query`."""

    def apply(self, row: Mapping[str, Any]) -> Row | None:
        """Return the row to train on, or None where one of the needed columns is empty.

        A column that is not there at all stays out, and is the row's mistake.
        """
        found: Row | None = dict(row)
        if self.step is not None:
            found = STEPS[self.step](dict(row))
        if found is None or self.response is None:
            return found
        for column, words in self.labels.items():
            found[column] = _word(found.get(column), words)
        texts = {name: text for name, text in (("query", self.query), ("response", self.response)) if text is not None}
        needed = {column for text in texts.values() for column in columns_of(text)}
        if not needed <= found.keys():
            return {name: value for name, value in found.items() if name not in texts}
        if any(found[column] is None for column in needed):
            return None
        written = {name: text.format_map(found) for name, text in texts.items()}
        return {"query": "", **written}


def columns_of(text: str) -> tuple[str, ...]:
    """Return the columns that a text asks for."""
    return tuple(name for _, name, _, _ in Formatter().parse(text) if name)


def _word(value: object, words: tuple[str, ...]) -> str | None:
    """Return the label's word, or None for a test row that has no label."""
    # pandas writes a column of integers with gaps as 1.0.
    number = int(float(value)) if isinstance(value, (int, float, str)) and str(value).strip() else None
    return words[number] if number is not None and 0 <= number < len(words) else None


def _read_list(value: object) -> list[Any] | None:
    """Return a list that may be written as Python's text, or None."""
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    return value if isinstance(value, list) else None


def _dialogue(row: Row) -> Row | None:
    """`conversations` is a list, or its Python text; rows whose text is broken are left out."""
    turns = _read_list(row.get("conversations"))
    return None if not turns or len(turns) == 1 else {**row, "conversations": turns}


def _general_dialogue(row: Row) -> Row | None:
    """As `_dialogue`, without the plainest system prompt and without rows in which another model names itself."""
    found = _dialogue(row)
    if found is None:
        return None
    turns = [turn for turn in found["conversations"] if isinstance(turn, dict)]
    if turns and turns[0].get("from") == "system" and turns[0].get("value") == "You are a helpful assistant.":
        turns = turns[1:]
    text = "\n".join(str(turn.get("value")) for turn in turns).lower()
    return (
        None
        if any(word in text for word in ("moss", "human:", "assistant:", "user:"))
        else {**found, "conversations": turns}
    )


def _with_tools(pattern: str) -> Callable[[Row], Row | None]:
    def step(row: Row) -> Row | None:
        """A dialogue whose system prompt lists at least two different tools."""
        text = str(row.get("conversations"))
        start = text.find("'from': 'user")
        if start == -1 or len(set(re.findall(pattern, text[:start]))) <= 1:
            return None
        return _dialogue(row)

    return step


def _rounds(row: Row) -> Row | None:
    """`conversation` is a list of {human, assistant}."""
    rounds = _read_list(row.get("conversation"))
    if not rounds or not all(isinstance(entry, dict) and {"human", "assistant"} <= entry.keys() for entry in rounds):
        return None
    pairs = [[entry["human"], entry["assistant"]] for entry in rounds]
    return {"history": pairs[:-1], "query": pairs[-1][0], "response": pairs[-1][1]}


def _chat_rounds(row: Row) -> Row | None:
    """`chat_rounds` is a list of {role, content} with the roles human and bot."""
    turns = _read_list(row.get("chat_rounds"))
    if not turns or not all(isinstance(turn, dict) for turn in turns):
        return None
    return {"conversations": [{"from": turn.get("role"), "value": turn.get("content")} for turn in turns]}


def _without_history(row: Row) -> Row | None:
    """Rows with a history are dirty."""
    return None if _read_list(row.get("history")) else row


def _answer_and_context(row: Row) -> Row | None:
    """`text1` is ANSWER[SEP]CONTEXT."""
    parts = str(row.get("text1")).split("[SEP]")
    return {**row, "answer": parts[0], "context": parts[1]} if len(parts) == 2 else None


def _problem_and_code(row: Row) -> Row | None:
    """`code_with_problem` is a problem and one fenced block of code."""
    problem, fence, code = str(row.get("code_with_problem")).partition("```python")
    return {**row, "problem": problem.removeprefix("# "), "code": f"{fence}{code}".strip()} if fence else None


def _chapters(row: Row) -> Row | None:
    """`chapter1` to `chapter3` may be empty."""
    names = [f"chapter{number}" for number in (1, 2, 3)]
    return {
        **row,
        "chapters": "".join(f"Chapter{name[-1]}: {row[name]}" for name in names if row.get(name) is not None),
    }


STEPS: Final[Mapping[str, Callable[[Row], Row | None]]] = {
    "dialogue": _dialogue,
    "general dialogue": _general_dialogue,
    "dialogue with tools": _with_tools(r'\d\. {"(?:plugin_)?name": "(.+?)"'),
    "dialogue with plugins": _with_tools(r'\d\. {"plugin_name": "(.+?)"'),
    "rounds": _rounds,
    "chat rounds": _chat_rounds,
    "without history": _without_history,
    "answer and context": _answer_and_context,
    "problem and code": _problem_and_code,
    "chapters": _chapters,
}
