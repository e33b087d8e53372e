"""How a job's state is concluded: the record first, then the scheduler, then silence."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcbench.errors import SchedulerError
from hpcbench.plan.decide import Options
from hpcbench.report.notes_and_warnings import others_note
from hpcbench.scheduler.protocol import SchedulerJob
from hpcbench.schemas.collection import Collection, choose_jobs
from hpcbench.schemas.states import JobState
from hpcbench.schemas.submission import Submitter, read_submissions, write_submission
from hpcbench.schemas.suite import Experiment
from hpcbench.schemas.suite_folder import read_suites
from hpcbench.status import collect, job_files
from hpcbench.status.collect import collect_suites
from hpcbench.status.gather import status_rows
from hpcbench.status.held_jobs import release_held_jobs
from hpcbench.status.job_state import Evidence, conclude_state
from hpcbench.storage.json_files import read_signed_json, signature_of, write_json
from hpcbench.storage.paths import JobPaths, SuitePaths
from hpcbench.submit.cancel import cancel_jobs, cancel_where_possible
from hpcbench.submit.carry_out import submit_suite
from hpcbench.submit.destination import Destination
from hpcbench.submit.send_arrays import SubmitResult
from tests.support.fake_scheduler import HELD, PENDING, FakeScheduler
from tests.support.job_cases import command, experiment, record, suite, view
from tests.unit.plan.test_plan import plan

FAILED_TRAIN = view(plan(command("a"))[0], JobState.FAILED)
RECORDED_FAILURE = view(plan(command("a"))[0], JobState.FAILED, record=record(JobState.FAILED))
RECORDED_TIMEOUT = view(plan(command("a"))[0], JobState.TIMEOUT, record=record(JobState.TIMEOUT))
BLOCKED_EVAL = view(plan(command("a"))[0], JobState.BLOCKED)
GOOD_TRAIN = view(plan(command("a"))[0], JobState.COMPLETED)


def told(state: JobState, raw: str = "", **changes: object) -> SchedulerJob:
    return SchedulerJob(state=state, raw_state=raw or state.upper(), **changes)  # type: ignore[arg-type]


HOST_OOM = JobState.HOST_OUT_OF_MEMORY
LATE: dict[str, Any] = {"started": True, "seen_late": True}
REFUSED: dict[str, Any] = {"submitted": True, "started": True, "refused": "its train job is timeout"}


def used_up(max_attempts: int) -> dict[str, Any]:
    """Return what a record of the third start holds."""
    moments = {"started_at": "2026-11-21T00:00:00.000Z", "finished_at": "2026-11-21T00:01:00.000Z", "duration_s": 60}
    attempt = {"number": 3, "state": "timeout", "restart_count": 2, "host": "node1", **moments}
    return {"attempts": (attempt,), "request": {"max_attempts": max_attempts}}


@pytest.mark.parametrize(
    ("evidence", "state"),
    [
        (Evidence(), JobState.PLANNED),
        (Evidence(intended=True), JobState.UNKNOWN),
        (Evidence(submitted=True, reported=told(JobState.PENDING)), JobState.PENDING),
        (Evidence(submitted=True, reported=told(JobState.RUNNING)), JobState.RUNNING),
        (Evidence(submitted=True, answered=False), JobState.UNKNOWN),
        (Evidence(record=record(), submitted=True, reported=told(JobState.RUNNING)), JobState.COMPLETED),
        (Evidence(record=record(), answered=False), JobState.COMPLETED),
        (Evidence(record=record(JobState.FAILED), submitted=True, reported=told(JobState.FAILED)), JobState.FAILED),
        # Requeued after a time limit: the record of the last attempt is there, the job is alive.
        (Evidence(record=record(JobState.TIMEOUT), submitted=True, reported=told(JobState.PENDING)), JobState.PENDING),
        (Evidence(submitted=True, reported=told(JobState.NODE_FAILED)), JobState.NODE_FAILED),
        (Evidence(submitted=True, reported=told(JobState.COMPLETED), age_s=10), JobState.RUNNING),
        (Evidence(submitted=True, reported=told(JobState.COMPLETED), age_s=1000), JobState.FAILED),
        (Evidence(submitted=True, reported=None, age_s=10), JobState.UNKNOWN),
        (Evidence(submitted=True, reported=None, age_s=1000), JobState.LOST),
        (Evidence(submitted=True, reported=None, age_s=1000, history_failed=True), JobState.UNKNOWN),
        (Evidence(submitted=True, reported=None, age_s=1000, cancelled=True), JobState.CANCELLED),
        # Slurm may have requeued it, and scancel may have failed: who was not told knows nothing.
        (Evidence(record=record(JobState.TIMEOUT), submitted=True, answered=False), JobState.UNKNOWN),
        (Evidence(record=record(JobState.PREEMPTED), submitted=True, elsewhere="far"), JobState.UNKNOWN),
        (Evidence(record=record(JobState.CANCELLED), submitted=True, submitter="ada"), JobState.UNKNOWN),
        (Evidence(submitted=True, answered=False, cancelled=True), JobState.UNKNOWN),
        (Evidence(submitted=True, answered=False, parent=FAILED_TRAIN), JobState.UNKNOWN),
        # The parent's final record tells without any scheduler, at any distance.
        (Evidence(submitted=True, answered=False, parent=RECORDED_FAILURE), JobState.BLOCKED),
        (Evidence(submitted=True, answered=False, parent=BLOCKED_EVAL), JobState.BLOCKED),
        (Evidence(submitted=True, answered=False, parent=RECORDED_TIMEOUT), JobState.UNKNOWN),
        (Evidence(submitted=True, elsewhere="far", parent=RECORDED_FAILURE), JobState.UNKNOWN),
        (
            Evidence(record=record(JobState.TIMEOUT), submitted=True, answered=False, parent=RECORDED_FAILURE),
            JobState.UNKNOWN,
        ),
        # Nothing follows these.
        (Evidence(record=record(JobState.FAILED), submitted=True, answered=False), JobState.FAILED),
        (Evidence(record=record(JobState.HOST_OUT_OF_MEMORY), submitted=True, elsewhere="far"), HOST_OOM),
        (Evidence(record=record(JobState.TIMEOUT, **used_up(3)), submitted=True, answered=False), JobState.TIMEOUT),
        (Evidence(record=record(JobState.TIMEOUT, **used_up(4)), submitted=True, answered=False), JobState.UNKNOWN),
        # A record may be seen late, of whatever end Slurm speaks.
        (Evidence(submitted=True, reported=told(JobState.FAILED), **LATE, age_s=10), JobState.RUNNING),
        (Evidence(submitted=True, reported=told(JobState.TIMEOUT), **LATE, age_s=10), JobState.RUNNING),
        (Evidence(submitted=True, reported=told(JobState.FAILED), **LATE, age_s=1000), JobState.FAILED),
        (Evidence(submitted=True, reported=told(JobState.FAILED), seen_late=True, age_s=10), JobState.FAILED),
        (Evidence(submitted=True, reported=told(JobState.FAILED), started=True, age_s=10), JobState.FAILED),
    ],
)
def test_state_of_a_job(evidence: Evidence, state: JobState) -> None:
    assert conclude_state(evidence)[0] is state


@pytest.mark.parametrize(
    ("evidence", "state"),
    [
        (Evidence(submitted=True, reported=told(JobState.PENDING), parent=FAILED_TRAIN), JobState.BLOCKED),
        (Evidence(submitted=True, reported=told(JobState.CANCELLED), parent=FAILED_TRAIN), JobState.BLOCKED),
        (Evidence(parent=FAILED_TRAIN), JobState.BLOCKED),
        (Evidence(submitted=True, reported=told(JobState.BLOCKED), parent=GOOD_TRAIN), JobState.PENDING),
        (Evidence(submitted=True, reported=told(JobState.CANCELLED), parent=GOOD_TRAIN), JobState.PLANNED),
        (
            Evidence(submitted=True, reported=told(JobState.CANCELLED), parent=GOOD_TRAIN, started=True),
            JobState.CANCELLED,
        ),
        (
            Evidence(submitted=True, reported=told(JobState.CANCELLED), parent=GOOD_TRAIN, cancelled=True),
            JobState.CANCELLED,
        ),
        (Evidence(submitted=True, reported=None, age_s=1000, parent=GOOD_TRAIN), JobState.PLANNED),
        (Evidence(submitted=True, reported=told(JobState.FAILED), parent=GOOD_TRAIN, started=True), JobState.FAILED),
        (Evidence(reported=told(JobState.FAILED), parent=GOOD_TRAIN, **REFUSED), JobState.PLANNED),
        (Evidence(reported=None, age_s=1000, parent=GOOD_TRAIN, **REFUSED), JobState.PLANNED),
        (Evidence(reported=told(JobState.RUNNING), parent=GOOD_TRAIN, **REFUSED), JobState.RUNNING),
        (Evidence(reported=told(JobState.FAILED), parent=FAILED_TRAIN, **REFUSED), JobState.BLOCKED),
    ],
)
def test_state_of_an_eval(evidence: Evidence, state: JobState) -> None:
    assert conclude_state(evidence)[0] is state


def test_only_the_scheduler_can_tell_a_cancel_from_a_preemption() -> None:
    interrupted = record(JobState.CANCELLED, cause={"type": "interrupted", "message": "terminated"})
    evidence = Evidence(record=interrupted, submitted=True, reported=told(JobState.PREEMPTED))
    assert conclude_state(evidence)[0] is JobState.PREEMPTED


def test_a_suite_whose_plan_is_broken_is_made_up_from_its_folders(tmp_path: Path) -> None:
    paths = SuitePaths(tmp_path, "tuners")
    paths.submissions.mkdir(parents=True)
    paths.plan.write_text("{broken")
    for request in plan(command("b"), command("a")):
        write_json(paths.job(request.experiment, request.job).request, request.model_dump(mode="json"))
    collection = collect_suites(read_suites(tmp_path), lambda _: None)
    assert [(e.name, e.main is not None) for e in collection.suites[0].experiments] == [("a", True), ("b", True)]


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


def submit(save_dir: Path, scheduler: FakeScheduler, *experiments: Experiment) -> SubmitResult:
    return submit_suite(suite(*experiments), Destination(save_dir=save_dir, scheduler=scheduler), Options())


def look(save_dir: Path, scheduler: FakeScheduler) -> Collection:
    return collect_suites(read_suites(save_dir), lambda _: scheduler)


def test_a_job_whose_experiment_left_the_suite_is_shown_and_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = FakeScheduler(says={"train": PENDING})
    submit(tmp_path, scheduler, command("a"), command("b"))
    outcome = submit(tmp_path, scheduler, command("a"))
    assert outcome.num_jobs == 0
    assert outcome.plan.warnings == (
        "not in the suite any more, but still under way: tuners/b/train; `hpcbench cancel tuners/b/train` ends them",
    )
    found = look(tmp_path, scheduler)
    assert [job.experiment for job in found.jobs] == ["a"]
    [shown] = status_rows(choose_jobs(found, ["b"]))
    assert (shown.state, shown.reason, shown.in_suite) == ("pending", "not in the suite any more", False)
    monkeypatch.setattr("hpcbench.submit.cancel.scheduler_of", lambda *_: scheduler)
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


def test_an_eval_that_left_an_experiment_is_shown_and_released(tmp_path: Path) -> None:
    scheduler = FakeScheduler(says={"train": PENDING, "eval-gsm8k": HELD})
    submit(tmp_path, scheduler, experiment("lora"))
    submit(tmp_path, scheduler, experiment("lora", eval_dataset=()))
    found = look(tmp_path, scheduler)
    assert [(job.job, job.in_suite) for job in choose_jobs(found)] == [("train", True), ("eval-gsm8k", False)]
    scheduler.says = {"train": told(JobState.FAILED), "eval-gsm8k": HELD}
    found = look(tmp_path, scheduler)
    assert [job.job for job in choose_jobs(found)] == ["train"]
    assert release_held_jobs(read_suites(tmp_path), found, scheduler) == (0, 1)


def test_a_cancel_note_means_the_run_that_it_was_written_for(tmp_path: Path) -> None:
    scheduler = FakeScheduler()
    [submission] = submit(tmp_path, scheduler, command("a")).submitted
    note = SuitePaths(tmp_path, "tuners").job("a", "train").cancelled
    scheduler.says = {"train": told(JobState.FAILED)}
    for scheduler_id, state in (("99_0", JobState.FAILED), (submission.element_id(0), JobState.CANCELLED)):
        write_json(note, {"schema_version": 1, "scheduler_id": scheduler_id})
        assert [job.state for job in look(tmp_path, scheduler).jobs] == [state]


def test_jobs_whose_cancelling_failed_are_not_shown_as_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = FakeScheduler(says={"train": told(JobState.RUNNING)})
    submit(tmp_path, scheduler, command("a"))
    found = look(tmp_path, scheduler)

    def fail(*_: object) -> None:
        raise SchedulerError("scancel: Unable to contact slurm controller")

    monkeypatch.setattr(FakeScheduler, "cancel", fail)
    monkeypatch.setattr("hpcbench.submit.cancel.scheduler_of", lambda *_: scheduler)
    with pytest.raises(SchedulerError):
        cancel_jobs(choose_jobs(found), tmp_path)
    scheduler.says = None
    found = look(tmp_path, scheduler)
    assert [job.state for job in found.jobs] == [JobState.UNKNOWN]
    assert found.unanswered == {"slurm": "squeue: no answer within 90 s"}


def test_a_record_that_nfs_shows_only_after_a_listing_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = FakeScheduler(says={"train": told(JobState.FAILED)})
    [decision] = submit(tmp_path, scheduler, command("a")).plan.decisions
    job = SuitePaths(tmp_path, "tuners").job("a", "train")
    left = record(JobState.OUT_OF_MEMORY, experiment="a", fingerprint=decision.request.fingerprint)
    write_json(job.record, left.model_dump(mode="json"))
    listed: list[Path] = []
    list_folder = Path.iterdir

    def iterdir(folder: Path) -> Iterator[Path]:
        listed.append(folder)
        return list_folder(folder)

    def is_seen(path: str | Path) -> bool:
        return Path(path) != job.record or job.folder in listed

    monkeypatch.setattr(Path, "iterdir", iterdir)
    monkeypatch.setattr(job_files, "signature_of", lambda path: signature_of(path) if is_seen(path) else None)
    monkeypatch.setattr(job_files, "read_signed_json", lambda path: read_signed_json(path) if is_seen(path) else None)
    assert [job.state for job in look(tmp_path, scheduler).jobs] == [JobState.OUT_OF_MEMORY]


@pytest.mark.parametrize(("own_disk", "state"), [(False, JobState.RUNNING), (True, JobState.FAILED)])
def test_an_ended_job_without_a_record_waits_only_where_files_are_seen_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_disk: bool, state: JobState
) -> None:
    scheduler = FakeScheduler(says={"train": told(JobState.FAILED)})
    [submission] = submit(tmp_path, scheduler, command("a")).submitted
    mark = SuitePaths(tmp_path, "tuners").start_marks(submission.key) / "0"
    mark.parent.mkdir()
    mark.touch()
    monkeypatch.setattr(collect, "is_own_disk", lambda _: own_disk)
    assert [job.state for job in look(tmp_path, scheduler).jobs] == [state]


def test_jobs_of_another_user_are_neither_concluded_upon_nor_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = FakeScheduler()
    [mine] = submit(tmp_path, scheduler, command("a", evals=("x",))).submitted[:1]
    paths = SuitePaths(tmp_path, "tuners")
    assert mine.submitter is not None
    assert mine.submitter.uid == os.getuid()
    long_ago = {"submitted_at": "2026-01-01T00:00:00.000000Z", "created_at": "2026-01-01T00:00:00.000000Z"}
    for found in read_submissions(paths):
        theirs = {**long_ago, "submitter": Submitter(uid=os.getuid() + 1, name="ada")}
        write_submission(paths, found.model_copy(update=theirs))
    jobs = look(tmp_path, scheduler).jobs
    assert [(job.state, job.reason) for job in jobs] == [
        (JobState.UNKNOWN, "was submitted by ada; a scheduler shows users only their own jobs")
    ] * 2
    again = Options(retry=frozenset({JobState.LOST}))
    wanted = suite(command("a", evals=("x",)))
    assert submit_suite(wanted, Destination(save_dir=tmp_path, scheduler=scheduler), again).num_jobs == 0
    monkeypatch.setattr("hpcbench.submit.cancel.scheduler_of", lambda *_: scheduler)
    with pytest.raises(SchedulerError, match="2 of these jobs were submitted by ada"):
        cancel_jobs(jobs, tmp_path)
    assert not any(JobPaths(job.folder).cancelled.exists() for job in jobs)
    scheduler.says = {"train": PENDING}
    [own] = submit(tmp_path, scheduler, command("b")).submitted
    cancelled, left = cancel_where_possible(choose_jobs(look(tmp_path, scheduler)), tmp_path)
    assert [job.scheduler_id for job in cancelled] == [own.element_id(0)] == scheduler.cancelled
    assert [[job.experiment for job in jobs] for jobs, _ in left] == [["a", "a"]]
