"""Whatever a save directory holds, a report comes out and its tables keep their columns."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from hpcbench.report import render
from hpcbench.report.terminal import render_terminal
from hpcbench.schemas.arguments import EvalArgs, SftArgs
from hpcbench.schemas.collection import Collection, ExperimentView, JobView, SuiteView
from hpcbench.schemas.metrics import (
    CommandMetrics,
    EvalMetrics,
    InferSpeed,
    Parameters,
    RankMemory,
    TaskResult,
    TrainMetrics,
)
from hpcbench.schemas.record import Attempt, Cause, Record, SampledMemory
from hpcbench.schemas.report_options import ReportOptions
from hpcbench.schemas.request import JobRequest, Resources
from hpcbench.schemas.states import JobState

texts = st.text(max_size=20) | st.sampled_from(
    ["a|b", "`x`", "<b>&", "\\", "\n# h", "_i_", "| - |", "名前", "=====", "1. x"]
)
floats = st.floats(allow_nan=False, allow_infinity=False)
maybe_floats = st.none() | floats
counts = st.integers(0, 10**9)
anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=4,
)
environments = st.dictionaries(st.sampled_from(["gpus", "host", "packages", "cpu"]) | texts, anything, max_size=4)
memories = st.lists(
    st.builds(RankMemory, rank=counts, reserved_gib=maybe_floats, host_rss_gib=maybe_floats), max_size=3
)
train = st.builds(
    TrainMetrics,
    parameters=st.builds(Parameters, trainable=counts, total=counts),
    memory=memories.map(tuple),
    train_loss=maybe_floats,
    eval_loss=maybe_floats,
    num_steps=counts,
    num_samples=counts,
    num_tokens=counts,
    train_time_s=maybe_floats,
    samples_per_second=maybe_floats,
    tokens_per_second=maybe_floats,
    mfu=maybe_floats,
    attention=st.none() | texts,
)
METRIC_KEYS = ("acc,none", "acc_stderr,none", "exact_match,strict-match", "f1")
tasks = st.builds(
    TaskResult,
    metrics=st.dictionaries(st.sampled_from(METRIC_KEYS) | texts, floats | texts | st.none(), max_size=3),
    num_samples=counts,
    num_fewshot=st.none() | counts,
    higher_is_better=st.dictionaries(st.sampled_from(("acc", "f1")), st.booleans(), max_size=2),
)
speeds = st.builds(InferSpeed, num_tokens=counts, time_s=floats, tokens_per_second=floats)
evals = st.builds(
    EvalMetrics,
    dataset=texts,
    primary_metric=st.none() | st.sampled_from(METRIC_KEYS),
    primary_task=st.sampled_from(["t", "u"]),
    tasks=st.dictionaries(st.sampled_from(["t", "u"]), tasks, max_size=2),
    infer=st.none() | speeds,
    eval_loss=maybe_floats,
    checkpoint_choice=st.sampled_from(["best", "last", "baseline"]),
    debug=st.booleans(),
)
commands = st.builds(
    CommandMetrics, values=st.dictionaries(texts, floats | texts | st.booleans() | st.none(), max_size=3)
)
causes = st.builds(
    Cause,
    type=texts,
    message=texts,
    log=st.none() | texts.map(lambda text: text.replace("\0", "")),
    hint=st.none() | texts,
    lines=st.lists(texts, max_size=7).map(tuple),
)
sampled = st.builds(SampledMemory, gpu_peak_gib=st.lists(floats, max_size=2).map(tuple), host_rss_peak_gib=maybe_floats)
states = st.sampled_from(list(JobState))
attempts = st.builds(
    Attempt,
    number=st.integers(1, 9),
    state=states,
    started_at=texts,
    finished_at=texts,
    duration_s=floats,
    host=texts,
    sampled=st.none() | sampled,
)
raw_requests = st.dictionaries(
    st.just("args"), anything | st.fixed_dictionaries({"model_type": texts, "learning_rate": floats}), max_size=1
)
sft_args = st.builds(
    SftArgs,
    model_type=texts,
    dataset=st.lists(texts, max_size=2).map(tuple),
    sft_type=st.sampled_from(["lora", "full"]),
    use_flash_attn=st.none() | st.booleans(),
    max_steps=st.integers(-1, 9),
)


@st.composite
def jobs(draw: st.DrawFn, name: str) -> JobView:
    is_eval = name.startswith("eval-")
    state = draw(states)
    metrics = draw(st.none() | (evals if is_eval else train | commands))
    record = Record(
        hpcbench_version=draw(texts),
        suite="s",
        experiment="e",
        job=name,
        cmd="sft",
        state=state,
        fingerprint="f",
        cause=draw(st.none() | causes),
        attempts=tuple(draw(st.lists(attempts, max_size=2))),
        metrics=metrics,
        request=draw(raw_requests),
        environment=draw(environments),
        started_at="",
        finished_at="",
    )
    request = JobRequest(
        suite="s",
        experiment="e",
        job=name,
        cmd="eval" if is_eval else "sft",
        fingerprint="f",
        resources=Resources(),
        args=draw(st.none() | sft_args),
        eval_dataset=draw(st.none() | texts) if is_eval else None,
        eval_args=draw(st.none() | st.builds(EvalArgs, limit=st.none() | st.integers(1, 9))),
    )
    return JobView(
        suite=draw(texts),
        experiment=draw(texts),
        job=name,
        state=state,
        reason=draw(texts),
        folder=Path("/logs/s/e") / name,
        request=draw(st.none() | st.just(request)),
        record=draw(st.none() | st.just(record)),
        progress=draw(
            st.dictionaries(
                st.sampled_from(["step", "max_steps", "done", "total", "phase"]) | texts, anything, max_size=2
            )
        ),
    )


@st.composite
def collections(draw: st.DrawFn) -> Collection:
    def experiment() -> ExperimentView:
        return ExperimentView(
            suite="s",
            name=draw(texts),
            base_experiment=draw(st.none() | st.sampled_from(["a", "b"])),
            cmd=draw(st.sampled_from(["sft", "eval", "command", "export"])),
            main=draw(st.none() | jobs("train")),
            evals=tuple(draw(jobs(f"eval-{number}")) for number in range(draw(st.integers(0, 2)))),
        )

    suites = tuple(
        SuiteView(name=draw(texts), experiments=tuple(experiment() for _ in range(draw(st.integers(0, 3)))))
        for _ in range(draw(st.integers(0, 2)))
    )
    return Collection(
        suites=suites,
        collected_at=draw(texts | st.just("2026-07-01T00:00:00Z")),
        warnings=tuple(draw(st.lists(texts, max_size=2))),
    )


def table_widths(text: str) -> list[set[int]]:
    """Return the numbers of columns that each block of table lines has."""
    blocks: list[set[int]] = [set()]
    for line in text.splitlines():
        if line.startswith("|"):
            blocks[-1].add(len(re.split(r"(?<!\\)\|", line)))
        elif blocks[-1]:
            blocks.append(set())
    return [block for block in blocks if block]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(collections())
def test_any_collection_renders_in_all_formats(collection: Collection) -> None:
    for layout in ("table", "swift", "pivot", "lm-eval"):
        render(collection, format="latex", options=ReportOptions(layout=layout)).encode()
        text = render(collection, format="markdown", options=ReportOptions(layout=layout))
        assert all(len(widths) == 1 for widths in table_widths(text))
        text.encode()
        render(collection, format="html", options=ReportOptions(layout=layout)).encode()
    rows = list(csv.reader(io.StringIO(render(collection, format="csv"))))
    assert len({len(row) for row in rows}) == 1
    assert len(rows) == 1 + sum(len(suite.experiments) for suite in collection.suites)
    assert json.loads(render(collection, format="json"))["schema_version"] == 2
    json.loads(render(collection, format="json", options=ReportOptions(full=True)))
    assert len({len(row) for row in csv.reader(io.StringIO(render(collection, format="long")))}) == 1
    Console(file=io.StringIO(), width=100).print(render_terminal(collection))
