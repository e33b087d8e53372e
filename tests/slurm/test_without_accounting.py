"""A site that allows arrays and keeps no accounts: what its queue has forgotten, nobody can be asked about."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcbench.scheduler.slurm.commands import run_command
from hpcbench.schemas.submission import read_submissions, write_submission
from hpcbench.status.gather import gather
from hpcbench.storage.paths import SuitePaths
from tests.support.slurm_cluster.cluster import Cluster, start_cluster
from tests.support.slurm_suites import (
    command_experiment,
    command_suite,
    states,
    submit,
    view,
    wait_until,
    wait_until_over,
)

pytestmark = pytest.mark.slurm

LONG_AGO = {"submitted_at": "2026-01-01T00:00:00.000000Z"}


@pytest.fixture
def forgetful_cluster(slurm_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster beside the session's that forgets ended jobs after two seconds."""
    with tempfile.TemporaryDirectory(prefix="hpcbench-", dir="/tmp") as folder:
        cluster = start_cluster(Path(folder), accounting=False, min_job_age=2, extra_lines=("ClusterName=forgetful",))
        for name, value in cluster.environment.items():
            monkeypatch.setenv(name, value)
        yield cluster
        cluster.stop()


def start_marks(save_dir: Path) -> dict[str, int]:
    """Return how often each job was started, by experiment and job."""
    found: dict[str, int] = {}
    for submission in read_submissions(SuitePaths(save_dir, "commands")):
        for index, element in submission.elements.items():
            mark = SuitePaths(save_dir, "commands").start_marks(submission.key) / str(index)
            starts = len(mark.read_text().splitlines()) if mark.exists() else 0
            place = f"{element.experiment}/{element.job}"
            found[place] = found.get(place, 0) + starts
    return found


def test_arrays_end_right_although_nobody_remembers_them(forgetful_cluster: Cluster, tmp_path: Path) -> None:
    suite = command_suite(
        [
            command_experiment("good", ("true",), evals=["score"]),
            command_experiment("bad", ("false",), evals=["score"]),
            command_experiment("slow", ("sleep", "8"), evals=["score"]),
        ]
    )
    trains, evals = submit(suite, tmp_path).submitted
    assert (trains.array, evals.array, evals.after_key) == (True, True, trains.key)
    run_command(["scancel", f"{evals.scheduler_id}_2"])

    def rows() -> set[str]:
        return set(run_command(["squeue", "--states=all", "--noheader", "-r", "--format=%i"]).split())

    # The parent that failed is forgotten while another of its array still runs.
    bad, slow = (f"{trains.scheduler_id}_{index}" for index in (1, 2))
    wait_until(lambda: bad not in rows(), what="slurmctld forgets a job")
    trains_end = {"good": "completed", "bad": "failed", "slow": "completed"}
    # Of an element that was cancelled before it started Slurm keeps no row: at first nothing is concluded.
    evals_end = {"good": "completed", "bad": "blocked", "slow": "unknown"}

    def are_over() -> bool:
        collection = gather(tmp_path)
        return (states(collection, "train"), states(collection, "eval-score")) == (trains_end, evals_end)

    wait_until(are_over, what="all states are right")
    wait_until(lambda: slow not in rows(), what="slurmctld forgets the last job")
    assert are_over()
    assert submit(suite, tmp_path).num_jobs == 0

    write_submission(SuitePaths(tmp_path, "commands"), evals.model_copy(update=LONG_AGO))
    forgotten = view(gather(tmp_path), "slow", "eval-score")
    assert (forgotten.state.value, forgotten.reason) == ("planned", "left the queue without ever running")
    assert submit(suite, tmp_path).num_jobs == 1
    assert states(wait_until_over(tmp_path), "eval-score") == {
        "good": "completed",
        "bad": "blocked",
        "slow": "completed",
    }
    assert submit(suite, tmp_path).num_jobs == 0
    assert start_marks(tmp_path) == {
        **{f"{name}/train": 1 for name in ("good", "bad", "slow")},
        "good/eval-score": 1,
        "bad/eval-score": 0,
        "slow/eval-score": 1,
    }
