"""The results of an infer job: whole rows, each once; figures out of them alone."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hpcbench.worker.infer import figures
from hpcbench.worker.infer.results import ResultRow, append_results, read_results, restore_results


def make_row(index: int, **values: Any) -> ResultRow:
    given: dict[str, Any] = {
        "index": index,
        "place": f"rows.jsonl: line {index + 1}",
        "prompt": "q",
        "response": "a\u2028b",
        "label": None,
        "finish": "stop",
        "prompt_tokens": 10,
        "tokens": 5,
        "first_token_seconds": 0.5,
        "seconds": 2.5,
        "batch": index // 2,
    }
    return ResultRow(**given | values)


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    append_results(file, [make_row(0), make_row(1)])
    append_results(file, [make_row(2)])

    assert list(read_results(file).values()) == [make_row(0), make_row(1), make_row(2)]


def test_a_torn_last_line_is_cut_off(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    append_results(file, [make_row(0)])
    whole = file.read_bytes()
    file.write_bytes(whole + json.dumps(asdict(make_row(1))).encode()[:30])

    assert list(restore_results(file)) == [0]
    assert file.read_bytes() == whole


def test_of_a_row_that_is_there_twice_the_first_counts(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    append_results(file, [make_row(0, response="first"), make_row(0, response="second")])

    assert read_results(file)[0].response == "first"


def test_a_batch_takes_as_long_as_its_slowest_row() -> None:
    rows = [make_row(0), make_row(1, seconds=1.0, tokens=2), make_row(2, seconds=1.5)]
    speed = figures.infer_speed(rows, batch_size=2)

    assert speed is not None
    assert (speed.num_tokens, speed.time_s, speed.num_prompt_tokens) == (12, 4.0, 30)
    assert speed.tokens_per_second == 3.0
    assert speed.prefill_tokens_per_second == 30.0
    assert speed.decode_tokens_per_second == 3.0  # 9 tokens after the first of each row, in 3 seconds


def test_scores_are_over_rows_with_a_label() -> None:
    rows = [make_row(0), make_row(1, response=" yes\n", label="yes"), make_row(2, response="no", label="yes")]

    assert (figures.exact_match(rows), figures.mean_rouge(rows)) == (0.5, 0.5)
    assert figures.exact_match([make_row(0)]) is None


def test_percentiles() -> None:
    found = figures.latency([1.0, 2.0, 3.0])

    assert found is not None
    assert (found.p50_s, found.p90_s) == (2.0, 2.8)
    assert figures.latency([]) is None
