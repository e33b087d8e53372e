"""Which columns of a dataset mean what, and how speakers are called: the one table that all rows are read by.

In: nothing. Out: data. REFERENCE.md's table of columns is made from it, and registries and the catalog name the same
parts. No row is read here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal

ALPACA: Final = "alpaca"
SHAREGPT: Final = "sharegpt"
OPENAI: Final = "openai"
Formatting = Literal["alpaca", "sharegpt", "openai"]


class Part(StrEnum):
    """What a column holds."""

    TURNS = "turns"
    """The dialogue: a list of turns, or its JSON text."""
    QUESTION = "question"
    """What the user says; in the last round, where there is a history. With `completion` a list of turns, too."""
    ADDITION = "addition"
    """Follows the question on a line of its own."""
    ANSWER = "answer"
    """What is trained on; it may not be empty. `completion` may be a list of turns."""
    HISTORY = "history"
    """The earlier rounds: a list of [question, answer], or its JSON text."""
    SYSTEM = "system"
    """The system prompt, where the turns do not begin with one."""
    TOOLS = "tools"
    """Descriptions of the tools: a list of objects, or its JSON text."""
    TEXT = "text"
    """Plain text without questions and answers; every token of it is trained on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One way to lay out rows."""

    name: str
    needed: Mapping[str, Part]
    """Column -> what it holds; a row is of the first shape all of whose needed columns it has."""
    optional: Mapping[str, Part] = field(default_factory=dict)


_BESIDE_TURNS: Final = {"system": Part.SYSTEM, "tools": Part.TOOLS}
_BESIDE_PAIRS: Final = {"history": Part.HISTORY, **_BESIDE_TURNS}
SHAPES: Final = (
    Shape(name=OPENAI, needed={"messages": Part.TURNS}, optional=_BESIDE_TURNS),
    Shape(name=SHAREGPT, needed={"conversations": Part.TURNS}, optional=_BESIDE_TURNS),
    Shape(name="ms-swift", needed={"query": Part.QUESTION, "response": Part.ANSWER}, optional=_BESIDE_PAIRS),
    Shape(
        name=ALPACA,
        needed={"instruction": Part.QUESTION, "output": Part.ANSWER},
        optional={"input": Part.ADDITION, **_BESIDE_PAIRS},
    ),
    Shape(name="questions", needed={"question": Part.QUESTION, "answer": Part.ANSWER}, optional=_BESIDE_PAIRS),
    Shape(name="completions", needed={"prompt": Part.QUESTION, "completion": Part.ANSWER}, optional=_BESIDE_PAIRS),
    Shape(name="plain text", needed={"text": Part.TEXT}),
)
"""The accepted shapes; the first that fits is taken."""

MEDIA_COLUMNS: Final = ("images", "image", "videos", "video", "audios", "audio")
"""Columns that are refused where they are not empty."""
PREFERENCE_COLUMNS: Final = ("chosen", "rejected", "rejected_response", "rejected_messages")
"""Columns of preference tuning, which are refused where they are not empty."""

Role = Literal["user", "assistant", "system", "call", "result"]
SPEAKERS: Final[Mapping[str, Role]] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "bot": "assistant",
    "system": "system",
    "function_call": "call",
    "tool_call": "call",
    "observation": "result",
    "tool": "result",
    "tool_response": "result",
}
"""Who speaks, by the name in a turn (`from` and `value`, or `role` and `content`) -> the role that it means."""
CHAT_ROLES: Final = ("system", "developer", "user", "assistant", "tool", "function", "ipython", "observation")
"""Roles that go to the chat template as they are, in turns of `role` and `content`."""

REGISTRY_COLUMNS: Final[Mapping[Formatting, Mapping[str, Part]]] = {
    ALPACA: {
        "prompt": Part.QUESTION,
        "query": Part.ADDITION,
        "response": Part.ANSWER,
        "history": Part.HISTORY,
        "system": Part.SYSTEM,
        "tools": Part.TOOLS,
    },
    SHAREGPT: {"messages": Part.TURNS, "system": Part.SYSTEM, "tools": Part.TOOLS},
    OPENAI: {"messages": Part.TURNS, "system": Part.SYSTEM, "tools": Part.TOOLS},
}
"""LLaMA-Factory's name of a column, by the registry's `formatting` -> what it holds."""
REGISTRY_TAGS: Final[Mapping[str, Role]] = {
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "result",
    "function_tag": "call",
    "system_tag": "system",
}
"""LLaMA-Factory's name of a speaker -> the role that it means."""
KEY_TAGS: Final = ("role_tag", "content_tag")
"""LLaMA-Factory's names for the keys of a turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowLayout:
    """How the rows of one dataset are laid out, where a registry or the catalog says so."""

    formatting: Formatting | None = None
    """Which shape is tried first where no columns are named; None tries them in their order."""
    columns: Mapping[Part, str] = field(default_factory=dict)
    """What is read -> the dataset's column; all that there is to read, unless it is empty."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """LLaMA-Factory's tag -> the dataset's word; only for turns."""
    origin: str | None = None
    """What names the columns, for messages: a registry's file and entry, or the catalog's."""


def layout_of(
    formatting: Formatting | None, columns: Mapping[str, str], tags: Mapping[str, str], *, origin: str
) -> RowLayout:
    """Return the layout that LLaMA-Factory's names for columns describe.

    As there, `columns` names everything that is read, and a prompt without a response is plain text to learn.
    """
    known = REGISTRY_COLUMNS[formatting or ALPACA]
    found = {known[name]: column for name, column in columns.items()}
    if found and formatting in {SHAREGPT, OPENAI}:
        found.setdefault(Part.TURNS, "conversations")
    elif found and not found.keys() & {Part.QUESTION, Part.ADDITION, Part.ANSWER}:
        found |= {Part.QUESTION: "instruction", Part.ADDITION: "input", Part.ANSWER: "output"}
    elif Part.QUESTION in found and not found.keys() & {Part.ADDITION, Part.ANSWER}:
        found[Part.TEXT] = found.pop(Part.QUESTION)
    return RowLayout(formatting=formatting, columns=found, tags=tags, origin=origin)


def describe_shapes() -> str:
    """Return the accepted shapes in one line, as error messages show them."""
    return " | ".join(" + ".join(shape.needed) for shape in SHAPES)


def describe_questions() -> str:
    """Return what rows that are only asked need, in one line, as error messages show it."""
    return " | ".join(
        next(column for column, part in shape.needed.items() if part in {Part.TURNS, Part.QUESTION})
        for shape in SHAPES
        if Part.TEXT not in shape.needed.values()
    )
