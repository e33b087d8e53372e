"""Rows with two answers and with judged ones become chats; each that lacks an answer is refused with its column."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcbench.catalog.agents import AGENT_FORMATS
from hpcbench.data.columns import Lesson, Part, RowLayout
from hpcbench.data.registry import find_registered
from hpcbench.data.row_reader import Chat, RowReader
from hpcbench.data.values import BadRowError

ASKED = {"role": "user", "content": "q"}
GOOD = {"role": "assistant", "content": "a"}
BAD = {"role": "assistant", "content": "b"}
PAIR = Chat(messages=(ASKED, GOOD), rejected=BAD)
PROMPT = [{"from": "human", "value": "q"}]


def read(row: dict[str, Any], lesson: Lesson = Lesson.PAIRS, layout: RowLayout | None = None) -> Chat:
    agent = AGENT_FORMATS.lookup("react")
    assert agent is not None
    return RowReader(agent=agent, layout=layout or RowLayout(), lesson=lesson).read(row)


def refusal(row: dict[str, Any], lesson: Lesson = Lesson.PAIRS, layout: RowLayout | None = None) -> str:
    with pytest.raises(BadRowError) as caught:
        read(row, lesson, layout)
    return str(caught.value)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        {"prompt": [ASKED], "chosen": [GOOD], "rejected": [BAD]},
        {"prompt": [ASKED], "chosen": "a", "rejected": "b"},
        {"prompt": "q", "chosen": [GOOD], "rejected": [BAD]},
        {"prompt": "q", "chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]},
        {"prompt": "q", "chosen": json.dumps([ASKED, GOOD]), "rejected": json.dumps([ASKED, BAD])},
        {"chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]},
        {"question": "q", "chosen": "a", "rejected": "b"},
        {"instruction": "q", "input": "", "chosen": "a", "rejected": "b"},
        {"messages": [ASKED, GOOD], "rejected_response": "b"},
        {"messages": json.dumps([ASKED, GOOD]), "rejected_response": "b"},
        {"messages": [ASKED, GOOD], "rejected_messages": [ASKED, BAD]},
        {"query": "q", "response": "a", "rejected_response": "b"},
        {"conversations": PROMPT, "chosen": {"from": "gpt", "value": "a"}, "rejected": {"from": "gpt", "value": "b"}},
        {"conversations": PROMPT, "chosen": "a", "rejected": "b"},
    ],
)
def test_every_usual_shape_of_a_pair_is_read(row: dict[str, Any]) -> None:
    assert read(row) == PAIR


def test_a_pair_has_its_history_and_system_prompt() -> None:
    row = {"query": "q", "response": "a", "rejected_response": "b", "history": [["x", "y"]], "system": "s"}
    chat = read(row)
    assert [message["content"] for message in chat.messages] == ["s", "x", "y", "q", "a"]
    assert chat.rejected == BAD


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "q", "chosen": "a"}, "no column 'rejected'; found: prompt, chosen; expected: messages + "),
        ({"prompt": "q", "chosen": "a", "rejected": None}, "rejected: null; expected: an answer: text, a turn, "),
        ({"prompt": "q", "chosen": "a", "rejected": " "}, "rejected: the answer is empty; expected: text to learn"),
        ({"messages": [ASKED, GOOD]}, "no column 'rejected_response'; found: messages; expected: "),
        ({"messages": [ASKED, GOOD], "rejected_response": ""}, "rejected_response: the answer is empty"),
        ({"query": "q", "response": "a"}, "no column 'rejected_response'; found: query, response; expected: "),
        ({"query": "q", "response": "a", "rejected_response": 5}, "rejected_response: number 5; expected: text, "),
        ({"prompt": "q", "chosen": "a", "rejected": []}, "rejected: empty list; expected: an answer: text, a turn, "),
        ({"chosen": "a", "rejected": "b"}, "chosen: text 'a'; expected: turns that begin with the question, or a"),
        (
            {"chosen": [ASKED, GOOD], "rejected": [{**ASKED, "content": "other"}, BAD]},
            "rejected: answers another question than the chosen answer; expected: the same prompt",
        ),
        ({"messages": [ASKED], "rejected_messages": [ASKED, BAD]}, "messages: the last turn is from 'user'"),
        (
            {"conversations": PROMPT, "chosen": "a", "rejected": {"value": "b"}},
            "rejected: turn 2: no key 'from'; found: value; expected: from and value or role and content",
        ),
    ],
)
def test_a_row_without_both_answers_is_refused(row: dict[str, Any], message: str) -> None:
    assert refusal(row).startswith(message)


@pytest.mark.parametrize("label", [True, 1, "true", "1", 1.0])
def test_labels_of_good_answers(label: object) -> None:
    row = {"messages": [ASKED, GOOD], "label": label}
    assert read(row, Lesson.JUDGED) == Chat(messages=(ASKED, GOOD), is_good=True)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "completion": "a", "label": False},
        {"instruction": "q", "output": "a", "kto_tag": "False"},
        {"conversations": [*PROMPT, {"from": "gpt", "value": "a"}], "kto_tag": 0},
    ],
)
def test_judged_answers_of_every_shape(row: dict[str, Any]) -> None:
    assert read(row, Lesson.JUDGED) == Chat(messages=(ASKED, GOOD), is_good=False)


def test_a_pair_can_be_judged_too() -> None:
    assert read({"prompt": "q", "chosen": "a", "rejected": "b"}, Lesson.JUDGED) == PAIR


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"query": "q", "response": "a"}, "no column 'label'; found: query, response; expected: messages + label | "),
        ({"query": "q", "response": "a", "label": "good"}, "label: text 'good'; expected: true for a good answer, "),
        ({"query": "q", "response": "a", "label": 2}, "label: number 2; expected: true for a good answer, false for a"),
    ],
)
def test_an_answer_that_is_not_judged_is_refused(row: dict[str, Any], message: str) -> None:
    assert refusal(row, Lesson.JUDGED).startswith(message)


def layout_of_entry(folder: Path, **entry: Any) -> RowLayout:
    (folder / "rows.json").write_text("[]", encoding="utf-8")
    file = folder / "dataset_info.json"
    file.write_text(json.dumps({"mine": {"file_name": "rows.json", **entry}}), encoding="utf-8")
    source = find_registered("mine", file)
    assert source is not None
    return source.layout


def test_ranked_entries_of_llama_factory_are_read(tmp_path: Path) -> None:
    columns = {"prompt": "ask", "query": "more", "chosen": "better", "rejected": "worse"}
    layout = layout_of_entry(tmp_path, ranking=True, columns=columns)
    assert read({"ask": "q", "more": "", "better": "a", "worse": "b"}, layout=layout) == PAIR
    columns = {"messages": "talk", "chosen": "better", "rejected": "worse"}
    layout = layout_of_entry(tmp_path, formatting="sharegpt", ranking=True, columns=columns)
    row = {"talk": PROMPT, "better": {"from": "gpt", "value": "a"}, "worse": {"from": "gpt", "value": "b"}}
    assert read(row, layout=layout) == PAIR
    del row["worse"]
    assert refusal(row, layout=layout) == (
        f"no column 'worse', which {tmp_path}/dataset_info.json: mine names; found: talk, better; "
        "expected: the rejected answer"
    )


def test_labels_of_llama_factory_are_read(tmp_path: Path) -> None:
    layout = layout_of_entry(tmp_path, columns={"prompt": "ask", "response": "say", "kto_tag": "liked"})
    assert read({"ask": "q", "say": "a", "liked": True}, Lesson.JUDGED, layout).is_good is True


def test_an_entry_for_another_training_is_refused(tmp_path: Path) -> None:
    ranked = layout_of_entry(tmp_path, ranking=True, columns={"prompt": "q", "chosen": "c", "rejected": "r"})
    origin = f"{tmp_path}/dataset_info.json: mine names the columns"
    assert refusal({}, Lesson.ANSWERS, ranked) == (
        f"{origin} q, c, r; expected: answers to learn; chosen, rejected and kto_tag are for preference tuning"
    )
    plain = RowLayout(columns={Part.QUESTION: "q", Part.ANSWER: "a"}, origin=f"{tmp_path}/dataset_info.json: mine")
    assert refusal({}, Lesson.PAIRS, plain) == f"{origin} q, a; expected: columns for chosen and rejected"


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"text": "t"}, "t"),
        ({"response": "t"}, "t"),
        ({"messages": [{"role": "assistant", "content": "t"}]}, "t"),
        ({"query": "q ", "response": "a"}, "q a"),
    ],
)
def test_texts_to_learn_as_they_are(row: dict[str, Any], text: str) -> None:
    assert read(row, Lesson.TEXTS) == Chat(text=text)


def test_a_dialogue_is_no_text() -> None:
    row = {"messages": [ASKED, GOOD, ASKED, GOOD]}
    assert refusal(row, Lesson.TEXTS) == "messages: 4 turns; expected: text, or a question and its answer"
