"""Rows of datasets to what is trained on: which columns a row's parts are in, and what is in them.

In: rows as their files hold them, how a registry or the catalog lays them out. Out: chats or plain texts, or an error
that names what is wrong in the row; remarks about what was not read. Plan and the worker read rows with this code. It
reads no file and never tokenizes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from hpcbench.catalog.agents import AgentFormat
from hpcbench.data.columns import (
    IMAGE_COLUMNS,
    MEDIA_COLUMNS,
    PREFERENCE_COLUMNS,
    Lesson,
    Part,
    RowLayout,
    Shape,
    describe_questions,
    describe_shapes,
    shapes_of,
)
from hpcbench.data.images import GROUNDING_COLUMNS, ImageCheck, ImageSource, images_of, put_images, take_images
from hpcbench.data.messages import CALLS, Dialogue, Message, check_answers, check_question, read_tools, read_turns
from hpcbench.data.preference_rows import Parts, read_label, split_pair
from hpcbench.data.rows import PlacedRow
from hpcbench.data.values import BadRowError, describe, is_absent, show, show_names, take_list, take_text, well_formed
from hpcbench.errors import DataError, plural
from hpcbench.schemas.arguments import SftArgs

NO_LAYOUT: Final = RowLayout()
_NAMED_FIRST: Final = (Part.TURNS, Part.ANSWER, Part.QUESTION, Part.ADDITION)
"""The part whose column names a dialogue in messages: the first of these that there is."""
PREFERENCES: Final = "is for preference tuning (`cmd: dpo` and its sisters)"


def lesson_of(args: SftArgs) -> Lesson:
    """Return what a training takes from its rows."""
    if args.plain_text:
        return Lesson.TEXTS
    if args.rlhf_type is None:
        return Lesson.ANSWERS
    return Lesson.JUDGED if args.rlhf_type == "kto" else Lesson.PAIRS


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """What one row teaches: a chat that ends with an answer, or plain text; or asks, where none is needed."""

    messages: tuple[Message, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    """For the chat template; tools of ShareGPT dialogues are in the system prompt."""
    text: str | None = None
    """Plain text, every token of which is trained on; then there are no messages."""
    rejected: Message | None = None
    """The worse answer, in place of the last message; only of pairs."""
    is_good: bool | None = None
    """Whether the answer is a good one; only of judged answers."""

    @property
    def images(self) -> tuple[ImageSource, ...]:
        """Return its pictures, in their order."""
        return tuple(images_of(self.messages))

    def for_template(self) -> set[str]:
        """Return which of the variables `tools` and `tool_calls` a chat template must write."""
        messages = self.messages if self.rejected is None else (*self.messages, self.rejected)
        calls = any(message.get(CALLS) for message in messages)
        return ({"tools"} if self.tools else set()) | ({CALLS} if calls else set())


@dataclass(slots=True, kw_only=True)
class RowReader:
    """Reads the rows of one dataset, and remembers what it did not read."""

    agent: AgentFormat
    """How tools, their calls and results are written in dialogues whose chat template does not write them."""
    layout: RowLayout = NO_LAYOUT
    lesson: Lesson = Lesson.ANSWERS
    """What is taken from the rows."""
    all_rounds: bool = False
    """Whether every answer is trained on, not only the last one."""
    has_system: bool = False
    """Whether the arguments name a system prompt, which plain text does not take."""
    renames: Mapping[str, str] = field(default_factory=dict)
    """Column -> the name that it is read under, as the argument `columns` has it."""
    needs_answer: bool = True
    """False where rows are only asked, as `infer` does: their answer may be missing or empty."""
    images: ImageCheck | None = None
    """Looks at the pictures of rows; None refuses rows with pictures, which text models cannot read."""
    _shapes: list[Shape] = field(init=False)
    _unread: Counter[str] = field(default_factory=Counter)
    _unread_keys: set[str] = field(default_factory=set)
    _num_rows: int = 0
    _num_repaired: int = 0
    _num_texts: int = 0

    def __post_init__(self) -> None:
        # The sort is stable: beside the registry's shape the others keep their order.
        known = shapes_of(self.lesson)
        shapes = known if self.needs_answer else [_asking(shape) for shape in known]
        self._shapes = sorted(shapes, key=lambda shape: shape.name != self.layout.formatting)

    def read_placed(self, placed: PlacedRow) -> Chat:
        """Return what a row teaches.

        Raises:
            DataError: it cannot be trained on; the message begins with its place.
        """
        # Rows of a hub's dataset hold their pictures themselves.
        folder = Path(placed.place.dataset).parent if placed.place.dataset.startswith("/") else None
        try:
            return self.read(placed.row, folder=folder)
        except BadRowError as error:
            raise DataError(f"{placed.place}: {error.fault}", expected=error.expected) from error

    def read(self, row: Mapping[str, Any], *, folder: Path | None = None) -> Chat:
        """Return what a row teaches.

        Args:
            row: as its file holds it.
            folder: what paths of pictures in it are relative to.

        Raises:
            BadRowError: it cannot be trained on.
        """
        if self.renames:
            # A column that gives its name away must not stand in the way of the one that takes it.
            kept = {name: value for name, value in row.items() if name not in self.renames.values()}
            row = {self.renames.get(name, name): value for name, value in kept.items()} | {
                self.renames[name]: row[name] for name in self.renames if name in row
            }
        try:
            whole = well_formed(row)
        except RecursionError as error:
            raise BadRowError("lists and objects within each other, too deep", expected="rows of texts") from error
        self._refuse_other_training(whole)
        parts = self._find_parts(whole)
        chat = self._with_images(self._read_lesson(parts), parts, folder)
        self._num_rows += 1
        self._num_repaired += whole is not row
        self._num_texts += chat.text is not None
        used = {column for column, _ in parts.values()}
        self._unread.update(
            str(column) for column, value in whole.items() if column not in used and not is_absent(value)
        )
        return chat

    def remarks(self) -> tuple[str, ...]:
        """Return what was not read as it stands, of all rows so far: columns without a meaning, broken characters."""
        remarks = []
        if self._unread or self._unread_keys:
            names = [
                name if count == self._num_rows else f"{name} (in {plural(count, 'row')})"
                for name, count in sorted(self._unread.items())
            ]
            remarks.append(f"not read: {show_names([*names, *sorted(self._unread_keys)])}")
        if self._num_repaired:
            rows = plural(self._num_repaired, "row")
            remarks.append(f"{rows} with half a character (a lone surrogate), each read as U+FFFD")
        if self.images is not None:
            remarks += self.images.remarks()
        if self.has_system and self._num_texts:
            remarks.append(f"{plural(self._num_texts, 'row')} of plain text, which take no system prompt")
        return tuple(remarks)

    def _find_parts(self, row: Mapping[str, Any]) -> dict[Part, tuple[str, Any]]:
        """Return each part of the row with its column's name and value."""
        if self.layout.columns:
            return self._find_named_parts(row)
        # Files that were put together from several have each other's columns, with null in them.
        shape = next((shape for shape in self._shapes if _fits(row, shape)), None)
        shape = shape or next((shape for shape in self._shapes if shape.needed.keys() <= row.keys()), None)
        if shape is None:
            expected = describe_shapes(self.lesson) if self.needs_answer else describe_questions()
            raise BadRowError(_describe_missing(row, self._shapes), expected=expected)
        found = {part: (column, row[column]) for column, part in shape.needed.items()}
        beside = {column: part for column, part in shape.optional.items() if column in row}
        # Of the two columns of pictures one is empty, or a flag.
        absent = [column for column in beside if column in IMAGE_COLUMNS and not _holds_something(row[column])]
        return found | {part: (column, row[column]) for column, part in beside.items() if column not in absent}

    def _find_named_parts(self, row: Mapping[str, Any]) -> dict[Part, tuple[str, Any]]:
        found = {part: (column, row.get(column)) for part, column in self.layout.columns.items()}
        if not self.needs_answer and Part.ANSWER in found and found[Part.ANSWER][0] not in row:
            del found[Part.ANSWER]
        asked = [part for part in (Part.QUESTION, Part.ADDITION) if part in found]
        answers = (Part.ANSWER, Part.TURNS, Part.TEXT, Part.CHOSEN, Part.REJECTED, Part.LABEL)
        needed: list[Part] = [part for part in answers if part in found]
        if asked and not any(found[part][0] in row for part in asked):
            needed.append(asked[0])
        for part in needed:
            column = found[part][0]
            if column not in row:
                named = "" if self.layout.origin is None else f", which {self.layout.origin} names"
                raise BadRowError(
                    f"no column {show(column)}{named}; found: {show_names(row)}", expected=f"the {part.value}"
                )
        if Part.ANSWER in found:
            found.setdefault(Part.QUESTION, ("", ""))
        return found

    def _check_named_lesson(self) -> None:
        """Raise where the columns that a registry names are those of another training."""
        named = self.layout.columns.keys()
        has_pair = {Part.CHOSEN, Part.REJECTED} <= named
        teaches = {
            Lesson.PAIRS: has_pair,
            Lesson.JUDGED: has_pair or Part.LABEL in named,
        }.get(self.lesson, not named & {Part.CHOSEN, Part.REJECTED, Part.LABEL})
        if not teaches:
            names = ", ".join(self.layout.columns.values())
            expected = {
                Lesson.PAIRS: "columns for chosen and rejected",
                Lesson.JUDGED: "a column for kto_tag, or for chosen and rejected",
            }.get(self.lesson, "answers to learn; chosen, rejected and kto_tag are for preference tuning")
            raise BadRowError(f"{self.layout.origin} names the columns {names}", expected=expected)

    def _refuse_other_training(self, row: Mapping[str, Any]) -> None:
        if self.layout.columns:
            self._check_named_lesson()
            return  # what the registry does not name is left aside on purpose
        holding = {column for column, value in row.items() if _holds_something(value)}
        for column in MEDIA_COLUMNS:
            if column in holding:
                raise BadRowError(
                    f"{column}: {describe(row[column])}", expected="text and images, which hpcbench trains on"
                )
        has_images = any(column in holding for column in IMAGE_COLUMNS)
        if has_images and (grounding := [column for column in GROUNDING_COLUMNS if column in holding]):
            raise BadRowError(
                f"{grounding[0]}: grounding, which hpcbench does not train", expected="images without places in them"
            )
        for column in PREFERENCE_COLUMNS if self.lesson in {Lesson.ANSWERS, Lesson.TEXTS} else ():
            if column in holding:
                raise BadRowError(f"{column}: a column that {PREFERENCES}", expected=describe_shapes())

    def _with_images(self, chat: Chat, parts: Parts, folder: Path | None) -> Chat:
        """Return a chat with the row's pictures in their places, each looked at."""
        column, value = parts.get(Part.IMAGES, ("images", None))
        if is_absent(value) and self.images is None:
            return chat
        if self.images is None:
            expected = "text, which is all that this model takes" if self.needs_answer else "text; infer asks no images"
            raise BadRowError(f"{column}: {describe(value)}", expected=expected)
        if chat.text is not None:
            if is_absent(value):
                return chat
            raise BadRowError(f"{column}: {describe(value)} beside plain text", expected="images in questions")
        where = next((parts[part][0] for part in _NAMED_FIRST if part in parts), column)
        given = take_images(value, column, folder=folder)
        chat = replace(chat, messages=tuple(put_images(chat.messages, given, where=where, folder=folder)))
        for image in chat.images:
            self.images.check(image)
        return chat

    def _read_lesson(self, parts: Parts) -> Chat:
        match self.lesson:
            case Lesson.ANSWERS:
                return self._read_parts(parts)
            case Lesson.TEXTS:
                return self._read_text(parts)
            case Lesson.JUDGED if Part.REJECTED not in parts:
                column, value = parts[Part.LABEL]
                return replace(self._read_parts(parts), is_good=read_label(column, value))
            case _:
                return self._read_pair(parts)

    def _read_pair(self, parts: Parts) -> Chat:
        with_chosen, with_rejected = split_pair(parts, self.layout)
        chosen, column = self._read_parts(with_chosen), parts[Part.REJECTED][0]
        try:
            rejected = self._read_parts(with_rejected)
        except BadRowError as error:
            place = error.fault if error.fault.startswith(column) else f"{column}: {error.fault}"
            raise BadRowError(place, expected=error.expected) from error
        if (chosen.messages[:-1], chosen.tools) != (rejected.messages[:-1], rejected.tools):
            raise BadRowError(f"{column}: answers another question than the chosen answer", expected="the same prompt")
        return replace(chosen, rejected=rejected.messages[-1])

    def _read_text(self, parts: Parts) -> Chat:
        """Return the row as one text: of a question and its answer both, with nothing between them."""
        if Part.TEXT in parts:
            return self._read_parts(parts)
        messages = [each for each in self._read_dialogue(parts).messages if each["role"] != "system"]
        where = parts[Part.TURNS if Part.TURNS in parts else Part.ANSWER][0]
        if [str(each["role"]) for each in messages] not in (["assistant"], ["user", "assistant"]):
            raise BadRowError(
                f"{where}: {plural(len(messages), 'turn')}", expected="text, or a question and its answer"
            )
        text = "".join(str(each.get("content") or "") for each in messages)
        if not text.strip():
            raise BadRowError(f"{where}: empty", expected="text to learn")
        return Chat(text=text)

    def _read_parts(self, parts: Parts) -> Chat:
        if Part.TEXT in parts:
            column, value = parts[Part.TEXT]
            if not self.needs_answer:
                raise BadRowError(f"{column}: plain text, which asks nothing", expected=describe_questions())
            text = take_text(value, column, expected="text to learn")
            if not text.strip():
                raise BadRowError(f"{column}: empty", expected="text to learn")
            return Chat(text=text)
        system = _read_system(parts)
        tools_column, tools_value = parts.get(Part.TOOLS, ("tools", None))
        tools = read_tools(tools_value, tools_column)
        where = next(
            parts[part][0] for part in (Part.TURNS, Part.ANSWER, Part.QUESTION, Part.ADDITION) if part in parts
        )
        dialogue = self._read_dialogue(parts)
        messages = dialogue.messages
        is_for_template = dialogue.is_for_template
        if tools and not is_for_template:
            # In place of the system prompt that the dialogue begins with, which is part of the new one.
            if messages and messages[0]["role"] == "system":
                system, messages = messages[0]["content"], messages[1:]
            prompt = self.agent.write_tools([tool["function"] for tool in tools])
            system = "\n\n".join(part for part in (system, prompt) if part)
        if system and messages and messages[0]["role"] == "system":
            if messages[0]["content"] != system:
                self._unread_keys.add(f"{parts[Part.SYSTEM][0]} (turns begin with one)")
        elif system:
            messages = [{"role": "system", "content": system}, *messages]
        if self.needs_answer:
            check_answers(messages, all_rounds=self.all_rounds, where=where)
        else:
            check_question(messages, where=where)
        return Chat(messages=tuple(messages), tools=tools if is_for_template else ())

    def _read_dialogue(self, parts: Parts) -> Dialogue:
        if Part.TURNS in parts:
            column, value = parts[Part.TURNS]
            return self._read_turns(value, column)
        (asked, question), (answered, answer) = parts[Part.QUESTION], parts.get(Part.ANSWER, ("", None))
        if not self.needs_answer and isinstance(question, list) and is_absent(answer):
            return self._read_turns(question, asked)
        if not isinstance(question, list) or not isinstance(answer, list):
            return Dialogue(_read_round(parts, needs_answer=self.needs_answer), is_for_template=False)
        if Part.HISTORY in parts and not is_absent(parts[Part.HISTORY][1]):
            raise BadRowError(f"{parts[Part.HISTORY][0]}: rounds beside turns", expected=f"all turns in {asked}")
        prompt, completion = self._read_turns(question, asked), self._read_turns(answer, answered)
        if not prompt.is_for_template or not completion.is_for_template:
            raise BadRowError(f"{asked} and {answered}: turns of from and value", expected="turns of role and content")
        return Dialogue([*prompt.messages, *completion.messages], is_for_template=True)

    def _read_turns(self, value: object, column: str) -> Dialogue:
        return read_turns(
            value,
            column,
            layout=self.layout,
            agent=self.agent,
            on_unread=self._unread_keys.add,
            takes_images=self.images is not None,
        )


def _holds_something(value: object) -> bool:
    """Return whether a value may be a picture or an answer; a flag or a number (`image: false`) is neither."""
    return not (is_absent(value) or isinstance(value, (bool, int, float)))


def _asking(shape: Shape) -> Shape:
    """Return a shape whose rows need no answer."""
    answer = {column: part for column, part in shape.needed.items() if part is Part.ANSWER}
    needed = {column: part for column, part in shape.needed.items() if part is not Part.ANSWER}
    return replace(shape, needed=needed, optional={**answer, **shape.optional})


def _fits(row: Mapping[str, Any], shape: Shape) -> bool:
    """Return whether all that the shape needs is there; a list of turns that holds nothing is not."""
    for column, part in shape.needed.items():
        value = row.get(column)
        if value is None or (part is Part.TURNS and is_absent(value)):
            return False
    return True


def _read_system(parts: Parts) -> str | None:
    column, value = parts.get(Part.SYSTEM, ("system", None))
    return None if value is None else take_text(value, column, expected="text, the system prompt")


def _read_round(parts: Parts, *, needs_answer: bool) -> list[Message]:
    asked = [parts[part] for part in (Part.QUESTION, Part.ADDITION) if part in parts]
    # One of the two may be null where the other says what is asked.
    given = [pair for pair in asked if pair[1] is not None] or asked[:1]
    texts = [take_text(value, column, expected="text, the question") for column, value in given]
    question = "\n".join(text for text in texts if text)
    column, value = parts.get(Part.ANSWER, ("", None))
    has_answer = needs_answer or not (value is None or (isinstance(value, str) and not value.strip()))
    answer = take_text(value, column, expected="text, the answer") if has_answer else ""
    history = _read_history(*parts.get(Part.HISTORY, ("history", None)))
    messages: list[Message] = [
        message
        for asked_text, answer_text in [*history, (question, answer)]
        for message in ({"role": "user", "content": asked_text}, {"role": "assistant", "content": answer_text})
    ]
    return messages if has_answer else messages[:-1]


def _read_history(column: str, value: object) -> list[tuple[str, str]]:
    if is_absent(value):
        return []
    expected = "a list of [question, answer], or its JSON text"
    rounds = []
    for number, past in enumerate(take_list(value, column, expected=expected), start=1):
        where = f"{column}: round {number}"
        if not isinstance(past, (list, tuple)) or len(past) != 2:
            raise BadRowError(f"{where}: {describe(past)}", expected="[question, answer]")
        rounds.append((take_text(past[0], where), take_text(past[1], where)))
    return rounds


def _describe_missing(row: Mapping[str, Any], shapes: list[Shape]) -> str:
    """Return what the row lacks to be of the shape that it comes closest to."""
    # The shape with most of its columns there; of equals the first.
    ordered = sorted(shapes, key=lambda shape: -len(shape.needed.keys() & row.keys()))
    for shape in ordered:
        first, *_ = shape.needed
        missing = next((column for column in shape.needed if column not in row), None)
        if first in row and missing is not None:
            return f"no column {show(missing)}; found: {show_names(row)}"
    return f"no known set of columns; found: {show_names(row)}"
