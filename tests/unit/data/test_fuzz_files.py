"""Damaged data files of every kind: the look and the job's reader agree, and neither fails in another way than by saying so.

`HPCBENCH_FUZZ=10000 pytest tests/unit/data/test_fuzz_files.py` (or `make fuzz`) tries more of them.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcbench.data import look
from hpcbench.data.files import read_rows
from hpcbench.data.look import Look
from hpcbench.errors import DataError
from tests.support.mutations import mutate_bytes

EXAMPLES = int(os.environ.get("HPCBENCH_FUZZ", "100"))

ROWS: list[dict[str, Any]] = [
    {"query": f'q{n} \u00e9, "', "response": "x\n" * (n % 5), "more": {"a": n} if n % 2 else {"b": "s"}}
    for n in range(120)
]


def write_arrow() -> dict[str, bytes]:
    """Return parquet and Arrow files, none where pyarrow is missing."""
    try:
        import pyarrow as pa
        from pyarrow import ipc, parquet
    except ImportError:
        return {}
    table = pa.Table.from_pylist(ROWS)
    sinks = {name: io.BytesIO() for name in ("a.parquet", "file.arrow", "stream.arrow")}
    parquet.write_table(table, sinks["a.parquet"], row_group_size=10)
    for name, make in (("file.arrow", ipc.new_file), ("stream.arrow", ipc.new_stream)):
        with make(sinks[name], table.schema) as writer:
            writer.write_table(table, max_chunksize=10)
    return {name: sink.getvalue() for name, sink in sinks.items()}


def write_files() -> dict[str, bytes]:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerows([["query", "response"], *([row["query"], row["response"]] for row in ROWS)])
    return {
        "a.jsonl": lines,
        "a.json": json.dumps(ROWS, indent=1).encode(),
        "objects.json": lines,
        "a.txt": b"one\ntwo\n" * 90,
        "a.csv": table.getvalue().encode(),
        "a.tsv": b"query\tresponse\n" + b"a\tb\n" * 300,
        "a.jsonl.gz": gzip.compress(lines),
        "a.jsonl.bz2": bz2.compress(lines),
        "a.csv.xz": lzma.compress(table.getvalue().encode()),
        **write_arrow(),
    }


FILES = write_files()


def read(rows: Iterable[object]) -> tuple[int, str | None]:
    """Return how many rows there are, and the error that ends them."""
    count = 0
    try:
        for _ in rows:
            count += 1
    except DataError as error:
        return count, str(error)
    return count, None


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), whole_bytes=st.sampled_from([3000, 1 << 20]))
def test_the_look_and_the_reader_of_jobs_agree_on_damaged_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: st.DataObject, whole_bytes: int
) -> None:
    monkeypatch.setattr(look, "WHOLE_BYTES", whole_bytes)
    monkeypatch.setattr(look, "HEAD_BYTES", 500)
    name = data.draw(st.sampled_from(sorted(FILES)))
    (tmp_path / name).write_bytes(mutate_bytes(data, FILES[name]))
    job = read(read_rows(tmp_path / name))
    found: Look | None = None
    refusal = ""
    try:
        found = Look(tmp_path / name)
    except DataError as error:
        refusal = str(error)
    if found is None:
        assert job == (0, refusal)
        return
    seen = read(found)
    if found.is_whole:
        assert seen == job
    elif seen[1] is not None:
        assert job[1] is not None
