"""Submitting to a scheduler in memory: what is kept, what is refused, and what a silent scheduler may not decide."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hpcbench.errors import PlanError, RecordError, SchedulerError, SubmitError
from hpcbench.job import parent_check as gate
from hpcbench.plan.decide import Options
from hpcbench.scheduler.protocol import Scheduler, SchedulerJob
from hpcbench.schemas.arguments import EvalArgs
from hpcbench.schemas.collection import JobView
from hpcbench.schemas.record import Record
from hpcbench.schemas.report_options import ReportOptions
from hpcbench.schemas.request import JobRequest
from hpcbench.schemas.states import JobState
from hpcbench.schemas.submission import Submission, Submitter, read_submissions, write_submission
from hpcbench.schemas.suite import Experiment
from hpcbench.schemas.suite_folder import read_suites
from hpcbench.status.collect import collect_suites
from hpcbench.storage.json_files import write_json
from hpcbench.storage.paths import SuitePaths
from hpcbench.submit.carry_out import carry_out, claim_plan, release_children_of, submit_suite
from hpcbench.submit.destination import Destination
from hpcbench.submit.job_folder import prepare_job
from hpcbench.submit.send_arrays import SubmitResult
from hpcbench.submit.submit_plan import prepare
from tests.support.fake_scheduler import HELD, PENDING, FakeScheduler
from tests.support.job_cases import command, experiment, record, suite
from tests.unit.test_retention import METRICS

REFUSED = SubmitError("Invalid account")
LONG_AGO = "2026-01-01T00:00:00.000000Z"
RETRY_FAILED = Options(retry=frozenset({JobState.FAILED}))


def submit(
    save_dir: Path,
    scheduler: Scheduler,
    *experiments: Experiment,
    options: Options | None = None,
    other: Scheduler | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> SubmitResult:
    """Submit one suite; `other` is the scheduler of any other cluster."""
    destination = Destination(save_dir=save_dir, scheduler=scheduler, find_other=lambda *_: other)
    return submit_suite(suite(*experiments), destination, options or Options(), sleep=sleep)


def leave_record(save_dir: Path, outcome: SubmitResult, state: JobState) -> Record:
    """Leave the record of a first attempt, as a supervisor would."""
    request: JobRequest = outcome.plan.decisions[0].request
    job = SuitePaths(save_dir, "tuners").job(request.experiment, request.job)
    left = record(state, experiment=request.experiment, fingerprint=request.fingerprint)
    for file in (job.attempt(1).record, job.record):
        write_json(file, left.model_dump(mode="json"))
    return left


def release(save_dir: Path, scheduler: Scheduler) -> None:
    """Settle the evals of the one suite."""
    [found] = read_suites(save_dir)
    release_children_of(found, Destination(save_dir=save_dir, scheduler=scheduler))


def look(save_dir: Path, scheduler: Scheduler) -> dict[str, JobView]:
    return {view.job: view for view in collect_suites(read_suites(save_dir), lambda _: scheduler).jobs}


def age(save_dir: Path) -> None:
    """Let all submissions be long ago."""
    paths = SuitePaths(save_dir, "tuners")
    for submission in read_submissions(paths):
        write_submission(paths, submission.model_copy(update={"submitted_at": LONG_AGO, "created_at": LONG_AGO}))


def test_a_retry_that_is_refused_leaves_the_old_record(tmp_path: Path) -> None:
    scheduler = FakeScheduler()
    left = leave_record(tmp_path, submit(tmp_path, scheduler, command("a")), JobState.FAILED)
    scheduler.refusal = REFUSED
    assert submit(tmp_path, scheduler, command("a"), options=RETRY_FAILED).refused
    assert look(tmp_path, scheduler)["train"].record == left


@pytest.mark.parametrize("state", [JobState.OUT_OF_MEMORY, JobState.COMPLETED])
def test_a_submit_killed_while_it_prepares_jobs_loses_no_record(
    state: JobState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = FakeScheduler()
    left = leave_record(tmp_path, submit(tmp_path, scheduler, command("a")), state)
    age(tmp_path)

    def prepare_and_die(paths: SuitePaths, request: JobRequest, **options: bool) -> None:
        prepare_job(paths, request, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("hpcbench.submit.send_arrays.prepare_job", prepare_and_die)
        with pytest.raises(KeyboardInterrupt):
            submit(tmp_path, scheduler, command("a"), options=Options(retry=frozenset({state})))
    assert look(tmp_path, scheduler)["train"].record is None
    assert submit(tmp_path, scheduler, command("a")).num_jobs == 0
    assert look(tmp_path, scheduler)["train"].record == left


def test_a_submit_whose_claim_is_anothers_stops(tmp_path: Path) -> None:
    class Slow(FakeScheduler):
        """Whose first call takes so long that another submit takes the suite over."""

        def submit(self, submission: Submission, after_id: str | None) -> str:
            write_json(SuitePaths(tmp_path, "tuners").claim, {"host": "login2", "pid": 1, "token": "t"})
            return super().submit(submission, after_id)

    with pytest.raises(PlanError, match="another submit has taken over"):
        submit(tmp_path, Slow(), experiment("a"))


def test_a_plan_shows_the_evals_of_a_train_job_under_way(tmp_path: Path) -> None:
    scheduler = FakeScheduler(says={"train": PENDING})
    submit(tmp_path, scheduler, replace(experiment("a"), eval_dataset=()))
    plan = prepare(suite(experiment("a")), Destination(save_dir=tmp_path, scheduler=scheduler), Options())
    jobs = [[element.job for element in found.elements.values()] for found, _ in plan.render()]
    assert (jobs, plan.num_left) == ([["eval-gsm8k"]], 0)


def test_a_plan_is_carried_out_under_the_keys_that_it_shows(tmp_path: Path) -> None:
    scheduler = FakeScheduler()
    wanted = suite(*(command(name, evals=("x",)) for name in "abc"))
    destination = Destination(save_dir=tmp_path, scheduler=scheduler)
    with claim_plan(wanted, destination, Options(), max_jobs=4) as plan:
        shown = [submission.key for submission, _ in plan.render()]
        result = carry_out(plan)
    assert shown == [submission.key for submission in result.submitted] == list(scheduler.taken)
    assert (plan.num_jobs, plan.num_left) == (result.num_jobs, result.num_left)


def test_a_dry_run_goes_as_far_as_a_submit_and_changes_nothing(tmp_path: Path) -> None:
    wanted = suite(*(command(name) for name in "abc"))
    destination = Destination(save_dir=tmp_path / "logs", scheduler=FakeScheduler())
    plan = prepare(wanted, destination, Options(), max_jobs=2)
    assert not destination.save_dir.exists()
    result = submit_suite(wanted, destination, Options(), max_jobs=2)
    assert (plan.num_jobs, plan.num_left) == (result.num_jobs, result.num_left) == (2, 1)


def test_a_suite_without_its_suite_json_is_not_submitted_twice(tmp_path: Path) -> None:
    scheduler = FakeScheduler(says={"train": PENDING})
    submit(tmp_path, scheduler, command("a"))
    SuitePaths(tmp_path, "tuners").plan.unlink()
    destination = Destination(save_dir=tmp_path, scheduler=scheduler)
    assert prepare(suite(command("a")), destination, Options()).num_jobs == 0
    assert submit(tmp_path, scheduler, command("a")).num_jobs == 0


def test_how_a_suite_is_shown_is_kept_and_runs_nothing_again(tmp_path: Path) -> None:
    scheduler = FakeScheduler(says={"train": PENDING})
    submit(tmp_path, scheduler, command("a"))
    destination = Destination(save_dir=tmp_path, scheduler=scheduler)
    asked = ReportOptions(columns=("gsm8k",), top=3)
    outcome = submit_suite(replace(suite(command("a")), report=asked), destination, Options())
    assert outcome.num_jobs == 0
    [on_disk] = read_suites(tmp_path)
    assert ReportOptions().over(on_disk.plan.report) == asked


def test_a_change_that_is_refused_stays_planned(tmp_path: Path) -> None:
    scheduler = FakeScheduler()
    leave_record(tmp_path, submit(tmp_path, scheduler, command("a")), JobState.COMPLETED)
    age(tmp_path)
    changed = replace(command("a"), env={"NEW": "1"})
    scheduler.refusal = REFUSED
    assert submit(tmp_path, scheduler, changed, options=Options(force=True)).refused
    scheduler.refusal = None
    assert submit(tmp_path, scheduler, changed).num_jobs == 1


def test_a_submission_without_an_answer_is_looked_for_by_the_next_submit(
    tmp_path: Path,
) -> None:
    scheduler = FakeScheduler(refusal=SchedulerError("sbatch did not answer"))
    with pytest.raises(SchedulerError, match="did not take"):
        submit(tmp_path, scheduler, command("a"), sleep=lambda _: None)
    [intent] = read_submissions(SuitePaths(tmp_path, "tuners"))
    assert intent.state == "intent"
    scheduler.taken[intent.key] = "712"
    scheduler.says = {"train": PENDING}
    outcome = submit(tmp_path, scheduler, command("a"))
    assert ([s.scheduler_id for s in outcome.plan.adopted], outcome.num_jobs) == (["712"], 0)


def leave_intent(save_dir: Path, scheduler: FakeScheduler, *, marks: str, **changes: object) -> Submission:
    """Leave what a killed submit leaves, of a job that wrote its start mark and nothing else."""
    [taken] = submit(save_dir, scheduler, command("a")).submitted
    paths = SuitePaths(save_dir, "tuners")
    intent = taken.model_copy(update={"state": "intent", "scheduler_id": None, "submitted_at": None, **changes})
    write_submission(paths, intent)
    paths.start_marks(taken.key).mkdir()
    (paths.start_marks(taken.key) / "0").write_text(marks)
    # Nothing lists it any more, and there is no accounting.
    scheduler.taken.clear()
    return intent


@pytest.mark.parametrize("array", [False, True])
def test_what_has_started_is_adopted_by_its_mark(tmp_path: Path, *, array: bool) -> None:
    scheduler = FakeScheduler()
    leave_intent(tmp_path, scheduler, marks="713 0 node1\n", array=array)
    outcome = submit(tmp_path, scheduler, command("a"))
    assert (outcome.num_jobs, [s.scheduler_id for s in outcome.plan.adopted]) == (0, ["713"])


def test_the_open_intent_of_another_user_is_left_alone(tmp_path: Path) -> None:
    scheduler = FakeScheduler()
    theirs = leave_intent(tmp_path, scheduler, marks="", submitter=Submitter(uid=os.getuid() + 1, name="ada"))
    assert submit(tmp_path, scheduler, command("a")).num_jobs == 0
    assert read_submissions(SuitePaths(tmp_path, "tuners")) == [theirs]


def test_an_eval_that_its_gate_turned_away_goes_out_again(tmp_path: Path) -> None:
    scheduler = FakeScheduler()
    outcome = submit(tmp_path, scheduler, command("a", evals=("x",)))
    paths = SuitePaths(tmp_path, "tuners")
    score = outcome.submitted[1]
    leave_record(tmp_path, outcome, JobState.FAILED)
    start = [sys.executable, "-m", "hpcbench.job", str(paths.submission(score.key)), "--index", "0"]
    assert subprocess.run(start, check=False, capture_output=True).returncode == 1
    leave_record(tmp_path, outcome, JobState.COMPLETED)
    scheduler.says = {"eval-x": SchedulerJob(state=JobState.FAILED, raw_state="FAILED")}
    found = look(tmp_path, scheduler)["eval-x"]
    assert found.state is JobState.PLANNED
    assert found.reason == "did not run: its train job is failed"
    again = submit(tmp_path, scheduler, command("a", evals=("x",)))
    assert [[element.job for element in s.elements.values()] for s in again.submitted] == [["eval-x"]]
    scheduler.says = {}
    assert look(tmp_path, scheduler)["eval-x"].state is JobState.UNKNOWN


def test_an_eval_program_does_not_run_without_the_checkpoint_that_it_asks_for(tmp_path: Path) -> None:
    scheduler = FakeScheduler()
    asks_for_last = replace(
        experiment("a"), eval_dataset=("x",), eval_args={"x": EvalArgs(command=("true",), checkpoint="last")}
    )
    outcome = submit(tmp_path, scheduler, asks_for_last)
    paths = SuitePaths(tmp_path, "tuners")
    score = outcome.submitted[1]
    train = leave_record(tmp_path, outcome, JobState.COMPLETED)
    metrics = METRICS.model_copy(update={"last_checkpoint": None})
    write_json(paths.job("a", "train").record, train.model_copy(update={"metrics": metrics}).model_dump(mode="json"))
    (paths.job("a", "train").checkpoints / "best").mkdir(parents=True)
    start = [sys.executable, "-m", "hpcbench.job", str(paths.submission(score.key)), "--index", "0"]
    assert subprocess.run(start, check=False, capture_output=True).returncode == 1
    scheduler.says = {"eval-x": SchedulerJob(state=JobState.FAILED, raw_state="FAILED")}
    found = look(tmp_path, scheduler)["eval-x"]
    why = "did not run: its train job kept no last checkpoint, which eval_args.checkpoint asks for"
    assert (found.state, found.reason) == (JobState.PLANNED, why)
    again = submit(tmp_path, scheduler, asks_for_last)
    assert (again.num_jobs, again.has_failed) == (0, True)
    assert [decision.why for decision in again.plan.changed] == [why.removeprefix("did not run: ")]


@pytest.mark.parametrize("state", [JobState.TIMEOUT, JobState.PREEMPTED])
def test_an_eval_waits_for_the_record_of_a_train_job_that_came_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: JobState
) -> None:
    outcome = submit(tmp_path, FakeScheduler(), command("a", evals=("x",)))
    leave_record(tmp_path, outcome, state)
    monkeypatch.setattr(time, "sleep", lambda _: leave_record(tmp_path, outcome, JobState.COMPLETED))
    found, reason = gate.check_parent(outcome.plan.decisions[1].request)
    assert (found is not None, reason) == (True, "")


def test_a_submission_file_that_cannot_be_read_stops_a_submit(tmp_path: Path) -> None:
    submit(tmp_path, FakeScheduler(), command("a"))
    paths = SuitePaths(tmp_path, "tuners")
    [submission] = read_submissions(paths)
    paths.submission(submission.key).write_text("{")
    scheduler = FakeScheduler()
    with pytest.raises(RecordError, match="would be submitted a second time"):
        submit(tmp_path, scheduler, command("a"))
    assert scheduler.taken == {}


def test_a_save_dir_that_cannot_be_made_is_an_error_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PlanError, match="cannot be made: Not a directory"):
        submit(tmp_path / "file" / "logs", FakeScheduler(), command("a"))


@pytest.mark.parametrize(("mode", "warned"), [(0o777, True), (0o1777, False), (0o775, False)])
def test_a_save_dir_that_everybody_may_write_is_warned_about(tmp_path: Path, mode: int, warned: bool) -> None:
    tmp_path.chmod(mode)
    warnings = submit(tmp_path, FakeScheduler(), command("a")).plan.warnings
    assert ["writable by everybody" in warning for warning in warnings] == [True] * warned


def test_jobs_of_another_cluster_are_asked_for_there(tmp_path: Path) -> None:
    far = FakeScheduler("far", says={"train": PENDING})
    submit(tmp_path, far, command("a"))
    age(tmp_path)
    near = FakeScheduler("near")
    again = Options(retry=frozenset({JobState.LOST}))
    assert submit(tmp_path, near, command("a"), options=again, other=far).num_jobs == 0
    assert look(tmp_path, far)["train"].cluster == "far"


def test_jobs_of_a_cluster_that_is_not_here_are_not_lost(tmp_path: Path) -> None:
    submit(tmp_path, FakeScheduler("far"), command("a"))
    age(tmp_path)
    found = collect_suites(read_suites(tmp_path), lambda _: None)
    assert [view.state for view in found.jobs] == [JobState.UNKNOWN]
    assert found.warnings[0].startswith("far: its scheduler cannot be queried from this machine")


@pytest.mark.parametrize("state", [JobState.TIMEOUT, JobState.PREEMPTED])
def test_a_job_that_may_be_back_in_a_queue_nobody_here_can_ask_is_not_doubled(tmp_path: Path, state: JobState) -> None:
    far = FakeScheduler("far")
    outcome = submit(tmp_path, far, command("a"))
    leave_record(tmp_path, outcome, state)
    age(tmp_path)
    retry = Options(retry=frozenset({state}))
    assert submit(tmp_path, FakeScheduler("near"), command("a"), options=retry).num_jobs == 0
    assert SuitePaths(tmp_path, "tuners").job("a", "train").record.exists()


def test_a_submit_stops_when_the_scheduler_does_not_answer(tmp_path: Path) -> None:
    scheduler = FakeScheduler()
    submit(tmp_path, scheduler, command("a"))
    scheduler.says = None
    with pytest.raises(SchedulerError, match=r"did not answer \(slurm: squeue: no answer") as raised:
        submit(tmp_path, scheduler, command("a"), options=RETRY_FAILED)
    assert raised.value.hint == "nothing was submitted; run the same command again later"


def test_jobs_of_a_cluster_of_the_same_profile_name_are_not_lost_adopted_or_doubled(tmp_path: Path) -> None:
    far = FakeScheduler(cluster_name="far")
    [taken] = submit(tmp_path, far, command("a")).submitted
    near = FakeScheduler(cluster_name="near")
    paths = SuitePaths(tmp_path, "tuners")
    for changes in ({}, {"state": "intent", "scheduler_id": None}):
        write_submission(paths, taken.model_copy(update={**changes, "submitted_at": LONG_AGO, "created_at": LONG_AGO}))
        again = submit(tmp_path, near, command("a"), options=Options(retry=frozenset({JobState.LOST})))
        assert (again.num_jobs, again.plan.adopted) == (0, ())
        assert look(tmp_path, near)["train"].state is JobState.UNKNOWN
    assert near.taken == {}


def test_a_retry_takes_away_the_claim_and_progress_of_the_run_before(tmp_path: Path) -> None:
    # A compute node's clock may be ahead, so that the old claim looks newer than the new submission.
    scheduler = FakeScheduler()
    leave_record(tmp_path, submit(tmp_path, scheduler, command("a")), JobState.FAILED)
    job = SuitePaths(tmp_path, "tuners").job("a", "train")
    for file in (job.claim, job.progress):
        write_json(file, {"claimed_at": "2999-01-01T00:00:00.000000Z"})
    assert submit(tmp_path, scheduler, command("a"), options=RETRY_FAILED).num_jobs == 1
    assert not job.claim.exists()
    assert not job.progress.exists()


@pytest.mark.parametrize(("told", "released"), [(HELD, ["101_0"]), (PENDING, [])])
def test_only_evals_that_the_queue_holds_back_are_released(tmp_path: Path, told: object, released: list[str]) -> None:
    scheduler = FakeScheduler()
    leave_record(tmp_path, submit(tmp_path, scheduler, command("a", evals=("x",))), JobState.COMPLETED)
    scheduler.says = {"eval-x": told}  # type: ignore[dict-item]
    release(tmp_path, scheduler)
    assert scheduler.released == released


@pytest.mark.parametrize(
    ("says", "cancelled"),
    [({"eval-x": HELD}, ["101_0"]), ({}, []), (None, [])],
    ids=["held", "left the queue long ago", "the scheduler does not answer"],
)
def test_only_evals_that_the_queue_holds_back_are_cancelled(
    tmp_path: Path, says: dict[str, object] | None, cancelled: list[str]
) -> None:
    # After a time limit the train job may be back in the queue, which only the scheduler knows.
    scheduler = FakeScheduler()
    leave_record(tmp_path, submit(tmp_path, scheduler, command("a", evals=("x",))), JobState.TIMEOUT)
    scheduler.says = says  # type: ignore[assignment]
    release(tmp_path, scheduler)
    assert scheduler.cancelled == cancelled
