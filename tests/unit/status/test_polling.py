"""Watching: a scheduler is asked seldom, whatever is read in between, and nothing is concluded from an old answer."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hpcbench.errors import SchedulerError
from hpcbench.plan.decide import Options
from hpcbench.scheduler.protocol import SchedulerJob
from hpcbench.scheduler.slurm.scheduler import SlurmScheduler
from hpcbench.schemas.cluster_profile import ClusterProfile
from hpcbench.schemas.states import JobState
from hpcbench.schemas.submission import Submission
from hpcbench.status import polling as lookout
from hpcbench.status.polling import PatientQueue, poll
from hpcbench.submit.carry_out import submit_suite
from hpcbench.submit.destination import Destination
from tests.support.fake_scheduler import HELD, PENDING, FakeScheduler
from tests.support.job_cases import command, submission, suite

RUNNING = SchedulerJob(state=JobState.RUNNING, raw_state="RUNNING")


@dataclass(slots=True)
class Hands:
    """A clock that a test sets."""

    now_s: float = 0.0
    naps: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now_s += seconds

    def clock(self) -> float:
        return self.now_s


@pytest.fixture
def hands() -> Hands:
    return Hands()


def patient(scheduler: FakeScheduler, hands: Hands, every_s: float = 30) -> Callable[[Submission], SchedulerJob | None]:
    queue = PatientQueue(scheduler, every_s, clock=hands.clock)
    return lambda asked: queue.query([asked]).jobs.get((asked.key, 0))


def test_between_two_questions_the_last_answer_stands(hands: Hands) -> None:
    scheduler = FakeScheduler(says={"train": PENDING})
    ask = patient(scheduler, hands)
    assert ask(submission()) == PENDING
    scheduler.says = {"train": RUNNING}
    hands.now_s = 29
    assert ask(submission()) == PENDING
    hands.now_s = 30
    assert ask(submission()) == RUNNING


def test_a_new_submission_is_asked_for_at_once(hands: Hands) -> None:
    scheduler = FakeScheduler(says={"train": PENDING})
    ask = patient(scheduler, hands)
    ask(submission())
    scheduler.says = {"train": RUNNING}
    assert ask(submission(key="another")) == RUNNING


def test_what_an_old_answer_says_is_held_is_not_touched_again(hands: Hands) -> None:
    ask = patient(FakeScheduler(says={"train": HELD}), hands)
    first, second = ask(submission()), ask(submission())
    assert [job is not None and job.held_by_dependency for job in (first, second)] == [True, False]


def test_a_scheduler_that_does_not_answer_is_left_in_peace(hands: Hands) -> None:
    scheduler = FakeScheduler(says=None)
    ask = patient(scheduler, hands)
    with pytest.raises(SchedulerError):
        ask(submission())
    scheduler.says = {"train": RUNNING}
    with pytest.raises(SchedulerError):
        ask(submission())
    hands.now_s = 30
    assert ask(submission()) == RUNNING


@pytest.mark.parametrize(("every_s", "asked_at"), [(None, [0, 40]), (60.0, [0, 60])])
def test_files_are_read_every_5_s_and_the_scheduler_as_its_profile_or_the_user_says(
    every_s: float | None, asked_at: list[float], tmp_path: Path, hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = FakeScheduler(says={"train": PENDING})
    submit_suite(suite(command("a")), Destination(save_dir=tmp_path, scheduler=scheduler), Options())
    times: list[float] = []

    def query(_: SlurmScheduler, submissions: list[Submission]) -> object:
        times.append(hands.now_s)
        return scheduler.query(submissions)

    monkeypatch.setattr(SlurmScheduler, "query", query)
    slurm = SlurmScheduler(ClusterProfile(poll_s=40), tmp_path)
    monkeypatch.setattr(lookout, "scheduler_of", lambda *_: slurm)
    looks = list(itertools.islice(poll(tmp_path, every_s=every_s, clock=hands.clock, sleep=hands.sleep), 15))
    assert [look.jobs[0].state for look in looks] == [JobState.PENDING] * 15
    assert hands.naps == [5.0] * 14
    assert times == asked_at


def test_a_look_that_takes_long_is_followed_by_a_long_rest(
    tmp_path: Path, hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "gather", lambda *_, **__: hands.sleep(2))
    list(itertools.islice(poll(tmp_path, clock=hands.clock, sleep=hands.sleep), 2))
    assert hands.naps == [2, 18, 2]
