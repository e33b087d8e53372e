"""Broken models, data, registries and task files give a plan or a clear error, whatever is wrong with them.

`HPCBENCH_FUZZ=10000 pytest tests/unit/cli/test_fuzz_inputs.py` (or `make fuzz`) tries more of them.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.mutations import mutate_bytes, mutate_json, mutate_value, odd_values
from tests.support.places import QUICKSTART
from tests.unit.cli.test_fuzz_suites import check, plan

EXAMPLES = int(os.environ.get("HPCBENCH_FUZZ", "100"))

Rows = list[Any]

TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
CALL = {"type": "function", "id": "1", "function": {"name": "add", "arguments": {"a": 1}}}
SHAPES: Mapping[str, Rows] = {
    "messages": [
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "system": "s"}
    ],
    "content parts": [
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "q"}]},
                {"role": "assistant", "content": "a"},
            ]
        }
    ],
    "tools": [
        {
            "messages": [
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "content": "2", "tool_call_id": "1"},
                {"role": "assistant", "content": "a"},
            ],
            "tools": [TOOL],
        }
    ],
    "conversations": [
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "tools": json.dumps([TOOL])}
    ],
    "query": [{"query": "q", "response": "a", "history": [["q0", "a0"]], "system": "s"}],
    "alpaca": [{"instruction": "q", "input": "i", "output": "a"}],
    "text": [{"text": "a"}],
    "preference": [{"prompt": "q", "chosen": "a", "rejected": "b"}],
}
KEYS = ["messages", "role", "content", "from", "value", "query", "response", "tools", "history", "file_name", "columns"]
ODD = odd_values(KEYS)
MODEL_FILES = ("config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json")
REGISTRY = {
    "mine": {
        "file_name": "data",
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "system": "system"},
        "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
        "num_samples": 1,
    }
}
TASK: dict[str, Any] = {
    "task": "mine",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "rows.jsonl"}},
    "test_split": "test",
    "output_type": "generate_until",
    "doc_to_text": "{{q}}",
    "doc_to_target": "{{a}}",
    "num_fewshot": 1,
    "metric_list": [{"metric": "exact_match"}],
    "generation_kwargs": {"until": ["x"]},
}
GROUP: dict[str, Any] = {
    "group": "mine",
    "task": ["gsm8k", {"task": "arc_easy", "num_fewshot": 0}, {"group": "inner", "task": ["gsm8k"]}],
    "aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}],
}
TASK_KEYS = [*TASK, *GROUP, "include", "class", "tag", "!function x.y"]


def write_json_lines(rows: Rows) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def write_table(rows: Rows, *, delimiter: str) -> bytes:
    names = [str(name) for name in rows[0]] if isinstance(rows[0], dict) else ["query", "response"]
    out = io.StringIO()
    table = csv.writer(out, delimiter=delimiter)
    table.writerows([names, *([str(value) for value in row.values()] for row in rows if isinstance(row, dict))])
    return out.getvalue().encode("utf-8", "replace")


def write_arrow(rows: Rows, *, kind: str) -> bytes:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    try:
        table = pa.Table.from_pylist([row for row in rows if isinstance(row, dict)])
    except (ValueError, TypeError, OverflowError, pa.ArrowException):
        return b"PAR1"
    out = io.BytesIO()
    if kind == "parquet":
        try:
            pyarrow.parquet.write_table(table, out)
        except pa.ArrowException:
            return b"PAR1PAR1"
    else:
        new = pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file
        with new(out, table.schema) as writer:
            writer.write_table(table)
    return out.getvalue()


WRITERS: Mapping[str, Callable[[Rows], bytes]] = {
    "data.jsonl": write_json_lines,
    "data.txt": write_json_lines,
    "data": write_json_lines,
    "data.json": lambda rows: json.dumps(rows).encode(),
    "data.csv": lambda rows: write_table(rows, delimiter=","),
    "data.tsv": lambda rows: write_table(rows, delimiter="\t"),
    "data.jsonl.gz": lambda rows: gzip.compress(write_json_lines(rows)),
    "data.parquet": lambda rows: write_arrow(rows, kind="parquet"),
    "data.arrow": lambda rows: write_arrow(rows, kind="stream"),
    "data-00000-of-00001.arrow": lambda rows: write_arrow(rows, kind="file"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("inputs")
    shutil.copytree(QUICKSTART / "base", found / "model")
    (found / "tasks").mkdir()
    (found / "tasks" / "rows.jsonl").write_text('{"q": "a", "a": "b"}\n' * 3, encoding="utf-8")
    return found


def plan_of(folder: Path, *, eval_dataset: Sequence[str] = (), **args: object) -> None:
    """Write the suite of one training with these arguments and check its plan."""
    suite = {
        "cmd": "sft",
        "device": "cpu",
        "requirements": {"gpu": 0},
        "eval_requirements": {"gpu": 0},
        "eval_dataset": list(eval_dataset),
        "eval_args": {"include_path": "tasks"},
        "args": {"model_id_or_path": "model", "dtype": "fp32", **args},
        "experiment": [{"name": "a"}],
    }
    file = folder / "suite.json"
    file.write_text(json.dumps(suite), encoding="utf-8")
    check(plan(file))


@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data())
def test_mutated_data_files_give_a_plan_or_a_clear_error(folder: Path, data: st.DataObject) -> None:
    rows: Any = [*SHAPES[data.draw(st.sampled_from(sorted(SHAPES)))]] * data.draw(st.integers(1, 3))
    for _ in range(data.draw(st.integers(0, 2))):
        changed = mutate_value(data, rows, KEYS, ODD)
        rows = changed if isinstance(changed, list) and changed else rows
    name = data.draw(st.sampled_from(sorted(WRITERS)))
    raw = WRITERS[name](rows)
    (folder / name).write_bytes(mutate_bytes(data, raw) if data.draw(st.integers(0, 2)) == 0 else raw)
    strategy = data.draw(st.sampled_from(["none", "warning", "discard", "error"]))
    plan_of(folder, dataset=name, check_dataset_strategy=strategy)


@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data())
def test_mutated_registries_give_a_plan_or_a_clear_error(folder: Path, data: st.DataObject) -> None:
    (folder / "data").write_bytes(write_json_lines(SHAPES["messages"] * 2))
    raw = mutate_json(data, json.dumps(REGISTRY).encode(), KEYS, ODD)
    (folder / "dataset_info.json").write_bytes(raw)
    plan_of(folder, dataset="mine", dataset_info="dataset_info.json")


@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data())
def test_mutated_models_give_a_plan_or_a_clear_error(folder: Path, data: st.DataObject) -> None:
    (folder / "data.jsonl").write_bytes(write_json_lines(SHAPES["messages"] * 2))
    names = st.sampled_from(MODEL_FILES)
    broken = {
        name: mutate_json(data, (QUICKSTART / "base" / name).read_bytes(), KEYS, ODD)
        for name in data.draw(st.lists(names, min_size=1, max_size=2, unique=True))
    }
    if data.draw(st.booleans()):
        weights = (QUICKSTART / "base" / "model.safetensors").read_bytes()
        broken["model.safetensors"] = mutate_bytes(data, weights[: data.draw(st.sampled_from([8, 4000, len(weights)]))])
    tuner = data.draw(st.sampled_from(["lora", "full", "adapter", "llamapro", "ia3"]))
    targets = data.draw(st.sampled_from(["ALL", "DEFAULT", "q_proj,k_proj", "all-linear", "lm_head"]))
    try:
        for name, raw in broken.items():
            (folder / "model" / name).write_bytes(raw)
        more = {"lora_target_modules": targets} if tuner == "lora" else {}
        plan_of(folder, dataset="data.jsonl", sft_type=tuner, **more)
    finally:
        for name in broken:
            shutil.copyfile(QUICKSTART / "base" / name, folder / "model" / name)


@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data())
def test_mutated_task_files_give_a_plan_or_a_clear_error(folder: Path, data: st.DataObject) -> None:
    (folder / "data.jsonl").write_bytes(write_json_lines(SHAPES["messages"] * 2))
    config: Any = mutate_value(data, data.draw(st.sampled_from([TASK, GROUP])), TASK_KEYS, odd_values(TASK_KEYS))
    raw = yaml.safe_dump(config, allow_unicode=True, default_flow_style=data.draw(st.booleans())).encode(
        "utf-8", "replace"
    )
    raw = raw.replace(b"'{{q}}'", b"!function helper.text") if data.draw(st.integers(0, 4)) == 0 else raw
    (folder / "tasks" / "mine.yaml").write_bytes(mutate_bytes(data, raw) if data.draw(st.booleans()) else raw)
    plan_of(folder, dataset="data.jsonl", eval_dataset=["mine"])
