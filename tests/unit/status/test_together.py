"""What is said of evals that share a scheduler job, and what cancelling one of them does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcbench.plan.decide import Options
from hpcbench.scheduler.protocol import SchedulerJob
from hpcbench.schemas.arguments import EvalArgs
from hpcbench.schemas.collection import Collection, JobView, choose_jobs
from hpcbench.schemas.record import Record
from hpcbench.schemas.states import JobState
from hpcbench.schemas.suite_folder import read_suites
from hpcbench.status.collect import collect_suites
from hpcbench.status.held_jobs import release_held_jobs
from hpcbench.status.job_state import NO_TURN, WAITS_FOR_TURN
from hpcbench.storage.json_files import read_json, write_json
from hpcbench.storage.paths import JobPaths
from hpcbench.submit.cancel import cancel_jobs
from hpcbench.submit.carry_out import submit_suite
from hpcbench.submit.destination import Destination
from tests.support.fake_scheduler import HELD, PENDING, FakeScheduler
from tests.support.job_cases import experiment, record, suite

RUNNING = SchedulerJob(state=JobState.RUNNING, raw_state="RUNNING")
FAILED = SchedulerJob(state=JobState.FAILED, raw_state="FAILED")
MOMENTS = {"started_at": "2026-11-21T00:00:00.000Z", "finished_at": "2026-11-21T00:01:00.000Z", "duration_s": 60}


class Evals:
    """Three evals that were submitted to share a job, of which a scheduler says what a test wants."""

    def __init__(self, save_dir: Path) -> None:
        self.save_dir = save_dir
        self.scheduler = FakeScheduler(otherwise=PENDING)
        names = ("x", "y", "z")
        args = {name: EvalArgs(together=True) for name in names}
        self.suite = suite(experiment("a", cmd="eval", eval_dataset=names, eval_args=args))
        self.submit()
        (save_dir / "tuners" / "slurm").mkdir()

    def submit(self) -> int:
        destination = Destination(save_dir=self.save_dir, scheduler=self.scheduler)
        return submit_suite(self.suite, destination, Options(), sleep=lambda _: None).num_jobs

    def look(self) -> Collection:
        return collect_suites(read_suites(self.save_dir), lambda _: self.scheduler)

    def view(self, job: str) -> JobView:
        return next(view for view in self.look().jobs if view.job == f"eval-{job}")

    def states(self) -> list[tuple[str, str]]:
        return [(view.state.value, view.reason) for view in self.look().jobs]

    def begin(self, job: str) -> None:
        view = self.view(job)
        assert view.scheduler_id is not None
        key = next(key for key, found in self.scheduler.taken.items() if view.scheduler_id.startswith(found))
        write_json(view.folder / "claim.json", {"key": key, "scheduler_id": view.scheduler_id})

    def end(self, job: str, state: JobState, **changes: Any) -> Record:
        self.begin(job)
        view = self.view(job)
        assert view.request is not None
        attempt = {"number": 1, "state": state, "host": "n", "scheduler_id": view.scheduler_id, **MOMENTS}
        left = record(
            state,
            experiment="a",
            job=view.job,
            cmd="eval",
            fingerprint=view.request.fingerprint,
            attempts=[attempt],
            **changes,
        )
        write_json(view.folder / "record.json", left.model_dump(mode="json"))
        return left


@pytest.fixture
def evals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evals:
    found = Evals(tmp_path)
    monkeypatch.setattr("hpcbench.submit.cancel.scheduler_of", lambda *_: found.scheduler)
    return found


def test_they_are_one_job_of_the_scheduler(evals: Evals) -> None:
    assert len(evals.scheduler.taken) == 1
    assert len({view.scheduler_id for view in evals.look().jobs}) == 1
    assert [view.companions for view in evals.look().jobs][1] == (("a", "eval-x"), ("a", "eval-z"))
    assert evals.submit() == 0


def test_while_it_runs_each_has_a_state_of_its_own(evals: Evals) -> None:
    evals.scheduler.otherwise = RUNNING
    evals.end("x", JobState.FAILED, cause={"type": "exit_code", "message": "exit code 3"})
    evals.begin("y")
    assert evals.states() == [("failed", "exit code 3"), ("running", ""), ("pending", WAITS_FOR_TURN)]


def test_those_whose_turn_did_not_come_are_planned_and_submitted_again(evals: Evals) -> None:
    evals.scheduler.otherwise = FAILED
    evals.end("x", JobState.COMPLETED)
    evals.begin("y")
    assert evals.states() == [
        ("completed", ""),
        ("failed", "it ended (FAILED); it left no record"),
        ("planned", NO_TURN),
    ]
    assert evals.submit() == 1
    assert evals.view("z").companions == ()


def test_where_none_began_all_have_the_state_of_their_job(evals: Evals) -> None:
    evals.scheduler.otherwise = FAILED
    assert [state for state, _ in evals.states()] == ["failed"] * 3


def test_while_their_job_waits_none_asks_for_the_others(evals: Evals, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def has_begun(job: JobPaths, _key: str) -> bool:
        asked.append(job.folder.name)
        return False

    monkeypatch.setattr("hpcbench.status.collect._has_begun", has_begun)
    assert [state for state, _ in evals.states()] == ["pending"] * 3
    assert asked == ["eval-x", "eval-y", "eval-z"]


def test_cancelling_one_leaves_the_others_their_job(evals: Evals, tmp_path: Path) -> None:
    evals.scheduler.otherwise = RUNNING
    evals.end("x", JobState.COMPLETED)
    evals.begin("y")
    assert [job.job for job in cancel_jobs(choose_jobs(evals.look(), ["a/eval-z"]), tmp_path)] == ["eval-z"]
    assert evals.scheduler.cancelled == []
    assert evals.states()[1:] == [("running", ""), ("cancelled", "cancelled by hpcbench")]
    cancel_jobs(choose_jobs(evals.look(), ["a/eval-y"]), tmp_path)
    assert evals.scheduler.cancelled == [evals.view("y").scheduler_id]


def test_cancelling_all_cancels_their_job_once(evals: Evals, tmp_path: Path) -> None:
    cancelled = cancel_jobs(choose_jobs(evals.look()), tmp_path)
    assert len(cancelled) == 3
    assert evals.scheduler.cancelled == [cancelled[0].scheduler_id]
    assert all(read_json(job.folder / "cancelled.json") for job in cancelled)


def test_their_job_is_released_once(tmp_path: Path) -> None:
    scheduler = FakeScheduler(says={"train": PENDING}, otherwise=HELD)
    args = {name: EvalArgs(together=True) for name in ("x", "y")}
    trained = suite(experiment("a", eval_dataset=tuple(args), eval_args=args))
    submit_suite(trained, Destination(save_dir=tmp_path, scheduler=scheduler), Options(), sleep=lambda _: None)
    [on_disk] = read_suites(tmp_path)
    [train, *_] = collect_suites([on_disk], lambda _: scheduler).jobs
    assert train.request is not None
    done = record(experiment="a", job="train", fingerprint=train.request.fingerprint)
    write_json(train.folder / "record.json", done.model_dump(mode="json"))
    found = collect_suites([on_disk], lambda _: scheduler)
    assert release_held_jobs([on_disk], found, scheduler) == (1, 0)
    assert scheduler.released == [found.jobs[1].scheduler_id]
