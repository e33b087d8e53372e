"""Limits of a site: what does not fit stays planned, and a later submit tops it up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcbench.scheduler.slurm.commands import run_command
from hpcbench.schemas.cluster_profile import ClusterProfile
from hpcbench.schemas.states import JobState
from hpcbench.schemas.submission import read_submissions
from hpcbench.status.gather import gather
from hpcbench.storage.paths import SuitePaths
from tests.support.slurm_cluster.cluster import Cluster
from tests.support.slurm_suites import (
    command_experiment,
    command_suite,
    hpcbench,
    states,
    submit,
    wait_until,
    wait_until_over,
    write_suite,
)

pytestmark = pytest.mark.slurm


def start_marks(save_dir: Path) -> list[int]:
    """Return how often each job was started."""
    return [len(file.read_text().splitlines()) for file in save_dir.glob("commands/submissions/*.started/*")]


def test_twenty_five_experiments_fit_a_max_array_size_of_eleven(slurm_cluster: Cluster, tmp_path: Path) -> None:
    suite = command_suite([command_experiment(f"e{i:02}", ("true",)) for i in range(25)])
    with slurm_cluster.changed("MaxArraySize=11"):
        outcome = submit(suite, tmp_path)
        assert [len(s.elements) for s in outcome.submitted] == [11, 11, 3]
        assert all(max(s.elements) <= 10 for s in outcome.submitted)
        assert outcome.refused == []
        collection = wait_until_over(tmp_path)
    assert Counter(states(collection, "train").values()) == {"completed": 25}
    assert start_marks(tmp_path) == [1] * 25


@pytest.fixture
def limited(slurm_cluster: Cluster) -> Iterator[None]:
    """A QOS `four` of the account `lab`: no more than four jobs at once."""
    for command in (
        ["add", "account", "lab"],
        ["add", "user", "root", "account=lab"],
        ["add", "qos", "four"],
        ["modify", "qos", "four", "set", "MaxSubmitJobsPerUser=4"],
        ["modify", "user", "root", "set", "qos+=four"],
    ):
        run_command(["sacctmgr", "--immediate", *command], check=False)
    with slurm_cluster.changed("AccountingStorageEnforce=limits,qos"):
        yield


def test_a_limit_lets_a_part_in_and_the_count_is_told(limited: None, tmp_path: Path) -> None:
    base = {"cmd": "command", "device": "cpu", "requirements": {"gpu": 0, "mem_gb": 0.1, "time": "10m"}}
    value = {**base, "args": {"command": ["sleep", "600"]}, "experiment": [{"name": f"e{i:02}"} for i in range(50)]}
    suite_file = write_suite(tmp_path / "fifty.yaml", value)
    for name, account in (("small", "lab"), ("wrong", "nobody")):
        (tmp_path / f"{name}.yaml").write_text(f"account: {account}\nqos: four\ngpu_flag: null\n")
    arguments = ("submit", str(suite_file), "--save-dir", str(tmp_path / "logs"), "--cluster")
    wrong = hpcbench(*arguments, str(tmp_path / "wrong.yaml"), check=False)
    assert wrong.returncode == 2
    assert "profile wrong: account: you may not charge account 'nobody'" in wrong.stderr
    told = "stay planned: QOSMaxSubmitJobPerUserLimit; run the same command again when some are done"
    for count, left in ((4, 46), (0, 46)):
        done = hpcbench(*arguments, str(tmp_path / "small.yaml"))
        assert f"fifty: {count} of {count + left} jobs submitted; {left} {told}" in done.stdout
        assert done.stderr == ""
    assert "4 jobs cancelled" in hpcbench("cancel", "--all", "--save-dir", str(tmp_path / "logs")).stdout
    wait_until(lambda: not run_command(["squeue", "--me", "--noheader"]), what="an empty queue")


def test_a_limit_on_submitted_jobs_is_topped_up(limited: None, tmp_path: Path) -> None:
    suite = command_suite([command_experiment(f"e{i}", ("true",), evals=["score"]) for i in range(5)])
    profile = ClusterProfile(account="lab", qos="four")
    taken: list[int] = []
    for _ in range(8):
        outcome = submit(suite, tmp_path, profile=profile)
        assert outcome.refused == []
        assert outcome.num_jobs + outcome.num_left + sum(taken) == 10
        taken.append(outcome.num_jobs)
        if all(job.state is JobState.COMPLETED for job in wait_until_over(tmp_path).jobs):
            break
    assert {job.state for job in gather(tmp_path).jobs} == {JobState.COMPLETED}, taken
    assert max(taken) <= 4
    assert sum(taken) == 10
    assert start_marks(tmp_path) == [1] * 10
    known = read_submissions(SuitePaths(tmp_path, "commands"))
    assert {s.state for s in known} == {"submitted", "abandoned"}
