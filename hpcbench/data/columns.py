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
    IMAGES = "images"
    """Pictures: one, or a list of them; paths relative to the data's folder, or bytes."""
    TEXT = "text"
    """Plain text without questions and answers; every token of it is trained on."""
    CHOSEN = "chosen answer"
    """The better answer: text, a turn, or turns; such turns may begin with the question."""
    REJECTED = "rejected answer"
    """The worse answer to the same question, as the better one is written."""
    LABEL = "label"
    """Whether the answer is a good one: true or false, 1 or 0."""


class Lesson(StrEnum):
    """What a training takes from its rows."""

    ANSWERS = "answers"
    """Chats, whose answers are learned."""
    TEXTS = "texts"
    """Texts as they are, of which every token is learned (`cmd: pt`)."""
    PAIRS = "pairs"
    """Two answers to one question, of which one is better (`cmd: dpo`, `orpo`, `simpo`, `cpo`)."""
    JUDGED = "judged answers"
    """Answers, each good or bad (`cmd: kto`); a pair is one of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One way to lay out rows."""

    name: str
    needed: Mapping[str, Part]
    """Column -> what it holds; a row is of the first shape all of whose needed columns it has."""
    optional: Mapping[str, Part] = field(default_factory=dict)


_BESIDE_TURNS: Final = {
    "system": Part.SYSTEM,
    "tools": Part.TOOLS,
    "images": Part.IMAGES,
    "image": Part.IMAGES,
}
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
"""The shapes of rows whose answers are learned; the first that fits is taken."""

_PAIR: Final = {"chosen": Part.CHOSEN, "rejected": Part.REJECTED}
_WORSE: Final = {"rejected_response": Part.REJECTED}
PAIR_SHAPES: Final = (
    Shape(name=OPENAI, needed={"messages": Part.TURNS, **_WORSE}, optional=_BESIDE_TURNS),
    Shape(
        name="openai, both in full",
        needed={"messages": Part.TURNS, "rejected_messages": Part.REJECTED},
        optional=_BESIDE_TURNS,
    ),
    Shape(name=SHAREGPT, needed={"conversations": Part.TURNS, **_PAIR}, optional=_BESIDE_TURNS),
    Shape(name="ms-swift", needed={"query": Part.QUESTION, "response": Part.ANSWER, **_WORSE}, optional=_BESIDE_PAIRS),
    Shape(
        name=ALPACA,
        needed={"instruction": Part.QUESTION, **_PAIR},
        optional={"input": Part.ADDITION, **_BESIDE_PAIRS},
    ),
    Shape(name="questions", needed={"question": Part.QUESTION, **_PAIR}, optional=_BESIDE_PAIRS),
    Shape(name="prompts", needed={"prompt": Part.QUESTION, **_PAIR}, optional=_BESIDE_PAIRS),
    Shape(name="two dialogues", needed=_PAIR, optional=_BESIDE_TURNS),
)
"""The shapes of rows with two answers."""
LABEL_COLUMNS: Final = ("label", "kto_tag")
"""Columns beside those of `SHAPES` that say whether the answer is a good one; the first that is there is taken."""

IMAGE_COLUMNS: Final = ("images", "image")
"""Columns of pictures, which a text model refuses where they are not empty."""
MEDIA_COLUMNS: Final = ("videos", "video", "audios", "audio")
"""Columns that are refused where they are not empty."""
PREFERENCE_COLUMNS: Final = ("chosen", "rejected", "rejected_response", "rejected_messages")
"""Columns of pairs, which other trainings refuse where they are not empty."""

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

REGISTRY_PREFERENCES: Final[Mapping[str, Part]] = {
    "chosen": Part.CHOSEN,
    "rejected": Part.REJECTED,
    "kto_tag": Part.LABEL,
}
"""LLaMA-Factory's names of what preference tuning reads, whatever the `formatting`."""
REGISTRY_COLUMNS: Final[Mapping[Formatting, Mapping[str, Part]]] = {
    ALPACA: {
        "prompt": Part.QUESTION,
        "query": Part.ADDITION,
        "response": Part.ANSWER,
        "history": Part.HISTORY,
        "system": Part.SYSTEM,
        "tools": Part.TOOLS,
        "images": Part.IMAGES,
    },
    SHAREGPT: {"messages": Part.TURNS, "system": Part.SYSTEM, "tools": Part.TOOLS, "images": Part.IMAGES},
    OPENAI: {"messages": Part.TURNS, "system": Part.SYSTEM, "tools": Part.TOOLS, "images": Part.IMAGES},
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
    known = {**REGISTRY_COLUMNS[formatting or ALPACA], **REGISTRY_PREFERENCES}
    found = {known[name]: column for name, column in columns.items()}
    is_pair = Part.CHOSEN in found
    if found and formatting in {SHAREGPT, OPENAI}:
        found.setdefault(Part.TURNS, "conversations")
    elif found and not found.keys() & {Part.QUESTION, Part.ADDITION, Part.ANSWER}:
        answer = {} if is_pair else {Part.ANSWER: "output"}
        found |= {Part.QUESTION: "instruction", Part.ADDITION: "input", **answer}
    elif Part.QUESTION in found and not is_pair and not found.keys() & {Part.ADDITION, Part.ANSWER}:
        found[Part.TEXT] = found.pop(Part.QUESTION)
    return RowLayout(formatting=formatting, columns=found, tags=tags, origin=origin)


def shapes_of(lesson: Lesson) -> tuple[Shape, ...]:
    """Return the shapes that rows of such a training may have."""
    match lesson:
        case Lesson.PAIRS:
            return PAIR_SHAPES
        case Lesson.JUDGED:
            return (*_judged_shapes(), *PAIR_SHAPES)
        case Lesson.TEXTS:
            return (*SHAPES, Shape(name="answers alone", needed={"response": Part.TEXT}))
        case Lesson.ANSWERS:
            return SHAPES


def _judged_shapes() -> tuple[Shape, ...]:
    return tuple(
        Shape(name=shape.name, needed={**shape.needed, column: Part.LABEL}, optional=shape.optional)
        for column in LABEL_COLUMNS
        for shape in SHAPES
        if Part.TEXT not in shape.needed.values()
    )


def describe_shapes(lesson: Lesson = Lesson.ANSWERS) -> str:
    """Return the accepted shapes in one line, as error messages show them."""
    shown = [shape for shape in shapes_of(lesson) if LABEL_COLUMNS[1] not in shape.needed]
    return " | ".join(" + ".join(shape.needed) for shape in shown)


def describe_questions() -> str:
    """Return what rows that are only asked need, in one line, as error messages show it."""
    return " | ".join(
        next(column for column, part in shape.needed.items() if part in {Part.TURNS, Part.QUESTION})
        for shape in SHAPES
        if Part.TEXT not in shape.needed.values()
    )
