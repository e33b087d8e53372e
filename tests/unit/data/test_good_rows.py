"""What becomes of bad rows, as `check_dataset_strategy` says, in every shape."""

from __future__ import annotations

from typing import Any

import pytest

from hpcbench.catalog.agents import AGENT_FORMATS
from hpcbench.data.good_rows import Strategy, read_good_rows
from hpcbench.data.row_reader import RowReader
from hpcbench.data.rows import Place, PlacedRow
from hpcbench.errors import DataError

TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
SAID = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
PAIRS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"messages": TURNS}, {"messages": TURNS[:1]}),
    ({"conversations": SAID}, {"conversations": [SAID[0], {"from": "gpt", "value": None}]}),
    ({"query": "q", "response": "a"}, {"query": "q", "response": 5}),
    ({"instruction": "q", "output": "a"}, {"instruction": "q", "output": ""}),
    ({"question": "q", "answer": "a"}, {"question": "q"}),
    ({"prompt": "q", "completion": "a"}, {"prompt": "q", "completion": ["a"]}),
    ({"text": "a"}, {"text": None}),
]
HINT = "check_dataset_strategy: discard leaves such rows out"


def read(rows: list[dict[str, Any]], strategy: Strategy, *, are_all: bool = True) -> tuple[int, list[str]]:
    """Return how many rows are good, and the errors of those that were left out."""
    agent = AGENT_FORMATS.lookup("react")
    assert agent is not None
    placed = [PlacedRow(row, Place("d.jsonl", "line", number)) for number, row in enumerate(rows, start=1)]
    bad: list[str] = []
    good = read_good_rows(
        placed,
        RowReader(agent=agent),
        strategy,
        name="d.jsonl",
        on_bad=lambda error: bad.append(error.message),
        are_all=lambda: are_all,
    )
    return len(list(good)), bad


@pytest.mark.parametrize(("good", "bad"), PAIRS, ids=lambda row: next(iter(row)))
def test_discard_and_warning_leave_a_bad_row_out_and_none_and_error_end_the_job(
    good: dict[str, Any], bad: dict[str, Any]
) -> None:
    strategies: tuple[tuple[Strategy, Strategy], ...] = (("discard", "none"), ("warning", "error"))
    for leaves_out, ends in strategies:
        num_good, left_out = read([good, bad, good], leaves_out)
        assert num_good == 2
        with pytest.raises(DataError) as caught:
            read([good, bad, good], ends)
        assert ([caught.value.message], caught.value.hint) == (left_out, HINT)
        assert caught.value.message.startswith("d.jsonl: line 2: ")


@pytest.mark.parametrize("strategy", ["none", "discard", "error", "warning"])
def test_discard_is_not_advised_where_every_row_is_bad(strategy: Strategy) -> None:
    with pytest.raises(DataError) as caught:
        read([{"text": None}, {"text": 5}], strategy)
    assert caught.value.hint is None
    assert caught.value.message.startswith("d.jsonl: line 1: text: null")


def test_rows_that_were_not_looked_at_may_be_good() -> None:
    assert read([{"text": None}], "discard", are_all=False)[0] == 0
    with pytest.raises(DataError, match=r"line 1: text: null"):
        read([{"text": None}], "none", are_all=False)


def test_a_dataset_without_rows_is_named() -> None:
    with pytest.raises(DataError, match=r"^d.jsonl: holds no rows$"):
        read([], "discard")
