"""Every dataset of the catalog is read as its hub has it: rows of its true columns become the chats that SWIFT makes."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import yaml

from hpcbench.catalog.agents import AGENT_FORMATS
from hpcbench.catalog.datasets import DATASETS, PreparationStep
from hpcbench.data.preparation import STEPS, Preparation
from hpcbench.data.row_reader import RowReader
from hpcbench.data.sources import find_dataset
from hpcbench.errors import WorkerError
from tests.support.places import RECORDED

CASES: dict[str, list[dict[str, Any]]] = yaml.safe_load((RECORDED / "dataset_rows.yaml").read_text(encoding="utf-8"))


def chat_of(name: str, row: dict[str, Any]) -> dict[str, Any] | None:
    """Return a raw row's system prompt and texts, or None for a row that is left out."""
    source = find_dataset(name, registry=None)
    prepared = source.preparation.apply(row)
    if prepared is None:
        return None
    agent = AGENT_FORMATS.lookup("react")
    assert agent is not None
    messages = RowReader(agent=agent, layout=source.layout).read(prepared).messages
    systems = [message["content"] for message in messages if message["role"] == "system"]
    turns = [message for message in messages if message["role"] != "system"]
    assert [message["role"] for message in turns] == ["user", "assistant"] * (len(turns) // 2)
    return {"system": systems[0] if systems else None, "chat": [message["content"] for message in turns]}


@pytest.mark.parametrize("name", CASES)
def test_rows_of_the_true_columns_become_chats(name: str) -> None:
    for case in CASES[name]:
        expected = {"system": case.get("system"), "chat": case["chat"]} if "chat" in case else None
        assert chat_of(name, case["row"]) == expected


def test_every_dataset_of_text_has_rows_here() -> None:
    entries = {name: DATASETS.lookup(name) for name in DATASETS.names()}
    assert set(CASES) == {name for name, entry in entries.items() if entry is not None and not entry.multimodal}


def test_every_step_of_the_code_can_be_named_in_the_catalog() -> None:
    assert set(get_args(PreparationStep)) == set(STEPS)


def test_a_row_without_the_needed_columns_stays_a_row_that_is_refused() -> None:
    """Left out are rows that are empty where the others are not; other columns mean another dataset."""
    preparation = Preparation(query="{input}", response="{output}")
    assert preparation.apply({"input": "Q", "text": "T"}) == {"input": "Q", "text": "T"}
    assert preparation.apply({"input": None, "output": "A"}) is None


def test_a_hub_id_is_read_as_the_one_entry_that_has_it() -> None:
    row = {"question": "Q", "context": "C", "answer": "A"}
    assert chat_of("b-mc2/sql-create-context", row) == {"system": None, "chat": ["Q\nC", "A"]}


@pytest.mark.parametrize(
    ("name", "huggingface", "modelscope"),
    [
        ("iic/ms_agent", None, "iic/ms_agent"),
        ("b-mc2/sql-create-context", "b-mc2/sql-create-context", None),
        ("Azure99/blossom-math-v2", "Azure99/blossom-math-v2", None),
        ("somebody/chats", "somebody/chats", "somebody/chats"),
    ],
)
def test_an_id_of_one_hub_is_never_looked_for_on_the_other(
    name: str, huggingface: str | None, modelscope: str | None
) -> None:
    source = find_dataset(name, registry=None)
    assert (source.huggingface, source.modelscope) == (huggingface, modelscope)


@pytest.mark.parametrize(
    ("word", "huggingface", "modelscope", "subsets", "num_samples"),
    [
        ("MS::iic/ms_agent", None, "iic/ms_agent", (None,), None),
        ("ms::somebody/chats#20", None, "somebody/chats", (None,), 20),
        ("HF::somebody/chats:en/zh#20", "somebody/chats", None, ("en", "zh"), 20),
        ("somebody/chats:en", "somebody/chats", "somebody/chats", ("en",), None),
        ("HF::alpaca-en#500", "vicgalle/alpaca-gpt4", None, (None,), 500),
    ],
)
def test_a_word_names_hub_subsets_and_rows_as_swift_has_it(
    word: str, huggingface: str | None, modelscope: str | None, subsets: tuple[str | None, ...], num_samples: int | None
) -> None:
    source = find_dataset(word, registry=None)
    assert (source.huggingface, source.modelscope, source.subsets) == (huggingface, modelscope, subsets)
    assert source.num_samples == num_samples


def test_a_prefix_of_a_hub_that_does_not_have_it_is_refused_with_what_to_write() -> None:
    with pytest.raises(WorkerError) as caught:
        find_dataset("HF::iic/ms_agent", registry=None)
    assert caught.value.message == "dataset 'iic/ms_agent': it is not known on Hugging Face"
    assert caught.value.hint == "write iic/ms_agent without a prefix, which reads it from ModelScope"
    assert find_dataset("iic/ms_agent", registry=None).modelscope == "iic/ms_agent"


def test_a_mistyped_name_of_the_catalog_is_no_dataset_of_a_hub() -> None:
    with pytest.raises(WorkerError) as caught:
        find_dataset("alpaca-ne", registry=None)
    assert caught.value.message == "dataset 'alpaca-ne': no such file, and none of that name in the catalog"
    assert caught.value.hint == "did you mean 'alpaca-en'? A dataset of a hub is written OWNER/NAME"


def test_the_small_parts_of_large_datasets_are_drawn() -> None:
    assert find_dataset("medical-mini-zh", registry=None).num_samples == 100_000
    assert find_dataset("ms-bench-mini", registry=None).num_samples == 20_000
