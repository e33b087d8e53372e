"""How a job's state is concluded: the record first, then the scheduler, then silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcbench.cancel import cancel_jobs
from hpcbench.collect import collect_suites, read_suites
from hpcbench.collection import Collection
from hpcbench.conclude import Evidence, conclude_state
from hpcbench.jsonfile import write_json
from hpcbench.paths import SuitePaths
from hpcbench.plan import Options
from hpcbench.report.remarks import others_note
from hpcbench.scheduler.protocol import SchedulerJob
from hpcbench.settle import settle_evals
from hpcbench.states import JobState
from hpcbench.status import choose_jobs, status_rows
from hpcbench.submit import submit_suite
from hpcbench.submit_batches import Outcome
from hpcbench.suite import Experiment
from tests.unit.fake_scheduler import HELD, PENDING, FakeScheduler
from tests.unit.job_cases import command, experiment, record, suite, view
from tests.unit.test_plan import plan

FAILED_TRAIN = view(plan(command("a"))[0], JobState.FAILED)
GOOD_TRAIN = view(plan(command("a"))[0], JobState.COMPLETED)


def told(state: JobState, raw: str = "", **changes: object) -> SchedulerJob:
    return SchedulerJob(state=state, raw_state=raw or state.upper(), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("evidence", "state"),
    [
        (Evidence(), JobState.PLANNED),
        (Evidence(intended=True), JobState.UNKNOWN),
        (Evidence(submitted=True, told=told(JobState.PENDING)), JobState.PENDING),
        (Evidence(submitted=True, told=told(JobState.RUNNING)), JobState.RUNNING),
        (Evidence(submitted=True, answered=False), JobState.UNKNOWN),
        (Evidence(record=record(), submitted=True, told=told(JobState.RUNNING)), JobState.COMPLETED),
        (Evidence(record=record(), answered=False), JobState.COMPLETED),
        (Evidence(record=record(JobState.FAILED), submitted=True, told=told(JobState.FAILED)), JobState.FAILED),
        # Requeued after a time limit: the record of the last attempt is there, the job is alive.
        (Evidence(record=record(JobState.TIMEOUT), submitted=True, told=told(JobState.PENDING)), JobState.PENDING),
        (Evidence(submitted=True, told=told(JobState.NODE_FAILED)), JobState.NODE_FAILED),
        (Evidence(submitted=True, told=told(JobState.COMPLETED), age_s=10), JobState.RUNNING),
        (Evidence(submitted=True, told=told(JobState.COMPLETED), age_s=1000), JobState.FAILED),
        (Evidence(submitted=True, told=None, age_s=10), JobState.UNKNOWN),
        (Evidence(submitted=True, told=None, age_s=1000), JobState.LOST),
        (Evidence(submitted=True, told=None, age_s=1000, history_failed=True), JobState.UNKNOWN),
        (Evidence(submitted=True, told=None, age_s=1000, cancelled=True), JobState.CANCELLED),
    ],
)
def test_state_of_a_job(evidence: Evidence, state: JobState) -> None:
    assert conclude_state(evidence)[0] is state


@pytest.mark.parametrize(
    ("evidence", "state"),
    [
        (Evidence(submitted=True, told=told(JobState.PENDING), train=FAILED_TRAIN), JobState.BLOCKED),
        (Evidence(submitted=True, told=told(JobState.CANCELLED), train=FAILED_TRAIN), JobState.BLOCKED),
        (Evidence(train=FAILED_TRAIN), JobState.BLOCKED),
        (Evidence(submitted=True, told=told(JobState.BLOCKED), train=GOOD_TRAIN), JobState.PENDING),
        (Evidence(submitted=True, told=told(JobState.CANCELLED), train=GOOD_TRAIN), JobState.PLANNED),
        (Evidence(submitted=True, told=told(JobState.CANCELLED), train=GOOD_TRAIN, started=True), JobState.CANCELLED),
        (
            Evidence(submitted=True, told=told(JobState.CANCELLED), train=GOOD_TRAIN, cancelled=True),
            JobState.CANCELLED,
        ),
        (Evidence(submitted=True, told=None, age_s=1000, train=GOOD_TRAIN), JobState.PLANNED),
    ],
)
def test_state_of_an_eval(evidence: Evidence, state: JobState) -> None:
    assert conclude_state(evidence)[0] is state


def test_only_the_scheduler_can_tell_a_cancel_from_a_preemption() -> None:
    interrupted = record(JobState.CANCELLED, cause={"type": "interrupted", "message": "terminated"})
    evidence = Evidence(record=interrupted, submitted=True, told=told(JobState.PREEMPTED))
    assert conclude_state(evidence)[0] is JobState.PREEMPTED


def test_a_suite_whose_plan_is_broken_is_made_up_from_its_folders(tmp_path: Path) -> None:
    paths = SuitePaths(tmp_path, "tuners")
    paths.submissions.mkdir(parents=True)
    paths.plan.write_text("{broken")
    for request in plan(command("b"), command("a")):
        write_json(paths.job(request.experiment, request.job).request, request.model_dump(mode="json"))
    collection = collect_suites(read_suites(tmp_path), lambda _: None)
    assert [(e.name, e.train is not None) for e in collection.suites[0].experiments] == [("a", True), ("b", True)]


def test_a_record_of_another_configuration_is_not_shown_as_this_ones(tmp_path: Path) -> None:
    paths = SuitePaths(tmp_path, "tuners")
    [request] = plan(command("a"))
    write_json(paths.plan, {"suite": "tuners", "experiments": [{"name": "a", "cmd": "command", "jobs": ["train"]}]})
    job = paths.job("a", "train")
    write_json(job.request, request.model_dump(mode="json"))
    write_json(job.record, record(experiment="a", fingerprint="0" * 64).model_dump(mode="json"))
    [found] = collect_suites(read_suites(tmp_path), lambda _: None).jobs
    assert found.record is None
    assert found.state is JobState.PLANNED
    assert suite().name == "tuners"


def test_a_copied_suite_folder_is_a_suite_of_its_own(tmp_path: Path) -> None:
    for folder in ("tuners", "tuners-backup"):
        write_json(SuitePaths(tmp_path, folder).plan, {"suite": "tuners"})
    assert [found.plan.suite for found in read_suites(tmp_path)] == ["tuners", "tuners-backup"]


def submit(save_dir: Path, scheduler: FakeScheduler, *experiments: Experiment) -> Outcome:
    return submit_suite(suite(*experiments), save_dir=save_dir, scheduler=scheduler, options=Options())


def look(save_dir: Path, scheduler: FakeScheduler) -> Collection:
    return collect_suites(read_suites(save_dir), lambda _: scheduler)


def test_a_job_whose_experiment_left_the_suite_is_shown_and_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = FakeScheduler(says={"train": PENDING})
    submit(tmp_path, scheduler, command("a"), command("b"))
    outcome = submit(tmp_path, scheduler, command("a"))
    assert outcome.num_jobs == 0
    assert outcome.warnings == [
        "not in the suite any more, but still under way: 'tuners/b/train'; hpcbench cancel NAME ends them"
    ]
    found = look(tmp_path, scheduler)
    assert [job.experiment for job in found.jobs] == ["a"]
    [shown] = status_rows(choose_jobs(found, ["b"]))
    assert (shown.state, shown.reason, shown.in_suite) == ("pending", "not in the suite any more", False)
    monkeypatch.setattr("hpcbench.cancel.scheduler_of", lambda *_: scheduler)
    cancel_jobs(choose_jobs(found, ["b"]), tmp_path)
    assert scheduler.cancelled == [choose_jobs(found, ["b"])[0].scheduler_id]


def test_what_left_the_suite_and_is_over_is_only_counted(tmp_path: Path) -> None:
    scheduler = FakeScheduler(says={"train": PENDING})
    submit(tmp_path, scheduler, command("a"), command("b"))
    submit(tmp_path, scheduler, command("a"))
    note = "left out: 1 experiment that the suite does not have any more"
    under_way = "; 1 job not in the suite any more, but still under way: hpcbench status tuners"
    assert others_note(look(tmp_path, scheduler).suites[0]) == note + under_way
    scheduler.says = {"train": told(JobState.FAILED)}
    found = look(tmp_path, scheduler)
    assert [job.experiment for job in choose_jobs(found)] == ["a"]
    assert others_note(found.suites[0]) == note


def test_an_eval_that_left_an_experiment_is_shown_and_settled(tmp_path: Path) -> None:
    scheduler = FakeScheduler(says={"train": PENDING, "eval-gsm8k": HELD})
    submit(tmp_path, scheduler, experiment("lora"))
    submit(tmp_path, scheduler, experiment("lora", eval_dataset=()))
    found = look(tmp_path, scheduler)
    assert [(job.job, job.in_suite) for job in choose_jobs(found)] == [("train", True), ("eval-gsm8k", False)]
    scheduler.says = {"train": told(JobState.FAILED), "eval-gsm8k": HELD}
    found = look(tmp_path, scheduler)
    assert [job.job for job in choose_jobs(found)] == ["train"]
    assert settle_evals(read_suites(tmp_path), found, scheduler) == (0, 1)
