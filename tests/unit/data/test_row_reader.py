"""Rows of every accepted shape become chats; all others are refused with column, turn, key and type."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hpcbench.catalog.agents import AGENT_FORMATS
from hpcbench.data.columns import Part, RowLayout
from hpcbench.data.files import read_rows
from hpcbench.data.messages import MASKED
from hpcbench.data.row_reader import Chat, RowReader
from hpcbench.data.values import BadRowError
from tests.support.places import shared

SYSTEM = {"role": "system", "content": "s"}
ASKED = {"role": "user", "content": "q"}
ANSWERED = {"role": "assistant", "content": "a"}
PAIR = (ASKED, ANSWERED)
SHAREGPT = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
FUNCTION = {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}
TOOL = {"type": "function", "function": FUNCTION}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}
TOOL_TURNS = [
    {"from": "human", "value": "2+3?"},
    {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 2}}'},
    {"from": "observation", "value": "5"},
    {"from": "gpt", "value": "Five."},
]


def make_reader(*, all_rounds: bool = False, needs_answer: bool = True, **layout: Any) -> RowReader:
    agent = AGENT_FORMATS.lookup("react")
    assert agent is not None
    return RowReader(agent=agent, layout=RowLayout(**layout), all_rounds=all_rounds, needs_answer=needs_answer)


def read(row: dict[str, Any], **options: Any) -> tuple[Any, ...]:
    return make_reader(**options).read(row).messages


def refusal(row: dict[str, Any], **options: Any) -> str:
    with pytest.raises(BadRowError) as caught:
        make_reader(**options).read(row)
    return str(caught.value)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": [ASKED, ANSWERED]}, PAIR),
        ({"messages": json.dumps([ASKED, ANSWERED])}, PAIR),
        ({"messages": [ASKED, ANSWERED], "system": "s"}, (SYSTEM, *PAIR)),
        ({"messages": [SYSTEM, ASKED, ANSWERED], "system": "other"}, (SYSTEM, *PAIR)),
        ({"messages": SHAREGPT}, PAIR),
        ({"messages": [{"role": "developer", "content": "d"}, *PAIR]}, ({"role": "developer", "content": "d"}, *PAIR)),
        ({"messages": [ASKED, {**ANSWERED, "name": None, "tool_calls": []}]}, PAIR),
        (
            {"messages": [ASKED, {**ANSWERED, "reasoning_content": "r"}]},
            (ASKED, {**ANSWERED, "reasoning_content": "r"}),
        ),
        ({"messages": None, "conversations": SHAREGPT}, PAIR),
        ({"messages": "", "query": "q", "response": "a"}, PAIR),
        ({"conversations": SHAREGPT}, PAIR),
        ({"conversations": [{"from": "user", "value": "q"}, {"from": "bot", "value": "a"}]}, PAIR),
        ({"conversations": [{"from": "system", "value": "s"}, *SHAREGPT]}, (SYSTEM, *PAIR)),
        ({"conversations": [ASKED, ANSWERED]}, PAIR),
        ({"query": "q", "response": "a"}, PAIR),
        ({"query": "q", "response": "a", "system": "s"}, (SYSTEM, *PAIR)),
        ({"query": "q", "response": "a", "system": None, "history": None}, PAIR),
        ({"query": "q", "response": "a", "history": [["q", "a"]]}, (*PAIR, *PAIR)),
        ({"query": "q", "response": "a", "history": '[["q", "a"]]'}, (*PAIR, *PAIR)),
        ({"query": "q", "response": "a", "history": ""}, PAIR),
        ({"question": "q", "answer": "a"}, PAIR),
        ({"instruction": "q", "input": "", "output": "a"}, PAIR),
        ({"instruction": "q", "input": None, "output": "a"}, PAIR),
        ({"instruction": None, "input": "q", "output": "a"}, PAIR),
        ({"instruction": "", "input": "q", "output": "a"}, PAIR),
        ({"instruction": "do", "input": "q", "output": "a"}, ({"role": "user", "content": "do\nq"}, ANSWERED)),
        ({"prompt": "q", "completion": "a"}, PAIR),
        ({"prompt": [ASKED], "completion": [ANSWERED]}, PAIR),
    ],
)
def test_rows_of_every_shape_become_the_same_chats(row: dict[str, Any], expected: Any) -> None:
    assert read(row) == expected


def test_plain_text_is_no_chat() -> None:
    assert make_reader().read({"text": "once"}) == Chat(text="once")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"conversations": [{"from": "hummany", "value": "q"}, {"from": "gpt", "value": "a"}]},
            (
                "conversations: turn 1: from: unknown speaker 'hummany' (did you mean 'human'?); expected: human, user, gpt, "
                "assistant, bot, system, function_call, tool_call, observation, tool, tool_response"
            ),
        ),
        (
            {"conversations": [{"from": "human", "content": "q"}, {"from": "gpt", "value": "a"}]},
            "conversations: turn 1: no key 'value'; found: from, content; expected: from and value or role and content",
        ),
        (
            {"messages": [ASKED, {"role": "assistant", "content": None}]},
            "messages: turn 2: content: null; expected: text, or a list of text parts",
        ),
        (
            {"messages": [ASKED, {"role": "assistant", "content": 5}]},
            "messages: turn 2: content: number 5; expected: text, or a list of text parts",
        ),
        ({"messages": [ASKED, "a"]}, "messages: turn 2: text 'a'; expected: an object with a speaker and a content"),
        ({"messages": "hello"}, "messages: text 'hello'; expected: a list of turns"),
        ({"messages": {"role": "user"}}, "messages: object with the keys role; expected: a list of turns"),
        ({"messages": []}, "messages: empty list; expected: turns that end with an answer"),
        ({"messages": [ASKED]}, "messages: the last turn is from 'user'; expected: an answer at the end"),
        (
            {"messages": [ANSWERED]},
            "messages: an answer without anything before it; expected: a question and its answer",
        ),
        ({"messages": None}, "messages: null; expected: a list of turns"),
        ({"instruction": "q", "input": None, "output": None}, "output: null; expected: text, the answer"),
        ({"instruction": "q", "output": ["a"]}, "output: list of 1; expected: text, the answer"),
        ({"instruction": "q", "output": ""}, "output: the answer is empty; expected: text to learn"),
        ({"instruction": None, "output": "a"}, "instruction: null; expected: text, the question"),
        ({"query": "q", "response": "a", "system": 5}, "system: number 5; expected: text, the system prompt"),
        (
            {"query": "q", "response": "a", "history": [["only one"]]},
            "history: round 1: list of 1; expected: [question, answer]",
        ),
        ({"query": "q", "response": "a", "history": [["q", None]]}, "history: round 1: null; expected: text"),
        ({"text": " "}, "text: empty; expected: text to learn"),
        (
            {"instruction": "q", "response": "a", "id": 1},
            (
                "no column 'output'; found: instruction, response, id; expected: messages | conversations | query + response | "
                "instruction + output | question + answer | prompt + completion | text"
            ),
        ),
        (
            {"query": "q", "response": "a", "images": ["x.png"]},
            "images: list of 1; expected: text, which is all that this model takes",
        ),
    ],
)
def test_a_bad_row_is_named_with_column_turn_key_and_type(row: dict[str, Any], message: str) -> None:
    assert refusal(row) == message


@pytest.mark.parametrize(
    "row",
    [
        {"query": "q", "response": "a", "rejected_response": "b"},
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        {"messages": [ASKED, ANSWERED], "rejected": [ASKED]},
    ],
)
def test_preferences_are_refused_with_the_reason(row: dict[str, Any]) -> None:
    assert "is for preference tuning (`cmd: dpo` and its sisters)" in refusal(row)
    assert read({"query": "q", "response": "a", "rejected": None, "images": []}) == PAIR


def test_text_parts_are_joined_and_other_parts_are_refused() -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    assert read({"messages": [{"role": "user", "content": parts}, ANSWERED]})[0]["content"] == "one two"
    row = {"messages": [{"role": "user", "content": [parts[0], {"type": "image_url", "image_url": "x"}]}, ANSWERED]}
    assert refusal(row) == (
        "messages: turn 1: content: part 2: of type 'image_url'; expected: text parts, which are all that this "
        "model takes"
    )


@pytest.mark.parametrize("turns", [SHAREGPT, list(PAIR)], ids=["from", "role"])
def test_an_empty_turn_in_the_middle_is_kept_and_an_empty_answer_that_is_trained_on_refused(turns: list[Any]) -> None:
    question, answer = turns
    empty = {key: "" if text == "a" else text for key, text in answer.items()}
    row = {"conversations": [question, empty, question, answer]}
    assert [message["content"] for message in read(row)] == ["q", "", "q", "a"]
    assert refusal(row, all_rounds=True) == (
        "conversations: message 2, an answer that is trained on, is empty; expected: text to learn"
    )
    assert (
        refusal({"conversations": [question, empty]}) == "conversations: the answer is empty; expected: text to learn"
    )


@pytest.mark.parametrize("keys", [{"weight": 0}, {"loss": False}])
def test_an_answer_that_the_data_leave_out_of_the_loss_is_not_trained_on(keys: dict[str, Any]) -> None:
    turns = [ASKED, {**ANSWERED, **keys}, ASKED, ANSWERED]
    assert len(read({"messages": turns})) == 4
    assert "which leaves it out of the loss" in refusal({"messages": turns}, all_rounds=True)
    assert "which leaves it out of the loss" in refusal({"messages": turns[:2]})
    assert "which leaves it out of the loss" in refusal({"conversations": [SHAREGPT[0], {**SHAREGPT[1], **keys}]})


@pytest.mark.parametrize("tools", [[TOOL], json.dumps([TOOL]), [FUNCTION], [json.dumps(TOOL)]])
@pytest.mark.parametrize("arguments", [{"a": 2}, '{"a": 2}'])
def test_tools_and_calls_of_messages_are_for_the_chat_template(tools: Any, arguments: Any) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "add", "arguments": arguments}}
    asks = {"role": "assistant", "content": None, "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": "c", "content": "5"}
    chat = make_reader().read({"messages": [ASKED, asks, result, ANSWERED], "tools": tools})
    assert chat.tools == (TOOL,)
    assert chat.messages == (
        ASKED,
        {"role": "assistant", "tool_calls": [{"id": "c", **CALL}]},
        result,
        ANSWERED,
    )


@pytest.mark.parametrize(
    ("calls", "message"),
    [
        ("add(2)", "text 'add(2)'"),
        ([{"name": 1}], "call 1: object with the keys name"),
        ([{"name": "add", "arguments": "a=2"}], "call 1: arguments: text 'a=2'"),
        ([{"name": "add", "arguments": "[2]"}], "call 1: arguments: list of 1"),
    ],
)
def test_broken_tool_calls_are_named(calls: Any, message: str) -> None:
    row = {"messages": [ASKED, {"role": "assistant", "tool_calls": calls}]}
    assert refusal(row).startswith(f"messages: turn 2: tool_calls: {message}; expected: ")


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ("add", "tools: text 'add'"),
        ([{"type": "function"}], "tools: tool 1: object with the keys type"),
        (5, "tools: number 5"),
    ],
)
def test_broken_tools_are_named(tools: Any, message: str) -> None:
    for row in ({"messages": [*PAIR]}, {"conversations": SHAREGPT}, {"query": "q", "response": "a"}):
        assert refusal({**row, "tools": tools}).startswith(f"{message}; expected: ")


def test_tools_of_dialogues_without_tool_calls_of_openai_are_written_into_the_prompt() -> None:
    system, *others = read({"conversations": TOOL_TURNS, "tools": [FUNCTION], "system": "Be brief."})
    assert system["content"].startswith("Be brief.\n\nAnswer the following questions")
    answer = 'Action: add\nAction Input: {"a": 2}\nObservation: 5\nFinal Answer: Five.'
    assert others == [
        {"role": "user", "content": "2+3?"},
        {"role": "assistant", "content": answer, MASKED: ("5\n",)},
    ]
    assert read({"query": "q", "response": "a", "tools": [FUNCTION]})[0]["role"] == "system"


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        (TOOL_TURNS[:3], "conversations: turn 3: observation without an answer after it; expected: an answer"),
        (TOOL_TURNS[2:], "conversations: turn 1: observation without a call before it; expected: function_call"),
        (
            [TOOL_TURNS[0], {"from": "function_call", "value": "add(2)"}, *TOOL_TURNS[2:]],
            (
                "conversations: turn 2: value: text 'add(2)'; expected: "
                '{"name": ..., "arguments": {...}}, or a list of them, as JSON text'
            ),
        ),
    ],
)
def test_a_broken_tool_dialogue_is_named_with_its_turn(turns: list[Any], message: str) -> None:
    assert refusal({"conversations": turns}) == message


def test_an_answer_that_is_trained_on_follows_something() -> None:
    row = {"messages": [ANSWERED, ASKED, ANSWERED]}
    assert len(read(row)) == 3
    assert refusal(row, all_rounds=True) == (
        "messages: an answer without anything before it; expected: a question and its answer"
    )


def test_half_a_character_is_read_as_one_that_says_so() -> None:
    reader = make_reader()
    row = json.loads('{"query": "smile \\ud83d", "response": "ok \\ude00\\ud83d\\ude00"}')
    assert [message["content"] for message in reader.read(row).messages] == ["smile \ufffd", "ok \ufffd\U0001f600"]
    reader.read({"query": "q", "response": "\U0001f600"})
    assert reader.remarks() == ("1 row with half a character (a lone surrogate), each read as U+FFFD",)


def test_a_row_that_is_nested_without_end_is_named() -> None:
    deep: list[Any] = []
    for _ in range(2000):
        deep = [deep]
    message = "lists and objects within each other, too deep; expected: rows of texts"
    assert refusal({"query": "q", "response": "a", "x": deep}) == message


def test_what_was_not_read_is_named_once() -> None:
    reader = make_reader()
    for number in range(3):
        reader.read({"query": "q", "response": "a", "id": number, "empty": None, **({"note": "n"} if number else {})})
    reader.read({"conversations": [{**SHAREGPT[0], "time": 3}, SHAREGPT[1]], "id": 4})
    assert reader.remarks() == ("not read: id, note (in 2 rows), conversations[].time",)
    twice = make_reader()
    assert twice.read({"messages": [SYSTEM, ASKED, ANSWERED], "system": "other"}).messages == (SYSTEM, *PAIR)
    assert twice.remarks() == ("not read: system (turns begin with one)",)


def test_a_registrys_columns_are_all_that_is_read() -> None:
    layout: dict[str, Any] = {"formatting": "alpaca", "columns": {Part.QUESTION: "ask", Part.ANSWER: "say"}}
    reader = make_reader(**layout)
    assert reader.read({"ask": "q", "say": "a", "system": "s", "images": ["x"]}).messages == PAIR
    assert reader.remarks() == ("not read: images, system",)
    assert refusal({"ask": "q", "output": "a"}, **layout) == "no column 'say'; found: ask, output; expected: the answer"
    assert read({"say": "a"}, columns={Part.ANSWER: "say"}) == ({"role": "user", "content": ""}, ANSWERED)
    assert make_reader(columns={Part.TEXT: "page"}).read({"page": "once"}) == Chat(text="once")


def test_a_registrys_words_for_keys_and_speakers_are_read() -> None:
    tags = {"role_tag": "who", "content_tag": "text", "user_tag": "me", "assistant_tag": "you"}
    layout: dict[str, Any] = {"formatting": "sharegpt", "columns": {Part.TURNS: "talk"}, "tags": tags}
    assert read({"talk": [{"who": "me", "text": "q"}, {"who": "you", "text": "a"}]}, **layout) == PAIR
    assert refusal({"talk": [{"from": "me", "value": "q"}]}, **layout) == (
        "talk: turn 1: no key 'who'; found: from, value; expected: who and text"
    )
    assert "unknown speaker 'he'; expected: me, you, human, user" in refusal(
        {"talk": [{"who": "he", "text": "q"}]}, **layout
    )


def test_the_cases_of_public_bug_reports_are_read_or_named() -> None:
    folder = shared("data/cases/roles-empty-turn.jsonl").parent

    def rows(name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]

    for name in ("roles-content-parts", "roles-wrong-keys", "roles-empty-turn", "half-emoji"):
        assert all(read(row)[-1]["role"] == "assistant" for row in rows(f"{name}.jsonl")), name
    assert "unknown speaker 'hummany'" in refusal(rows("roles-unknown-speaker.jsonl")[0])
    assert refusal(rows("roles-null-output.jsonl")[1]) == "output: null; expected: text, the answer"
    chats = [make_reader().read(row) for row in rows("tools-messages.jsonl")]
    assert [chat.tools[0]["function"]["name"] for chat in chats] == ["get_weather", "add"]


def test_of_a_registrys_two_columns_for_the_question_one_is_enough() -> None:
    columns = {Part.QUESTION: "query", Part.ADDITION: "input", Part.ANSWER: "response"}
    assert read({"query": "q", "response": "a"}, columns=columns) == PAIR
    assert read({"input": "q", "response": "a"}, columns=columns) == PAIR
    assert refusal({"response": "a"}, columns=columns) == "no column 'query'; found: response; expected: the question"


def test_tools_of_a_parquet_file_are_those_of_the_json_lines() -> None:
    pytest.importorskip("pyarrow")
    lines = shared("data/cases/tools-messages.jsonl")
    reader = make_reader()
    chats = [[reader.read(row) for row, _ in read_rows(lines.with_suffix(suffix))] for suffix in (".jsonl", ".parquet")]
    assert chats[0] == chats[1]


@pytest.mark.parametrize("empty", ["", " ", "[]", "{}", "null", None, {}, [], [None], ["", None]])
def test_what_holds_nothing_is_absent(empty: Any) -> None:
    row = {"query": "q", "response": "a", "images": empty, "rejected": empty, "messages": empty, "history": empty}
    reader = make_reader()
    assert reader.read(row).messages == PAIR
    assert reader.remarks() == ()


@pytest.mark.parametrize("answer", ["null", "[]", "{}"])
def test_an_answer_may_be_the_text_of_nothing(answer: str) -> None:
    assert read({"query": "q", "response": answer})[-1]["content"] == answer
    assert read({"messages": [ASKED, {**ANSWERED, "content": answer}]})[-1]["content"] == answer
    assert make_reader().read({"text": answer}).text == answer


@pytest.mark.parametrize("value", [False, True, 0, 1.5, float("nan")])
def test_flags_and_numbers_are_no_pictures_and_no_preferences(value: object) -> None:
    assert read({"query": "q", "response": "a", "image": value, "rejected": value}) == PAIR


def test_a_part_whose_type_is_no_text_is_a_bad_row() -> None:
    turns = [
        {"role": "user", "content": [{"type": ["text"], "text": "q"}]},
        {"role": "assistant", "content": "a"},
    ]
    assert "turn 1: content: part 1: of type" in refusal({"messages": turns})


@pytest.mark.parametrize(
    ("row", "roles"),
    [
        ({"query": "a"}, ["user"]),
        ({"query": "a", "response": None}, ["user"]),
        ({"query": "a", "response": "b"}, ["user", "assistant"]),
        ({"instruction": "a", "input": "b"}, ["user"]),
        ({"query": "c", "history": [["a", "b"]]}, ["user", "assistant", "user"]),
        ({"prompt": [{"role": "user", "content": "a"}]}, ["user"]),
        ({"messages": [{"role": "user", "content": "a"}]}, ["user"]),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}, ["user", "assistant"]),
    ],
)
def test_rows_that_are_only_asked_need_no_answer(row: dict[str, Any], roles: list[str]) -> None:
    reader = make_reader(needs_answer=False)

    assert [message["role"] for message in reader.read(row).messages] == roles


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"text": "a"}, "text: plain text, which asks nothing"),
        ({"query": " "}, "query: the question is empty"),
        ({"messages": [{"role": "system", "content": "a"}]}, "messages: nothing is asked"),
        ({"answer": "a"}, "no known set of columns; found: answer"),
    ],
)
def test_rows_that_ask_nothing_are_refused(row: dict[str, Any], fault: str) -> None:
    reader = make_reader(needs_answer=False)

    with pytest.raises(BadRowError) as caught:
        reader.read(row)

    assert caught.value.fault == fault
