"""Plan and job agree on every dataset: rows of each shape, mutated, in files of each kind.

`HPCBENCH_FUZZ=10000 pytest tests/unit/worker/test_fuzz_rows.py` (or `make fuzz`) tries more of them.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import ipc, parquet

from hpcbench.config.data_checks import DatasetChecker
from hpcbench.errors import DataError, WorkerError
from hpcbench.schemas.arguments import SftArgs
from hpcbench.storage.located_yaml import Located
from hpcbench.worker.data.samples import load_splits
from tests.support.model_folders import write_model
from tests.support.mutations import mutate_bytes, mutate_value, odd_values

EXAMPLES = int(os.environ.get("HPCBENCH_FUZZ", "300"))
AT = Located(value=None, file="demo.yaml", line=1, path="args")

TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {}}}}}
CALL = {"id": "c", "type": "function", "function": {"name": "add", "arguments": {"a": 2}}}
TEXTS = st.text(max_size=6) | st.sampled_from(["a", "b\nc", "é\u2028", '"', ",", "[]", "null", '["q", "a"]'])
SAID = st.sampled_from(["Yes.", "a", "b\nc", "1", "{}"])
HISTORY = st.lists(st.lists(TEXTS, min_size=2, max_size=2), max_size=2)
BESIDE = st.fixed_dictionaries(
    {},
    optional={
        "system": TEXTS | st.none(),
        "history": HISTORY | HISTORY.map(json.dumps),
        "tools": st.sampled_from([[TOOL], json.dumps([TOOL]), [TOOL["function"]], [], "", None]),
        "id": st.integers(0, 9),
        "images": st.sampled_from([[], None, ["x.png"]]),
        "rejected": st.none() | SAID,
    },
)
SHAREGPT = st.lists(
    st.fixed_dictionaries(
        {"from": st.sampled_from(["human", "gpt", "system", "observation", "hummany"]), "value": TEXTS}
    )
    | st.just({"from": "function_call", "value": '{"name": "add", "arguments": {"a": 2}}'}),
    max_size=4,
).flatmap(
    lambda turns: SAID.map(lambda said: [{"from": "human", "value": "q"}, *turns, {"from": "gpt", "value": said}])
)
PARTS = TEXTS | st.lists(st.builds(lambda text: {"type": "text", "text": text}, TEXTS), max_size=2)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system", "tool"]), "content": PARTS})
    | st.just({"role": "assistant", "content": None, "tool_calls": [CALL]}),
    max_size=4,
).flatmap(
    lambda turns: SAID.map(
        lambda said: [{"role": "user", "content": "q"}, *turns, {"role": "assistant", "content": said}]
    )
)


def pair(question: str, answer: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({question: TEXTS, answer: SAID})


SHAPES = [
    st.fixed_dictionaries({"messages": MESSAGES | SHAREGPT}),
    st.fixed_dictionaries({"conversations": SHAREGPT | MESSAGES}),
    pair("query", "response"),
    pair("instruction", "output"),
    st.fixed_dictionaries({"instruction": TEXTS, "input": TEXTS | st.none(), "output": SAID}),
    pair("question", "answer"),
    pair("prompt", "completion"),
    st.fixed_dictionaries(
        {"prompt": MESSAGES, "completion": SAID.map(lambda said: [{"role": "assistant", "content": said}])}
    ),
    st.fixed_dictionaries({"text": SAID}),
]
KEYS = [
    *("messages", "conversations", "query", "response", "instruction", "input", "output", "question", "answer"),
    *(
        "prompt",
        "completion",
        "text",
        "system",
        "history",
        "tools",
        "chosen",
        "images",
        "role",
        "content",
        "from",
        "value",
    ),
    *("name", "arguments", "function", "tool_calls", "type", "weight", "x", ""),
]
ODD = odd_values(KEYS)
ENTRIES: list[dict[str, Any]] = [
    {},
    {"formatting": "alpaca", "columns": {"prompt": "query", "response": "response"}},
    {"formatting": "alpaca", "columns": {"prompt": "text"}},
    {"formatting": "sharegpt", "columns": {"messages": "messages", "tools": "tools"}},
    {
        "formatting": "openai",
        "columns": {"messages": "messages"},
        "tags": {"role_tag": "role", "content_tag": "content"},
    },
    {"num_samples": 2},
]


@st.composite
def datasets(draw: st.DrawFn) -> list[Any]:
    """Return rows of one shape, or of two, some of them with columns that other shapes read or that nothing reads."""
    shapes = draw(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=2))
    return [
        {**draw(draw(st.sampled_from(shapes))), **draw(st.just({}) | BESIDE)} for _ in range(draw(st.integers(1, 4)))
    ]


def as_table(rows: list[Any]) -> pa.Table | None:
    """Return the rows as an Arrow table, or None where their types differ too much."""
    try:
        return pa.Table.from_pylist(rows) if all(isinstance(row, dict) for row in rows) and any(rows) else None
    except (pa.ArrowException, TypeError, ValueError, OverflowError, UnicodeEncodeError):
        return None


def as_cells(rows: list[Any], delimiter: str) -> str | None:
    """Return the rows as CSV, lists and objects as JSON texts, or None where there are no columns."""
    names = list(dict.fromkeys(str(name) for row in rows if isinstance(row, dict) for name in row))
    if not names or len(rows) != sum(isinstance(row, dict) for row in rows):
        return None
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter)
    writer.writerow(names)
    for row in rows:
        cells = [row.get(name, "") for name in names]
        writer.writerow([cell if isinstance(cell, str) else "" if cell is None else json.dumps(cell) for cell in cells])
    return stream.getvalue()


def write(folder: Path, kind: str, rows: list[Any]) -> Path | None:
    """Write the rows into a file of this kind, or return None where they have no such form."""
    path = folder / f"rows.{kind}"
    if kind in {"parquet", "arrow"}:
        table = as_table(rows)
        if table is None:
            return None
        if kind == "parquet":
            try:
                parquet.write_table(table, path)
            except pa.ArrowNotImplementedError:  # objects without keys
                return None
        else:
            with path.open("wb") as stream, ipc.new_stream(stream, table.schema) as writer:
                writer.write_table(table)
        return path
    if kind in {"csv", "tsv"}:
        text = as_cells(rows, "," if kind == "csv" else "\t")
        if text is None:
            return None
    elif kind == "txt":
        text = "\n".join(str(row) for row in rows)
    elif kind == "json":
        text = json.dumps(rows)
    else:
        text = "".join(json.dumps(row) + "\n" for row in rows)
    raw = text.encode("utf-8", "surrogatepass")
    path.write_bytes(gzip.compress(raw) if kind.endswith(".gz") else raw)
    return path


def plan_of(args: SftArgs) -> tuple[str | None, tuple[str, ...]]:
    """Return the first problem that plan has with the dataset, and its remarks."""
    checker = DatasetChecker()
    problems = checker.check(args, {}, at=AT)
    first = problems[0] if problems else None
    if first is None:
        return None, checker.remarks()
    assert first.message
    return first.message + ("" if first.expected is None else f"; expected: {first.expected}") + str(first.hint), ()


def job_of(args: SftArgs) -> tuple[str | None, tuple[str, ...]]:
    """Return the error that ends the job, and its remarks."""
    try:
        return None, load_splits(args).notes
    except DataError as error:
        return error.message + str(error.hint), ()
    except WorkerError as error:
        return error.message + str(error.hint), ()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("rows")
    # Of a model that is not there only the job can say whether it takes images.
    write_model(found / "model")
    return found


@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data())
def test_plan_accepts_what_the_job_reads_and_refuses_what_it_refuses(folder: Path, data: st.DataObject) -> None:
    rows = data.draw(datasets())
    for _ in range(data.draw(st.integers(0, 2))):
        changed = mutate_value(data, rows, KEYS, ODD)
        rows = changed if isinstance(changed, list) else rows
    kind = data.draw(st.sampled_from(["jsonl", "json", "csv", "tsv", "parquet", "arrow", "txt", "jsonl.gz"]))
    path = write(folder, kind, rows) or write(folder, "jsonl", rows)
    assert path is not None
    if data.draw(st.integers(0, 7)) == 0:
        path.write_bytes(mutate_bytes(data, path.read_bytes()))
    entry = data.draw(st.sampled_from([None, *ENTRIES]))
    registry = folder / "dataset_info.json"
    registry.write_text(json.dumps({"mine": {"file_name": path.name, **(entry or {})}}), encoding="utf-8")
    args = SftArgs(
        model_id_or_path=str(folder / "model"),
        dataset=(str(path) if entry is None else "mine",),
        dataset_info=str(registry),
        dataset_test_ratio=0,
        check_dataset_strategy=data.draw(st.sampled_from(["none", "discard", "error", "warning"])),
        loss_on_all_rounds=data.draw(st.booleans()),
        system=data.draw(st.sampled_from([None, "s"])),
    )
    assert plan_of(args) == job_of(args)
