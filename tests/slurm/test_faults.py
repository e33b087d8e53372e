"""Submits that are killed, doubled or lied to: every planned job is with Slurm exactly once all the same."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcbench.paths import SuitePaths
from hpcbench.profile import ClusterProfile
from hpcbench.scheduler.slurm import run_command
from hpcbench.scheduler.slurm_states import SQUEUE_FORMAT, parse_squeue
from hpcbench.states import JobState
from hpcbench.submission import read_submissions
from hpcbench.suite import Suite
from tests.slurm.cluster import Cluster
from tests.slurm.suites import (
    command_experiment,
    command_suite,
    hpcbench,
    states,
    submit,
    wait_until_over,
    write_suite,
)
from tests.slurm.trainings import shims

pytestmark = pytest.mark.slurm

HELD = ClusterProfile(partition="held")


@pytest.fixture
def held(slurm_cluster: Cluster) -> Iterator[None]:
    """A partition that takes jobs and starts none, so that hundreds of them cost nothing."""
    run_command(["scontrol", "create", "PartitionName=held", "Nodes=gpu1", "State=DOWN"])
    yield
    run_command(["scancel", "--partition=held"])
    deadline = time.monotonic() + 30
    while run_command(["squeue", "--noheader", "--partition=held"]) and time.monotonic() < deadline:
        time.sleep(0.5)
    run_command(["scontrol", "delete", "PartitionName=held"])


def many(count: int) -> Suite:
    return command_suite([command_experiment(f"e{i:02}", ("true",), evals=["score"]) for i in range(count)])


def fork_submit(suite: Suite, save_dir: Path, profile: ClusterProfile) -> int:
    """Submit in a child process, which starts at once for it has all modules; return its id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        submit(suite, save_dir, profile=profile)
        os._exit(0)
    finally:
        os._exit(1)


def count_jobs(save_dir: Path) -> Counter[tuple[str, str]]:
    """Return how many Slurm jobs there are, live or ended, for each job of the suite, whatever its files say of them."""
    submissions = {s.key: s for s in read_submissions(SuitePaths(save_dir, "commands"))}
    rows = parse_squeue(run_command(["squeue", "--states=all", "--noheader", "-r", f"--format={SQUEUE_FORMAT}"]))
    found: Counter[tuple[str, str]] = Counter()
    for row in rows:
        submission = submissions.get(row.name)
        if submission is not None:
            element = submission.elements[row.index or 0]
            found[element.experiment, element.job] += 1
    return found


def check_once_each(suite: Suite, save_dir: Path, what: str) -> None:
    """Check that nothing is lost and nothing doubled, in Slurm and in our own files."""
    planned = {(e.name, job) for e in suite.experiments for job in ("train", "eval-score")}
    found = count_jobs(save_dir)
    lost, doubled = planned - found.keys(), {job for job, count in found.items() if count > 1}
    assert (lost, doubled) == (set(), set()), what
    known = [s for s in read_submissions(SuitePaths(save_dir, "commands")) if s.state == "submitted"]
    assert Counter((e.experiment, e.job) for s in known for e in s.elements.values()) == Counter(planned), what


def kill_and_submit_again(folder: Path, *, kills: int, experiments: int) -> dict[str, int]:
    """Kill submits at moments spread evenly over their duration; return in what state each left its intents."""
    suite = many(experiments)
    whole_s = 60.0
    for name in ("cold", "warm"):
        started = time.monotonic()
        os.waitpid(fork_submit(suite, folder / name, HELD), 0)
        whole_s = min(whole_s, time.monotonic() - started)
    left: Counter[str] = Counter()
    for number in range(kills):
        save_dir = folder / f"killed-{number}"
        pid = fork_submit(suite, save_dir, HELD)
        delay_s = whole_s * 1.1 * number / kills
        time.sleep(delay_s)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        submissions = read_submissions(SuitePaths(save_dir, "commands"))
        left["whole" if not os.WIFSIGNALED(status) else "+".join(s.state for s in submissions) or "none"] += 1
        submit(suite, save_dir, profile=HELD)
        check_once_each(suite, save_dir, f"killed after {delay_s:.3f} of {whole_s:.3f} s")
        run_command(["scancel", "--partition=held"])
    return dict(left)


def test_a_submit_killed_at_any_moment_loses_and_doubles_nothing(held: None, tmp_path: Path) -> None:
    left = kill_and_submit_again(tmp_path, kills=40, experiments=20)
    print(left)
    assert len(left) > 2, left


@pytest.mark.long
def test_two_hundred_killed_submits_lose_and_double_nothing(held: None, tmp_path: Path) -> None:
    left = kill_and_submit_again(tmp_path, kills=200, experiments=50)
    print(left)
    assert len(left) > 2, left


def submit_in_pairs(folder: Path, *, pairs: int) -> None:
    suite = many(10)
    for number in range(pairs):
        save_dir = folder / f"pair-{number}"
        children = [fork_submit(suite, save_dir, HELD) for _ in range(2)]
        assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0, 0]
        check_once_each(suite, save_dir, f"pair {number}")


def test_pairs_of_submits_at_once_double_nothing(held: None, tmp_path: Path) -> None:
    submit_in_pairs(tmp_path, pairs=10)


@pytest.mark.long
def test_twenty_pairs_of_submits_at_once_double_nothing(held: None, tmp_path: Path) -> None:
    submit_in_pairs(tmp_path, pairs=20)


def test_killed_and_paired_submits_start_each_job_once(slurm_cluster: Cluster, tmp_path: Path) -> None:
    suite, profile = many(5), ClusterProfile()
    pid = fork_submit(suite, tmp_path, profile)
    while not list(tmp_path.glob("commands/submissions/*.json")):
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    for child in [fork_submit(suite, tmp_path, profile) for _ in range(2)]:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    collection = wait_until_over(tmp_path, timeout_s=180)
    assert {job.state for job in collection.jobs} == {JobState.COMPLETED}
    marks = [file.read_text().splitlines() for file in tmp_path.glob("commands/submissions/*.started/*")]
    assert [len(lines) for lines in marks] == [1] * 10
    assert [path.name for path in tmp_path.glob("commands/*/*/attempt-*")] == ["attempt-1"] * 10


def test_an_sbatch_that_times_out_after_it_submitted_doubles_nothing(
    held: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = run_command(["sh", "-c", "command -v sbatch"]).strip()
    lies = f'"{real}" "$@" > /dev/null; echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2; exit 1'
    suite = many(10)
    with shims(tmp_path, sbatch=lies) as folder:
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        outcome = submit(suite, tmp_path / "logs", profile=HELD)
    assert outcome.num_jobs == 20
    assert outcome.refused == []
    check_once_each(suite, tmp_path / "logs", "sbatch timed out")


def test_a_queue_that_does_not_answer_stops_the_submit(
    held: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = many(3)
    save_dir = tmp_path / "logs"
    submit(suite, save_dir, profile=HELD)
    file = write_suite(
        tmp_path / "other.yaml",
        {"cmd": "command", "device": "cpu", "args": {"command": ["sleep", "20"]}, "experiment": [{"name": "one"}]},
    )
    hpcbench("submit", str(file), "--save-dir", str(save_dir))
    before = run_command(["squeue", "--noheader", "-r"])
    with (
        shims(
            tmp_path, squeue="echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1"
        ) as folder,
        monkeypatch.context() as patch,
    ):
        patch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        refused = hpcbench("submit", str(file), "--save-dir", str(save_dir), check=False)
        shown = hpcbench("status", "--json", "--save-dir", str(save_dir))
    assert refused.returncode == 1
    assert "nothing was submitted" in refused.stderr
    assert "unknown" in shown.stdout
    assert len(run_command(["squeue", "--noheader", "-r"]).splitlines()) == len(before.splitlines())
    check_once_each(suite, save_dir, "squeue failed")
    assert "0 jobs submitted" in hpcbench("submit", str(file), "--save-dir", str(save_dir)).stdout


def sleeper_and_other() -> Suite:
    return command_suite(
        [
            command_experiment("a", ("sleep", "8"), evals=["score"]),
            command_experiment("b", ("true",), evals=["score"]),
        ]
    )


def check_all_ran_once(save_dir: Path) -> None:
    collection = wait_until_over(save_dir, timeout_s=180)
    assert states(collection, "train") == {"a": "completed", "b": "completed"}
    assert states(collection, "eval-score") == {"a": "completed", "b": "completed"}
    assert [path.name for path in save_dir.glob("commands/*/*/attempt-*")] == ["attempt-1"] * 4


def test_slurmctld_may_restart_while_jobs_run(slurm_cluster: Cluster, tmp_path: Path) -> None:
    submit(sleeper_and_other(), tmp_path)
    slurm_cluster.restart_slurmctld()
    assert submit(sleeper_and_other(), tmp_path).num_jobs == 0
    check_all_ran_once(tmp_path)


@pytest.mark.long
def test_slurmdbd_may_be_away_while_slurmctld_restarts(slurm_cluster: Cluster, tmp_path: Path) -> None:
    submit(sleeper_and_other(), tmp_path)
    slurm_cluster.stop_slurmdbd()
    try:
        slurm_cluster.restart_slurmctld()
        assert submit(sleeper_and_other(), tmp_path).num_jobs == 0
        check_all_ran_once(tmp_path)
    finally:
        slurm_cluster.start_slurmdbd()


def test_sbatch_export_none_changes_nothing(
    slurm_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = command_suite([command_experiment("a", ("true",), evals=["score"])])
    monkeypatch.setenv("SBATCH_EXPORT", "NONE")
    # What the user's shell would have given is what a profile's setup lines give.
    profile = ClusterProfile(env={name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ})
    submit(suite, tmp_path, profile=profile)
    assert {job.state for job in wait_until_over(tmp_path).jobs} == {JobState.COMPLETED}
