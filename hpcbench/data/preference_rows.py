"""Rows with two answers, or with a judged one, as the parts of ordinary rows: one with each answer.

In: the parts of a row, each with its column and value. Out: the parts of the same row with the chosen answer alone and
with the rejected one alone, which are read as any other row; a label as true or false. Whether both answers belong to
the same question is checked by who reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from hpcbench.data.columns import Part, RowLayout
from hpcbench.data.messages import KEY_PAIRS
from hpcbench.data.values import BadRowError, describe, take_list, take_text

Parts = Mapping[Part, tuple[str, Any]]
"""What is read -> the column's name and value."""

_ASSISTANTS: Final = {"from": "gpt", "role": "assistant"}
"""What the assistant is called, by the key of a turn that says who speaks."""
_LABELS: Final[Mapping[str, bool]] = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
"""Texts of labels, in lower case, as CSV files have them."""
_ANSWER_EXPECTED: Final = "an answer: text, a turn, or a list of turns"


def split_pair(parts: Parts, layout: RowLayout) -> tuple[Parts, Parts]:
    """Return the parts of the row with its chosen answer, and of the row with its rejected answer.

    Raises:
        BadRowError: an answer is not what it should be.
    """
    shared = _leave_out(parts, Part.CHOSEN, Part.REJECTED)
    rejected = parts[Part.REJECTED]
    if Part.CHOSEN in parts:
        return _with_answer(shared, parts[Part.CHOSEN], layout), _with_answer(shared, rejected, layout)
    if Part.ANSWER in shared:
        return shared, {**shared, Part.ANSWER: rejected}
    column, value = shared[Part.TURNS]
    turns = take_list(value, column, expected="a list of turns")
    if isinstance(rejected[1], str) and turns and isinstance(turns[-1], dict) and not _is_json_list(rejected[1]):
        key = _content_key(turns[-1], layout)
        last = {name: item for name, item in turns[-1].items() if name != "tool_calls"}
        return shared, {**shared, Part.TURNS: (rejected[0], [*turns[:-1], {**last, key: rejected[1]}])}
    return shared, {**shared, Part.TURNS: rejected}


def read_label(column: str, value: object) -> bool:
    """Return whether an answer is a good one.

    Raises:
        BadRowError: the value does not say.
    """
    found = _LABELS.get(str(value).strip().lower()) if isinstance(value, (bool, int, float, str)) else None
    if found is None:
        raise BadRowError(f"{column}: {describe(value)}", expected="true for a good answer, false for a bad one")
    return found


def _with_answer(shared: Parts, answer: tuple[str, Any], layout: RowLayout) -> Parts:
    """Return the parts of an ordinary row that ends with this answer."""
    column, value = answer
    if Part.TURNS in shared:
        turns_column, turns_value = shared[Part.TURNS]
        asked_before = take_list(turns_value, turns_column, expected="a list of turns")
        return {**shared, Part.TURNS: (column, [*asked_before, *_answer_turns(answer, asked_before, layout)])}
    turns = _take_turns(answer)
    if turns is not None and _begins_with_question(turns):
        # What such turns begin with is the question itself.
        beside = _leave_out(shared, Part.QUESTION, Part.ADDITION, Part.HISTORY)
        return {**beside, Part.TURNS: (column, turns)}
    if Part.QUESTION not in shared:
        raise BadRowError(f"{column}: {describe(value)}", expected="turns that begin with the question, or a prompt")
    asked, question = shared[Part.QUESTION]
    if turns is None and isinstance(question, str):
        return {**shared, Part.ANSWER: answer}
    asked_turns = question if isinstance(question, list) else [{"role": "user", "content": question}]
    turns = [{"role": "assistant", "content": value}] if turns is None else turns
    return {**shared, Part.QUESTION: (asked, asked_turns), Part.ANSWER: (column, turns)}


def _leave_out(parts: Parts, *left_out: Part) -> dict[Part, tuple[str, Any]]:
    return {part: found for part, found in parts.items() if part not in left_out}


def _take_turns(answer: tuple[str, Any]) -> list[Any] | None:
    """Return an answer's turns, or None for one that is text."""
    column, value = answer
    match value:
        case dict():
            return [value]
        case list() | tuple():
            if not value:
                raise BadRowError(f"{column}: empty list", expected=_ANSWER_EXPECTED)
            return list(value)
        case str() if _is_json_list(value):
            return take_list(value, column, expected=_ANSWER_EXPECTED)
        case _:
            take_text(value, column, expected=_ANSWER_EXPECTED)
            return None


def _is_json_list(text: str) -> bool:
    """Return whether a text is the JSON of a list of turns, as CSV files have it, and no answer."""
    stripped = text.strip()
    return stripped.startswith('[{"') and stripped.endswith("}]")


def _begins_with_question(turns: list[Any]) -> bool:
    first = turns[0]
    speaker = next((first[key] for key in _ASSISTANTS if key in first), None) if isinstance(first, dict) else None
    return speaker not in {None, *_ASSISTANTS.values(), "function_call", "tool_call"}


def _answer_turns(answer: tuple[str, Any], turns: list[Any], layout: RowLayout) -> list[Any]:
    """Return the turns of an answer that follows these turns, named as they are."""
    found = _take_turns(answer)
    if found is not None:
        return found
    first = turns[0] if turns and isinstance(turns[0], dict) else {}
    speaker = layout.tags.get("role_tag") or next((key for key in _ASSISTANTS if key in first), "from")
    name = layout.tags.get("assistant_tag") or _ASSISTANTS.get(speaker, "assistant")
    return [{speaker: name, _content_key(first, layout): answer[1]}]


def _content_key(turn: Mapping[str, Any], layout: RowLayout) -> str:
    return layout.tags.get("content_tag") or next((key for _, key in KEY_PAIRS if key in turn), KEY_PAIRS[0][1])
