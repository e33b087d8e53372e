"""Pivot tables: which rows share a line, what cells say of hardware, states and repeats, which keys are refused."""

from __future__ import annotations

from typing import Any

import pytest

from hpcbench.errors import ReportError
from hpcbench.report import render
from hpcbench.report.facts import facts_of
from hpcbench.report.pivot_settings import base_model_texts, setting_text
from hpcbench.report.pivot_table import pivot_notes, pivot_table
from hpcbench.schemas.collection import Collection, ExperimentView, SuiteView
from hpcbench.schemas.report_options import ReportOptions
from hpcbench.schemas.states import JobState
from tests.support.report_parts import A100, COLLECTED_AT, LAPTOP, LORA, QWEN, make_job, train_metrics

H100 = A100 | {"gpus": {"names": ["NVIDIA H100 80GB HBM3"]}}


def trained(
    name: str,
    *,
    base: str | None = None,
    environment: dict[str, Any] = A100,
    state: JobState = JobState.COMPLETED,
    peaks: tuple[float, ...] = (27.74,),
    seconds: float = 1000.0,
    **args: Any,
) -> ExperimentView:
    """Return an experiment of one training, finished or in another state."""
    figures: dict[str, Any] = {"reserved_gib": peaks} if peaks else {"host_rss_gib": 1.5}
    metrics = train_metrics(
        trainable=1, total=2, train_loss=1.0, eval_loss=1.0, num_samples=4310, train_time_s=seconds, **figures
    )
    job = make_job(
        name,
        "train",
        suite="sweep",
        args=QWEN | LORA | args,
        state=state,
        metrics=metrics if state is JobState.COMPLETED else None,
        environment=environment,
        num_gpus=len(peaks),
    )
    return ExperimentView(suite="sweep", name=name, base_experiment=base, cmd="sft", main=job)


def texts(*experiments: ExperimentView, **options: Any) -> list[list[str]]:
    table = pivot_table([facts_of(view) for view in experiments], ReportOptions(layout="pivot", **options))
    return [[cell.text for cell in cells] for cells in table.cells]


def test_rows_of_the_same_first_setting_stand_together_in_the_order_of_the_file() -> None:
    found = texts(
        trained("a", model_type="qwen-7b-chat", max_length=512),
        trained("b", model_type="qwen-14b-chat", max_length=512),
        trained("c", model_type="qwen-7b-chat", max_length=1024),
        by=("model_type", "max_length"),
        value=("memory_peak_gib",),
    )
    assert found == [
        ["qwen-7b-chat", "512", "27.74"],
        ["qwen-7b-chat", "1024", "27.74"],
        ["qwen-14b-chat", "512", "27.74"],
    ]


def test_repeats_share_a_row_and_are_averaged() -> None:
    found = texts(
        trained("a-0", base="a", seconds=1000),
        trained("a-1", base="a", seconds=1100, seed=43),
        by=("model_type",),
        value=("train_samples_per_second",),
    )
    assert found == [["qwen-7b-chat", "4.11 ± 0.28 (n=2)"]]


def test_row_that_puts_different_experiments_together_says_so() -> None:
    experiments = [facts_of(trained("a", lora_rank=4)), facts_of(trained("b", lora_rank=8))]
    table = pivot_table(experiments, ReportOptions(by=("model_type",), value=("memory_peak_gib",)))
    assert "1 row put together experiments that differ in other settings too: a, b" in pivot_notes(table)


def test_experiment_without_a_figure_shows_its_state() -> None:
    found = texts(
        trained("a", state=JobState.OUT_OF_MEMORY, max_length=1),
        trained("b", state=JobState.RUNNING, max_length=2),
        trained("c", state=JobState.TIMEOUT, max_length=3),
        by=("max_length",),
        value=("train_samples_per_second", "memory_peak_gib"),
    )
    assert found == [["1", "-", "OOM"], ["2", "-", "running"], ["3", "-", "timeout"]]


def test_speed_says_its_gpus_where_the_table_has_two_kinds() -> None:
    found = texts(
        trained("a", max_length=512),
        trained("b", max_length=1024, environment=H100),
        by=("max_length",),
        value=("train_samples_per_second",),
    )
    assert found == [["512", "4.31 (A100)"], ["1024", "4.31 (H100)"]]


def test_hardware_is_not_told_twice_where_it_makes_the_rows() -> None:
    found = texts(
        trained("a", peaks=(20.0, 20.0)),
        trained("b"),
        by=("gpu",),
        value=("train_samples_per_second", "memory_peak_gib"),
        units="cell",
    )
    assert found == [["2", "4.31samples/s", "20.00GiB*2"], ["1", "4.31samples/s", "27.74GiB"]]


def test_many_different_peaks_become_a_range() -> None:
    found = texts(trained("a", peaks=(1.0, 2.0, 3.0, 4.0, 5.0)), by=("gpu",), value=("memory_peak_gib",))
    assert found == [["5", "1.00-5.00*5"]]


def test_memory_without_a_gpu_is_marked() -> None:
    found = texts(trained("a", peaks=(), environment=LAPTOP), by=("model_type",), value=("memory_peak_gib",))
    assert found == [["qwen-7b-chat", "1.50 (host)"]]


def test_quantized_base_keeps_its_name_where_no_row_has_the_base_itself() -> None:
    assert base_model_texts(["qwen-7b-chat-int4"]) == ("qwen-7b-chat-int4",)
    assert base_model_texts(["q-gptq-int8", "q", "q_awq", "q-4bit", "r-int4"]) == ("q", "q", "q", "q", "r-int4")


@pytest.mark.parametrize(
    ("name", "method", "expected"),
    [("q-chat-int4", "gptq", "int4 (gptq)"), ("q-2bit-1x16", "aqlm", "int2 (aqlm)"), ("q-awq", "awq", "awq")],
)
def test_quantized_base_that_ran_out_of_memory_says_what_it_was_asked_to_be(
    name: str, method: str, expected: str
) -> None:
    args = {"model_type": name, "quant_method": method}
    job = make_job("a", "train", suite="sweep", args=args, state=JobState.OUT_OF_MEMORY)
    view = ExperimentView(suite="sweep", name="a", cmd="sft", main=job)
    assert setting_text(facts_of(view), "quantization") == expected


def test_setting_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ReportError, match="by: lora_rnk: not a setting") as error:
        texts(trained("a"), by=("model_type", "lora_rnk"))
    assert error.value.hint == "did you mean 'lora_rank'?"


def test_figure_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ReportError, match="value: memory_peak_gb: not a figure of these experiments") as error:
        texts(trained("a"), value=("memory_peak_gb",))
    assert error.value.hint == "did you mean 'memory_peak_gib'?"


def test_markup_in_names_is_text_in_html_and_markdown() -> None:
    view = trained("a", model_type="<b>|x")
    collection = Collection(suites=(SuiteView(name="sweep", experiments=(view,)),), collected_at=COLLECTED_AT)
    options = ReportOptions(layout="pivot", by=("model_type",), value=("num_steps",))
    plain = render(collection, format="markdown", options=options)
    assert "| &lt;b&gt;\\|x" in plain
    spanning = render(collection, format="markdown", options=options.model_copy(update={"row_spans": True}))
    assert "<td>&lt;b&gt;|x</td>" in spanning


def test_rows_are_what_experiments_differ_in_where_nothing_else_is_asked_for() -> None:
    found = texts(trained("a", lora_rank=4, learning_rate=5e-5), trained("b", lora_rank=8, learning_rate=1e-4))
    assert found == [["qwen-7b-chat", "5e-5", "4", "4.31", "27.74"], ["qwen-7b-chat", "1e-4", "8", "4.31", "27.74"]]


def test_experiments_that_no_setting_tells_apart_are_named() -> None:
    assert [row[1] for row in texts(trained("a"), trained("b"))] == ["a", "b"]


def test_key_of_a_suite_that_does_not_exist_is_warned_of_and_left_out() -> None:
    report = ReportOptions(layout="pivot", by=("lora_rnk",), value=("memory_peak_mib",), headers={"x": "y"})
    suite = SuiteView(name="sweep", experiments=(trained("a"), trained("b")), report=report)
    text = render(Collection(suites=(suite,), collected_at=COLLECTED_AT), format="markdown")
    assert "- report: by: lora_rnk: not a setting; expected an argument of a training" in text
    assert "- report: headers: x: not a column of the table" in text
    assert "|              28406 |" in text


def test_key_that_was_typed_and_does_not_exist_is_refused_whatever_the_suite_has() -> None:
    suite = SuiteView(name="sweep", experiments=(trained("a"),), report=ReportOptions(layout="pivot"))
    collection = Collection(suites=(suite,), collected_at=COLLECTED_AT)
    with pytest.raises(ReportError, match="by: lora_rnk: not a setting"):
        render(collection, format="markdown", options=ReportOptions(layout="pivot", by=("lora_rnk",)))
