"""A scheduler that does not answer: submits wait and look before they try again, and one queue is asked once."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hpcbench.errors import SchedulerError
from hpcbench.plan.decide import Options
from hpcbench.scheduler.protocol import Answer
from hpcbench.scheduler.slurm.scheduler import SlurmScheduler
from hpcbench.schemas.cluster_profile import ClusterProfile
from hpcbench.schemas.submission import Submission, read_submissions
from hpcbench.schemas.suite import Suite
from hpcbench.schemas.suite_folder import read_suites
from hpcbench.status import polling as lookout
from hpcbench.status.collect import ask_schedulers
from hpcbench.status.polling import poll
from hpcbench.storage.paths import SuitePaths
from hpcbench.submit.carry_out import submit_suite
from hpcbench.submit.destination import Destination
from hpcbench.submit.send_arrays import WAITS_S
from tests.support.fake_scheduler import PENDING, FakeScheduler
from tests.support.job_cases import command, suite


@dataclass(slots=True)
class Moody(FakeScheduler):
    """It does on each call what its script says: `lost` takes the job and does not answer, `down` takes nothing."""

    moods: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)

    def _mood(self, call: str) -> str:
        self.calls.append(call)
        return self.moods.pop(0) if self.moods else "well"

    def submit(self, submission: Submission, after_id: str | None) -> str:
        mood = self._mood("submit")
        if mood == "down":
            raise SchedulerError("Unable to contact slurm controller")
        taken = FakeScheduler.submit(self, submission, after_id)
        if mood == "lost":
            raise SchedulerError("Socket timed out")
        return taken

    def find(self, keys: Sequence[str]) -> Mapping[str, str]:
        if self._mood("find") == "down":
            raise SchedulerError("Unable to contact slurm controller")
        return FakeScheduler.find(self, keys)


@pytest.mark.parametrize(
    ("moods", "calls"),
    [
        (["down", "well"], ["submit", "find", "submit"]),
        (["lost", "well"], ["submit", "find"]),
        (["down", "down", "down", "well"], ["submit", "find", "find", "find", "submit"]),
        (["lost", "down", "down", "well"], ["submit", "find", "find", "find"]),
        (["down", "well", "lost", "down", "well"], ["submit", "find", "submit", "find", "find"]),
        (["lost", "down", "down", "down", "down", "well"], ["submit", *["find"] * 5]),
    ],
)
def test_nothing_is_submitted_again_before_a_query_has_answered(
    moods: list[str], calls: list[str], tmp_path: Path
) -> None:
    scheduler = Moody(moods=moods)
    waits_s: list[float] = []
    destination = Destination(save_dir=tmp_path, scheduler=scheduler)
    result = submit_suite(suite(command("a")), destination, Options(), sleep=waits_s.append)
    assert scheduler.calls == calls
    assert len(scheduler.taken) == result.num_jobs == 1
    assert waits_s == list(WAITS_S[: len(waits_s)])


def test_a_scheduler_that_stays_away_leaves_the_intent_open_for_the_next_submit(
    tmp_path: Path,
) -> None:
    scheduler = Moody(moods=["lost", *["down"] * 5])
    waits_s: list[float] = []
    destination = Destination(save_dir=tmp_path, scheduler=scheduler)
    with pytest.raises(SchedulerError, match="did not take"):
        submit_suite(suite(command("a")), destination, Options(), sleep=waits_s.append)
    assert scheduler.calls == ["submit", *["find"] * 5]
    assert waits_s == list(WAITS_S)
    assert [s.state for s in read_submissions(SuitePaths(tmp_path, "tuners"))] == ["intent"]
    again = submit_suite(suite(command("a")), destination, Options())
    assert (len(again.plan.adopted), again.num_jobs, len(scheduler.taken)) == (1, 0, 1)


def submit_by_two_profiles(save_dir: Path) -> None:
    for name in ("short", "long"):
        wanted = Suite(name=name, file=Path("/suites/x.yaml"), experiments=(command(name),))
        submit_suite(wanted, Destination(save_dir=save_dir, scheduler=FakeScheduler(name=name)), Options())


class OneSlurm(SlurmScheduler):
    """Profiles of one Slurm, which answers that all waits; the questions are kept."""

    questions: list[list[str]]

    def query(self, submissions: Sequence[Submission]) -> Answer:
        self.questions.append(sorted(submission.cluster for submission in submissions))
        return Answer(jobs={(s.key, 0): PENDING for s in submissions}, history_known=True, warnings=("told",))


def test_two_profiles_of_one_slurm_are_asked_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submit_by_two_profiles(tmp_path)
    questions: list[list[str]] = []
    monkeypatch.setattr(OneSlurm, "questions", questions, raising=False)

    def find(cluster: str) -> OneSlurm:
        return OneSlurm(ClusterProfile(name=cluster, poll_s={"short": 30, "long": 60}[cluster]), tmp_path)

    answers, warnings, unanswered = ask_schedulers(read_suites(tmp_path), find)
    assert questions == [["long", "short"]]
    assert (sorted(answers), warnings, unanswered) == (["long", "short"], ("told",), {})

    questions.clear()
    now_s = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds

    monkeypatch.setattr(lookout, "scheduler_of", lambda cluster, _: find(cluster))
    looks = list(itertools.islice(poll(tmp_path, clock=lambda: now_s, sleep=sleep), 13))
    assert {job.state for look in looks for job in look.jobs} == {"pending"}
    # Sixty seconds: the longer of the two patiences.
    assert questions == [["long", "short"]] * 2
