"""Rows that answered prompts have their speeds, latencies and scores in columns; other rows' tables lack them."""

from __future__ import annotations

from hpcbench.report import columns as c
from hpcbench.report import infer_columns as own
from hpcbench.report.column import cell_text
from hpcbench.report.facts import facts_of
from hpcbench.report.layouts import table_columns
from hpcbench.report.rows import merge_repeats
from hpcbench.schemas.collection import ExperimentView
from hpcbench.schemas.headline import headline
from hpcbench.schemas.metrics import InferMetrics, InferSpeed, Latency
from tests.support import report_parts as parts

SPEED = InferSpeed(
    num_tokens=100,
    time_s=4.0,
    tokens_per_second=25.0,
    num_prompt_tokens=50,
    prefill_tokens_per_second=50.0,
    decode_tokens_per_second=30.0,
    batch_size=4,
)
METRICS = InferMetrics(
    num_rows=8,
    num_labels=8,
    infer=SPEED,
    latency=Latency(p50_s=1.0, p90_s=2.0, p99_s=2.5),
    first_token_latency=Latency(p50_s=0.25, p90_s=0.5, p99_s=0.75),
    rouge_l=0.5,
    exact_match=0.25,
    backend="transformers 5.23.0",
)


def answered(name: str = "a") -> ExperimentView:
    args = {**parts.QWEN, "val_dataset": ["/data/prompts.jsonl"]}
    job = parts.make_job(name, "infer", suite="s", cmd="infer", args=args, metrics=METRICS)
    return ExperimentView(suite="s", name=name, cmd="infer", main=job)


def test_figures_of_answers_are_shown() -> None:
    facts = facts_of(answered())
    columns = (c.DATASET, c.INFER_SPEED, *own.SHOWN, c.ROUGE_L)

    assert [cell_text(column, facts) for column in columns] == [
        "prompts.jsonl",
        "25.00",
        "50.0",
        "30.0",
        "0.250/0.500/0.750",
        "1.000/2.000/2.500",
        "0.250",
        "0.500",
    ]
    rows = merge_repeats([facts])
    assert set(own.SHOWN) <= set(table_columns(rows))


def test_headline_of_answers() -> None:
    job = answered().main
    assert job is not None

    assert headline(job.record) == "num_rows 8, tokens_per_second 25, rouge_l 0.5"
