"""What experiments cost: sums over all starts of all jobs, waits, what was asked for against what was used."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hpcbench.report.cost import Cost, Use, cost_of, cost_table, cost_text, use_of
from hpcbench.report.facts import facts_of
from hpcbench.report.rows import merge_repeats
from hpcbench.schemas.collection import ExperimentView, JobView
from hpcbench.schemas.record import Attempt, SampledMemory
from hpcbench.schemas.states import JobState
from tests.support.report_parts import A100, eval_metrics, make_job, train_metrics

METRICS = train_metrics(trainable=1, total=2, train_loss=1.0, eval_loss=1.0, num_samples=1, train_time_s=1.0)
SAMPLED = SampledMemory(
    gpu_peak_gib=(30.0, 31.5), gpu_utilization_mean_pct=90.0, gpu_energy_wh=250.0, host_rss_peak_gib=3.25
)


def start(number: int, begin: str, end: str, hours: float, **values: Any) -> Attempt:
    return Attempt(
        number=number,
        state=JobState.COMPLETED,
        started_at=f"2026-07-01T{begin}:00+00:00",
        finished_at=f"2026-07-01T{end}:00+00:00",
        duration_s=hours * 3600,
        scheduler_id="12_0",
        host="gpu-03",
        **values,
    )


def trained(*starts: Attempt, submitted_at: str | None = "2026-07-01T07:00:00+00:00", **resources: Any) -> JobView:
    """Return a training on two GPUs with these starts."""
    job = make_job("lora", "train", suite="s", metrics=METRICS, environment=A100, num_gpus=2)
    assert job.record is not None
    assert job.request is not None
    asked = job.request.resources.model_copy(update=resources)
    return replace(
        job,
        record=job.record.model_copy(update={"attempts": starts, "finished_at": starts[-1].finished_at}),
        request=job.request.model_copy(update={"resources": asked}),
        submitted_at=submitted_at,
        scheduler_id="12_0",
    )


def experiment(main: JobView | None, *evals: JobView) -> ExperimentView:
    return ExperimentView(suite="s", name="lora", cmd="sft", main=main, evals=evals)


def test_every_start_counts() -> None:
    view = experiment(trained(start(1, "08:00", "08:30", 0.5, sampled=SAMPLED), start(2, "09:00", "10:00", 1.0)))
    cost = cost_of([facts_of(view)])
    assert cost == Cost(
        gpu_hours=3.0, energy_wh=250.0, queue_wait_s=5400.0, wall_time_s=5400.0, num_jobs=1, num_energy_unknown=0
    )


def test_eval_waits_from_the_end_of_its_training() -> None:
    score = make_job("lora", "eval-arc", suite="s", cmd="eval", metrics=eval_metrics("arc", "acc,none", 0.5))
    assert score.record is not None
    attempts = (start(1, "11:15", "11:30", 0.25),)
    score = replace(
        score,
        record=score.record.model_copy(update={"attempts": attempts}),
        submitted_at="2026-07-01T07:00:00+00:00",
        scheduler_id="12_0",
    )
    view = experiment(trained(start(1, "08:00", "11:00", 3.0)), score)
    assert cost_of([facts_of(view)]).queue_wait_s == 3600 + 15 * 60


def test_an_eval_does_not_wait_while_its_job_runs_another() -> None:
    first, second = (
        make_job("lora", f"eval-{name}", suite="s", cmd="eval", metrics=eval_metrics(name, "acc,none", 0.5))
        for name in ("arc", "gsm8k")
    )
    assert first.record is not None
    assert second.record is not None
    shared: dict[str, Any] = {"submitted_at": "2026-07-01T10:00:00+00:00", "scheduler_id": "12_0"}
    early, late = start(1, "11:15", "11:30", 0.25), start(1, "11:30", "12:00", 0.5)
    first = replace(
        first,
        record=first.record.model_copy(update={"attempts": (early,)}),
        companions=(("lora", "eval-gsm8k"),),
        **shared,
    )
    second = replace(
        second,
        record=second.record.model_copy(update={"attempts": (late,)}),
        companions=(("lora", "eval-arc"),),
        **shared,
    )
    view = ExperimentView(suite="s", name="lora", cmd="eval", evals=(first, second))
    assert cost_of([facts_of(view)]).queue_wait_s == 75 * 60


def test_wait_is_unknown_without_the_time_of_submit() -> None:
    view = experiment(trained(start(1, "08:00", "09:00", 1.0), submitted_at=None))
    assert cost_of([facts_of(view)]).queue_wait_s is None


def test_energy_that_nothing_measured_is_told() -> None:
    measured = experiment(trained(start(1, "08:00", "09:00", 1.0, sampled=SAMPLED)))
    unknown = experiment(trained(start(1, "08:00", "09:00", 1.0)))
    text = cost_text([facts_of(measured), facts_of(unknown)])
    assert text == "4.00 GPU hours, 0.25 kWh (unknown of 1 job), waited 2 h, ran 2 h"


def test_jobs_without_a_record_are_not_counted_and_named() -> None:
    pending = make_job("lora", "eval-arc", suite="s", cmd="eval", state=JobState.PENDING)
    view = experiment(trained(start(1, "08:00", "09:00", 1.0), submitted_at=None), pending)
    assert cost_text([facts_of(view)]) == "2.00 GPU hours, ran 1 h, not counted: 1 job without a record"
    assert cost_text([facts_of(experiment(None, pending))]) == ""


def test_use_is_compared_with_what_was_asked_for() -> None:
    found = use_of(
        facts_of(experiment(trained(start(1, "08:00", "09:00", 1.0, sampled=SAMPLED), time_min=120, mem_gb=16.0)))
    )
    assert found == Use(
        time_s=3600.0,
        time_limit_s=7200.0,
        host_memory_gib=3.25,
        host_memory_limit_gib=16.0,
        gpu_memory_gib=31.5,
        gpu_memory_limit_gib=80.0,
        gpu_utilization_pct=90.0,
    )


def test_table_adds_repeats_up_and_ends_with_the_sum_of_all() -> None:
    one = facts_of(experiment(trained(start(1, "08:00", "09:00", 1.0, sampled=SAMPLED), time_min=120)))
    views = [
        replace(one.view, name="a-0", base_experiment="a"),
        replace(one.view, name="a-1", base_experiment="a"),
        replace(one.view, name="b"),
    ]
    table = cost_table(merge_repeats(facts_of(view) for view in views))
    assert table is not None
    assert [column.header for column in table.columns] == [
        *("experiment", "GPU hours", "energy (kWh)", "queue wait", "wall time", "longest start, of limit"),
        *("host memory, of limit (GiB)", "GPU memory, of the GPU's (GiB)", "GPU utilization (%)"),
    ]
    assert [[cell.text for cell in cells] for cells in table.cells] == [
        ["a", "4.00", "0.500", "2 h", "2 h", "1 h of 2 h", "3.2", "31.5 of 80.0", "90"],
        ["b", "2.00", "0.250", "1 h", "1 h", "1 h of 2 h", "3.2", "31.5 of 80.0", "90"],
        ["all 3 experiments", "6.00", "0.750", "3 h", "3 h", "", "", "", ""],
    ]
