"""A dialogue at the prompt: what is typed, what is remembered, and how an answer that grows is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hpcbench.worker.infer.chat import HELP, AnswerStream, Dialogue


class Echo:
    """Answers with the dialogue that it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, messages: Sequence[Any], turn: int, write: Callable[[str], None]) -> str:
        self.asked.append([f"{message['role']}: {message['content']}" for message in messages])
        write(f"answer {turn}")
        return f"answer {turn}"


def talk(*lines: str, system: str | None = None) -> tuple[Echo, str, list[str], list[bool]]:
    written: list[str] = []
    remarks: list[str] = []
    echo = Echo()
    dialogue = Dialogue(reply=echo, write=written.append, remark=remarks.append, system=system)
    goes_on = [dialogue.take(line) for line in lines]
    return echo, "".join(written), remarks, goes_on


def test_what_was_said_is_remembered() -> None:
    echo, written, _, _ = talk("one\n", "two\n", system="be brief")

    assert echo.asked[1] == ["system: be brief", "user: one", "assistant: answer 0", "user: two"]
    assert written == "answer 0\nanswer 1\n"


def test_clear_forgets_the_dialogue_and_keeps_the_system_prompt() -> None:
    echo, _, _, _ = talk("one", "/clear", "two", system="be brief")

    assert echo.asked[1] == ["system: be brief", "user: two"]


def test_system_is_replaced_and_removed() -> None:
    echo, _, _, _ = talk("/system be kind", "one", "/system", "two", system="be brief")

    assert echo.asked == [["system: be kind", "user: one"], ["user: two"]]


def test_exit_ends_it_and_help_and_empty_lines_do_not() -> None:
    _, written, remarks, goes_on = talk("", "/help", "/exit")

    assert (goes_on, remarks, written) == ([True, True, False], [HELP], "")


def test_a_path_is_asked_and_not_a_command() -> None:
    echo, _, _, _ = talk("/etc/passwd is what?")

    assert echo.asked == [["user: /etc/passwd is what?"]]


def test_an_answer_is_written_while_it_grows_without_its_end() -> None:
    written: list[str] = []
    texts = {1: "a", 2: "a\ufffd", 3: "aé#", 4: "aé#x", 5: "aé#x##"}
    stream = AnswerStream(lambda ids: texts[len(ids)].partition("##")[0], ["##"], written.append)

    for count in (1, 2, 3, 4, 5):
        stream([0] * count)
    stream.finish(stream.text)

    assert written == ["a", "é", "#x"]
