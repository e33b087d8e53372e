"""Why a job was asked to stop, and when it goes back into the queue: after a certain time limit, and never else."""

from __future__ import annotations

import shutil
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from hpcbench.errors import SchedulerError
from hpcbench.job import __main__ as entry
from hpcbench.job import child_release as release
from hpcbench.job.context import JobContext
from hpcbench.job.stop_reason import StopReason, StopRequest, find_stop_reason, is_cancelled, judge_stop
from hpcbench.scheduler.slurm import own_job as slurm_own_job
from hpcbench.scheduler.slurm.own_job import BEING_PREEMPTED, OwnJob, parse_own_job
from hpcbench.schemas.record import Cause, Record
from hpcbench.schemas.states import JobState
from hpcbench.schemas.submission import Element
from hpcbench.storage.json_files import write_json
from tests.support.job_cases import array_job, command, experiment, record, submission
from tests.unit.plan.test_plan import plan

USR2, TERM = signal.SIGUSR2, signal.SIGTERM
RUNS = OwnJob(is_running=True)
IN_GRACE = OwnJob(is_running=True, is_being_preempted=True)
ENDED = OwnJob(is_running=False)
AT_LIMIT = OwnJob(is_running=False, is_at_limit=True)
REQUEUED = OwnJob(is_running=False, num_requeues=1)


@pytest.fixture
def context(tmp_path: Path) -> JobContext:
    return array_job(tmp_path)


def heard(*signals: int) -> StopRequest:
    """Return what a supervisor has noted that these signals came to, in this order."""
    request = StopRequest()
    for number in signals:
        request.note(number)
    return request


def cancel(context: JobContext, scheduler_id: str = "98_3") -> None:
    """Leave the note of `hpcbench cancel`."""
    write_json(context.paths.cancelled, {"schema_version": 1, "at": "now", "scheduler_id": scheduler_id})


@pytest.mark.parametrize(
    ("signals", "own", "expected"),
    [
        ((), RUNS, None),
        ((), ENDED, None),
        # The notice of a time limit, and that of a preemption with preempt_send_user_signal.
        ((USR2,), RUNS, "timeout"),
        ((USR2,), IN_GRACE, "preempted"),
        # scancel, whose TERM has not been heard yet.
        ((USR2,), ENDED, "terminate"),
        ((USR2,), AT_LIMIT, "timeout"),
        ((USR2,), None, "timeout"),
        ((TERM,), RUNS, "terminate"),
        ((TERM,), IN_GRACE, "preempted"),
        ((TERM,), ENDED, "terminate"),
        ((TERM,), AT_LIMIT, "timeout"),
        ((TERM,), None, "terminate"),
        # A preemption without grace, and one whose grace is over: Slurm has requeued the job.
        ((TERM,), REQUEUED, "preempted"),
        ((USR2, TERM), REQUEUED, "preempted"),
        # scancel after the notice.
        ((USR2, TERM), ENDED, "terminate"),
        ((USR2, TERM), RUNS, "terminate"),
        ((USR2, TERM), AT_LIMIT, "timeout"),
        ((USR2, TERM), None, "terminate"),
        # Both at once, as seen after a restart of slurmctld.
        ((TERM, USR2), ENDED, "terminate"),
        ((TERM, USR2), AT_LIMIT, "timeout"),
        ((TERM, USR2, TERM, USR2), None, "terminate"),
    ],
)
def test_signals_and_slurm_together_say_why_a_job_must_stop(
    signals: tuple[int, ...], own: OwnJob | None, expected: StopReason | None
) -> None:
    assert judge_stop(heard(*signals), is_noted=False, own=own) == expected


@pytest.mark.parametrize("own", [RUNS, IN_GRACE, ENDED, AT_LIMIT, None])
@pytest.mark.parametrize("signals", [(USR2,), (TERM,), (USR2, TERM)])
def test_a_job_that_hpcbench_cancelled_is_cancelled_whatever_came(signals: tuple[int, ...], own: OwnJob | None) -> None:
    assert judge_stop(heard(*signals), is_noted=True, own=own) == "terminate"


def test_only_a_note_for_this_very_job_counts(context: JobContext) -> None:
    assert not is_cancelled(context)
    cancel(context, "97_3")
    assert not is_cancelled(context)
    cancel(context)
    assert is_cancelled(context)
    # Slurm, which is not there, need not be asked.
    assert find_stop_reason(heard(USR2), context) == ("terminate", None)


def test_the_first_of_each_signal_counts_for_the_grace_time() -> None:
    request = heard(USR2, TERM)
    before = (request.warned_at, request.term_at)
    assert None not in before
    request.note(USR2)
    request.note(TERM)
    assert (request.warned_at, request.term_at) == before


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("JobState=RUNNING Reason=None Requeue=1 PreemptTime=None", RUNS),
        ("JobState=RUNNING Reason=None Requeue=1 PreemptTime=2026-11-21T10:00:00", IN_GRACE),
        # Seen while the TERM of a preemption was being sent.
        ("JobState=SIGNALING Reason=None Requeue=1 PreemptTime=2026-11-21T10:00:00", IN_GRACE),
        ("JobState=COMPLETING Reason=None Requeue=1", ENDED),
        ("JobState=COMPLETING Reason=TimeLimit Requeue=1", AT_LIMIT),
        ("JobState=TIMEOUT Reason=TimeLimit Requeue=1", AT_LIMIT),
        ("JobState=CANCELLED Reason=None Requeue=1 PreemptTime=2026-11-21T10:00:00", ENDED),
        ("slurm_load_jobs error: Invalid job id specified", None),
    ],
)
def test_slurms_word_on_the_job_that_asks_is_read(words: str, expected: OwnJob | None) -> None:
    line = f"JobId=99 ArrayJobId=98 JobName=a {words} Restarts=0\n"
    assert parse_own_job(line) == expected
    # The batch script outside a container reads it likewise.
    found = subprocess.run(["grep", "-Eq", BEING_PREEMPTED], input=line, text=True, check=False)
    assert (found.returncode == 0) == (expected == IN_GRACE)


def test_a_job_that_was_requeued_before_it_started_is_not_being_requeued() -> None:
    found = parse_own_job("JobId=99 JobState=COMPLETING Reason=None Requeue=1 Restarts=1")
    assert found == REQUEUED
    assert judge_stop(heard(TERM), is_noted=False, own=found, restart_count=0) == "preempted"
    assert judge_stop(heard(TERM), is_noted=False, own=found, restart_count=1) == "terminate"


def test_a_job_that_may_not_be_requeued_says_so() -> None:
    found = parse_own_job("JobId=99 JobState=RUNNING Requeue=0")
    assert found is not None
    assert not found.may_requeue


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The requeues that were asked for, by a job that Slurm takes for running."""
    calls: list[str] = []

    def requeue(context: JobContext) -> bool:
        calls.append(context.scheduler_id)
        return True

    monkeypatch.setattr(entry, "requeue", requeue)
    return calls


def timed_out(state: JobState = JobState.TIMEOUT, *, exit_code: int | None = None) -> Record:
    """Return the record of an attempt that was interrupted."""
    return record(state, cause=Cause(type="interrupted", message="the time limit came near", exit_code=exit_code))


def test_a_training_goes_back_into_the_queue_while_it_has_attempts(context: JobContext, asked: list[str]) -> None:
    request = plan(experiment("a", max_attempts=2))[0]
    assert entry.requeue_after_timeout(context, request, timed_out())
    assert not entry.requeue_after_timeout(replace(context, restart_count=1), request, timed_out())
    assert asked == ["98_3"]


@pytest.mark.parametrize("state", [JobState.CANCELLED, JobState.PREEMPTED, JobState.FAILED, JobState.COMPLETED])
def test_nothing_but_a_time_limit_is_requeued(context: JobContext, asked: list[str], state: JobState) -> None:
    assert not entry.requeue_after_timeout(context, plan(experiment("a"))[0], timed_out(state))
    assert asked == []


def test_a_program_goes_back_only_when_it_says_so(context: JobContext, asked: list[str]) -> None:
    request = plan(command("a"))[0]
    assert not entry.requeue_after_timeout(context, request, timed_out(exit_code=1))
    assert entry.requeue_after_timeout(context, request, timed_out(exit_code=75))
    assert asked == ["98_3"]


def test_a_job_cancelled_while_its_record_was_written_stays_away(context: JobContext, asked: list[str]) -> None:
    cancel(context)
    assert not entry.requeue_after_timeout(context, plan(experiment("a"))[0], timed_out())
    assert asked == []


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (RUNS, ["requeue", "Incomplete", "98_3"]),
        # scancel came first, and a plain requeue would undo it.
        (ENDED, ["requeue", "Incomplete", "98_3"]),
        (None, ["requeue", "Incomplete", "98_3"]),
        (AT_LIMIT, ["requeue", "98_3"]),
    ],
)
def test_a_job_that_slurm_ends_is_put_back_only_at_its_limit(
    context: JobContext, monkeypatch: pytest.MonkeyPatch, own: OwnJob | None, words: list[str]
) -> None:
    calls: list[list[str]] = []

    def run_command(command: list[str]) -> str:
        calls.append(command[1:])
        return ""

    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/scontrol")
    monkeypatch.setattr(slurm_own_job, "run_command", run_command)
    monkeypatch.setattr(release, "ask_own_job", lambda _: own)
    assert release.requeue(context)
    assert calls == [words]


@pytest.mark.parametrize("state", [JobState.CANCELLED, JobState.TIMEOUT])
def test_in_a_container_a_stopped_job_is_left_to_the_batch_script(
    context: JobContext, monkeypatch: pytest.MonkeyPatch, state: JobState
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    wishes = context.suite_paths.wishes(context.submission.key, 3)
    wishes.parent.mkdir(parents=True)
    failed = record(JobState.FAILED, cause=Cause(type="exit_code", message="exit code 1"))
    assert not release.stay_if_preempted(context, record(JobState.COMPLETED))
    assert not release.stay_if_preempted(context, failed)
    assert not release.stay_if_preempted(replace(context, on_slurm=False), timed_out(state))
    assert not wishes.exists()
    assert release.stay_if_preempted(context, timed_out(state))
    assert wishes.read_text() == "stay 98_3\n"


def test_only_a_container_leaves_a_stopped_job_to_the_batch_script_and_no_cancelled_one(
    context: JobContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/scontrol")
    assert not release.stay_if_preempted(context, timed_out(JobState.CANCELLED))
    monkeypatch.setattr(shutil, "which", lambda _: None)
    cancel(context)
    assert not release.stay_if_preempted(context, timed_out(JobState.CANCELLED))
    assert not context.suite_paths.wishes(context.submission.key, 3).exists()


def test_a_job_whose_cancellation_did_not_reach_slurm_does_not_start(
    context: JobContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = plan(command("a"))[0]
    write_json(context.paths.request, request.model_dump(mode="json"))
    element = Element(experiment="a", job="train", fingerprint=request.fingerprint)
    context = replace(context, submission=submission(elements={3: element}), restart_count=1)
    starts: list[str] = []

    def run_attempt(context: JobContext, *_: object, **__: object) -> int:
        starts.append(context.scheduler_id)
        return 0

    monkeypatch.setattr(entry, "run_attempt", run_attempt)
    cancel(context)
    assert entry.run_element(context, StopRequest()) == entry.EXIT_NOT_COMPLETED
    assert not context.paths.claim.exists()
    context.paths.cancelled.unlink()
    assert entry.run_element(context, StopRequest()) == 0
    assert starts == ["98_3"]


@pytest.mark.parametrize(
    ("answers", "num_asked"),
    [
        ([IN_GRACE, None, None, IN_GRACE, RUNS], 5),
        ([ENDED], 1),
        # A controller that never answers is not waited for without end.
        ([None] * 9, 5),
    ],
)
def test_a_job_that_is_being_preempted_stays_though_the_controller_is_busy(
    answers: list[OwnJob | None], num_asked: int, context: JobContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def ask(element_id: str) -> OwnJob | None:
        asked.append(element_id)
        return answers[len(asked) - 1]

    monkeypatch.setattr(entry, "ask_own_job", ask)
    monkeypatch.setattr(entry, "PREEMPTION_POLL_S", 0)
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/scontrol")
    entry.wait_for_preemption(context)
    assert asked == ["98_3"] * num_asked


@pytest.mark.parametrize(
    ("failures", "is_done"),
    [
        (["scontrol: exit code 1: Socket timed out on send/recv operation"] * 2, True),
        (["scontrol: exit code 1: Socket timed out on send/recv operation"] * 9, False),
        (["scontrol: exit code 1: Requested operation is presently disabled"], False),
    ],
)
def test_a_busy_controller_is_asked_again_to_requeue(
    failures: list[str], *, is_done: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(_: object) -> str:
        if failures:
            raise SchedulerError(failures.pop(0))
        return ""

    monkeypatch.setattr(slurm_own_job, "run_command", run)
    monkeypatch.setattr(slurm_own_job, "REQUEUE_WAITS_S", (0.0,) * 4)
    assert slurm_own_job.requeue_running("98_3") is is_done
