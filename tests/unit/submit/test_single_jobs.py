"""Jobs that go out one by one: the same plan, and a limit that is met once is not asked again for each job."""

# ruff: noqa: ARG002  # a stand-in need not look at what it is given

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hpcbench.errors import SubmitError
from hpcbench.plan.arrays import make_arrays
from hpcbench.plan.decide import Options, decide
from hpcbench.plan.requests import plan_suite
from hpcbench.scheduler.protocol import Answer, Scheduler
from hpcbench.schemas.request import Resources
from hpcbench.schemas.submission import JobSettings, Submission
from hpcbench.submit.carry_out import submit_suite
from hpcbench.submit.destination import Destination
from tests.support.job_cases import command, suite


class FullScheduler:
    """A scheduler that takes a few jobs and then meets a limit; it knows nothing of the past."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.calls: list[tuple[Submission, str | None]] = []

    @property
    def name(self) -> str:
        return "full"

    @property
    def cluster_name(self) -> str | None:
        return None

    @property
    def queue_name(self) -> str:
        return self.name

    @property
    def runs_here(self) -> bool:
        return False

    @property
    def poll_s(self) -> float | None:
        return None

    def max_array_size(self) -> int:
        return 1

    def room_left(self) -> int | None:
        return None

    def describe_environment(self, texts: Sequence[str]) -> list[str]:
        return []

    def job_settings(self, resources: Resources) -> JobSettings:
        del resources
        return JobSettings()

    def render(self, submission: Submission, after_id: str | None) -> str:
        return ""

    def submit(self, submission: Submission, after_id: str | None) -> str:
        self.calls.append((submission, after_id))
        if len(self.calls) > self.room:
            raise SubmitError("Job violates accounting/QOS policy (job submit limit)")
        return str(len(self.calls))

    def find(self, keys: Sequence[str]) -> Mapping[str, str]:
        return {}

    def query(self, submissions: Sequence[Submission]) -> Answer:
        return Answer(history_known=True)

    def release(self, element_ids: Iterable[str]) -> None: ...

    def cancel(self, element_ids: Sequence[str]) -> None: ...


def test_every_job_is_its_own_submission_and_evals_follow_their_train_job() -> None:
    requests = plan_suite(suite(command("a", evals=("x", "y")), command("b")), save_dir=Path("/logs"), inputs={})
    batches = make_arrays(decide(requests, {}, Options(), cluster="slurm"), 1)
    assert [(batch.array, len(batch.requests), len(batch.children)) for batch in batches] == [
        (False, 1, 2),
        (False, 1, 0),
    ]
    assert all(not evals.array and list(evals.requests) == [0] for batch in batches for evals in batch.children)


def test_a_limit_is_met_once(tmp_path: Path) -> None:
    full = FullScheduler(room=3)
    scheduler: Scheduler = full
    wanted = suite(*(command(f"e{i}", evals=("x",)) for i in range(5)))
    outcome = submit_suite(wanted, Destination(save_dir=tmp_path, scheduler=scheduler), Options())
    assert len(full.calls) == 4
    assert [after for _, after in full.calls] == [None, "1", None, "3"]
    assert outcome.num_jobs == 3
    assert (outcome.refused, outcome.num_left) == ([], 7)
    assert outcome.limit == "Job violates accounting/QOS policy (job submit limit)"


def test_what_may_not_go_out_now_is_counted(tmp_path: Path) -> None:
    scheduler = FullScheduler(room=99)
    wanted = suite(*(command(f"e{i}") for i in range(5)))
    options = Options()
    outcome = submit_suite(wanted, Destination(save_dir=tmp_path, scheduler=scheduler), options, max_jobs=2)
    assert (outcome.num_jobs, outcome.num_left) == (2, 3)
    none = submit_suite(wanted, Destination(save_dir=tmp_path, scheduler=scheduler), options, max_jobs=0)
    assert (none.num_jobs, none.num_left > 0) == (0, True)
