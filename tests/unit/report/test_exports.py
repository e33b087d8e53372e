"""What a report shows of exports: SWIFT 2.x's table of nine columns, and how their weights are held."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hpcbench.report import render
from hpcbench.schemas.arguments import ExportArgs
from hpcbench.schemas.collection import Collection, ExperimentView, SuiteView
from hpcbench.schemas.metrics import ExportMetrics
from hpcbench.schemas.report_options import Layout, ReportOptions
from hpcbench.schemas.states import JobState
from tests.support import report_parts as parts


def exported(name: str, *, state: JobState = JobState.COMPLETED, **asked: Any) -> ExperimentView:
    """Return a finished export with an eval of its model."""
    args = {"model_type": "qwen2.5-7b-instruct", "dataset": ["alpaca-en", "alpaca-zh"]}
    metrics = ExportMetrics(output_model="/model", deviations={"group_size": "64 instead of 128"})
    job = parts.make_job(name, "export", suite="s", cmd="export", args=args, metrics=metrics, state=state)
    assert job.request is not None
    request = job.request.model_copy(update={"export": ExportArgs(**asked)})
    score = parts.eval_metrics("arc", "acc_norm,none", 0.675, infer=(12994, 482.72))
    arc = parts.make_job(name, "eval-arc", suite="s", cmd="eval", args=args, metrics=score)
    return ExperimentView(suite="s", name=name, cmd="export", main=replace(job, request=request), evals=(arc,))


def report(*experiments: ExperimentView, layout: Layout) -> str:
    suite = SuiteView(name="s", experiments=experiments)
    return render(
        Collection(suites=(suite,), collected_at="now"), format="markdown", options=ReportOptions(layout=layout)
    )


def test_swifts_table_has_the_calibration_of_what_was_calibrated() -> None:
    text = report(
        exported("awq", quant_bits=4, quant_method="awq"),
        exported("bnb", quant_bits=8, quant_method="bnb"),
        exported("merged", ckpt_from="lora"),
        layout="swift",
    )
    speed = "26.92(12994 tokens/482.72 seconds)"
    assert f"|awq|qwen2.5-7b-instruct|alpaca-en alpaca-zh|awq|4|{speed}||**0.675**||" in text
    assert f"|bnb|qwen2.5-7b-instruct||bnb|8|{speed}||**0.675**||" in text
    assert f"|merged|qwen2.5-7b-instruct||||{speed}||**0.675**||" in text


def test_the_default_table_says_how_weights_are_held_and_what_ran_otherwise() -> None:
    text = report(exported("q", quant_bits=4, quant_method="gptq"), exported("m", ckpt_from="lora"), layout="table")
    assert "int4 (gptq)" in text
    assert "merged" in text
    assert "group_size: 64 instead of 128 (q, m)" in text


def test_a_failed_training_names_the_exports_that_it_blocks() -> None:
    training = parts.make_job("lora", "train", suite="s", state=JobState.FAILED, reason="exit code 3")
    blocked = exported("m", ckpt_from="lora", state=JobState.BLOCKED)
    assert blocked.main is not None
    taken = replace(blocked, main=replace(blocked.main, parent=("lora", "train"), record=None), evals=())
    text = report(ExperimentView(suite="s", name="lora", cmd="sft", main=training), taken, layout="table")
    assert "blocks: m export" in text
