"""Registries of LLaMA-Factory: each key is honoured, or refused with file, entry, key and reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcbench.catalog.agents import AGENT_FORMATS
from hpcbench.data.columns import Part
from hpcbench.data.dataset_source import DatasetSource
from hpcbench.data.registry import find_registered, read_registry
from hpcbench.data.row_reader import RowReader
from hpcbench.data.values import BadRowError
from hpcbench.errors import WorkerError
from tests.support.places import shared

ROWS = {"file_name": "rows.json"}


def find(folder: Path, entry: dict[str, Any]) -> DatasetSource:
    (folder / "rows.json").write_text("[]", encoding="utf-8")
    (folder / "dataset_info.json").write_text(json.dumps({"mine": entry}), encoding="utf-8")
    found = find_registered("mine", folder / "dataset_info.json")
    assert found is not None
    return found


def refusal(folder: Path, entry: dict[str, Any]) -> str:
    with pytest.raises(WorkerError) as caught:
        find(folder, entry)
    return str(caught.value).removeprefix(f"{folder}/dataset_info.json: mine: ")


def test_a_file_with_its_columns(tmp_path: Path) -> None:
    columns = {"prompt": "ask", "query": None, "response": "say", "history": "past", "system": "sys", "tools": "t"}
    found = find(tmp_path, {**ROWS, "columns": columns, "num_samples": 5, "split": "train"})
    assert (found.path, found.num_samples, found.layout.formatting) == (tmp_path / "rows.json", 5, "alpaca")
    assert found.layout.columns == {
        Part.QUESTION: "ask",
        Part.ANSWER: "say",
        Part.HISTORY: "past",
        Part.SYSTEM: "sys",
        Part.TOOLS: "t",
    }


def test_a_hub_with_its_parts_comes_before_a_file(tmp_path: Path) -> None:
    hubs = {"hf_hub_url": "org/a", "ms_hub_url": "org/b", "om_hub_url": "org/c", "script_url": "d"}
    found = find(tmp_path, {**ROWS, **hubs, "subset": "en", "folder": "python", "split": "validation"})
    assert (found.path, found.huggingface, found.modelscope) == (None, "org/a", "org/b")
    assert (found.subsets, found.folder, found.splits) == (("en",), "python", ("validation",))


def test_a_folder_is_a_file_name(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    assert find(tmp_path, {"file_name": "parts"}).path == tmp_path / "parts"


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({}, {}),
        ({"prompt": "page"}, {Part.TEXT: "page"}),
        ({"response": "say"}, {Part.ANSWER: "say"}),
        ({"query": "ask", "response": "say"}, {Part.ADDITION: "ask", Part.ANSWER: "say"}),
        (
            {"system": "s"},
            {Part.SYSTEM: "s", Part.QUESTION: "instruction", Part.ADDITION: "input", Part.ANSWER: "output"},
        ),
    ],
)
def test_columns_name_all_that_is_read(tmp_path: Path, columns: dict[str, str], expected: dict[Part, str]) -> None:
    assert find(tmp_path, {**ROWS, "columns": columns}).layout.columns == expected


@pytest.mark.parametrize("formatting", ["sharegpt", "openai"])
def test_turns_are_in_conversations_unless_named(tmp_path: Path, formatting: str) -> None:
    entry = {**ROWS, "formatting": formatting, "tags": {"role_tag": "role", "content_tag": "content"}}
    found = find(tmp_path, {**entry, "columns": {"tools": "functions"}}).layout
    assert found.columns == {Part.TURNS: "conversations", Part.TOOLS: "functions"}
    assert found.tags == entry["tags"]
    assert find(tmp_path, {**entry, "columns": {"messages": "talk"}}).layout.columns == {Part.TURNS: "talk"}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({}, "neither file_name nor hf_hub_url nor ms_hub_url"),
        ({"file_name": 5}, "file_name: number 5; expected: text"),
        ({"file_name": "gone.json"}, "no such file: "),
        ({**ROWS, "file_sha1": "0"}, "unknown key 'file_sha1'; expected: "),
        ({**ROWS, "column": {}}, "hint: did you mean 'columns'?"),
        ({**ROWS, "formatting": "chatml"}, "formatting: text 'chatml'; expected: alpaca, sharegpt, openai"),
        ({**ROWS, "formatting": ["alpaca"]}, "formatting: list of 1; expected: alpaca, sharegpt, openai"),
        (
            {**ROWS, "ranking": True},
            "ranking: columns names no chosen and rejected; expected: columns for both answers",
        ),
        ({**ROWS, "columns": ["a"]}, "columns: list of 1; expected: a mapping of names"),
        ({**ROWS, "columns": {"prompt": 5}}, "columns: prompt: number 5; expected: a name"),
        ({**ROWS, "columns": {"promt": "a"}}, "columns: unknown key 'promt'; expected: "),
        ({**ROWS, "columns": {"videos": "i"}}, "columns: videos: video or sound; expected: text and images, "),
        ({**ROWS, "columns": {"chosen": "c"}}, "columns: one of chosen and rejected; expected: both answers"),
        (
            {**ROWS, "columns": {"messages": "m"}},
            "columns: messages: not read with formatting alpaca; expected: prompt, ",
        ),
        (
            {**ROWS, "columns": {"prompt": "p", "query": "q"}},
            "columns: prompt and query without a response; expected: ",
        ),
        (
            {**ROWS, "tags": {"user_tag": "me"}},
            "tags: with formatting alpaca, which has no turns; expected: sharegpt, ",
        ),
        ({**ROWS, "formatting": "sharegpt", "tags": {"user": "me"}}, "tags: unknown key 'user'; expected: "),
        ({**ROWS, "num_samples": 0}, "num_samples: number 0; expected: a number of rows, at least 1"),
        ({**ROWS, "num_samples": True}, "num_samples: true; expected: a number of rows, at least 1"),
        ({**ROWS, "subset": "en"}, "subset: a file has none; expected: subset beside hf_hub_url or ms_hub_url only"),
        ({**ROWS, "split": "test"}, "split: 'test': a file has no splits; expected: train"),
        ({"om_hub_url": "a/b"}, "om_hub_url: datasets of the Modelers hub are not read; expected: file_name, "),
        (
            {**ROWS, "script_url": "a"},
            "script_url: datasets made by a script are not read, since that would run its code",
        ),
        ({"cloud_file_name": "s3://a"}, "cloud_file_name: files in cloud storage are not read; expected: file_name, "),
    ],
)
def test_what_cannot_be_honoured_is_refused(tmp_path: Path, entry: dict[str, Any], message: str) -> None:
    assert message in refusal(tmp_path, entry)


def test_the_entries_of_llama_factory_itself_are_read_or_refused_with_a_known_reason() -> None:
    file = shared("data/instructions/dataset_info.json")
    reasons = set()
    for name in read_registry(file):
        try:
            find_registered(name, file)
        except WorkerError as error:
            reasons.add(str(error).removeprefix(f"{file}: {name}: ").split(";")[0].split(": '")[0])
    assert reasons == {
        "columns: audios: video or sound",
        "columns: videos: video or sound",
        "no such file",
        "ranking: columns names no chosen and rejected",
    }


def test_a_row_without_a_named_column_names_file_and_entry_of_the_registry(tmp_path: Path) -> None:
    layout = find(tmp_path, {**ROWS, "columns": {"prompt": "ask", "response": "say"}}).layout
    agent = AGENT_FORMATS.lookup("react")
    assert agent is not None
    with pytest.raises(BadRowError) as caught:
        RowReader(agent=agent, layout=layout).read({"ask": "q", "answer": "a"})
    assert str(caught.value) == (
        f"no column 'say', which {tmp_path}/dataset_info.json: mine names; found: ask, answer; expected: the answer"
    )


def test_a_key_that_llama_factory_no_longer_reads_is_to_be_removed(tmp_path: Path) -> None:
    file = tmp_path / "dataset_info.json"
    file.write_text('{"mine": {"file_name": "rows.jsonl", "file_sha1": "b52868dc"}}', encoding="utf-8")
    with pytest.raises(WorkerError, match="mine: unknown key 'file_sha1'") as caught:
        find_registered("mine", file)
    assert caught.value.hint == "remove it; today's LLaMA-Factory does not read it either"
