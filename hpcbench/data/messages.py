"""The turns of a dialogue to chat messages.

In: a list of turns, of `from` and `value` (ShareGPT) or of `role` and `content` (OpenAI). Out: messages. Tool calls and
results of ShareGPT turns become parts of one answer, in the notation of the agent format: so every chat template can
take them, and a round stays a question and its answer. Those of OpenAI messages are left to the chat template.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from hpcbench.catalog.agents import AgentFormat
from hpcbench.data.columns import CHAT_ROLES, KEY_TAGS, OPENAI, REGISTRY_TAGS, SHAREGPT, SPEAKERS, Role, RowLayout
from hpcbench.data.images import IMAGE_TYPES, text_of
from hpcbench.data.values import BadRowError, describe, is_absent, show, show_names, take_list, take_text
from hpcbench.errors import did_you_mean

Message = Mapping[str, Any]
MASKED: Final = "masked"
"""Key of a message: texts in its content that are never trained on (what tools returned); removed before rendering."""

KEY_PAIRS: Final = (("from", "value"), ("role", "content"))
"""Keys of a turn: who speaks, and what is said."""
CALLS: Final = "tool_calls"
NO_TOOLS_HINT: Final = (
    "train a model whose chat template knows tools, or write the dialogues as `conversations` with function_call and "
    "observation, in which agent_template writes them"
)
"""What to do about a chat template that does not write tools."""
MESSAGE_KEYS: Final = frozenset(
    {"role", "content", CALLS, "tool_call_id", "name", "reasoning_content", "reasoning", "thinking"}
)
"""Keys of OpenAI messages that chat templates read."""
_UNTRAINED: Final = ("weight", "loss")
"""Keys by which OpenAI and ms-swift 3 leave an answer out of the loss."""
_CALL_EXPECTED: Final = 'a list of {"function": {"name": ..., "arguments": {...}}}'


@dataclass(frozen=True, slots=True)
class Dialogue:
    """Messages, and who writes their tools."""

    messages: list[Message]
    is_for_template: bool
    """Whether the chat template writes tools and calls; else they are in the texts already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One turn, its keys found."""

    column: str
    number: int
    speaker: str
    """As in the data."""
    role: Role | None
    """What the speaker means; None where only chat templates know it."""
    content: Any
    content_key: str
    rest: Mapping[str, Any]
    """What stands in it beside speaker and content."""

    @property
    def where(self) -> str:
        """Return how messages name the turn."""
        return f"{self.column}: turn {self.number}"

    def take_text(self) -> str:
        """Return the content, which must be text."""
        return take_text(self.content, f"{self.where}: {self.content_key}")


def read_turns(
    value: object,
    column: str,
    *,
    layout: RowLayout,
    agent: AgentFormat,
    on_unread: Callable[[str], None],
    takes_images: bool = False,
) -> Dialogue:
    """Return the messages of a list of turns.

    Args:
        value: the turns, or their JSON text.
        column: what to call them in messages.
        layout: how the registry calls keys and speakers.
        agent: how tool calls and results of ShareGPT turns are written.
        on_unread: takes each key of a turn that nothing reads.
        takes_images: whether parts of a message may be pictures, which `put_images` then resolves.

    Raises:
        BadRowError: a turn is not what it should be.
    """
    values = take_list(value, column, expected="a list of turns")
    if not values:
        raise BadRowError(f"{column}: empty list", expected="turns that end with an answer")
    turns = [_read_turn(turn, column, number, layout) for number, turn in enumerate(values, start=1)]
    if _are_messages(turns, layout):
        messages = [_read_message(turn, on_unread, takes_images=takes_images) for turn in turns]
        return Dialogue(messages, is_for_template=True)
    for turn in turns:
        for key, beside in turn.rest.items():
            if key not in _UNTRAINED and not is_absent(beside):
                on_unread(f"{column}[].{key}")
    return Dialogue(_merge_rounds(turns, agent), is_for_template=False)


def read_tools(value: object, column: str) -> tuple[Mapping[str, Any], ...]:
    """Return the descriptions of tools, each as `{"type": "function", "function": {...}}`; none where there are none.

    Raises:
        BadRowError: they are not what they should be.
    """
    if is_absent(value):
        return ()
    expected = "a list of tool descriptions with a name, or its JSON text"
    tools: list[Mapping[str, Any]] = []
    for number, tool in enumerate(take_list(value, column, expected=expected), start=1):
        # Arrow tables hold objects of different keys as JSON texts.
        found = _parse_object(tool)
        function = found.get("function", found) if isinstance(found, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise BadRowError(f"{column}: tool {number}: {describe(tool)}", expected=expected)
        tools.append(found if function is not found else {"type": "function", "function": function})
    return tuple(tools)


def _parse_object(value: object) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def check_answers(messages: Sequence[Message], *, all_rounds: bool, where: str) -> None:
    """Check that a chat ends with an answer, and that no answer that is trained on is empty or to be left out.

    Raises:
        BadRowError: it is not so.
    """
    last = messages[-1] if messages else {"role": "nobody"}
    if last["role"] != "assistant":
        raise BadRowError(f"{where}: the last turn is from {show(str(last['role']))}", expected="an answer at the end")
    answers = [(number, each) for number, each in enumerate(messages, start=1) if each["role"] == "assistant"]
    for number, answer in answers if all_rounds else answers[-1:]:
        if number == 1:
            raise BadRowError(f"{where}: an answer without anything before it", expected="a question and its answer")
        place = "the answer" if answer is last else f"message {number}, an answer that is trained on,"
        if not answer.get(CALLS) and not text_of(answer.get("content")).strip():
            raise BadRowError(f"{where}: {place} is empty", expected="text to learn")
        for key in _UNTRAINED:
            if key in answer and not is_absent(answer[key]) and not answer[key]:
                raise BadRowError(
                    f"{where}: {place} has {key} {describe(answer[key])}, which leaves it out of the loss",
                    expected="an answer that is trained on; loss_on_all_rounds false trains on the last one only",
                )


def check_question(messages: Sequence[Message], *, where: str) -> None:
    """Check that a chat asks something: its last turn but for an answer at the end, which is left for comparison.

    Raises:
        BadRowError: it is not so.
    """
    asked = messages[:-1] if messages and messages[-1]["role"] == "assistant" else messages
    if not asked or asked[-1]["role"] in {"system", "assistant"}:
        raise BadRowError(f"{where}: nothing is asked", expected="a turn of the user at the end, or before the answer")
    if not str(asked[-1].get("content") or "").strip():
        raise BadRowError(f"{where}: the question is empty", expected="text to answer")


def _read_turn(value: object, column: str, number: int, layout: RowLayout) -> Turn:
    where = f"{column}: turn {number}"
    if not isinstance(value, dict):
        raise BadRowError(f"{where}: {describe(value)}", expected="an object with a speaker and a content")
    speaker_key, content_key = _keys_of(value, layout)
    if speaker_key not in value or (content_key not in value and is_absent(value.get(CALLS))):
        missing = speaker_key if speaker_key not in value else content_key
        raise BadRowError(
            f"{where}: no key {show(missing)}; found: {show_names(value)}",
            expected=" or ".join(f"{speaker} and {content}" for speaker, content in _known_keys(layout)),
        )
    speaker = take_text(value[speaker_key], f"{where}: {speaker_key}", expected="who speaks")
    role = _role_of(speaker, layout)
    if role is None and not (speaker_key == "role" and speaker in CHAT_ROLES):
        known = dict.fromkeys(word for tag, word in layout.tags.items() if tag in REGISTRY_TAGS)
        known |= dict.fromkeys((*SPEAKERS, *(CHAT_ROLES if speaker_key == "role" else ())))
        meant = did_you_mean(speaker, known)
        raise BadRowError(
            f"{where}: {speaker_key}: unknown speaker {show(speaker)}" + (f" ({meant})" if meant else ""),
            expected=", ".join(known),
        )
    return Turn(
        column=column,
        number=number,
        speaker=speaker,
        role=role,
        content=value.get(content_key),
        content_key=content_key,
        rest={key: item for key, item in value.items() if key not in {speaker_key, content_key}},
    )


def _keys_of(turn: Mapping[str, Any], layout: RowLayout) -> tuple[str, str]:
    """Return the turn's keys for speaker and content, or those that it most likely should have."""
    pairs = _known_keys(layout)
    whole = [pair for pair in pairs if pair[0] in turn and pair[1] in turn]
    return (whole or [pair for pair in pairs if pair[0] in turn] or list(pairs))[0]


def _known_keys(layout: RowLayout) -> Sequence[tuple[str, str]]:
    named = [layout.tags.get(tag) for tag in KEY_TAGS]
    if named == [None, None]:
        return KEY_PAIRS
    return [(named[0] or KEY_PAIRS[0][0], named[1] or KEY_PAIRS[0][1])]


def _role_of(speaker: str, layout: RowLayout) -> Role | None:
    named = {layout.tags[tag]: role for tag, role in REGISTRY_TAGS.items() if tag in layout.tags}
    return named.get(speaker) or SPEAKERS.get(speaker)


def _are_messages(turns: Sequence[Turn], layout: RowLayout) -> bool:
    """Return whether these are OpenAI messages, whose tool calls the chat template writes."""
    if layout.formatting == OPENAI or any(not is_absent(turn.rest.get(CALLS)) for turn in turns):
        return True
    # With tags, LLaMA-Factory's registries call turns of role and content sharegpt, too.
    if layout.formatting == SHAREGPT and layout.tags:
        return False
    return all(turn.content_key == "content" for turn in turns) and not any(turn.role == "call" for turn in turns)


def _read_message(turn: Turn, on_unread: Callable[[str], None], *, takes_images: bool) -> Message:
    if not is_absent(turn.rest.get("function_call")):
        raise BadRowError(f"{turn.where}: function_call, OpenAI's old form of a tool call", expected=CALLS)
    message: dict[str, Any] = {"role": _chat_role(turn)}
    calls = turn.rest.get(CALLS)
    if turn.role == "call":
        calls = [{"function": {"name": name, "arguments": arguments}} for name, arguments in _parse_calls(turn)]
    elif turn.content is not None or is_absent(calls):
        message["content"] = _read_content(turn, takes_images=takes_images)
    if not is_absent(calls):
        message[CALLS] = _read_calls(calls, f"{turn.where}: {CALLS}")
    for key, value in turn.rest.items():
        if value is None or key == CALLS:
            continue
        message[key] = value
        if key not in {*MESSAGE_KEYS, *_UNTRAINED} and not is_absent(value):
            on_unread(f"{turn.column}[].{key}")
    return message


def _chat_role(turn: Turn) -> str:
    match turn.role:
        case "call":
            return "assistant"
        case "result":
            return turn.speaker if turn.speaker in CHAT_ROLES else "tool"
        case None:
            return turn.speaker
        case role:
            return role


def _read_content(turn: Turn, *, takes_images: bool) -> str | list[Mapping[str, Any]]:
    """Return a message's content; text parts are joined as chat templates write them, with nothing between.

    With pictures among them it is a list of parts.
    """
    if not isinstance(turn.content, list):
        return take_text(turn.content, f"{turn.where}: {turn.content_key}", expected="text, or a list of text parts")
    parts: list[Mapping[str, Any]] = []
    for number, part in enumerate(turn.content, start=1):
        kind = part.get("type", "text") if isinstance(part, dict) else None
        text = part.get("text") if isinstance(part, dict) else part
        is_text = kind is None or kind == "text"
        if takes_images and kind in IMAGE_TYPES:
            parts.append(part)
        elif is_text and isinstance(text, str):
            parts.append({"type": "text", "text": text})
        else:
            what = describe(part) if is_text else f"of type {show(str(kind))}"
            expected = "parts of text and images" if takes_images else "text parts, which are all that this model takes"
            raise BadRowError(f"{turn.where}: {turn.content_key}: part {number}: {what}", expected=expected)
    has_images = any(part["type"] in IMAGE_TYPES for part in parts)
    return parts if has_images else text_of(parts)


def _read_calls(value: object, where: str) -> list[Mapping[str, Any]]:
    """Return tool calls with their arguments as objects, which is what chat templates write out."""
    calls: list[Mapping[str, Any]] = []
    for number, call in enumerate(take_list(value, where, expected=_CALL_EXPECTED), start=1):
        place = f"{where}: call {number}"
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise BadRowError(f"{place}: {describe(call)}", expected=_CALL_EXPECTED)
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            arguments = _parse_arguments(arguments, f"{place}: arguments")
        if not isinstance(arguments, (dict, type(None))):
            raise BadRowError(f"{place}: arguments: {describe(arguments)}", expected="an object, or its JSON text")
        beside = {} if function is call else {key: item for key, item in call.items() if item is not None}
        calls.append(
            {
                "type": "function",
                **beside,
                "function": {**function, "arguments": {} if arguments is None else arguments},
            }
        )
    return calls


def _parse_arguments(text: str, where: str) -> Any:
    if not text.strip():
        return {}
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRowError(f"{where}: {describe(text)}", expected="an object, or its JSON text") from error


@dataclass(slots=True)
class _Answer:
    """The assistant's part of one round, as it grows."""

    text: str = ""
    has_begun: bool = False
    results: list[str] = field(default_factory=list)
    """What tools returned, with the line end before the next part."""
    follows_result: bool = False
    untrained: dict[str, Any] = field(default_factory=dict)

    def add(self, text: str, *, is_result: bool = False, head: str = "") -> None:
        if self.text:
            self.text += "\n"
            if self.follows_result:
                self.results[-1] += "\n"
        self.text += head + text
        if is_result:
            self.results.append(text)
        self.follows_result = is_result
        self.has_begun = True

    def message(self) -> Message:
        said = {"role": "assistant", "content": self.text, **self.untrained}
        return {**said, MASKED: tuple(self.results)} if self.results else said


def _merge_rounds(turns: Sequence[Turn], agent: AgentFormat) -> list[Message]:
    """Return the messages of ShareGPT turns; calls, results and texts between two questions are one answer."""
    messages: list[Message] = []
    answer = _Answer()
    for turn in turns:
        if turn.role == "assistant":
            answer.add(turn.take_text(), head=agent.answer if answer.follows_result else "")
        elif turn.role == "call":
            answer.add("\n".join(agent.write_call(name, arguments) for name, arguments in _parse_calls(turn)))
        elif turn.role == "result":
            if not answer.text:
                raise BadRowError(f"{turn.where}: {turn.speaker} without a call before it", expected="function_call")
            answer.add(turn.take_text(), is_result=True, head=agent.observation)
        else:
            if answer.has_begun:
                messages.append(answer.message())
                answer = _Answer()
            messages.append({"role": turn.role or turn.speaker, "content": turn.take_text()})
            continue
        answer.untrained |= {key: turn.rest[key] for key in _UNTRAINED if not turn.rest.get(key, True)}
    if answer.follows_result:
        raise BadRowError(f"{turns[-1].where}: {turns[-1].speaker} without an answer after it", expected="an answer")
    if answer.has_begun:
        messages.append(answer.message())
    return messages


def _parse_calls(turn: Turn) -> list[tuple[str, object]]:
    """Return (name, arguments) of each call in a turn that calls functions."""
    expected = '{"name": ..., "arguments": {...}}, or a list of them, as JSON text'
    value = turn.content
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    calls = value if isinstance(value, list) else [value]
    if not calls or not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
        raise BadRowError(f"{turn.where}: {turn.content_key}: {describe(turn.content)}", expected=expected)
    return [(call["name"], call.get("arguments", {})) for call in calls]
