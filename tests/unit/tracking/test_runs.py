"""Experiments as runs: curves by step and time, configuration, results, and what a tracker lacks of them."""

from __future__ import annotations

from hpcbench.schemas.collection import Collection, ExperimentView, SuiteView
from hpcbench.schemas.states import JobState
from hpcbench.tracking.runs import Run, Sent, points_to_add, runs_of, sent_of
from tests.support.report_parts import make_job
from tests.unit.tracking.conftest import Training


def one(collection: Collection) -> Run:
    (run,) = runs_of(collection)
    return run


def test_a_point_has_the_figures_of_its_step_and_the_time_of_the_steps_before(training: Training) -> None:
    run = one(training(2.0, 1.0, done=True))
    assert [(point.step, point.time_s - run.started_s) for point in run.points] == [(1, 0.5), (2, 1.0)]
    assert run.started_s == 1795834800.0
    assert run.points[1].figures == {
        "eval/loss": 0.25, "train/loss": 1.0, "train/num_tokens": 100.0, "train/step_time_s": 0.5
    }  # fmt: skip


def test_repeats_are_one_group_and_the_configuration_has_what_was_asked_for(training: Training) -> None:
    run = one(training(2.0, 1.0, done=True))
    assert (run.suite, run.name, run.group) == ("qwen", "lora-seed0", "lora")
    assert (run.config["lora_rank"], run.config["sft_type"], run.config["cmd"], run.config["ddp"]) == (
        8,
        "lora",
        "sft",
        1,
    )
    assert "eval_batch_size" not in run.config, "an argument that is not set"


def test_results_are_there_once_the_job_has_completed(training: Training) -> None:
    assert one(training(2.0, 1.5)).results == {}
    results = one(training(2.0, 1.5, done=True)).results
    assert (results["result/train_loss"], results["result/eval_loss"]) == (0.5, 0.25)


def test_the_last_step_of_a_training_under_way_waits_for_its_evaluation(training: Training) -> None:
    assert [point.step for point in one(training(3.0, 2.0, 1.0)).points] == [1, 2]


def test_what_has_neither_curve_nor_result_is_no_run() -> None:
    job = make_job("lora", "train", suite="qwen", state=JobState.PENDING)
    view = ExperimentView(suite="qwen", name="lora", cmd="sft", main=job)
    assert list(runs_of(Collection(suites=(SuiteView(name="qwen", experiments=(view,)),), collected_at="now"))) == []


def test_a_tracker_lacks_the_steps_since(training: Training) -> None:
    sent = sent_of(one(training(3.0, 2.0, 1.0)))
    longer = one(training(3.0, 2.0, 1.0, 0.5))
    added = points_to_add(longer, sent)
    assert added is not None
    assert [point.step for point in added] == [3]
    assert points_to_add(longer, sent_of(longer)) == ()
    assert points_to_add(longer, Sent()) == longer.points


def test_steps_that_were_done_again_are_other_points(training: Training) -> None:
    sent = sent_of(one(training(4.0, 3.0, 2.0, 1.0)))
    resumed = one(training(2.9, 2.1, 1.1, attempt=2, first_step=2))
    assert [point.figures["train/loss"] for point in resumed.points] == [4.0, 2.9, 2.1]
    assert points_to_add(resumed, sent) is None


def test_another_configuration_is_another_run(training: Training) -> None:
    first = one(training(2.0, 1.0))
    again = one(training(2.0, 1.0, 0.5))
    assert first.id == again.id
    assert len(first.id) == 16
