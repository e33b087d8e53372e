"""How a job's state is concluded: the record first, then the scheduler, then silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcbench.collect import collect_suites, read_suites
from hpcbench.conclude import Evidence, conclude_state
from hpcbench.jsonfile import write_json
from hpcbench.paths import SuitePaths
from hpcbench.scheduler.protocol import SchedulerJob
from hpcbench.states import JobState
from tests.unit.job_cases import command, record, suite, view
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
